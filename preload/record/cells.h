/*
 * Cells: what a thread folded, by site. A cell is a line in a chunk of kind MT_CHUNK_COUNTERS; a
 * table in private memory finds it. See nursery.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_CELLS_H
#define MEMTRACE_PRELOAD_CELLS_H

#include <stdint.h>

#include "core/thread.h"
#include "memtrace/format.h"

#define MT_CELL_MAPS 48
#define MT_CELL_FRONT_BITS 9
#define MT_CELL_FRONT (1u << MT_CELL_FRONT_BITS)

/* Where a site's cell is. */
struct mt_cell_slot {
	struct mt_cell *cell; /* mapped; NULL: an empty slot */
	uint64_t offset; /* of the cell in the file */
	uint32_t native, python, kind;
	uint32_t window; /* in which it was last raised */
};

/* Sites in use at the moment, dense: the table of all has one line in hundreds that is hot. */
struct mt_cell_front {
	struct mt_cell_slot slot; /* a copy, but for `window`, which is true here and at home */
	struct mt_cell_slot *home;
};

/* Of one thread; all zero: empty. */
struct mt_cells {
	struct mt_cell_slot *slots;
	struct mt_cell_front *front; /* MT_CELL_FRONT of them */
	uint32_t room, count; /* slots: a power of two, and how many are taken */
	struct mt_chunk *chunk; /* the open one */
	uint32_t chunk_cells, seq; /* its room; number of the next one */
	uint32_t maps; /* pieces of the file that are mapped */
	struct {
		void *at;
		uint64_t bytes;
	} map[MT_CELL_MAPS];
};

/* The cell of a site, made if need be. NULL: this pair is to be listed, because the site has asked
 * for the first time, or there is no memory or space. */
struct mt_cell_front *mt_cells_find(struct mt_thread *t, struct mt_cells *c, uint32_t native,
				    uint32_t python, uint32_t kind);

/* In a forked child: lets go of everything. */
void mt_cells_drop(struct mt_cells *c);

#endif
