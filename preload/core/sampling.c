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

/* 32nds of the cap from which on each step holds. The first half is as much as the frees of all
 * that was recorded in it are likely to need; the last 16th is theirs alone. */
static const uint8_t from[STEPS] = { 16, 19, 22, 24, 26, 28, 29, 30 };

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
