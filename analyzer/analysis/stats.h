/*
 * The statistics that verdicts use, free of anything about memory. Formulas and sources are in
 * docs/VERDICTS.md.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_STATS_H
#define MEMTRACE_ANALYZER_STATS_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct range {
	double value, low, high;
};

/* P(X <= k) of a binomial distribution; k and n need not be whole (incomplete beta function). */
double binomial_below(double k, double n, double p);
/* P(X >= k) */
double binomial_above(double k, double n, double p);

/*
 * Theil-Sen: the median of the slopes between all pairs of points, and Sen's 95 % interval by ranks.
 * x in rising order, n <= STATS_POINTS. n < 2: zeros.
 */
#define STATS_POINTS 64
struct range theil_sen(const double *x, const double *y, size_t n);

/* The mean of n values and its 95 % t interval, for positive or negative values. n < 2: of no width. */
struct range mean_interval(const double *v, size_t n);

/* By how much counts vary more than chance lets them, given what is expected of each: at least 1. */
double dispersion(const double *count, const double *expected, size_t n);

/*
 * Benjamini and Hochberg: replaces p values by the smallest false discovery rate at which each would
 * be called a discovery.
 */
void discovery_rates(double *p, size_t n);

/* The shift at which a series most resembles itself, of at least 2 and with 3 repetitions at least;
 * 0: none does. */
size_t period_of(const double *v, size_t n);

double quantile(const double *v, size_t n, double q); /* of up to STATS_POINTS values */

#ifdef __cplusplus
}
#endif

#endif
