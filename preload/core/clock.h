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

/* Before the real call: a free. May be taken a little early by the CPU, never late. */
static inline uint64_t mt_clock_before(void)
{
#if defined(__x86_64__)
	if (__builtin_expect(mt_clock_is_tsc, 1))
		return __rdtsc() >> MT_TIME_SHIFT;
#endif
	return mt_clock_monotonic_ns() >> MT_TIME_SHIFT;
}

/* After the real call: an allocation. rdtscp waits for the call's own loads, which rdtsc may
 * overtake by a whole reorder window while a contended arena lock is on its way. */
static inline uint64_t mt_clock_after(void)
{
#if defined(__x86_64__)
	unsigned int aux;

	if (__builtin_expect(mt_clock_is_tsc, 1))
		return __rdtscp(&aux) >> MT_TIME_SHIFT;
#endif
	return mt_clock_monotonic_ns() >> MT_TIME_SHIFT;
}

#endif
