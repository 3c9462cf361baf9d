/*
 * What stands in the two kinds of chunk that are rewritten in place: young allocations, and counts
 * of those that were folded (docs/FORMAT.md 3.7). Values that can't be true are left out and
 * counted as damage.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_NURSERY_H
#define MEMTRACE_ANALYZER_NURSERY_H

#include "trace/reader.h"
#include "util/vec.h"

#ifdef __cplusplus
extern "C" {
#endif

struct nursery_entry {
	uint32_t index; /* in its nursery */
	struct mt_young young; /* as it stands: the kind is still in the address */
};

struct nursery {
	bool valid; /* else: its head is missing or damaged, and nothing of it is known */
	bool fold_valid; /* fold_entry, fold_cell and fold say something that can be true */
	struct mt_nursery head;
	VEC(struct nursery_entry) entries; /* those that are not empty */
};

typedef VEC(struct mt_cell) cell_list;

static inline uint32_t young_kind(const struct mt_young *y)
{
	return (uint32_t)(y->addr >> MT_YOUNG_KIND_SHIFT);
}

static inline uint64_t young_addr(const struct mt_young *y)
{
	return y->addr & MT_YOUNG_ADDR_MASK;
}

/* Of a chunk of kind MT_CHUNK_NURSERY. The caller owns the list. */
void nursery_read(struct trace *t, const struct trace_chunk *chunk, struct nursery *n);
void nursery_release(struct nursery *n);

/* Adds the cells of a chunk of kind MT_CHUNK_COUNTERS that were ever counted in. */
void cells_read(struct trace *t, const struct trace_chunk *chunk, cell_list *cells);

#ifdef __cplusplus
}
#endif

#endif
