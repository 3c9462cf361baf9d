/*
 * RSS and its parts, swap, page faults of a process.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "samplers/sampler.h"
#include "sys/fmt.h"
#include "sys/sys.h"

/* The 10th and 12th field of /proc/PID/stat; the name in the second may hold anything. */
static void faults_of(struct mt_ev_sample *s)
{
	char text[1024];
	const char *p;
	int field = 2;

	if (mt_sampler_slurp(s, "stat", text, sizeof(text)) <= 0 || !(p = strrchr(text, ')')))
		return;
	for (; *p && field < 10; p++)
		field += *p == ' ';
	s->minflt = mt_parse_number(&p, 10) + 1;
	for (; *p && field < 12; p++)
		field += *p == ' ';
	if (field == 12)
		s->majflt = mt_parse_number(&p, 10) + 1;
}

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

	if (mt_sampler_slurp(s, "status", text, sizeof(text)) > 0)
		for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
			int64_t kib = mt_find_field(text, fields[i].key);

			if (kib >= 0)
				*(uint64_t *)((char *)s + fields[i].offset) = (uint64_t)kib * 1024 +
									      1;
		}
	if (s->pid)
		faults_of(s);
	else if (mt_sys2(SYS_getrusage, RUSAGE_SELF, &usage) == 0) {
		s->minflt = (uint64_t)usage.ru_minflt + 1;
		s->majflt = (uint64_t)usage.ru_majflt + 1;
	}
}

const struct mt_sampler mt_sampler_status = { "status", status_sample, 100 };
