/*
 * A walk over the pages of a process while its records come in, with the live set of the moment it
 * began. See resident.h for what is made of it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_WALK_H
#define MEMTRACE_ANALYZER_WALK_H

#include "model/replay.h"
#include "model/resident.h"

struct walk_run {
	uint64_t pages;
	uint32_t state; /* enum mt_page_state */
};

struct walk_range {
	uint64_t start, end;
	uint32_t flags, prot;
	uint64_t inode;
	char *name;
	size_t first_run, runs;
};

struct walk_arena {
	uint64_t start, end, arena, top;
};

struct walk_stack {
	uint32_t tid;
	uint64_t start, end;
};

struct walk_pool {
	uint16_t code, used; /* as in a POOLS record */
};

struct walk_pools {
	uint64_t start, size, pool_bytes;
	size_t first, pools;
};

struct walk_block {
	uint64_t addr, size;
	uint64_t birth; /* units */
	uint32_t owner, site;
};

struct walk {
	struct mt_ev_scan scan;
	uint64_t time; /* units */
	uint64_t page;
	bool complete;
	uint64_t cpu_ns;
	bool disordered; /* ranges that overlap or go back: it can't be used */
	VEC(struct walk_range) ranges;
	VEC(struct walk_run) runs;
	VEC(struct walk_arena) arenas;
	VEC(struct walk_stack) stacks;
	VEC(struct walk_pools) pools;
	VEC(struct walk_pool) pool;
	VEC(struct walk_block) blocks; /* in order of address */
};

struct walks; /* of a replay; NULL: none yet */

/* Takes SCAN, RANGE, SCAN_END, ARENA, STACK and POOLS. */
void walk_record(struct replay *r, const struct mt_record *record);
/* The process is at its end: hands out what was found. */
void walk_finish(struct replay *r);

/*
 * Sites that walks name, when processes are put together. First: of[process, as numbered before any
 * was left out] gives for each of its sites the one of the run, NULL for what was left out. Then the
 * sites of the run were sorted: place[old] is the new number.
 */
void walk_sites_of_run(struct model *m, uint32_t **of);
void walk_sites_sorted(struct model *m, uint32_t *place);

/* resident.c: the caller's to resident_free(). */
struct resident *resident_of(struct replay *r, struct walk *w);

#endif
