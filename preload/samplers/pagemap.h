/*
 * The states of pages, read from /proc/PID/pagemap piece by piece and coded as runs. The kernel
 * holds the mmap_lock of the process while it fills one piece, so a piece is small.
 *
 * It looks at the descriptor of each page for that, a cache miss each: 15 to 25 ms of CPU time for
 * each GiB. So of a large process a part is read: of each 2 MiB the same few neighbouring pages, at a
 * place that depends on the address alone. Parents and children then read the same pages, and what
 * is said of all of them together holds for those exactly. Which pages are there costs little, and
 * is asked of all.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_PAGEMAP_H
#define MEMTRACE_PRELOAD_PAGEMAP_H

#include <stdint.h>

#include "memtrace/format.h"

#define MT_PIECE_PAGES 8192u /* 64 KiB of pagemap, 32 MiB of addresses: 0.13 to 0.5 ms */
#define MT_GROUP_PAGES MT_PAGE_GROUP /* a huge page's: of these some are read */
#define MT_GROUP_SHIFT 9
#define MT_SAMPLE_LEAST 16u /* so many, or more */
#define MT_SAMPLE_BYTES (UINT64_C(32) << 20) /* and about so much of a process, if it has it */
#define MT_SCAN_REGIONS 512u
#define MT_RUNS_BYTES (MT_PIECE_PAGES * 3u) /* a piece at its worst: each page another state */

struct mt_scan_region { /* linux/fs.h of 6.7: struct page_region */
	uint64_t start, end, categories;
};

struct mt_pagemap {
	int fd; /* of /proc/PID/pagemap */
	int no_scan; /* the kernel has no PAGEMAP_SCAN (before 6.7), or it is not allowed */
	int anonymous; /* what is read is no file's: pages of zeros may be among it */
	int by_core; /* mincore() tells what is there: of the process itself, without swap */
	int exact; /* what is there is to be known of every page, so else all are read */
	uint32_t part; /* pages that are read in each group: a power of 2, MT_GROUP_PAGES: all */
	uint64_t entries[MT_PIECE_PAGES];
	uint8_t core[MT_PIECE_PAGES];
	struct mt_scan_region regions[MT_SCAN_REGIONS];
	uint32_t run_state; /* of the open run */
	uint64_t run_pages;
	uint64_t there; /* pages that mincore() said to be there since the walk began */
	uint64_t seen; /* pages since mt_pagemap_begin() */
	uint32_t used;
	uint8_t runs[MT_RUNS_BYTES * 2];
};

/* A new list of runs. */
void mt_pagemap_begin(struct mt_pagemap *m);

/* Adds the states of `pages` pages, at most a piece; start is page aligned. 0 or -errno. */
int mt_pagemap_read(struct mt_pagemap *m, uint64_t start, uint32_t pages);

/*
 * As mt_pagemap_read(), of private anonymous memory in a process that was forked just now: it is
 * shared, which is confirmed by one page in each MiB.
 */
int mt_pagemap_read_forked(struct mt_pagemap *m, uint64_t start, uint32_t pages);

/* How many pages of a group are to be read where so many bytes are resident. */
uint32_t mt_pagemap_part(uint64_t bytes);

/*
 * As mt_pagemap_read(), of private anonymous memory: m->part pages of each group that lies in it as
 * a whole; the others are MT_PAGE_LIKE them, or not there. Huge pages are read.
 */
int mt_pagemap_sample(struct mt_pagemap *m, uint64_t start, uint32_t pages);

/* Could the runs of one more piece be too many? */
int mt_pagemap_is_full(const struct mt_pagemap *m);

/* Ends the list: `used` bytes in `runs`, without runs of state 0 at the end. */
void mt_pagemap_end(struct mt_pagemap *m);

/* The first page at or after `start` that may have anything in it; `end`: none. */
uint64_t mt_pagemap_skip(struct mt_pagemap *m, uint64_t start, uint64_t end);

#endif
