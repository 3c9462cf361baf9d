/*
 * Time stamps: the invariant TSC where CPU and kernel trust it, else CLOCK_MONOTONIC. Records count
 * ticks >> MT_TIME_SHIFT: 32 ticks are about 12 ns, below the time one core needs to pass a freed
 * block to another, so order between threads is kept.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_CLOCK_H
#define MEMTRACE_PRELOAD_CLOCK_H

#include <stdint.h>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

#define MT_TIME_SHIFT 5

extern int mt_clock_is_tsc; /* constant after start-up; the same in the whole tree */

uint64_t mt_clock_monotonic_ns(void);
uint64_t mt_clock_realtime_ns(void);

/* Decides for this machine; a process that joins a trace takes the trace's choice instead. */
int mt_clock_tsc_is_usable(void);

/*
 * The stamp of an event: taken before the real call for a free, after it for an allocation. rdtscp
 * and not rdtsc, because it waits for the loads before it. rdtsc may run ahead of them by a whole
 * reorder window: ahead of the allocator's lock, and also ahead of the program's own load of a
 * pointer that another thread is just passing on, so that a free seemed older than its allocation
 * (one of 180,000 with 64 threads on two busy cores). Stores need no care: they are seen by others
 * in order, after the stamp. Costs 6 ns more.
 */
static inline uint64_t mt_clock_now(void)
{
#if defined(__x86_64__)
	unsigned int aux;

	if (__builtin_expect(mt_clock_is_tsc, 1))
		return __rdtscp(&aux) >> MT_TIME_SHIFT;
#endif
	return mt_clock_monotonic_ns() >> MT_TIME_SHIFT;
}

/* For durations within a thread: may be off by a reorder window, 6 ns cheaper. */
static inline uint64_t mt_clock_rough(void)
{
#if defined(__x86_64__)
	if (__builtin_expect(mt_clock_is_tsc, 1))
		return __rdtsc() >> MT_TIME_SHIFT;
#endif
	return mt_clock_monotonic_ns() >> MT_TIME_SHIFT;
}

#endif
