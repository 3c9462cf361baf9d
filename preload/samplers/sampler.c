/*
 * The sampling round. See sampler.h. Each sampler is timed and left out until its share of the
 * time is kept: reading smaps_rollup of a large process takes milliseconds under mmap_lock, so it
 * comes round less often the larger the process is.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "samplers/sampler.h"

#include "core/clock.h"
#include "core/gpu.h"
#include "core/tick.h"
#include "out/process.h"
#include "out/stream.h"

static const struct mt_sampler *const samplers[] = {
	&mt_sampler_status,
	&mt_sampler_smaps,
	&mt_sampler_cgroup,
};

#define SAMPLERS (sizeof(samplers) / sizeof(samplers[0]))

static uint64_t interval; /* ns */
static uint64_t interval_units;
static uint64_t not_before[SAMPLERS]; /* CLOCK_MONOTONIC ns */

/* How many time units the interval is: ticks where they are nanoseconds, else measured as the
 * rounds go by; a first guess of 1 tick per ns only makes the first round early. */
static uint64_t last_ns, last_units;

static void calibrate(uint64_t ns, uint64_t units)
{
	if (last_ns && ns > last_ns + interval / 100 && units > last_units)
		interval_units = (uint64_t)((double)interval / (double)(ns - last_ns) *
					    (double)(units - last_units));
	last_ns = ns;
	last_units = units;
}

/* now UINT64_MAX: the process ends, everything that is not very costly is taken once more. */
static void sampler_work(struct mt_thread *t, uint64_t now)
{
	struct mt_ev_sample s = { 0 };
	uint64_t start = mt_clock_monotonic_ns();
	int last = now == UINT64_MAX;

	for (size_t i = 0; i < SAMPLERS; i++) {
		uint64_t begin = mt_clock_monotonic_ns(), cost;

		if (begin < not_before[i] && !(last && not_before[i] - begin < 20 * interval))
			continue;
		samplers[i]->sample(&s);
		cost = mt_clock_monotonic_ns() - begin;
		not_before[i] = begin + cost * samplers[i]->cost_share;
	}
	mt_process_clock(t);
	s.time = mt_clock_now();
	calibrate(start, s.time);
	uint8_t *p = mt_stream_reserve(t, mt_sample_room(&s));
	if (p)
		mt_stream_commit(t, mt_put_sample(p, &t->codec, &s));
	if (mt_gpu_used)
		mt_sampler_gpu(t);
	__atomic_store_n(&mt_tick_due, s.time + interval_units, __ATOMIC_RELEASE);
}

void mt_sampler_init(struct mt_thread *t, uint64_t interval_ns)
{
	interval = interval_ns;
	interval_units = interval_ns >> MT_TIME_SHIFT;
	mt_tick_work = sampler_work;
	sampler_work(t, mt_clock_now());
}

void mt_sampler_child(void)
{
	for (size_t i = 0; i < SAMPLERS; i++)
		not_before[i] = 0;
	if (mt_tick_work)
		mt_tick_due = mt_clock_now() + interval_units / 16;
}
