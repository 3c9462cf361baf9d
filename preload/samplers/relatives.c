/*
 * Samples of processes that are silent: a worker that only reads a list makes no event for minutes,
 * and it is just then that its copy of the list grows. Whoever is awake and has the time looks for
 * slots of the process table that were not sampled for an interval, takes one by a swap, and reads
 * its /proc files, which the same user may.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core/clock.h"
#include "out/file.h"
#include "out/stream.h"
#include "samplers/sampler.h"

#define COST_SHARE 100 /* at most 1/100 of this process's time goes into relatives */
#define REST_SHARE 200 /* and a process is read again after 200 times what reading it took */

static uint64_t not_before; /* CLOCK_MONOTONIC ns */
static size_t next_slot; /* they take turns */

static uint64_t sample_one(struct mt_thread *t, uint32_t pid)
{
	uint64_t begin = mt_sampler_cpu_ns();
	struct mt_ev_sample s = { .pid = pid };
	uint8_t *p;

	mt_sampler_status.sample(&s);
	mt_sampler_smaps.sample(&s);
	s.time = mt_clock_now();
	if (s.rss && (p = mt_stream_reserve(t, mt_sample_room(&s))))
		mt_stream_commit(t, mt_put_sample(p, &t->codec, &s));
	return mt_sampler_cpu_ns() - begin;
}

void mt_sampler_relatives(struct mt_thread *t, uint64_t interval)
{
	uint64_t begin = mt_clock_monotonic_ns(), spent = 0;
	uint64_t now = begin / MT_SLOT_TIME_NS;
	uint64_t age = (interval + interval / 2) / MT_SLOT_TIME_NS + 1;
	int wrapped = next_slot == 0;

	if (begin < not_before || !mt_file.header)
		return;
	/* Beyond the share of one interval the rest waits for the next round. */
	while (spent < interval / COST_SHARE) {
		uint32_t pid = mt_file_slot_silent(&next_slot, age, now);
		uint64_t cost;

		if (!pid) {
			next_slot = 0;
			if (wrapped)
				break;
			wrapped = 1;
			continue;
		}
		cost = sample_one(t, pid);
		mt_file_slot_rest(next_slot, now + cost * REST_SHARE / MT_SLOT_TIME_NS);
		spent += cost;
	}
	not_before = begin + spent * COST_SHARE;
}

void mt_sampler_relatives_child(void)
{
	not_before = 0;
	next_slot = 0;
}

void mt_sampler_relatives_forget(void)
{
	not_before = 0;
	next_slot = 0;
}
