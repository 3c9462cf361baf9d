/*
 * See cut.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "record/cut.h"

#include "core/clock.h"

#define WINDOW_UNITS (UINT64_C(1) << 30) /* 10 to 20 s with a counter of 2 to 3 GHz */
#define CUT_MARGIN 1024 /* units, about 12 us: how long setting a cut may take */

uint64_t mt_cut_time;
uint32_t mt_window;
uint64_t mt_window_end;

void mt_cut_at(uint64_t time)
{
	__atomic_store_n(&mt_cut_time, time, __ATOMIC_RELEASE);
}

void mt_cut_births(void)
{
	uint64_t now = mt_clock_now(), cut = __atomic_load_n(&mt_cut_time, __ATOMIC_RELAXED);

	while (cut < now && !__atomic_compare_exchange_n(&mt_cut_time, &cut, now, 1,
							 __ATOMIC_RELEASE, __ATOMIC_RELAXED))
		;
}

/*
 * Blocks that are born while the cut is being set count as born before it, hence the margin. A
 * thread that did not see the cut yet folds a pair that ended, but for a reorder window of some
 * 100 ns, before the time returned.
 */
uint64_t mt_cut(void)
{
	uint64_t start, now;

	do {
		start = mt_clock_now();
		__atomic_fetch_add(&mt_window, 1, __ATOMIC_SEQ_CST);
		__atomic_store_n(&mt_cut_time, start + CUT_MARGIN, __ATOMIC_SEQ_CST);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		now = mt_clock_now();
	} while (now >= start + CUT_MARGIN);
	return now;
}

void mt_window_turn(uint64_t now)
{
	uint64_t end = __atomic_load_n(&mt_window_end, __ATOMIC_RELAXED);

	if (now >= end && __atomic_compare_exchange_n(&mt_window_end, &end, now + WINDOW_UNITS, 0,
						      __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		__atomic_fetch_add(&mt_window, 1, __ATOMIC_RELEASE);
}

void mt_cut_forget(void)
{
	mt_cut_time = mt_window_end = 0;
	mt_window = 0;
}
