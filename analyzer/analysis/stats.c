/*
 * See stats.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "analysis/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "util/alloc.h"

#define NORMAL_95 1.959963984540054
#define SIMILAR 0.6 /* autocorrelation from which on a series is called periodic */

/* ---- the binomial distribution --------------------------------------------------------------- */

/* Lentz's continued fraction of the incomplete beta function. */
static double beta_fraction(double a, double b, double x)
{
	double c = 1, d = 1 - (a + b) * x / (a + 1), h;

	d = 1 / (fabs(d) < 1e-300 ? 1e-300 : d);
	h = d;
	for (int m = 1; m < 300; m++) {
		double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
		double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));

		d = 1 + even * d;
		c = 1 + even / c;
		d = 1 / (fabs(d) < 1e-300 ? 1e-300 : d);
		c = fabs(c) < 1e-300 ? 1e-300 : c;
		h *= d * c;
		d = 1 + odd * d;
		c = 1 + odd / c;
		d = 1 / (fabs(d) < 1e-300 ? 1e-300 : d);
		c = fabs(c) < 1e-300 ? 1e-300 : c;
		h *= d * c;
		if (fabs(d * c - 1) < 1e-12)
			break;
	}
	return h;
}

/* The regularised incomplete beta function I_x(a, b). */
static double beta_below(double a, double b, double x)
{
	double front;

	if (x <= 0)
		return 0;
	if (x >= 1)
		return 1;
	front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x));
	if (x < (a + 1) / (a + b + 2))
		return front * beta_fraction(a, b, x) / a;
	return 1 - front * beta_fraction(b, a, 1 - x) / b;
}

double binomial_below(double k, double n, double p)
{
	if (k < 0)
		return 0;
	return k >= n ? 1 : beta_below(n - k, k + 1, 1 - p);
}

double binomial_above(double k, double n, double p)
{
	if (k <= 0)
		return 1;
	return k > n ? 0 : beta_below(k, n - k + 1, p);
}

/* ---- slopes and means ------------------------------------------------------------------------ */

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* The value at a rank of sorted ones, 0 the first; between two, of both. */
static double at_rank(const double *v, size_t n, double rank)
{
	size_t i;

	if (rank <= 0)
		return v[0];
	if (rank >= (double)(n - 1))
		return v[n - 1];
	i = (size_t)rank;
	return v[i] + (rank - (double)i) * (v[i + 1] - v[i]);
}

struct range theil_sen(const double *x, const double *y, size_t n)
{
	double slopes[STATS_POINTS * (STATS_POINTS - 1) / 2];
	size_t count = 0;
	double spread;

	for (size_t i = 0; i < n; i++)
		for (size_t j = i + 1; j < n; j++)
			if (x[j] > x[i])
				slopes[count++] = (y[j] - y[i]) / (x[j] - x[i]);
	if (!count)
		return (struct range){ 0, 0, 0 };
	qsort(slopes, count, sizeof(*slopes), by_value);
	/* The variance of Kendall's S without ties; ties only make it smaller. */
	spread = NORMAL_95 * sqrt((double)n * (double)(n - 1) * (double)(2 * n + 5) / 18);
	return (struct range){
		at_rank(slopes, count, (double)(count - 1) / 2),
		at_rank(slopes, count, ((double)count - spread) / 2 - 1),
		at_rank(slopes, count, ((double)count + spread) / 2),
	};
}

/* The 97.5 % quantile of Student's t, by degrees of freedom. */
static double student(size_t freedom)
{
	static const double table[] = { 0,     12.706, 4.303, 3.182, 2.776, 2.571,
					2.447, 2.365,  2.306, 2.262, 2.228 };
	double f = (double)freedom;

	if (freedom < sizeof(table) / sizeof(table[0]))
		return table[freedom];
	return NORMAL_95 * (1 + 1.2 / f + 1.4 / (f * f)); /* within 0.2 % from 10 on */
}

struct range mean_interval(const double *v, size_t n)
{
	double sum = 0, squares = 0, mean, half = 0;

	for (size_t i = 0; i < n; i++)
		sum += v[i];
	mean = n ? sum / (double)n : 0;
	for (size_t i = 0; i < n; i++)
		squares += (v[i] - mean) * (v[i] - mean);
	if (n > 1)
		half = student(n - 1) * sqrt(squares / (double)(n - 1) / (double)n);
	return (struct range){ mean, mean - half, mean + half };
}

double dispersion(const double *count, const double *expected, size_t n)
{
	double chi = 0;
	size_t used = 0;

	for (size_t i = 0; i < n; i++) {
		if (expected[i] <= 0)
			continue;
		chi += (count[i] - expected[i]) * (count[i] - expected[i]) / expected[i];
		used++;
	}
	if (used < 2 || chi <= (double)(used - 1))
		return 1;
	return chi / (double)(used - 1);
}

double quantile(const double *v, size_t n, double q)
{
	double sorted[STATS_POINTS];

	if (!n)
		return 0;
	memcpy(sorted, v, n * sizeof(*v));
	qsort(sorted, n, sizeof(*sorted), by_value);
	return at_rank(sorted, n, q * (double)(n - 1));
}

/* ---- many tests ------------------------------------------------------------------------------ */

struct ranked {
	double p;
	size_t at;
};

static int by_p(const void *a, const void *b)
{
	const struct ranked *x = a, *y = b;

	if (x->p != y->p)
		return x->p < y->p ? -1 : 1;
	return x->at < y->at ? -1 : x->at > y->at;
}

void discovery_rates(double *p, size_t n)
{
	struct ranked *order = xcalloc(n ? n : 1, sizeof(*order));
	double least = 1;

	for (size_t i = 0; i < n; i++)
		order[i] = (struct ranked){ p[i], i };
	qsort(order, n, sizeof(*order), by_p);
	for (size_t i = n; i-- > 0;) {
		least = fmin(least, order[i].p * (double)n / (double)(i + 1));
		p[order[i].at] = least;
	}
	free(order);
}

/* ---- periods --------------------------------------------------------------------------------- */

static double likeness(const double *v, size_t n, size_t shift)
{
	double self = 0, product = 0;

	for (size_t i = 0; i < n; i++) {
		self += v[i] * v[i];
		if (i + shift < n)
			product += v[i] * v[i + shift];
	}
	return self > 0 ? product / self * (double)n / (double)(n - shift) : 0;
}

size_t period_of(const double *v, size_t n)
{
	double x[STATS_POINTS], flat[STATS_POINTS], slope, best = SIMILAR;
	size_t found = 0;

	if (n < 6 || n > STATS_POINTS)
		return 0;
	for (size_t i = 0; i < n; i++)
		x[i] = (double)i;
	slope = theil_sen(x, v, n).value;
	for (size_t i = 0; i < n; i++)
		flat[i] = v[i] - slope * x[i];
	slope = mean_interval(flat, n).value;
	for (size_t i = 0; i < n; i++)
		flat[i] -= slope;
	for (size_t k = 2; k <= n / 3; k++) {
		double l = likeness(flat, n, k);

		/* A true period is a peak, not the slope beside no shift at all. */
		if (l > best && l >= likeness(flat, n, k - 1) && l >= likeness(flat, n, k + 1)) {
			best = l * 1.02; /* a multiple of it must be clearly better */
			found = k;
		}
	}
	return found;
}
