/*
 * Times that folding (nursery.h) has to heed, for the whole process: cuts, which no folded pair may
 * span (forks, marks), and windows, after which every thread writes down what it has counted.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_CUT_H
#define MEMTRACE_PRELOAD_CUT_H

#include <stdint.h>

extern uint64_t mt_cut_time; /* atomic */
extern uint32_t mt_window; /* atomic; its number */
extern uint64_t mt_window_end; /* atomic; time */

/* From here on no pair that began before is folded, and a new window begins. Returns the time. */
uint64_t mt_cut(void);

/* A cut at a given time, while no other thread is inside a hook: fork. */
void mt_cut_at(uint64_t time);

/* From here on no pair that began before is folded, but for some that other threads free just now.
 * Windows go on. */
void mt_cut_births(void);

/* Did a block of that birth time begin after the last cut? */
static inline int mt_cut_is_before(uint64_t birth)
{
	return birth > __atomic_load_n(&mt_cut_time, __ATOMIC_ACQUIRE);
}

static inline uint32_t mt_window_now(void)
{
	return __atomic_load_n(&mt_window, __ATOMIC_ACQUIRE);
}

/* Recording has ended. */
void mt_cut_forget(void);

void mt_window_turn(uint64_t now);

/* Whoever passes a window's end begins the next one for all. */
static inline void mt_window_look(uint64_t now)
{
	if (__builtin_expect(now >= __atomic_load_n(&mt_window_end, __ATOMIC_RELAXED), 0))
		mt_window_turn(now);
}

#endif
