/*
 * Periodic work without a helper thread: an event whose stamp has passed the due time does it on
 * its way. The comparison is all that the hot path pays; one thread wins the work by a swap.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_TICK_H
#define MEMTRACE_PRELOAD_TICK_H

#include <stdint.h>

struct mt_thread;

extern uint64_t mt_tick_due; /* atomic; time units, UINT64_MAX: never */
extern uint32_t mt_tick_hurried; /* atomic; 1: somebody asked for a sample */
extern void (*mt_tick_work)(struct mt_thread *t, uint64_t now); /* sets the next due time */

static inline void mt_tick(struct mt_thread *t, uint64_t now)
{
	uint64_t due = __atomic_load_n(&mt_tick_due, __ATOMIC_RELAXED);

	if (__builtin_expect(now >= due, 0) &&
	    __atomic_compare_exchange_n(&mt_tick_due, &due, UINT64_MAX, 0, __ATOMIC_ACQUIRE,
					__ATOMIC_RELAXED))
		mt_tick_work(t, now);
}

/* A sample is due now; unless one is being taken, or there are none. */
static inline void mt_tick_hurry(void)
{
	uint64_t due = __atomic_load_n(&mt_tick_due, __ATOMIC_RELAXED);

	__atomic_store_n(&mt_tick_hurried, 1, __ATOMIC_RELAXED);
	if (due != UINT64_MAX)
		__atomic_compare_exchange_n(&mt_tick_due, &due, 0, 0, __ATOMIC_RELAXED,
					    __ATOMIC_RELAXED);
}

#endif
