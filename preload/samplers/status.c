/*
 * RSS and its parts, swap, page faults of this process.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <sys/resource.h>
#include <sys/syscall.h>

#include "samplers/sampler.h"
#include "sys/fmt.h"
#include "sys/sys.h"

static void status_sample(struct mt_ev_sample *s)
{
	static const struct {
		const char *key;
		size_t offset;
	} fields[] = {
		{ "VmRSS", offsetof(struct mt_ev_sample, rss) },
		{ "RssAnon", offsetof(struct mt_ev_sample, anon) },
		{ "RssFile", offsetof(struct mt_ev_sample, file) },
		{ "RssShmem", offsetof(struct mt_ev_sample, shmem) },
		{ "VmSwap", offsetof(struct mt_ev_sample, swap) },
	};
	char text[4096];
	struct rusage usage;

	if (mt_sys_slurp("/proc/self/status", text, sizeof(text)) > 0)
		for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
			int64_t kib = mt_find_field(text, fields[i].key);

			if (kib >= 0)
				*(uint64_t *)((char *)s + fields[i].offset) = (uint64_t)kib * 1024 +
									      1;
		}
	if (mt_sys2(SYS_getrusage, RUSAGE_SELF, &usage) == 0) {
		s->minflt = (uint64_t)usage.ru_minflt + 1;
		s->majflt = (uint64_t)usage.ru_majflt + 1;
	}
}

const struct mt_sampler mt_sampler_status = { "status", status_sample, 100 };
