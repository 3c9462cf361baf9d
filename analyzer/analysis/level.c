/*
 * What a site holds over time: whether it rises, stays at a level, or neither. For sites that are no
 * leak; the numbers are explained in docs/VERDICTS.md 3.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <math.h>

#include "analysis/verdict.h"

#define MIN_WINDOWS 6
#define MIN_COUNTED 8 /* blocks that stay: fewer have no course over time */
#define RISE 0.1 /* of the level: less is no growth, more is no level */
#define CHANCE 0.05
#define JUMPS 4 /* times at which not all of it may come */
#define LATE_LOW 0.5 /* of the whole slope, at the low end of the late one's interval */
#define LATE_SLOPE 0.7 /* of the whole slope; a warm-up with a third of the time as constant: 0.6 */
#define MAX_JUMP 0.4 /* of a rise, at one time */
#define MAX_JUMPS 0.7
#define MIN_WAY 0.5 /* of all ups and downs are the rise */
#define WIDEST 2 /* high for low of an interval that is a level */
#define DYING_OUT 0.25 /* late ones for an early one */

static double sum(const double *v, size_t from, size_t to)
{
	double s = 0;

	for (; from < to; from++)
		s += v[from];
	return s;
}

/* Where the level swings, its lows count: one for each epoch, or each period that it shows. */
static size_t lows(const struct cohort_view *v, size_t from, double *x, double *y)
{
	size_t step, n = 0;

	if (v->edge_count > 2)
		step = (size_t)ceil((v->edges[v->edge_count - 1] - v->edges[0]) /
				    (double)(v->edge_count - 1));
	else
		step = period_of(v->top, v->n);
	if (step < 2)
		step = 1;
	while ((v->n - from) / step < 4 && step > 1)
		step /= 2;
	for (size_t i = from; i < v->n; i++) {
		size_t at = (i - from) / step;

		if (at == n) {
			x[n] = (double)at * (double)step;
			y[n++] = v->floor[i];
		}
		y[at] = fmin(y[at], v->floor[i]);
	}
	return n;
}

/* What a series rises at its few steepest places, each of two windows: what comes at one time may
 * lie on both sides of an edge. */
static double jumps(const double *y, size_t n)
{
	bool used[COHORT_WINDOWS] = { false };
	double all = 0;

	for (int k = 0; k < JUMPS; k++) {
		double most = 0;
		size_t at = 0;

		for (size_t i = 2; i < n; i++)
			if (!used[i] && !used[i - 1] && y[i] - y[i - 2] > most) {
				most = y[i] - y[i - 2];
				at = i;
			}
		all += most;
		used[at] = used[at ? at - 1 : 0] = true;
	}
	return all;
}

/* A rise that is not of one jump, and not of one that was lost again. */
static bool is_steady(const struct cohort_view *v, size_t from)
{
	double x[COHORT_WINDOWS], y[COHORT_WINDOWS], way = 0, largest = 0, up;
	size_t n = lows(v, from, x, y), rises = 0;

	for (size_t i = 1; i < n; i++) {
		way += fabs(y[i] - y[i - 1]);
		largest = fmax(largest, y[i] - y[i - 1]);
		rises += y[i] > y[i - 1];
	}
	up = n ? y[n - 1] - y[0] : 0;
	if (up <= 0 || largest > MAX_JUMP * up || up < MIN_WAY * way || rises < 3)
		return false;
	return n < 8 * JUMPS || jumps(y, n) <= MAX_JUMPS * up;
}

static struct range slope_from(const struct cohort_view *v, size_t from)
{
	double x[COHORT_WINDOWS], y[COHORT_WINDOWS];
	size_t n = lows(v, from, x, y);

	return theil_sen(x, y, n);
}

/* The window at which that share of the program's work is done; some are left after it. */
static size_t window_at(const struct cohort_view *v, double share)
{
	size_t all[2] = { 0, v->n }, at = 0;

	while (at + MIN_WINDOWS < v->n && share_of_work(v, all, 0, at + 1) <= share)
		at++;
	return at;
}

/* The same by the program's work, if its steps are known: as if each window had as much of it. */
static struct range slope_by_work(const struct cohort_view *v, size_t from)
{
	double x[COHORT_WINDOWS], y[COHORT_WINDOWS];
	size_t n = lows(v, from, x, y), all[2] = { 0, v->n };

	for (size_t i = 0; i < n; i++)
		x[i] = (double)v->n * share_of_work(v, all, 0, from + (size_t)x[i]);
	return theil_sen(x, y, n);
}

static double highest(const double *v, size_t from, size_t to)
{
	double h = 0;

	for (; from < to; from++)
		h = fmax(h, v[from]);
	return h;
}

/* Of what stays, so little was born in the late half that an inflow which dies out has as much by
 * chance. What is resized has no such counts. */
static bool dies_out(const struct cohort_view *v)
{
	size_t half = window_at(v, 0.5), all[2] = { 0, v->n };
	double early = sum(v->alive, 0, half), late = sum(v->alive, half, v->n);
	double x = share_of_work(v, all, 0, half), y = DYING_OUT * (1 - x);

	return early + late >= MIN_COUNTED &&
	       binomial_above(late, early + late, y / (y + x)) > CHANCE;
}

/* A rise that goes on: in the late half, hardly slower than before, and not of a few jumps. */
static bool goes_on(const struct cohort_view *v, double rise, double level)
{
	struct range late = slope_by_work(v, window_at(v, 0.5));
	struct range whole = slope_by_work(v, window_at(v, 0.25));

	return whole.low > 0 && late.low > LATE_LOW * whole.value &&
	       late.value >= LATE_SLOPE * whole.value && rise >= RISE * level &&
	       is_steady(v, v->n / 4) && !dies_out(v);
}

/*
 * What was folded is missing from the course of what it held, so its level lies between what is known
 * to have been held at one time and that and all that can have been young. Too wide is no level.
 */
static void level_between(const struct cohort_view *v, struct judgement *j, double seen)
{
	j->level.low = fmax(seen, sum(v->bytes, 0, v->n) + v->before);
	j->level.high = fmax(j->level.low, seen + v->unseen);
	j->level.value = (j->level.low + j->level.high) / 2;
	if (j->level.high <= WIDEST * j->level.low)
		j->level_bytes = j->level.value;
}

/* All that is no leak. */
void judge_level(const struct cohort_view *v, struct judgement *j)
{
	size_t half = v->n / 2, third = v->n / 3;
	struct range late = slope_from(v, half);
	/* Where much is folded, most windows don't show what is held: then any that does counts. */
	double level = v->level_unknown ? highest(v->top, 0, v->n)
					: quantile(v->top + half, v->n - half, 0.9);
	double rise = late.value * (double)(v->n - half);

	j->verdict = VERDICT_UNDECIDED;
	j->confidence = 0;
	j->bytes = sum(v->bytes, 0, v->n) + v->before;
	j->rate = (struct range){ late.value / v->window_s, late.low / v->window_s,
				  late.high / v->window_s };
	if (v->n < MIN_WINDOWS || level <= 0)
		return;
	if (goes_on(v, rise, level)) {
		j->verdict = VERDICT_GROWTH;
		j->confidence = 0.95;
		j->bytes = highest(v->top, v->n - third, v->n) - v->floor[0];
	} else if (v->level_unknown) {
		if (late.low <= 0) {
			j->verdict = VERDICT_BOUNDED;
			level_between(v, j, level);
			j->confidence = 1 -
					sum(v->alive, 0, v->n) / fmax(1, sum(v->births, 0, v->n));
		}
	} else if (rise < RISE * level &&
		   highest(v->top, v->n - third, v->n) <=
			   (1 + RISE) * highest(v->top, third, v->n - third)) {
		j->verdict = VERDICT_BOUNDED;
		j->confidence = 1 - fmin(1, fmax(0, late.high) * (double)(v->n - half) / level);
		j->level_bytes = level;
	}
}
