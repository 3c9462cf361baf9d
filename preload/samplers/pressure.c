/*
 * Nearing a limit: when the machine's memory, or the cgroup's, passes 70, 80 or 90 % of what there
 * is, or a GPU's 80, 90 or 95 %, the trace gets a mark, and with MEMTRACE_WARN the root says so in one line. The mark is set by
 * whichever process of the tree sees it first; the levels reached stand in the file's header. A mark
 * makes every stream write down what it had counted, so who grew is in the trace before a kill comes.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core/config.h"
#include "core/gpu.h"
#include "out/file.h"
#include "samplers/sampler.h"
#include "sys/fmt.h"
#include "sys/log.h"
#include "sys/sys.h"

#define FALL 5 /* per cent below a threshold, when passing it counts anew */

void (*mt_pressure_mark)(struct mt_thread *t, const char *label);

/* Of levels in mt_file_header.warned, two bits each. */
#define RAM_SHIFT 0u
#define CGROUP_SHIFT 8u
#define GPU_SHIFT 16u
#define GPUS 8u

static uint32_t said; /* levels this process has spoken of */

const unsigned int mt_pressure_memory[3] = { 70, 80, 90 }, mt_pressure_devices[3] = { 80, 90, 95 };

unsigned int mt_pressure_level(const unsigned int at[3], uint64_t used, uint64_t limit,
			       unsigned int before)
{
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

static void look(struct mt_thread *t, const char *name, const unsigned int at[3],
		 unsigned int shift, uint64_t used, uint64_t limit)
{
	uint32_t *warned = &mt_file.header->warned, mask = 3u << shift;
	uint32_t seen = __atomic_load_n(warned, __ATOMIC_RELAXED), want, level;
	char text[96];

	do {
		level = mt_pressure_level(at, used, limit, seen >> shift & 3);
		want = (seen & ~mask) | level << shift;
	} while (want != seen && !__atomic_compare_exchange_n(warned, &seen, want, 0,
							      __ATOMIC_RELAXED, __ATOMIC_RELAXED));
	mt_fmt(text, sizeof(text), "%s at %lu %% of %lu MiB", name, used / (limit / 100),
	       limit >> 20);
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
		look(t, "RAM", mt_pressure_memory, RAM_SHIFT, used, limit);
	if (s->cgroup_usage && s->cgroup_limit > 10001)
		look(t, "cgroup", mt_pressure_memory, CGROUP_SHIFT, s->cgroup_usage - 1,
		     s->cgroup_limit - 1);
}

/* What all processes use, if NVML told; else what PyTorch holds here, which is less. */
void mt_pressure_gpu(struct mt_thread *t)
{
	char name[16];

	for (unsigned int i = 0; i < GPUS && mt_file.header; i++) {
		uint64_t limit = __atomic_load_n(&mt_gpu_memory[i].total, __ATOMIC_RELAXED);
		uint64_t used = __atomic_load_n(&mt_gpu_memory[i].used, __ATOMIC_RELAXED);

		if (!used)
			used = __atomic_load_n(&mt_gpu_levels[i].reserved, __ATOMIC_RELAXED);
		mt_fmt(name, sizeof(name), "GPU %u", i);
		if (limit >= 10000 && used <= limit)
			look(t, name, mt_pressure_devices, GPU_SHIFT + 2 * i, used, limit);
	}
}

void mt_pressure_forget(void)
{
	said = 0;
}
