/*
 * See verdict.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "analysis/verdict.h"

#include <math.h>
#include <string.h>

const char *const verdict_names[] = { "undecided", "bounded", "growth", "leak" };

/* The last birth lies in this last part of the site's life, or the site's work had ended. */
#define TRAILING 0.2
#define WINDING_UP_NS 1e9 /* so long an end is no idle time, however short the run */
#define WOUND_UP 0.5 /* of what was alive at the last birth */
#define MIN_REACHED 8 /* blocks that came to the guard's age */
#define MORTAL 0.05 /* of them died later: then they are not immortal */
#define MIN_SURVIVORS 8
#define MAX_FOLDED 0.05 /* of all births, or the level is not known */
#define MIN_WINDOWS 6
#define MAX_WINDOWS 12
#define PER_WINDOW 4 /* survivors, if there are enough */
#define MIN_OCCUPIED 0.5 /* of the windows */
#define MIN_STEPS 48 /* of the program, while the site was looked at */
#define BY_STEPS 0.95 /* the rest by time: no window is without any work */
#define MAX_IN_ONE 0.5 /* of the survivors */
#define LATE_START 0.25 /* of the windows have none before it */
#define HALVES 0.5 /* at least so many late ones for an early one */
#define THIRDS 0.35
#define DYING_OUT 0.25 /* what has to be ruled out: so few late ones for an early one */
#define DISCOVERY 0.01 /* false ones among all that are called a leak */

/* ---- the numbers ----------------------------------------------------------------------------- */

/* Most of what was alive at the last birth was given back after it. */
static bool was_given_back(const struct cohorts *c)
{
	double alive = 0, gone = 0;

	for (size_t i = 0; i < c->count; i++) {
		alive += c->windows[i].alive;
		gone += c->windows[i].gone;
	}
	return gone > WOUND_UP * alive;
}

static void count_windows(const struct cohorts *c, struct cohort_view *v, bool at_end)
{
	for (size_t i = 0; i < v->n; i++) {
		const struct cohort *w = &c->windows[i];

		v->births[i] = w->births;
		v->alive[i] = at_end ? w->alive - w->gone : w->alive;
		v->bytes[i] = at_end ? w->bytes - w->gone_bytes : w->bytes;
		v->deaths[i] = at_end ? w->deaths + w->late : w->deaths;
		v->floor[i] = w->floor;
		v->top[i] = w->top;
	}
	v->wound_up = !at_end && was_given_back(c);
}

bool view_of(const struct cohorts *c, struct cohort_view *v)
{
	double idle = c->end - c->last;
	bool at_end = idle > TRAILING * c->end &&
		      (idle * c->window_ns > WINDING_UP_NS || was_given_back(c));

	memset(v, 0, sizeof(*v));
	v->n = c->count;
	if (!at_end && c->last + 1 < (double)v->n)
		v->n = (size_t)c->last + 1;
	if (!v->n || c->end <= 0)
		return false;
	v->worked = c->last + 1 < (double)v->n ? (size_t)c->last + 1 : v->n;
	count_windows(c, v, at_end);
	/* What was freed in the winding up is no floor. */
	if (v->wound_up && v->floor[v->n - 1] < v->top[v->n - 1])
		v->floor[v->n - 1] = v->n > 1 ? fmin(v->top[v->n - 1], v->top[v->n - 2])
					      : v->top[v->n - 1];
	v->before = c->before > 0 ? c->before : 0;
	v->held = c->level > 0 ? c->level : 0;
	v->window_s = c->window_ns / 1e9;
	v->seen_s = c->end * v->window_s;
	v->missed = c->missed;
	v->level_unknown = (double)c->folded > MAX_FOLDED * (double)c->born;
	return true;
}

void view_add(struct cohort_view *a, const struct cohort_view *b)
{
	double scale = (double)a->n / (double)b->n;

	for (size_t i = 0; i < b->n; i++) {
		size_t at = (size_t)(((double)i + 0.5) * scale), age = at;

		if (at >= a->n)
			at = age = a->n - 1;
		a->births[at] += b->births[i];
		a->alive[at] += b->alive[i];
		a->bytes[at] += b->bytes[i];
		a->steps[at] += b->steps[i];
		a->deaths[age] += b->deaths[i];
	}
	for (size_t i = 0; i < a->n; i++) {
		size_t at = (size_t)(((double)i + 0.5) / scale);

		a->floor[i] += b->floor[at < b->n ? at : b->n - 1];
		a->top[i] += b->top[at < b->n ? at : b->n - 1];
	}
	a->worked = fmax((double)a->worked, ceil((double)b->worked * scale));
	a->before += b->before;
	a->held += b->held;
	a->missed |= b->missed;
	a->level_unknown |= b->level_unknown;
	a->unseen += b->unseen;
	a->wound_up |= b->wound_up;
}

static double sum(const double *v, size_t from, size_t to)
{
	double s = 0;

	for (; from < to; from++)
		s += v[from];
	return s;
}

/* ---- the leak test --------------------------------------------------------------------------- */

/*
 * The censoring guard: the least age, in windows, after which hardly any block died though enough
 * came to that age. 0: there is none; blocks of this site die, or are too young. Where a site has
 * come to rest its blocks grow no older: a cache drops the oldest only when there is a new one.
 */
static size_t guard_age(const struct cohort_view *v, struct judgement *j)
{
	for (size_t a = 1; a < v->n; a++) {
		double died = sum(v->deaths, a, v->n);
		double reached = died + (a < v->worked ? sum(v->alive, 0, v->worked - a) : 0);

		if (reached < MIN_REACHED)
			return 0;
		j->died_after_guard = died;
		j->reached_guard = reached;
		if (died <= MORTAL * reached)
			return a;
	}
	return 0;
}

/* Survivors that begin late: what comes before is left out. */
static void skip_to_start(const struct cohort_view *v, struct judgement *j)
{
	double all = sum(v->alive, j->first, j->end), seen = 0;
	size_t at = j->first;

	while (at < j->end && seen + v->alive[at] <= 0.05 * all)
		seen += v->alive[at++];
	if ((double)(at - j->first) > LATE_START * (double)(j->end - j->first))
		j->first = at;
}

struct coarse {
	size_t n;
	double alive[MAX_WINDOWS], expected[MAX_WINDOWS];
};

/* Whole epochs of what is looked at, a few to each coarse window if there are many. 0: too few. */
static size_t epoch_edges(const struct cohort_view *v, const struct judgement *j, size_t *from)
{
	size_t edges[COHORT_WINDOWS], n = 0, step, count;

	for (size_t i = 0; i < v->edge_count; i++) {
		size_t at = (size_t)(v->edges[i] + 0.5);

		if (at >= j->first && at <= j->end && (!n || edges[n - 1] < at))
			edges[n++] = at;
	}
	if (n < MIN_WINDOWS + 1)
		return 0;
	step = (n - 1 + MAX_WINDOWS - 1) / MAX_WINDOWS;
	count = (n - 1) / step;
	if (count < MIN_WINDOWS)
		return 0;
	for (size_t i = 0; i <= count; i++)
		from[i] = edges[n - 1 - (count - i) * step];
	return count;
}

double share_of_work(const struct cohort_view *v, const size_t of[2], size_t from, size_t to)
{
	double time = (double)(to - from) / (double)(of[1] - of[0]);
	double steps = sum(v->steps, of[0], of[1]);

	if (steps < MIN_STEPS)
		return time;
	return BY_STEPS * sum(v->steps, from, to) / steps + (1 - BY_STEPS) * time;
}

/*
 * Where most blocks of the site die, those that don't are held against the births of their window;
 * else births and survivors are the same and only work or time is left to hold them against.
 */
static void make_coarse(const struct cohort_view *v, const struct judgement *j, struct coarse *c)
{
	size_t from[MAX_WINDOWS + 1], kept = j->end - j->first;
	size_t looked_at[2] = { j->first, j->end };
	double all = sum(v->alive, j->first, j->end);
	double births = sum(v->births, j->first, j->end);
	bool by_births = sum(v->births, 0, v->n) >= 2 * sum(v->alive, 0, v->n);

	c->n = epoch_edges(v, j, from);
	if (!c->n) {
		c->n = all / PER_WINDOW < MAX_WINDOWS ? (size_t)(all / PER_WINDOW) : MAX_WINDOWS;
		c->n = c->n < MIN_WINDOWS ? MIN_WINDOWS : c->n;
		c->n = c->n > kept ? kept : c->n;
		for (size_t i = 0; i <= c->n; i++)
			from[i] = j->first + i * kept / c->n;
	}
	for (size_t i = 0; i < c->n; i++) {
		c->alive[i] = sum(v->alive, from[i], from[i + 1]);
		c->expected[i] = by_births
					 ? all * sum(v->births, from[i], from[i + 1]) / births
					 : all * share_of_work(v, looked_at, from[i], from[i + 1]);
	}
}

/* Survivors for each expected one, of windows [b, c) against [0, a). */
static double ratio(const struct coarse *w, size_t a, size_t b, size_t c)
{
	double early = sum(w->alive, 0, a), late = sum(w->alive, b, c);
	double x = sum(w->expected, 0, a), y = sum(w->expected, b, c);

	if (early <= 0 || x <= 0 || y <= 0)
		return late > 0 ? INFINITY : 0;
	return late / y / (early / x);
}

static const char *spread_problem(const struct coarse *w, struct judgement *j)
{
	double largest = 0;

	for (size_t i = 0; i < w->n; i++) {
		j->occupied += w->alive[i] > 0;
		largest = fmax(largest, w->alive[i]);
	}
	if (j->occupied < MIN_WINDOWS || (double)j->occupied < MIN_OCCUPIED * (double)w->n)
		return "what stays was born at a few times only";
	if (largest > MAX_IN_ONE * j->survivors)
		return "most of what stays was born at one time";
	if (ratio(w, w->n / 2, w->n - w->n / 2, w->n) < HALVES ||
	    ratio(w, (w->n + 2) / 3, w->n - (w->n + 2) / 3, w->n) < THIRDS)
		return "fewer and fewer of its blocks stay";
	return NULL;
}

/* The probability of what was seen if the site were bounded: blocks that die, or an inflow that
 * dies out. Both have to be ruled out. */
static double bounded_p(const struct coarse *w, struct judgement *j)
{
	size_t half = w->n / 2;
	double x = sum(w->expected, 0, half), y = sum(w->expected, w->n - half, w->n), p, mortal;

	j->dispersion = dispersion(w->alive, w->expected, w->n);
	j->early = sum(w->alive, 0, half);
	j->late = sum(w->alive, w->n - half, w->n);
	p = DYING_OUT * y / (DYING_OUT * y + x);
	p = binomial_above(j->late / j->dispersion, (j->early + j->late) / j->dispersion, p);
	mortal = binomial_below(j->died_after_guard / j->dispersion,
				j->reached_guard / j->dispersion, 0.5);
	return fmax(p, mortal);
}

/* NULL: it is a candidate, with j->p. */
static const char *leak_problem(const struct cohort_view *v, struct judgement *j)
{
	const char *problem;
	struct coarse w;
	size_t age;

	if (v->missed)
		return "frees of its blocks were not seen";
	if (sum(v->alive, 0, v->n) < MIN_SURVIVORS)
		return "too few blocks stay";
	age = guard_age(v, j);
	if (!age)
		return "blocks that are as old are still freed";
	j->guard_s = (double)age * v->window_s;
	j->first = 1 + v->n / 16;
	age += age > 1 ? (age + 3) / 4 : 0;
	j->end = v->n - 1 > age ? v->n - age : 0;
	if (j->end < j->first + MIN_WINDOWS || 3 * (j->end - j->first) < v->n)
		return "too short for the lifetimes of its blocks";
	skip_to_start(v, j);
	j->survivors = sum(v->alive, j->first, j->end);
	if (j->end < j->first + MIN_WINDOWS || j->survivors < MIN_SURVIVORS)
		return "too few blocks stay";
	make_coarse(v, j, &w);
	j->windows = w.n;
	problem = spread_problem(&w, j);
	if (!problem)
		j->p = bounded_p(&w, j);
	return problem;
}

/* ---- bytes and rates ------------------------------------------------------------------------- */

static void leak_bytes(const struct cohort_view *v, struct judgement *j)
{
	double all = sum(v->bytes, 0, v->n), births = sum(v->births, 0, v->n);
	double x[COHORT_WINDOWS], y[COHORT_WINDOWS], part[COHORT_WINDOWS], total = 0;
	size_t n = j->end - j->first;
	double old = sum(v->bytes, 0, j->end), young = all - old;

	for (size_t i = 0; i < n; i++) {
		part[i] = v->bytes[j->first + i] / v->window_s;
		total += v->bytes[j->first + i];
		x[i] = (double)i * v->window_s;
		y[i] = total;
	}
	j->rate = mean_interval(part, n);
	j->rate.value = theil_sen(x, y, n).value;
	j->rate.low = fmax(0, fmin(j->rate.low, j->rate.value));
	j->rate.high = fmax(j->rate.high, j->rate.value);
	if (sum(v->deaths, 0, v->n) <= 0.01 * births) {
		j->bytes = all + v->before; /* nobody ever frees one: all of it is lost */
		return;
	}
	j->bytes = old + fmin(young, total / (double)n * (double)(v->n - j->end));
}

/* ---- the judgement --------------------------------------------------------------------------- */

/* How much longer it takes until enough is seen. */
static double longer(const struct cohort_view *v, const struct judgement *j)
{
	double enough = MAX_WINDOWS * PER_WINDOW;

	if (j->survivors > 0 && j->survivors < enough)
		return v->seen_s * fmin(10, fmax(0.5, enough / j->survivors - 1));
	return v->seen_s;
}

void judge(const struct cohort_view *v, struct judgement *j)
{
	memset(j, 0, sizeof(*j));
	j->p = 1;
	j->level_bytes = j->run_longer_s = j->level.value = -1;
	j->reason = leak_problem(v, j);
	j->is_candidate = !j->reason;
}

void judge_settle(const struct cohort_view *v, struct judgement *j, double rate)
{
	if (j->is_candidate && rate <= DISCOVERY) {
		j->verdict = VERDICT_LEAK;
		j->confidence = 1 - rate;
		leak_bytes(v, j);
		return;
	}
	if (j->is_candidate)
		j->reason = "too few blocks stay to rule out that it is bounded";
	judge_level(v, j);
	if (j->verdict == VERDICT_UNDECIDED || (j->verdict == VERDICT_GROWTH && j->is_candidate)) {
		j->run_longer_s = longer(v, j);
	}
}
