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

bool page_walk_add(struct page_walk *w, const struct mt_ev_range *e)
{
	const uint8_t *p = (const uint8_t *)e->runs.data, *end = p + e->runs.len;
	uint64_t at = e->start / w->page_bytes, left = e->pages, state, n;

	if (e->flags & (MT_RANGE_SHARED | MT_RANGE_TOOL))
		return true;
	w->bad |= e->pages > MAX_PAGES || e->start > UINT64_MAX / 2 || e->start % w->page_bytes ||
		  at < w->end;
	while (p < end && !w->bad) {
		p = mt_get_varint(p, end, &state);
		p = p ? mt_get_varint(p, end, &n) : NULL;
		if (!p || state >= STATES || n > left) {
			w->bad = true;
			break;
		}
		w->part |= state & MT_PAGE_UNSEEN;
		if (state && n && !(state & MT_PAGE_FILE))
			add_run(w, at, n, state);
		at += n;
		left -= n;
	}
	return !w->bad;
}

void page_walk_repeat(struct page_walk *w, const struct page_walk *earlier)
{
	w->repeats = earlier->repeats + 1;
	w->page_bytes = earlier->page_bytes;
	w->end = earlier->end;
	w->coded.count = 0;
	vec_reserve(&w->coded, earlier->coded.count);
	if (earlier->coded.count)
		memcpy(w->coded.items, earlier->coded.items, earlier->coded.count);
	w->coded.count = earlier->coded.count;
}

/* Adds a stretch of the walk that is filled. */
static void fill(void *arg, uint64_t first, uint64_t count, uint32_t a, uint32_t b)
{
	uint32_t state = a & MT_PAGE_UNSEEN ? b : a;

	if (state)
		add_run(arg, first, count, state);
}

void page_walk_fill(struct page_walk *w, const struct page_walk *earlier)
{
	struct page_walk filled = *w;

	if (!w->part)
		return;
	if (!earlier || earlier->part || earlier->page_bytes != w->page_bytes) {
		w->bad = true;
		return;
	}
	filled.part = false;
	filled.end = 0;
	memset(&filled.coded, 0, sizeof(filled.coded));
	page_pairs(w, earlier, fill, &filled);
	page_walk_release(w);
	*w = filled;
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
