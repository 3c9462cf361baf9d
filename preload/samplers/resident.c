/*
 * See resident.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "samplers/resident.h"

#include "core/clock.h"
#include "core/tick.h"
#include "samplers/pages.h"

#define STEP_BYTES (UINT64_C(8) << 20) /* growth that is worth a walk, and this part of it all */
#define STEP_SHARE 16
#define COST_SHARE 100 /* walks take at most this part of the time, the last one excepted */
#define FIRST_NS UINT64_C(30000000000) /* between walks without a reason of their own ... */
#define AGE_SHARE 10 /* ... and at least this part of the process's age */

static uint64_t most; /* resident at the walk that found most */
static uint64_t born, last_walk; /* ns */
static uint64_t not_before; /* ns */

static void walk(struct mt_thread *t, enum mt_scan_reason reason, uint64_t now)
{
	int64_t took = mt_pages_walk(t, reason, MT_SCAN_ALL, 0);

	last_walk = now;
	not_before = now + (took > 0 ? (uint64_t)took * COST_SHARE : FIRST_NS);
}

void mt_resident_round(struct mt_thread *t, uint64_t rss, int last)
{
	uint64_t now = mt_clock_monotonic_ns(), wait;

	if (!born)
		born = last_walk = now;
	wait = (now - born) / AGE_SHARE;
	if (__atomic_exchange_n(&mt_tick_ending, 0, __ATOMIC_RELAXED)) {
		walk(t, MT_SCAN_EXIT, now);
		return;
	}
	if (mt_pages_ended())
		return;
	if (last) {
		walk(t, MT_SCAN_EXIT, now);
		return;
	}
	if (now < not_before)
		return;
	if (rss > most + STEP_BYTES && rss > most + most / STEP_SHARE) {
		most = rss;
		walk(t, MT_SCAN_PEAK, now);
	} else if (now - last_walk > (wait > FIRST_NS ? wait : FIRST_NS)) {
		walk(t, MT_SCAN_INTERVAL, now);
	}
}

void mt_resident_child(void)
{
	most = 0;
	born = last_walk = not_before = 0;
	mt_tick_ending = 0;
}
