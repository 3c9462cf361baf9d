/*
 * What the resident pages of a process held when they were walked (FORMAT.md 3.9): every page is
 * put into a class by evidence of its own, and its bytes are split where it holds parts of several.
 *
 *	per page of a heap of glibc's: requested bytes of live blocks are `live`; chunk headers and
 *	what a size was rounded up by, `rounding`; the rest of a page that has either is `pinned`;
 *	of a page that has neither `returnable`, if malloc_trim() would give it back, else `pinned`.
 *
 * Bytes are integers and the parts of a page sum to its size, so those of the process sum to what
 * is resident.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_RESIDENT_H
#define MEMTRACE_ANALYZER_RESIDENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memtrace/format.h"

#ifdef __cplusplus
extern "C" {
#endif

enum resident_part {
	RESIDENT_LIVE,
	RESIDENT_ROUNDING,
	RESIDENT_RETURNABLE, /* whole free pages of allocators that know how to give them back */
	RESIDENT_PINNED, /* free bytes beside something that is alive, or that trimming skips */
	RESIDENT_PYTHON, /* free in arenas of CPython's allocator */
	RESIDENT_FILE,
	RESIDENT_SHM,
	RESIDENT_STACKS,
	RESIDENT_TOOL,
	RESIDENT_OTHER,
	RESIDENT_UNTRACED,
	RESIDENT_PARTS,
};

/* Memory that is told by name: a file, a shared segment, a stack, or nobody's. */
struct resident_name {
	char *name;
	enum resident_part part;
	uint64_t bytes;
	uint64_t private_bytes; /* of them: pages of the process's own, that no file backs */
	uint64_t start, end; /* of the first mapping, and of the last */
	uint32_t mappings;
	const char *reason; /* static; why it is untraced; NULL */
};

enum heap_kind {
	HEAP_MAIN, /* glibc, moved by brk */
	HEAP_ARENA, /* glibc, a further arena: all its heaps together */
	HEAP_CHUNKS, /* glibc, blocks that have a mapping each */
	HEAP_PYTHON, /* arenas of CPython's allocator */
	HEAP_MAPPED, /* mappings that another allocator made; `site` made the first */
};

#define HEAP_LEVELS 5 /* pages by how full they are: up to 1/8, 1/4, 1/2, 3/4, above */
#define HEAP_CLIFF 4

/* What the `count` topmost blocks keep from being given back. */
struct heap_cliff {
	uint32_t count;
	uint64_t bytes;
};

struct resident_heap {
	enum heap_kind kind;
	uint64_t id; /* ARENA: address of its state; else 0 */
	uint64_t start, end; /* lowest and highest address */
	uint32_t parts; /* heaps, arenas or mappings it consists of */
	uint64_t resident, live, rounding, returnable, pinned, free; /* free: PYTHON only */
	uint64_t blocks; /* live ones; PYTHON: in use, from the pools' own counts */
	uint64_t run_bytes; /* of `returnable`: in free runs of 128 KiB and more */
	uint64_t top; /* of `pinned`: in the topmost chunk of an ARENA, which trimming skips */
	uint64_t largest_block; /* requested bytes of the largest live block */
	uint64_t pages[HEAP_LEVELS]; /* with something alive, by share of bytes in use */
	struct heap_cliff cliff[HEAP_CLIFF]; /* MAIN only; count 0: none */
	uint32_t top_owner, top_site; /* of the topmost live block; see resident_pin */
	uint64_t top_size;
	int64_t top_birth;
	/* PYTHON */
	uint64_t pools, free_pools, unread_pools;
	uint64_t free_pool_bytes, pinned_arenas; /* arenas with both free pools and used ones */
	uint32_t owner, site; /* MAPPED, PYTHON: who made the first mapping */
};

/* Pages of heaps whose only live blocks are of one site. */
struct resident_pin {
	uint32_t owner, site; /* while replaying: the process and its site; in the model: `site` is
			       * an index in model->sites, NO_ID where it was left out */
	enum heap_kind kind;
	uint64_t pages, pinned; /* pages, and free bytes in them */
	uint64_t blocks, block_bytes; /* of it in these pages */
	int64_t oldest, newest; /* births, ns */
	double age; /* mean, ns */
};

/* Live blocks and mappings of at least 128 KiB of one site. */
struct resident_large {
	uint32_t owner, site; /* as in resident_pin */
	uint64_t blocks, bytes; /* asked for */
	uint64_t touched, swapped; /* of them in memory, and in swap; the rest was never touched */
};

struct resident {
	int64_t time; /* when the walk began */
	enum mt_scan_reason reason;
	bool complete; /* every mapping was walked */
	/* The library that serves malloc where glibc's own does not: "jemalloc", "tcmalloc" or
	 * "mimalloc"; its heaps are MAPPED. NULL: glibc's. Static. */
	const char *other_malloc;
	bool sampled; /* not all live blocks were known: heaps are untraced */
	uint64_t bytes; /* resident, the sum of parts */
	uint64_t rss; /* of /proc at that time; 0: not measured */
	uint64_t swapped, huge; /* bytes in swap; in huge pages */
	uint64_t parts[RESIDENT_PARTS];
	struct resident_name *names; /* by part, largest first */
	size_t name_count;
	struct resident_heap *heaps;
	size_t heap_count;
	struct resident_pin *pins; /* most pinned bytes first */
	size_t pin_count;
	struct resident_large *larges; /* most bytes first; none where `sampled` */
	size_t large_count;
	uint64_t walk_cpu_ns;
	/* The largest block between 128 KiB and 32 MiB freed before: glibc's M_MMAP_THRESHOLD is
	 * raised to it, unless that was set. 0: none. */
	uint64_t large_freed;
	uint64_t large_in_heap; /* bytes of larger blocks that lay in heaps at one time, at most */
	uint32_t large_owner, large_site;
};

void resident_free(struct resident *r); /* accepts NULL */

#ifdef __cplusplus
}
#endif

#endif
