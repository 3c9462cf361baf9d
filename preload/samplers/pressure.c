/*
 * Nearing a limit: when the machine's memory, or the cgroup's, passes 70, 80 or 90 % of what there
 * is, the trace gets a mark, and with MEMTRACE_WARN the root says so in one line. The mark is set by
 * whichever process of the tree sees it first; the levels reached stand in the file's header. A mark
 * makes every stream write down what it had counted, so who grew is in the trace before a kill comes.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core/config.h"
#include "out/file.h"
#include "samplers/sampler.h"
#include "sys/fmt.h"
#include "sys/log.h"
#include "sys/sys.h"

#define FALL 5 /* per cent below a threshold, when passing it counts anew */

void (*mt_pressure_mark)(struct mt_thread *t, const char *label);

static const struct {
	const char *name;
	unsigned int shift; /* of its level in mt_file_header.warned */
} limits[] = {
	{ "RAM", 0 },
	{ "cgroup", 8 },
};

static uint32_t said; /* levels this process has spoken of */

unsigned int mt_pressure_level(uint64_t used, uint64_t limit, unsigned int before)
{
	static const unsigned int at[] = { 70, 80, 90 };
	unsigned int level = 0;

	for (unsigned int i = 0; i < 3; i++)
		level += used / 100 >= limit / 10000 * (at[i] - (before > i ? FALL : 0));
	return level;
}

static int memory_of_machine(uint64_t *used, uint64_t *limit)
{
	char text[4096];
	int64_t total, available;

	if (mt_sys_slurp("/proc/meminfo", text, sizeof(text)) <= 0)
		return 0;
	total = mt_find_field(text, "MemTotal");
	available = mt_find_field(text, "MemAvailable");
	if (total <= 0 || available < 0 || available > total)
		return 0;
	*limit = (uint64_t)total * 1024;
	*used = (uint64_t)(total - available) * 1024;
	return 1;
}

static void look(struct mt_thread *t, size_t which, uint64_t used, uint64_t limit)
{
	uint32_t *warned = &mt_file.header->warned, mask = 255u << limits[which].shift;
	uint32_t seen = __atomic_load_n(warned, __ATOMIC_RELAXED), want, level;
	char text[96];

	do {
		level = mt_pressure_level(used, limit, seen >> limits[which].shift & 255);
		want = (seen & ~mask) | level << limits[which].shift;
	} while (want != seen && !__atomic_compare_exchange_n(warned, &seen, want, 0,
							      __ATOMIC_RELAXED, __ATOMIC_RELAXED));
	mt_fmt(text, sizeof(text), "%s at %lu %% of %lu MiB", limits[which].name,
	       used / (limit / 100), limit >> 20);
	if ((want & mask) > (seen & mask) && mt_pressure_mark)
		mt_pressure_mark(t, text);
	if ((want & mask) > (said & mask) && mt_config.warn)
		mt_log(MT_LOG_QUIET, "%s", text); /* the root's; asked for, so never too quiet */
	said = (said & ~mask) | (want & mask);
}

void mt_pressure_look(struct mt_thread *t, const struct mt_ev_sample *s)
{
	uint64_t used, limit;

	if (!mt_file.header)
		return;
	if (memory_of_machine(&used, &limit) && limit >= 10000)
		look(t, 0, used, limit);
	if (s->cgroup_usage && s->cgroup_limit > 10001)
		look(t, 1, s->cgroup_usage - 1, s->cgroup_limit - 1);
}

void mt_pressure_forget(void)
{
	said = 0;
}
