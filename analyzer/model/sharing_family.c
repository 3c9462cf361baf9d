/*
 * How much memory a family of processes holds more than once, to the page: for each page that was
 * shared at a fork, over all that have it, one copy more for each that has it alone, and one less
 * where nobody shares any more, for one of them holds the original. Who, the kernel does not say,
 * and it does not matter for the sum.
 *
 * That is right only of one moment, with all of them alive: of the moments at which walks were made
 * the one with most counts. Tried are the last walks of some children, and those during which most
 * of them were alive: a killed child's last sign of life is its last walk, and the others may have
 * been walked just before and just after it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "model/sharing.h"

#define MAX_MOMENTS 8
#define MAX_COMPARED 1000 /* of children, when it is counted how many were alive */

/* From a page on, so many more have it alone, have it shared, or had it when they were forked. */
struct edge {
	uint64_t page;
	int32_t alone, shared, base;
};

typedef VEC(struct edge) edges;

struct window {
	int64_t from, to;
};

static void add_edges(edges *out, uint64_t first, uint64_t count, struct edge step)
{
	step.page = first;
	*vec_push(out) = step;
	*vec_push(out) = (struct edge){ first + count, -step.alone, -step.shared, -step.base };
}

static void add_walk(edges *out, const struct page_walk *w)
{
	struct page_cursor c = { .walk = w };

	while (page_next(&c)) {
		bool alone = c.run.state & MT_PAGE_EXCLUSIVE && !(c.run.state & MT_PAGE_HUGE);

		if (c.run.state & MT_PAGE_PRESENT)
			add_edges(out, c.run.first, c.run.count,
				  (struct edge){ .alone = alone, .shared = !alone });
	}
}

static void add_base(edges *out, const struct page_walk *w)
{
	struct page_cursor c = { .walk = w };

	while (page_next(&c))
		if (c.run.state & MT_PAGE_PRESENT)
			add_edges(out, c.run.first, c.run.count, (struct edge){ .base = 1 });
}

static int by_page(const void *a, const void *b)
{
	const struct edge *x = a, *y = b;

	return x->page == y->page ? 0 : x->page < y->page ? -1 : 1;
}

/* has_parent: its walk is among them; else it is taken to hold what nobody shares. */
static uint64_t extra_pages(edges *e, bool has_parent)
{
	int64_t alone = 0, shared = 0, base = 0;
	uint64_t extra = 0, last = 0;

	if (e->count)
		qsort(e->items, e->count, sizeof(*e->items), by_page);
	for (size_t i = 0; i < e->count; i++) {
		if (base > 0 && alone > 0)
			extra += (e->items[i].page - last) *
				 (uint64_t)(alone - (has_parent && !shared));
		last = e->items[i].page;
		alone += e->items[i].alone;
		shared += e->items[i].shared;
		base += e->items[i].base;
	}
	return extra;
}

/* A process is there from its start to its last sign of life. */
static int64_t end_of(const struct builder *b, uint32_t id)
{
	const struct sharing *s = b->procs.items[id].sharing;
	int64_t end = b->processes.items[id].end, walk;

	if (!s || !s->walks.count)
		return end;
	walk = s->walks.items[s->walks.count - 1].time;
	return walk > end ? walk : end;
}

static const struct page_walk *walk_in(const struct builder *b, uint32_t id, struct window w,
				       int64_t time)
{
	const struct sharing *s = b->procs.items[id].sharing;
	const struct page_walk *best = NULL;

	for (size_t i = 0; s && i < s->walks.count; i++) {
		const struct page_walk *x = &s->walks.items[i];

		if (x->time < w.from || x->time > w.to)
			continue;
		if (!best || llabs(x->time - time) < llabs(best->time - time))
			best = x;
	}
	return best;
}

static uint64_t extra_at(const struct builder *b, uint32_t parent, const uint32_t *children,
			 size_t count, int64_t time)
{
	struct window w = { INT64_MIN, INT64_MAX };
	const struct page_walk *walk;
	edges e = VEC_INIT;
	uint64_t page = 0, pages;

	for (size_t i = 0; i < count; i++) {
		int64_t start = b->processes.items[children[i]].start, end = end_of(b, children[i]);

		if (start > time || end < time)
			continue;
		w.from = start > w.from ? start : w.from;
		w.to = end < w.to ? end : w.to;
	}
	for (size_t i = 0; i < count; i++) {
		const struct sharing *s = b->procs.items[children[i]].sharing;

		if (b->processes.items[children[i]].start > time || end_of(b, children[i]) < time ||
		    !(walk = walk_in(b, children[i], w, time)))
			continue;
		page = walk->page_bytes;
		add_walk(&e, walk);
		add_base(&e, &s->walks.items[0]);
	}
	walk = walk_in(b, parent, w, time);
	if (walk)
		add_walk(&e, walk);
	pages = extra_pages(&e, walk != NULL);
	vec_release(&e);
	return pages * page;
}

typedef VEC(uint32_t) ids;

static int64_t last_walk(const struct builder *b, uint32_t id)
{
	const struct sharing *s = b->procs.items[id].sharing;

	return s->walks.items[s->walks.count - 1].time;
}

struct moment {
	int64_t time;
	size_t alive;
};

static int most_alive_first(const void *a, const void *b)
{
	const struct moment *x = a, *y = b;

	if (x->alive != y->alive)
		return x->alive > y->alive ? -1 : 1;
	return x->time == y->time ? 0 : x->time > y->time ? -1 : 1;
}

/* The last walks of children, those first at which most of them were alive. */
static struct moment *moments_of(const struct builder *b, const ids *children)
{
	struct moment *moments = xcalloc(children->count, sizeof(*moments));
	size_t step = children->count / MAX_COMPARED + 1;

	for (size_t i = 0; i < children->count; i++) {
		moments[i].time = last_walk(b, children->items[i]);
		for (size_t k = 0; k < children->count; k += step)
			moments[i].alive += b->processes.items[children->items[k]].start <=
						    moments[i].time &&
					    end_of(b, children->items[k]) >= moments[i].time;
	}
	qsort(moments, children->count, sizeof(*moments), most_alive_first);
	return moments;
}

bool sharing_family(const struct builder *b, uint32_t parent, uint64_t *extra)
{
	ids children = VEC_INIT;
	struct moment *moments;
	bool known;
	size_t step;

	*extra = 0;
	for (uint32_t i = parent + 1; i < b->procs.count; i++)
		if (b->procs.items[i].inherits == parent && b->procs.items[i].sharing &&
		    b->procs.items[i].sharing->walks.count)
			*vec_push(&children) = i;
	known = children.count != 0;
	moments = known ? moments_of(b, &children) : NULL;
	step = children.count / MAX_MOMENTS + 1;
	for (size_t i = 0; i < children.count; i++) {
		uint64_t found;

		if (i >= MAX_MOMENTS / 2 && i % step)
			continue;
		found = extra_at(b, parent, children.items, children.count, moments[i].time);
		*extra = found > *extra ? found : *extra;
	}
	free(moments);
	vec_release(&children);
	return known;
}
