/*
 * What resident.c (mappings), heaps.c (glibc and other allocators) and pools.c (CPython's) share
 * while the pages of one walk are put into classes, in order of address.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_RESIDENT_INTERNAL_H
#define MEMTRACE_ANALYZER_RESIDENT_INTERNAL_H

#include "model/walk.h"
#include "util/index.h"

#define CHUNK_HEADER 16 /* of glibc: before the block, of which the first 8 are the neighbour's */
#define CHUNK_LEAST 32
#define FREE_HEADER 48 /* a free chunk keeps so much of itself when its pages are given back */

/* Where a page's bytes go. */
struct split {
	uint64_t part[RESIDENT_PARTS];
};

struct sorting {
	struct replay *r;
	struct walk *w;
	struct resident *out;
	size_t block; /* first block that ends after the present page */
	size_t arena, pools, stack, map, tool; /* likewise */
	uint64_t asked_start, asked_end; /* whether blocks lie there was asked last */
	bool asked_has;
	const struct map_range *maps;
	size_t map_count;
	uint64_t before_end; /* end of the mapping before the present one, and whose it is */
	const char *before_name;
	enum resident_part before_part;
	VEC(struct resident_name) names;
	struct hashmap name_set;
	VEC(struct resident_heap) heaps;
	VEC(struct resident_pin) pins;
	struct index pin_set;
	uint64_t
		span_arena; /* the arena of CPython's that was looked at last: its first block, ... */
	size_t span_first;
	bool span_one_site; /* ... and whether all its blocks are of one site */
};

/* End of the chunk that holds a block of glibc's. */
static inline uint64_t chunk_end(const struct walk_block *b)
{
	uint64_t bytes = (b->size + 8 + 15) & ~UINT64_C(15);

	return b->addr - CHUNK_HEADER + (bytes < CHUNK_LEAST ? CHUNK_LEAST : bytes);
}

static inline uint64_t overlap(uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	uint64_t low = a > c ? a : c, high = b < d ? b : d;

	return high > low ? high - low : 0;
}

/* The heap of that kind and id; made when it is the first time. */
struct resident_heap *heap_of(struct sorting *s, enum heap_kind kind, uint64_t id);
void heap_span(struct resident_heap *h, uint64_t start, uint64_t end); /* one more part of it */

/* Free bytes of a page that the blocks [first, end) alone hold; first = end: `first` and others that
 * are counted already. */
void pin_add(struct sorting *s, enum heap_kind kind, size_t first, size_t end, uint64_t page,
	     uint64_t bytes);

/* A page of one of glibc's heaps, which is [start, end). top: see ARENA; 0: it is the main heap. */
void heap_page(struct sorting *s, struct resident_heap *h, uint64_t page, uint64_t start,
	       uint64_t end, uint64_t top, struct split *out);
/* A page of a mapping that another allocator made. */
void mapped_page(struct sorting *s, struct resident_heap *h, uint64_t page, struct split *out);
/* A page of a mapping that is one large block. False: there is no block here. */
bool chunk_page(struct sorting *s, uint64_t page, struct split *out);
/* What the topmost blocks keep; [start, end) as walked. Runs are those of the heap's mappings. */
void heap_cliffs(struct sorting *s, struct resident_heap *h, uint64_t start, uint64_t end);

/* How much of large blocks is in memory: fills out->larges. */
void find_larges(struct sorting *s);

/* All pages of an arena of CPython's: how many of its pages from `page` on are resident comes from
 * the walk's runs. */
void python_page(struct sorting *s, struct resident_heap *h, const struct walk_pools *pools,
		 uint64_t page, struct split *out);

#endif
