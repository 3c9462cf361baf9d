/*
 * How much of large blocks and mappings is in memory: a program pays for the pages that it touched,
 * not for what it asked for. By the site that asked.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "model/resident_internal.h"

/* Goes once over the runs of a walk, in order of address. */
struct run_cursor {
	const struct walk *w;
	size_t range, run;
	uint64_t at; /* where the run begins */
};

struct large_set {
	struct index set;
	VEC(struct resident_large) list;
};

static void next_run(struct run_cursor *c)
{
	const struct walk_range *range = &c->w->ranges.items[c->range];

	if (c->run < range->runs) {
		c->at += c->w->runs.items[range->first_run + c->run].pages * c->w->page;
		c->run++;
	}
	while (c->run >= c->w->ranges.items[c->range].runs) {
		if (++c->range == c->w->ranges.count)
			return;
		c->run = 0;
		c->at = c->w->ranges.items[c->range].start;
	}
}

static struct run_cursor runs_begin(const struct walk *w)
{
	struct run_cursor c = { .w = w };

	if (w->ranges.count) {
		c.at = w->ranges.items[0].start;
		if (!w->ranges.items[0].runs)
			next_run(&c);
	}
	return c;
}

/* Bytes of [start, end) in memory and in swap; start never goes back. */
static void count_pages(struct run_cursor *c, uint64_t start, uint64_t end,
			struct resident_large *to)
{
	while (c->range < c->w->ranges.count && c->at < end) {
		const struct walk_range *range = &c->w->ranges.items[c->range];
		const struct walk_run *run = &c->w->runs.items[range->first_run + c->run];
		uint64_t run_end = c->at + run->pages * c->w->page;
		uint64_t bytes = overlap(start, end, c->at, run_end);

		if (run->state & MT_PAGE_PRESENT)
			to->touched += bytes;
		else if (run->state & MT_PAGE_SWAPPED)
			to->swapped += bytes;
		if (run_end > end)
			return; /* the next block may lie in it, too */
		next_run(c);
	}
}

static struct resident_large *large_of(struct large_set *all, uint32_t owner, uint32_t site)
{
	uint32_t key[2] = { owner, site };
	uint64_t hash = hash_bytes(key, sizeof(key));

	index_each (&all->set, hash, i) {
		struct resident_large *l = &all->list.items[i];

		if (l->owner == owner && l->site == site)
			return l;
	}
	index_add(&all->set, hash, (uint32_t)all->list.count);
	*vec_push(&all->list) = (struct resident_large){ .owner = owner, .site = site };
	return &all->list.items[all->list.count - 1];
}

static void add_large(struct large_set *all, struct run_cursor *c, uint32_t owner, uint32_t site,
		      uint64_t start, uint64_t size)
{
	struct resident_large *l = large_of(all, owner, site);

	l->blocks++;
	l->bytes += size;
	count_pages(c, start, start + size, l);
}

static int by_bytes(const void *a, const void *b)
{
	const struct resident_large *x = a, *y = b;

	if (x->bytes != y->bytes)
		return x->bytes > y->bytes ? -1 : 1;
	return x->site < y->site ? -1 : x->site > y->site;
}

void find_larges(struct sorting *s)
{
	const struct walk *w = s->w;
	struct run_cursor c = runs_begin(w);
	struct large_set all = { 0 };

	if (s->out->sampled)
		return; /* not every block is known */
	for (size_t i = 0; i < w->blocks.count; i++) {
		const struct walk_block *b = &w->blocks.items[i];

		if (b->size >= LARGE_LEAST)
			add_large(&all, &c, b->owner, b->site, b->addr, b->size);
	}
	c = runs_begin(w);
	for (size_t i = 0; i < s->map_count; i++) {
		const struct map_range *m = &s->maps[i];

		if (!(m->kind & MT_KIND_BACKING) && m->asked >= m->start + LARGE_LEAST)
			add_large(&all, &c, m->owner, m->site, m->start, m->asked - m->start);
	}
	if (all.list.count)
		qsort(all.list.items, all.list.count, sizeof(*all.list.items), by_bytes);
	s->out->larges = all.list.items;
	s->out->large_count = all.list.count;
	index_release(&all.set);
}
