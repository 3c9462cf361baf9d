/*
 * Heaps page by page: what glibc's malloc, and allocators whose mappings were recorded, hold beside
 * their live blocks. See resident.h for the classes.
 *
 * A chunk of glibc's begins 16 bytes before its block; of these the first 8 belong to the chunk
 * before it while that is in use. So a block's chunk occupies [block - 8, end of chunk + 8), and
 * chunks in use lie without gaps. malloc_trim() gives back the whole pages of a free chunk behind
 * its own header of 48 bytes, and of the main heap's topmost chunk; never of an arena's topmost.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "model/resident_internal.h"

#define MAIN_START 0x290 /* the first chunk: the main thread's cache of free chunks */
#define ARENA_START 0x8d0 /* heap_info and malloc_state; in an arena's first heap */
#define HEAP_START 0x30 /* heap_info */

static const struct walk_block *block_at(const struct sorting *s, size_t i)
{
	return &s->w->blocks.items[i];
}

struct resident_heap *heap_of(struct sorting *s, enum heap_kind kind, uint64_t id)
{
	struct resident_heap *h;

	for (size_t i = s->heaps.count; i-- > 0;)
		if (s->heaps.items[i].kind == kind && s->heaps.items[i].id == id)
			return &s->heaps.items[i];
	h = vec_push(&s->heaps);
	h->kind = kind;
	h->id = id;
	h->top_site = h->top_owner = h->site = h->owner = NO_ID;
	return h;
}

void heap_span(struct resident_heap *h, uint64_t start, uint64_t end)
{
	if (!h->parts || start < h->start)
		h->start = start;
	if (!h->parts || end > h->end)
		h->end = end;
	h->parts++;
}

/* ---- pins ---------------------------------------------------------------------------------------- */

static struct resident_pin *pin_of(struct sorting *s, const struct walk_block *b,
				   enum heap_kind kind)
{
	uint32_t key[3] = { b->owner, b->site, kind };
	uint64_t hash = hash_bytes(key, sizeof(key));
	struct resident_pin *pin;

	index_each (&s->pin_set, hash, i) {
		pin = &s->pins.items[i];
		if (pin->owner == b->owner && pin->site == b->site && pin->kind == kind)
			return pin;
	}
	index_add(&s->pin_set, hash, (uint32_t)s->pins.count);
	pin = vec_push(&s->pins);
	memset(pin, 0, sizeof(*pin));
	pin->owner = b->owner;
	pin->site = b->site;
	pin->kind = kind;
	return pin;
}

void pin_add(struct sorting *s, enum heap_kind kind, size_t first, size_t end, uint64_t page,
	     uint64_t bytes)
{
	struct resident_pin *pin = pin_of(s, block_at(s, first), kind);
	const struct timebase *tb = &s->r->b->clocks.items[s->r->p->trace];

	pin->pages++;
	pin->pinned += bytes;
	for (size_t i = first; i < end; i++) {
		const struct walk_block *b = block_at(s, i);
		int64_t birth = timebase_ns(tb, b->birth);

		if (b->addr < page && i == first && pin->blocks)
			continue; /* it began on the page before */
		if (!pin->blocks || birth < pin->oldest)
			pin->oldest = birth;
		if (!pin->blocks || birth > pin->newest)
			pin->newest = birth;
		pin->blocks++;
		pin->block_bytes += b->size;
		pin->age += ((double)(s->out->time - birth) - pin->age) / (double)pin->blocks;
	}
}

/* ---- one page -------------------------------------------------------------------------------------- */

/* What lives on a page. */
struct lives {
	uint64_t live, rounding;
	size_t first, end; /* blocks */
	bool one_site;
};

/* header: bytes before a block that are its chunk's; glibc: chunks end as chunk_end() says. */
static void lives_on(struct sorting *s, uint64_t page, uint64_t limit, bool glibc,
		     struct lives *out)
{
	uint64_t page_end = page + s->w->page, at = page, header = glibc ? 8 : 0;
	size_t count = s->w->blocks.count, i;

	memset(out, 0, sizeof(*out));
	while (s->block < count &&
	       (glibc ? chunk_end(block_at(s, s->block)) + 8
		      : block_at(s, s->block)->addr + block_at(s, s->block)->size) <= page)
		s->block++;
	out->first = s->block;
	out->one_site = true;
	for (i = s->block; i < count && block_at(s, i)->addr - header < page_end; i++) {
		const struct walk_block *b = block_at(s, i);
		uint64_t low = b->addr - header > at ? b->addr - header : at;
		uint64_t high = glibc ? chunk_end(b) + 8 : b->addr + b->size, live;

		if (b->addr >= limit)
			break;
		if (glibc && i + 1 < count && block_at(s, i + 1)->addr - 8 < high)
			high = block_at(s, i + 1)->addr - 8;
		if (high > page_end)
			high = page_end;
		if (high <= low)
			continue;
		live = overlap(b->addr, b->addr + b->size, low, high);
		out->live += live;
		out->rounding += high - low - live;
		at = high;
		if (b->owner != block_at(s, out->first)->owner ||
		    b->site != block_at(s, out->first)->site)
			out->one_site = false;
	}
	out->end = i;
}

static void count_lives(struct sorting *s, struct resident_heap *h, const struct lives *l,
			uint64_t page)
{
	uint64_t used = l->live + l->rounding, size = s->w->page;

	h->pages[used * 8 <= size	? 0
		 : used * 4 <= size	? 1
		 : used * 2 <= size	? 2
		 : used * 4 <= size * 3 ? 3
					: 4]++;
	for (size_t i = l->first; i < l->end; i++) {
		const struct walk_block *b = block_at(s, i);

		if (b->addr < page && h->blocks)
			continue;
		h->blocks++;
		if (b->size > h->largest_block)
			h->largest_block = b->size;
		h->top_owner = b->owner;
		h->top_site = b->site;
		h->top_size = b->size;
		h->top_birth = timebase_ns(&s->r->b->clocks.items[s->r->p->trace], b->birth);
	}
}

static void page_done(struct sorting *s, struct resident_heap *h, const struct split *out)
{
	h->resident += s->w->page;
	h->live += out->part[RESIDENT_LIVE];
	h->rounding += out->part[RESIDENT_ROUNDING];
	h->returnable += out->part[RESIDENT_RETURNABLE];
	h->pinned += out->part[RESIDENT_PINNED];
	h->free += out->part[RESIDENT_PYTHON];
}

/* The allocator's own beginning of a heap. */
static uint64_t own_start(const struct sorting *s, const struct resident_heap *h, uint64_t start)
{
	uint64_t bytes = h->kind == HEAP_MAIN ? MAIN_START
			 : h->parts > 1	      ? HEAP_START
					      : ARENA_START;

	size_t i = s->block;

	while (i && block_at(s, i - 1)->addr >= start)
		i--;
	if (i < s->w->blocks.count && block_at(s, i)->addr - 8 < start + bytes &&
	    block_at(s, i)->addr - 8 >= start)
		return block_at(s, i)->addr - 8;
	return start + bytes;
}

/* Would trimming give back a page on which nothing lives? */
static bool is_returned(struct sorting *s, struct resident_heap *h, uint64_t page, uint64_t start,
			uint64_t end, uint64_t top)
{
	uint64_t size = s->w->page, from = start, to = end;

	if (s->block && block_at(s, s->block - 1)->addr >= start)
		from = chunk_end(block_at(s, s->block - 1));
	else
		from = own_start(s, h, start);
	if (s->block < s->w->blocks.count && block_at(s, s->block)->addr < end)
		to = block_at(s, s->block)->addr - CHUNK_HEADER;
	if (top && top < to)
		to = top;
	if (page < ((from + FREE_HEADER + size - 1) & ~(size - 1)) || page + size > to)
		return false;
	h->run_bytes += to - from >= LARGE_LEAST ? size : 0;
	return true;
}

void heap_page(struct sorting *s, struct resident_heap *h, uint64_t page, uint64_t start,
	       uint64_t end, uint64_t top, struct split *out)
{
	uint64_t size = s->w->page, own, used;
	struct lives l;

	lives_on(s, page, end, true, &l);
	own = page - start < ARENA_START ? own_start(s, h, start) : start;
	own = overlap(page, page + size, start, own);
	if (l.live + l.rounding + own > size)
		own = size - l.live - l.rounding;
	used = l.live + l.rounding + own;
	out->part[RESIDENT_LIVE] = l.live;
	out->part[RESIDENT_ROUNDING] = l.rounding + own;
	if (used) {
		out->part[RESIDENT_PINNED] = size - used;
		count_lives(s, h, &l, page);
		if (l.live + l.rounding && l.one_site && !own && size > used)
			pin_add(s, h->kind, l.first, l.end, page, size - used);
	} else if (is_returned(s, h, page, start, end, top)) {
		out->part[RESIDENT_RETURNABLE] = size;
	} else {
		out->part[RESIDENT_PINNED] = size;
		if (top && page + size > top)
			h->top += size;
	}
	page_done(s, h, out);
}

void mapped_page(struct sorting *s, struct resident_heap *h, uint64_t page, struct split *out)
{
	uint64_t size = s->w->page;
	struct lives l;

	lives_on(s, page, page + size, false, &l);
	out->part[RESIDENT_LIVE] = l.live;
	if (l.live) {
		out->part[RESIDENT_PINNED] = size - l.live;
		count_lives(s, h, &l, page);
		if (l.one_site && size > l.live)
			pin_add(s, h->kind, l.first, l.end, page, size - l.live);
	} else {
		out->part[RESIDENT_RETURNABLE] = size;
	}
	page_done(s, h, out);
}

bool chunk_page(struct sorting *s, uint64_t page, struct split *out)
{
	uint64_t size = s->w->page;
	const struct walk_block *b;
	struct resident_heap *h;
	struct lives l;

	/* A mapping of its own begins in the page of the header and ends in that of the last byte. */
	while (s->block < s->w->blocks.count &&
	       ((block_at(s, s->block)->addr + block_at(s, s->block)->size + size - 1) &
		~(size - 1)) <= page)
		s->block++;
	if (s->block == s->w->blocks.count)
		return false;
	b = block_at(s, s->block);
	if (((b->addr - CHUNK_HEADER) & ~(size - 1)) >= page + size)
		return false;
	lives_on(s, page, page + size, false, &l);
	h = heap_of(s, HEAP_CHUNKS, 0);
	out->part[RESIDENT_LIVE] = l.live;
	out->part[RESIDENT_ROUNDING] = size - l.live;
	count_lives(s, h, &l, page);
	page_done(s, h, out);
	return true;
}

/* ---- the top ----------------------------------------------------------------------------------------- */

/* Resident bytes of [start, end). */
static uint64_t resident_in(const struct walk *w, uint64_t start, uint64_t end)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < w->ranges.count; i++) {
		const struct walk_range *range = &w->ranges.items[i];
		uint64_t at = range->start;

		if (range->end <= start || range->start >= end)
			continue;
		for (size_t k = 0; k < range->runs && at < end; k++) {
			const struct walk_run *run = &w->runs.items[range->first_run + k];

			if (run->state & MT_PAGE_PRESENT)
				bytes += overlap(at, at + run->pages * w->page, start, end);
			at += run->pages * w->page;
		}
	}
	return bytes;
}

void heap_cliffs(struct sorting *s, struct resident_heap *h, uint64_t start, uint64_t end)
{
	static const uint32_t counts[HEAP_CLIFF] = { 1, 4, 16, 64 };
	const struct walk *w = s->w;
	uint64_t size = w->page, from, now;
	size_t last = w->blocks.count;

	while (last && block_at(s, last - 1)->addr >= end)
		last--;
	if (!last || block_at(s, last - 1)->addr < start)
		return;
	now = (chunk_end(block_at(s, last - 1)) + CHUNK_LEAST + size) & ~(size - 1);
	for (int k = 0; k < HEAP_CLIFF; k++) {
		if (last < counts[k] || block_at(s, last - counts[k])->addr < start)
			break;
		from = start + MAIN_START;
		if (last > counts[k] && block_at(s, last - counts[k] - 1)->addr >= start)
			from = chunk_end(block_at(s, last - counts[k] - 1));
		from = (from + CHUNK_LEAST + size) & ~(size - 1);
		h->cliff[k].count = counts[k];
		h->cliff[k].bytes = resident_in(w, from, now);
	}
}
