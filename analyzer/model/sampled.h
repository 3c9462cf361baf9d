/*
 * What a sample stands for. Where allocations were sampled (docs/SAMPLING.md) the counts of the
 * model are estimates, rounded, and beside them stands what their 95 % interval is made of; where
 * all were recorded there is no struct sampled and the counts are exact.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_SAMPLED_H
#define MEMTRACE_ANALYZER_SAMPLED_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Over sampled blocks, w being a block's weight and x its 1 or its bytes. */
struct estimate {
	double sum; /* of w x */
	double variance; /* sum of w (w - 1) x^2 */
	double raw; /* sum of x: so much was really seen */
	uint64_t blocks;
};

struct estimates {
	struct estimate count, bytes;
};

struct sampled {
	struct estimates taken, freed, live, peak, brief;
	/* Largest x sqrt(w (w - 1)) of a block: how far one that was missed may change a sum. */
	double step_count, step_bytes;
	uint64_t peak_seen; /* highest sum of blocks that were recorded: so much it was at least */
};

/* Of a process: heap and python together, by kind (heap or python), and what it inherited. */
struct process_sampled {
	struct sampled all, heap, python;
	struct estimates inherited, inherited_freed;
	double peak; /* estimated bytes, own and inherited */
	uint64_t peak_time; /* units */
};

/* The weight of a block of that size; mean 0: it was not sampled: 1. */
double sampled_weight(uint64_t size, uint64_t mean);

/* One block more (sign 1) or less (-1). */
void estimates_add(struct estimates *e, uint64_t size, double weight, int sign);
void estimates_sum(struct estimates *to, const struct estimates *e);
void sampled_sum(struct sampled *to, const struct sampled *s);

/*
 * The 95 % interval of x = what was counted exactly + e->sum. step: of the struct sampled that e is
 * of. Gamma interval for a weighted sum of rare events (Fay and Feuer 1997), here with the variance
 * of Poisson sampling, so that it closes on x where nearly every block was recorded.
 */
struct interval {
	uint64_t low, high;
};
struct interval sampled_interval(uint64_t x, const struct estimate *e, double step);

#ifdef __cplusplus
}
#endif

#endif
