/*
 * See cohorts.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "model/cohorts.h"

#include <stdlib.h>
#include <string.h>

#include "util/alloc.h"

#define FIRST_ROOM 16
#define FIRST_SHIFT 17 /* MT_BRIEF_UNITS: about a tenth of a millisecond */
#define LAST_SHIFT 62
#define NO_END_SHIFT 56 /* windows of centuries: the time is damaged */
#define BIRTHS_PER_WINDOW 2 /* fewer are not worth more windows */

static struct cohorts *with_room(struct cohorts *c, unsigned int room)
{
	size_t old = c ? c->room : 0;

	c = xrealloc(c, 1, sizeof(*c) + room * sizeof(c->windows[0]));
	if (!old)
		memset(c, 0, sizeof(*c));
	memset(c->windows + old, 0, (room - old) * sizeof(c->windows[0]));
	c->room = (uint8_t)room;
	return c;
}

/* Of the current window. */
static void note_end(struct cohorts *c)
{
	if (c->shift > NO_END_SHIFT ||
	    __builtin_add_overflow(c->origin, (uint64_t)c->count << c->shift, &c->until))
		c->until = UINT64_MAX;
}

struct cohorts *cohorts_new(uint64_t now, double level)
{
	struct cohorts *c = with_room(NULL, FIRST_ROOM);

	c->origin = c->last_birth = now;
	c->shift = FIRST_SHIFT;
	c->count = 1;
	c->level = c->before = level;
	c->windows[0].floor = c->windows[0].top = (float)level;
	note_end(c);
	return c;
}

static void add_window(struct cohort *to, const struct cohort *w)
{
	to->births += w->births;
	to->alive += w->alive;
	to->gone += w->gone;
	to->deaths += w->deaths;
	to->late += w->late;
	to->bytes += w->bytes;
	to->gone_bytes += w->gone_bytes;
}

static void join_levels(struct cohort *to, const struct cohort *w)
{
	if (w->floor < to->floor)
		to->floor = w->floor;
	if (w->top > to->top)
		to->top = w->top;
}

/* Pairs of windows become one. */
static void halve(struct cohorts *c)
{
	for (unsigned int i = 0; i < c->count; i++) {
		struct cohort w = c->windows[i];

		if (i % 2 == 0) {
			c->windows[i / 2] = w;
			continue;
		}
		add_window(&c->windows[i / 2], &w);
		join_levels(&c->windows[i / 2], &w);
	}
	c->count = (uint8_t)((c->count + 1) / 2);
	memset(c->windows + c->count, 0, (c->room - c->count) * sizeof(c->windows[0]));
	c->shift++;
	c->low /= 2;
	c->high /= 2;
	c->low_age /= 2;
	c->high_age /= 2;
}

static inline unsigned int window_of(const struct cohorts *c, uint64_t time)
{
	return (unsigned int)((time - c->origin) >> c->shift);
}

static struct cohorts *turn(struct cohorts *c, uint64_t now)
{
	uint64_t at;

	if (now < c->origin)
		now = c->origin;
	while ((at = (now - c->origin) >> c->shift) >= c->room) {
		if (c->room < COHORT_WINDOWS && at < COHORT_WINDOWS &&
		    c->born >= (uint64_t)BIRTHS_PER_WINDOW * c->room)
			c = with_room(c, c->room * 2u);
		else if (c->shift < LAST_SHIFT)
			halve(c);
		else
			return c;
	}
	for (; c->count <= at; c->count++)
		c->windows[c->count].floor = c->windows[c->count].top =
			(float)(c->level + c->leaving);
	note_end(c);
	return c;
}

/* The current window becomes that of `now`. */
static inline struct cohorts *advance(struct cohorts *c, uint64_t now)
{
	return __builtin_expect(now < c->until, 1) ? c : turn(c, now);
}

/* A birth: what died until now died in the course of the site's work. */
static void commit(struct cohorts *c)
{
	for (unsigned int i = c->low; i <= c->high; i++) {
		struct cohort *w = &c->windows[i];

		w->alive -= w->gone;
		w->bytes -= w->gone_bytes;
		w->gone = 0;
		w->gone_bytes = 0;
	}
	for (unsigned int i = c->low_age; i <= c->high_age; i++) {
		c->windows[i].deaths += c->windows[i].late;
		c->windows[i].late = 0;
	}
	c->dirty = false;
}

struct cohorts *cohorts_birth(struct cohorts *c, uint64_t now, double bytes)
{
	struct cohort *w;

	c = advance(c, now);
	if (c->dirty)
		commit(c);
	w = &c->windows[c->count - 1];
	c->last_birth = now;
	c->leaving = 0;
	c->born++;
	w->births++;
	w->alive++;
	w->bytes += bytes;
	c->level += bytes;
	if (c->level > w->top)
		w->top = (float)c->level;
	return c;
}

static void note_dirty(struct cohorts *c, unsigned int window, unsigned int age)
{
	if (!c->dirty) {
		c->low = c->high = (uint8_t)window;
		c->low_age = c->high_age = (uint8_t)age;
		c->dirty = true;
		return;
	}
	c->low = window < c->low ? (uint8_t)window : c->low;
	c->high = window > c->high ? (uint8_t)window : c->high;
	c->low_age = age < c->low_age ? (uint8_t)age : c->low_age;
	c->high_age = age > c->high_age ? (uint8_t)age : c->high_age;
}

static void note_lifetime(struct cohorts *c, uint64_t units)
{
	unsigned int i = units ? (64u - (unsigned int)__builtin_clzll(units)) / 2 : 0;

	c->lifetimes[i < COHORT_LIFETIMES ? i : COHORT_LIFETIMES - 1]++;
}

struct cohorts *cohorts_death(struct cohorts *c, uint64_t now, uint64_t birth, double bytes,
			      unsigned int blocks)
{
	unsigned int at, last;
	struct cohort *w;

	c = advance(c, now);
	last = c->count - 1u;
	c->level -= bytes;
	if (c->level < c->windows[last].floor)
		c->windows[last].floor = (float)c->level;
	if (birth < c->origin) {
		c->before -= bytes;
		return c;
	}
	at = window_of(c, birth);
	if (at > last) /* a damaged time */
		at = last;
	w = &c->windows[at];
	w->gone_bytes += bytes;
	note_dirty(c, at, last - at);
	if (blocks && w->gone < w->alive) {
		w->gone++;
		c->windows[last - at].late++;
		note_lifetime(c, now - birth);
	}
	return c;
}

struct cohorts *cohorts_leave(struct cohorts *c, uint64_t now, uint64_t birth, double bytes)
{
	struct cohort *w;

	c = advance(c, now);
	c->level -= bytes;
	c->leaving += bytes;
	c->resized++;
	if (birth < c->origin) {
		c->before -= bytes;
		return c;
	}
	w = &c->windows[window_of(c, birth) < c->count ? window_of(c, birth) : c->count - 1u];
	w->bytes -= bytes;
	w->births -= w->births != 0;
	w->alive -= w->alive > w->gone;
	return c;
}

void cohorts_add_dead(struct cohorts *c, uint64_t from, uint64_t to, uint64_t count)
{
	unsigned int first, last;

	if (to < c->origin)
		return;
	if (from < c->origin) { /* a part of them came before the first window */
		uint64_t all = to - from, in = to - c->origin;

		count = all ? (uint64_t)((double)count * (double)in / (double)all) : count;
		from = c->origin;
	}
	first = window_of(c, from);
	last = window_of(c, to);
	if (last >= c->count)
		last = c->count - 1u;
	if (first > last)
		first = last;
	if (count > UINT32_MAX / 2)
		count = UINT32_MAX / 2;
	for (unsigned int i = first; i <= last; i++) {
		uint64_t part = count / (last - i + 1);

		c->windows[i].births += (uint32_t)part;
		count -= part;
		c->windows[0].deaths += (uint32_t)part;
		c->born += part;
		c->folded += part;
	}
}

struct cohorts *cohorts_settle(struct cohorts *c, uint64_t end)
{
	c = advance(c, end);
	c->end = (double)(end > c->origin ? end - c->origin : 0) /
		 (double)(UINT64_C(1) << c->shift);
	c->last = (double)(c->last_birth - c->origin) / (double)(UINT64_C(1) << c->shift);
	if (c->last > c->end)
		c->end = c->last;
	return c;
}

/* ---- two of one site ------------------------------------------------------------------------- */

/* Makes the windows twice as long, from a later origin on: what lies at an index stays in order. */
static struct cohorts *on_grid(struct cohorts *c, int64_t start_ns, double window_ns)
{
	double back = (double)(c->start_ns - start_ns);

	while (c->shift < LAST_SHIFT &&
	       (c->window_ns < window_ns * 0.999 ||
		(back + c->end * c->window_ns) / c->window_ns >= COHORT_WINDOWS)) {
		halve(c);
		c->window_ns *= 2;
		c->end /= 2;
		c->last /= 2;
	}
	return c;
}

static void add_shifted(struct cohorts *to, const struct cohorts *c)
{
	double first = (double)(c->start_ns - to->start_ns) / to->window_ns;
	double scale = c->window_ns / to->window_ns;

	for (unsigned int i = 0; i < c->count; i++) {
		unsigned int at = (unsigned int)(first + (i + 0.5) * scale);
		unsigned int age = (unsigned int)((i + 0.5) * scale);
		struct cohort w = c->windows[i];

		if (at >= to->count)
			at = to->count - 1u;
		if (age >= to->count)
			age = to->count - 1u;
		to->windows[age].deaths += w.deaths;
		to->windows[age].late += w.late;
		w.deaths = w.late = 0;
		add_window(&to->windows[at], &w);
	}
}

/* What the site held over time: the sum of both, each at its own time. */
static void add_levels(struct cohorts *to, const struct cohorts *c)
{
	double first = (double)(c->start_ns - to->start_ns) / to->window_ns;
	double scale = c->window_ns / to->window_ns;

	for (unsigned int i = 0; i < to->count; i++) {
		double at = (i + 0.5 - first) / scale;
		const struct cohort *w;

		if (at < 0 || !c->count)
			continue;
		w = &c->windows[at < c->count ? (unsigned int)at : c->count - 1u];
		to->windows[i].floor += w->floor;
		to->windows[i].top += w->top;
	}
}

struct cohorts *cohorts_merge(struct cohorts *a, const struct cohorts *b)
{
	int64_t start = a->start_ns < b->start_ns ? a->start_ns : b->start_ns;
	double window = a->window_ns > b->window_ns ? a->window_ns : b->window_ns;
	double end = (double)(b->start_ns - start) + b->end * b->window_ns;
	double last = (double)(b->start_ns - start) + b->last * b->window_ns;
	struct cohorts *to;
	double back;

	a = on_grid(a, start, window);
	window = a->window_ns;
	while (end / window >= COHORT_WINDOWS - 1)
		window *= 2;
	a = on_grid(a, start, window);
	to = with_room(NULL, COHORT_WINDOWS);
	back = (double)(a->start_ns - start) / a->window_ns;
	to->origin = a->origin < b->origin ? a->origin : b->origin;
	to->shift = a->shift;
	to->start_ns = start;
	to->window_ns = a->window_ns;
	to->end = back + a->end;
	to->last = back + a->last;
	if (end / to->window_ns > to->end)
		to->end = end / to->window_ns;
	if (last / to->window_ns > to->last)
		to->last = last / to->window_ns;
	to->count = (uint8_t)(to->end + 1 < COHORT_WINDOWS ? to->end + 1 : COHORT_WINDOWS);
	to->missed = a->missed || b->missed;
	to->born = a->born + b->born;
	to->folded = a->folded + b->folded;
	to->resized = a->resized + b->resized;
	to->level = a->level + b->level;
	to->before = a->before + b->before;
	for (size_t i = 0; i < COHORT_LIFETIMES; i++)
		to->lifetimes[i] = a->lifetimes[i] + b->lifetimes[i];
	add_shifted(to, a);
	add_shifted(to, b);
	add_levels(to, a);
	add_levels(to, b);
	free(a);
	return to;
}
