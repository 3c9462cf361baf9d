/*
 * See sampled.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "model/sampled.h"

#include <math.h>
#include <string.h>

#define TAIL 0.025 /* on each side */
#define NORMAL_QUANTILE 1.959963984540054
#define STEP_MAX 4 /* times the typical one */
#define EXACT_BELOW 60.0 /* shape: above, the Wilson-Hilferty cube is right to 4 digits */

double sampled_weight(uint64_t size, uint64_t mean)
{
	return mean ? -1 / expm1(-(double)(size ? size : 1) / (double)mean) : 1;
}

static void add(struct estimate *e, double x, double weight, int sign)
{
	e->sum += sign * weight * x;
	e->variance += sign * weight * (weight - 1) * x * x;
	e->raw += sign * x;
	e->blocks += (uint64_t)(int64_t)sign;
	if (!e->blocks) /* what rounding left */
		memset(e, 0, sizeof(*e));
}

void estimates_add(struct estimates *e, uint64_t size, double weight, int sign)
{
	add(&e->count, 1, weight, sign);
	add(&e->bytes, (double)size, weight, sign);
}

static void sum(struct estimate *to, const struct estimate *e)
{
	to->sum += e->sum;
	to->variance += e->variance;
	to->raw += e->raw;
	to->blocks += e->blocks;
}

void estimates_sum(struct estimates *to, const struct estimates *e)
{
	sum(&to->count, &e->count);
	sum(&to->bytes, &e->bytes);
}

void sampled_sum(struct sampled *to, const struct sampled *s)
{
	estimates_sum(&to->taken, &s->taken);
	estimates_sum(&to->freed, &s->freed);
	estimates_sum(&to->live, &s->live);
	estimates_sum(&to->brief, &s->brief);
	to->step_count = fmax(to->step_count, s->step_count);
	to->step_bytes = fmax(to->step_bytes, s->step_bytes);
}

/* ---- the gamma distribution ------------------------------------------------------------------ */

/* P(a, x), by its series or by Lentz's continued fraction. */
static double gamma_below(double a, double x)
{
	double term, total, b = x + 1 - a, c = 1e300, d = 1 / b, h = d;

	if (x <= 0)
		return 0;
	if (x < a + 1) {
		term = total = 1 / a;
		for (int i = 1; i < 500 && term > total * 1e-12; i++) {
			term *= x / (a + i);
			total += term;
		}
		return total * exp(a * log(x) - x - lgamma(a));
	}
	for (int i = 1; i < 500; i++) {
		double an = i * (a - i), delta;

		b += 2;
		d = an * d + b;
		d = 1 / (fabs(d) < 1e-300 ? 1e-300 : d);
		c = b + an / c;
		c = fabs(c) < 1e-300 ? 1e-300 : c;
		delta = d * c;
		h *= delta;
		if (fabs(delta - 1) < 1e-12)
			break;
	}
	return 1 - h * exp(a * log(x) - x - lgamma(a));
}

/* The x with P(shape, x) = TAIL, or 1 - TAIL. */
static double gamma_quantile(double shape, int upper)
{
	double n = 1 / (9 * shape);
	double guess = shape * pow(1 - n + (upper ? 1 : -1) * NORMAL_QUANTILE * sqrt(n), 3);
	double low = 0, high = shape + 10 * sqrt(shape) + 10;

	if (shape >= EXACT_BELOW)
		return guess;
	for (int i = 0; i < 60; i++) {
		double middle = (low + high) / 2;

		if (gamma_below(shape, middle) < (upper ? 1 - TAIL : TAIL))
			low = middle;
		else
			high = middle;
	}
	return low;
}

static uint64_t whole(double v)
{
	return v <= 0 ? 0 : v >= 0x1p63 ? INT64_MAX : (uint64_t)v;
}

struct interval sampled_interval(uint64_t x, const struct estimate *e, double step)
{
	double exact = (double)x - e->sum, low = e->sum, high = e->sum;
	double y, v, typical = e->sum > 0 ? e->variance / e->sum : 0;
	struct interval i = { x, x };

	/* One rare tiny block, long freed perhaps, must not widen all that is made of others. */
	if (e->blocks)
		step = fmin(step, STEP_MAX * typical);
	y = e->sum + step;
	v = e->variance + step * step;

	if (e->variance > 0)
		low = e->variance / e->sum * gamma_quantile(e->sum * e->sum / e->variance, 0);
	if (v > 0)
		high = v / y * gamma_quantile(y * y / v, 1);
	low = floor(exact + fmax(low, e->raw));
	high = ceil(exact + high);
	if (whole(low) < x)
		i.low = whole(low);
	if (whole(high) > x)
		i.high = whole(high);
	return i;
}
