/*
 * CPython's own allocator: an arena is cut into pools, a pool into blocks of one size. The pools'
 * headers say how many blocks are in use, not which: so a pool's live bytes are exact, and are laid
 * into its resident pages from the first one on. Where objects are recorded one by one, what they
 * asked for is live and what their blocks are larger is rounding; and where all that is in use in a
 * pool or arena is of one site, that site pins what is free there.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "model/resident_internal.h"

#define POOL_HEADER 48
#define CODE_FREE 1
#define CODE_UNREAD 2

/* Requested bytes of recorded blocks in [start, end); the cursor stays. */
static uint64_t asked_in(struct sorting *s, uint64_t start, uint64_t end)
{
	const struct walk *w = s->w;
	uint64_t bytes = 0;

	while (s->block < w->blocks.count && w->blocks.items[s->block].addr < start)
		s->block++;
	for (size_t i = s->block; i < w->blocks.count && w->blocks.items[i].addr < end; i++)
		bytes += w->blocks.items[i].size;
	return bytes;
}

/* ---- who pins ------------------------------------------------------------------------------------ */

struct span {
	size_t first, end; /* blocks */
	bool one_site; /* all that is in use there is known, and of one site */
};

/* Blocks in [start, end), of which the pools say that `used` are in use. */
static struct span span_of(const struct walk *w, size_t from, uint64_t start, uint64_t end,
			   uint64_t used)
{
	struct span span;
	const struct walk_block *first;

	while (from < w->blocks.count && w->blocks.items[from].addr < start)
		from++;
	span.first = span.end = from;
	first = &w->blocks.items[from];
	span.one_site = true;
	for (; span.end < w->blocks.count && w->blocks.items[span.end].addr < end; span.end++) {
		const struct walk_block *b = &w->blocks.items[span.end];

		span.one_site &= b->site == first->site && b->owner == first->owner;
	}
	span.one_site &= span.end > span.first && span.end - span.first == used;
	return span;
}

/* Of a whole arena; looked up once, arenas come in order. */
static bool arena_is_of_one_site(struct sorting *s, const struct walk_pools *pools)
{
	uint64_t used = 0;
	struct span span;

	if (s->span_arena == pools->start)
		return s->span_one_site;
	for (size_t i = 0; i < pools->pools; i++) {
		const struct walk_pool *pool = &s->w->pool.items[pools->first + i];

		used += pool->code > CODE_UNREAD ? pool->used : 0;
	}
	span = span_of(s->w, s->block, pools->start, pools->start + pools->size, used);
	s->span_arena = pools->start;
	s->span_first = span.first;
	s->span_one_site = span.one_site;
	return s->span_one_site;
}

/* What is free in a page of a pool is held by the blocks of the pool, if they are of one site. */
static void pin_pool(struct sorting *s, const struct walk_pool *pool, uint64_t start, uint64_t end,
		     uint64_t page, uint64_t free)
{
	struct span span = span_of(s->w, s->block, start, end, pool->used);

	if (free && span.one_site) /* its blocks are counted with its first page */
		pin_add(s, HEAP_PYTHON, span.first, page == start ? span.end : span.first, page,
			free);
}

/* A pool that is free is held only by what lives elsewhere in the arena. */
static void pin_free_pool(struct sorting *s, const struct walk_pools *pools, uint64_t page)
{
	if (arena_is_of_one_site(s, pools))
		pin_add(s, HEAP_PYTHON, s->span_first, s->span_first, page, s->w->page);
}

/* Live and other bytes of a pool before this page: full pages are filled first. */
static uint64_t share(uint64_t total, uint64_t before, uint64_t room)
{
	uint64_t left = total > before ? total - before : 0;

	return left < room ? left : room;
}

static void pool_page(struct sorting *s, struct resident_heap *h, const struct walk_pool *pool,
		      uint64_t pool_start, uint64_t pool_bytes, uint64_t page, struct split *out)
{
	uint64_t size = s->w->page, block = (uint64_t)(pool->code - 2) * 16;
	uint64_t used = block * pool->used,
		 asked = asked_in(s, pool_start, pool_start + pool_bytes);
	uint64_t over = (pool_bytes - POOL_HEADER) % block; /* behind the last block */
	uint64_t inside = page - pool_start, room, rounding;

	if (!asked || asked > used)
		asked = used;
	rounding = inside ? 0 : POOL_HEADER;
	if (inside + size == pool_bytes)
		rounding += over < size - rounding ? over : size - rounding;
	/* Blocks lie one after the other as if the first ones were those in use. */
	room = size - rounding;
	used = share(used, inside ? inside - POOL_HEADER : 0, room);
	asked = share(asked, inside ? inside - POOL_HEADER : 0, room);
	out->part[RESIDENT_LIVE] = asked;
	out->part[RESIDENT_ROUNDING] = rounding + used - asked;
	out->part[RESIDENT_PYTHON] = size - rounding - used;
	if (!inside)
		h->blocks += pool->used;
	pin_pool(s, pool, pool_start, pool_start + pool_bytes, page, out->part[RESIDENT_PYTHON]);
}

void python_page(struct sorting *s, struct resident_heap *h, const struct walk_pools *pools,
		 uint64_t page, struct split *out)
{
	uint64_t size = s->w->page, bytes = pools->pool_bytes;
	uint64_t first = (pools->start + bytes - 1) & ~(bytes - 1), index;
	const struct walk_pool *pool = NULL;

	if (page >= first && page < pools->start + pools->size) {
		index = (page - first) / bytes;
		if (first + (index + 1) * bytes <= pools->start + pools->size &&
		    index < pools->pools)
			pool = &s->w->pool.items[pools->first + index];
	}
	if (page < first || page + bytes > pools->start + pools->size + bytes - 1) {
		out->part[RESIDENT_ROUNDING] = size; /* not aligned: too small for a pool */
	} else if (!pool || pool->code == CODE_UNREAD) {
		out->part[RESIDENT_UNTRACED] = size;
	} else if (pool->code <= CODE_FREE || !pool->used) {
		out->part[RESIDENT_PYTHON] = size;
		h->free_pool_bytes += size;
		pin_free_pool(s, pools, page);
	} else {
		pool_page(s, h, pool, first + (page - first) / bytes * bytes, bytes, page, out);
	}
	h->resident += size;
	h->live += out->part[RESIDENT_LIVE];
	h->rounding += out->part[RESIDENT_ROUNDING];
	h->free += out->part[RESIDENT_PYTHON];
}
