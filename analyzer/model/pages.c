/*
 * See pages.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "model/pages.h"

#include <stdlib.h>
#include <string.h>

#include "memtrace/varint.h"

#define MAX_PAGES (UINT64_C(1) << 44) /* of an address space */
#define STATES 64u

/* ---- runs of a record ---------------------------------------------------------------------------- */

/* Pages of an aligned group, until it is known what those are that were not read. */
struct group {
	page_run_fn *fn;
	void *arg;
	uint64_t at; /* page after the last one */
	uint32_t first, end; /* in states[] */
	bool like; /* some are MT_PAGE_LIKE */
	uint8_t states[MT_PAGE_GROUP];
};

static uint32_t stretch(const uint8_t *states, uint32_t from, uint32_t end)
{
	uint32_t to = from + 1;

	while (to < end && states[to] == states[from])
		to++;
	return to;
}

/* Each page that was not read is as that one of those read which has the same place among as many. */
static bool fill_in(struct group *g)
{
	uint32_t first = g->first, end, count;

	while (first < g->end && g->states[first] == MT_PAGE_LIKE)
		first++;
	for (end = first; end < g->end && g->states[end] != MT_PAGE_LIKE;)
		end++;
	count = end - first;
	if (!count)
		return false;
	for (uint32_t i = g->first; i < g->end; i++)
		if (g->states[i] == MT_PAGE_LIKE)
			g->states[i] =
				g->states[first + (i + MT_PAGE_GROUP * count - first) % count];
	return true;
}

static bool flush(struct group *g)
{
	uint64_t base = g->at - g->end;

	if (g->like && !fill_in(g))
		return false;
	for (uint32_t from = g->first, to; from < g->end; from = to) {
		to = stretch(g->states, from, g->end);
		g->fn(g->arg, base + from, to - from, g->states[from]);
	}
	g->first = g->end = g->at % MT_PAGE_GROUP;
	g->like = false;
	return true;
}

static bool add_pages(struct group *g, uint64_t n, uint32_t state)
{
	while (n) {
		uint64_t room = MT_PAGE_GROUP - g->end, k = n < room ? n : room;

		if (g->end == 0 && n >= MT_PAGE_GROUP && state != MT_PAGE_LIKE) {
			k = n - n % MT_PAGE_GROUP;
			g->fn(g->arg, g->at, k, state);
			g->at += k;
			n -= k;
			continue;
		}
		memset(g->states + g->end, (int)state, k);
		g->like |= state == MT_PAGE_LIKE;
		g->end += (uint32_t)k;
		g->at += k;
		n -= k;
		if (g->end == MT_PAGE_GROUP && !flush(g))
			return false;
	}
	return true;
}

bool page_runs_each(struct mt_str runs, uint64_t first, uint64_t pages, page_run_fn *fn, void *arg)
{
	const uint8_t *p = (const uint8_t *)runs.data, *end = p + runs.len;
	struct group g = { .fn = fn, .arg = arg, .at = first };
	uint64_t state, n;

	g.first = g.end = first % MT_PAGE_GROUP;
	while (p < end) {
		p = mt_get_varint(p, end, &state);
		p = p ? mt_get_varint(p, end, &n) : NULL;
		if (!p || state >= STATES || n > pages || !add_pages(&g, n, (uint32_t)state))
			return false;
		pages -= n;
	}
	return flush(&g);
}

/* ---- walks --------------------------------------------------------------------------------------- */

bool page_walk_begin(struct page_walk *w, const struct mt_ev_scan *e, int64_t time)
{
	memset(w, 0, sizeof(*w));
	if (e->reason > MT_SCAN_REQUEST || e->pid > UINT32_MAX || e->page_bytes < 512 ||
	    e->page_bytes > (1u << 20) || (e->page_bytes & (e->page_bytes - 1)))
		return false;
	w->time = time;
	w->pid = (uint32_t)e->pid;
	w->id = e->id;
	w->scope = e->scope;
	w->reason = (enum mt_scan_reason)e->reason;
	w->page_bytes = (uint32_t)e->page_bytes;
	w->minflt = e->minflt;
	w->part = e->part && e->part < MT_PAGE_GROUP ? (uint32_t)e->part : MT_PAGE_GROUP;
	return true;
}

static void add_run(struct page_walk *w, uint64_t first, uint64_t count, uint64_t state)
{
	uint8_t *p;

	vec_reserve(&w->coded, w->coded.count + 3 * MT_VARINT_MAX);
	p = w->coded.items + w->coded.count;
	p = mt_put_varint(p, first - w->end);
	p = mt_put_varint(p, state);
	p = mt_put_varint(p, count);
	w->coded.count = (size_t)(p - w->coded.items);
	w->end = first + count;
}

static void add_private(void *arg, uint64_t first, uint64_t count, uint32_t state)
{
	if (state && !(state & MT_PAGE_FILE))
		add_run(arg, first, count, state);
}

bool page_walk_add(struct page_walk *w, const struct mt_ev_range *e)
{
	uint64_t at = e->start / w->page_bytes;

	if (e->flags & (MT_RANGE_SHARED | MT_RANGE_TOOL))
		return true;
	w->bad |= e->pages > MAX_PAGES || e->start > UINT64_MAX / 2 || e->start % w->page_bytes ||
		  at < w->end;
	if (!w->bad)
		w->bad = !page_runs_each(e->runs, at, e->pages, add_private, w);
	return !w->bad;
}

void page_walk_repeat(struct page_walk *w, const struct page_walk *earlier)
{
	w->repeats = earlier->repeats + 1;
	w->page_bytes = earlier->page_bytes;
	w->part = earlier->part;
	w->end = earlier->end;
	w->coded.count = 0;
	vec_reserve(&w->coded, earlier->coded.count);
	if (earlier->coded.count)
		memcpy(w->coded.items, earlier->coded.items, earlier->coded.count);
	w->coded.count = earlier->coded.count;
}

void page_walk_release(struct page_walk *w)
{
	vec_release(&w->coded);
}

bool page_next(struct page_cursor *c)
{
	const uint8_t *p, *end;
	uint64_t gap = 0, state = 0, n = 0;

	if (!c->walk || c->at >= c->walk->coded.count)
		return false;
	p = c->walk->coded.items + c->at;
	end = c->walk->coded.items + c->walk->coded.count;
	p = mt_get_varint(p, end, &gap);
	p = mt_get_varint(p, end, &state);
	p = mt_get_varint(p, end, &n);
	c->run.first = c->end + gap;
	c->run.count = n;
	c->run.state = (uint32_t)state;
	c->end = c->run.first + n;
	c->at = (size_t)(p - c->walk->coded.items);
	return true;
}

void page_pairs(const struct page_walk *a, const struct page_walk *b, page_pair_fn *fn, void *arg)
{
	struct page_cursor c[2] = { { .walk = a }, { .walk = b } };
	bool more[2] = { page_next(&c[0]), page_next(&c[1]) };
	uint64_t at = 0;

	while (more[0] || more[1]) {
		uint64_t next = UINT64_MAX;
		uint32_t state[2] = { 0, 0 };

		for (int i = 0; i < 2; i++) {
			if (!more[i])
				continue;
			if (c[i].run.first > at) {
				if (c[i].run.first < next)
					next = c[i].run.first;
			} else {
				state[i] = c[i].run.state;
				if (c[i].end < next)
					next = c[i].end;
			}
		}
		if (state[0] || state[1])
			fn(arg, at, next - at, state[0], state[1]);
		at = next;
		for (int i = 0; i < 2; i++)
			if (more[i] && c[i].end <= at)
				more[i] = page_next(&c[i]);
	}
}
