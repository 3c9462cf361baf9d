/*
 * CPython's own allocator: an arena is cut into pools, a pool into blocks of one size. The pools'
 * headers say how many blocks are in use, not which: so a pool's live bytes are exact, and are laid
 * into its resident pages from the first one on. Where objects are recorded one by one, what they
 * asked for is live and what their blocks are larger is rounding.
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
	} else {
		pool_page(s, h, pool, first + (page - first) / bytes * bytes, bytes, page, out);
	}
	h->resident += size;
	h->live += out->part[RESIDENT_LIVE];
	h->rounding += out->part[RESIDENT_ROUNDING];
	h->free += out->part[RESIDENT_PYTHON];
}
