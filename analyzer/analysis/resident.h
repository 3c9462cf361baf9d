/*
 * What the sections `rss` and `fragmentation` and their findings share.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_ANALYSIS_RESIDENT_H
#define MEMTRACE_ANALYZER_ANALYSIS_RESIDENT_H

#include "analysis/analysis.h"

/* A process's heaps of one allocator, summed. */
struct allocator_sum {
	const char *name; /* static, or the model's: "glibc", "pymalloc", "jemalloc" ... */
	bool is_glibc, is_python;
	uint64_t live, resident, rounding, returnable, pinned;
	uint64_t main_returnable, run_bytes; /* glibc: of the main heap; in free runs of 128 KiB */
	uint64_t arenas, arena_free, arena_top; /* glibc: further arenas */
};

/* Fills at most 4, returns how many; only those with something resident. */
size_t allocator_sums(const struct model *m, const struct resident *r, struct allocator_sum *sums);

/* The walk that tells how a process ended up: the last one. NULL: none. */
static inline const struct resident *resident_at_end(const struct process *p)
{
	return p->resident_last;
}

/* The allocator that made a mapping, from the module of the call: "jemalloc"; NULL: not known. */
const char *allocator_name(const struct model *m, uint32_t site);

/* By process: is it a helper so small that tables tell of all of them in one line? The caller's. */
bool *small_processes(const struct model *m);

/* Is a heap of glibc's of that kind: what trimming applies to? */
static inline bool heap_is_glibc(enum heap_kind kind)
{
	return kind == HEAP_MAIN || kind == HEAP_ARENA || kind == HEAP_CHUNKS;
}

#endif
