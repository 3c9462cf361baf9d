/*
 * See sampling.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core/sampling.h"

#define FIRST_MEAN ((uint64_t)4 << 10)
#define STEPS 8
#define LAST_MEAN ((uint64_t)1 << 50) /* nothing any more: what is left is for frees */

uint32_t mt_light;
uint64_t mt_sample_mean;
uint32_t mt_sample_degraded;

/* The mean recording began with; FIRST_MEAN / 4 where it was full. */
static uint64_t base_mean;
static uint32_t step;

/* 32nds of the cap from which on each step holds, not counting frees of blocks from before the
 * first. What was recorded up to it needs less than half as much again for its frees (a FREE has
 * 4 to 8 bytes, an ALLOC 5 to 12): so together they stay below the cap. */
static const uint8_t from[STEPS] = { 10, 11, 12, 13, 14, 15, 16, 17 };

static uint32_t due; /* frees not yet told of */

void mt_sampling_old_free(void)
{
	__atomic_fetch_add(&due, 1, __ATOMIC_RELAXED);
}

uint64_t mt_sampling_old_frees(void)
{
	return __atomic_exchange_n(&due, 0, __ATOMIC_RELAXED);
}

void mt_sampling_pressure(uint64_t used, uint64_t cap)
{
	uint32_t now = __atomic_load_n(&step, __ATOMIC_RELAXED), wanted = now;
	uint64_t mean;

	while (wanted < STEPS && used / 32 * 32 >= cap / 32 * from[wanted])
		wanted++;
	if (wanted == now || !__atomic_compare_exchange_n(&step, &now, wanted, 0, __ATOMIC_RELAXED,
							  __ATOMIC_RELAXED))
		return;
	if (!base_mean) {
		base_mean = mt_sample_mean ? mt_sample_mean : FIRST_MEAN / 4;
		mt_sample_degraded = !mt_sample_mean;
	}
	mean = base_mean << 2 * wanted;
	if (wanted == STEPS || mean > LAST_MEAN)
		mean = LAST_MEAN;
	/* Release: who sees the mean sees whether older blocks were recorded. */
	__atomic_store_n(&mt_sample_mean, mean, __ATOMIC_RELEASE);
}

void mt_sampling_reset(void)
{
	mt_sample_mean = base_mean = 0;
	mt_sample_degraded = step = due = 0;
}
