/*
 * The states of pages, read from /proc/PID/pagemap piece by piece and coded as runs. The kernel
 * holds the mmap_lock of the process while it fills one piece, so a piece is small.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_PAGEMAP_H
#define MEMTRACE_PRELOAD_PAGEMAP_H

#include <stdint.h>

#define MT_PIECE_PAGES 8192u /* 64 KiB of pagemap, 32 MiB of addresses: 0.13 to 0.5 ms */
#define MT_SCAN_REGIONS 512u
#define MT_RUNS_BYTES (MT_PIECE_PAGES * 3u) /* a piece at its worst: each page another state */

struct mt_scan_region { /* linux/fs.h of 6.7: struct page_region */
	uint64_t start, end, categories;
};

struct mt_pagemap {
	int fd; /* of /proc/PID/pagemap */
	int no_scan; /* the kernel has no PAGEMAP_SCAN (before 6.7), or it is not allowed */
	uint64_t entries[MT_PIECE_PAGES];
	struct mt_scan_region regions[MT_SCAN_REGIONS];
	uint32_t run_state; /* of the open run */
	uint64_t run_pages;
	uint64_t resident; /* pages of all pieces since the walk began that were present */
	uint64_t shared; /* and of these with others: anonymous and not exclusive */
	uint32_t mixed; /* of the last read: bit i: the i-th 2 MiB of it are not all exclusive */
	uint64_t seen; /* pages since mt_pagemap_begin() */
	uint32_t used;
	uint8_t runs[MT_RUNS_BYTES * 2];
};

/* A new list of runs. */
void mt_pagemap_begin(struct mt_pagemap *m);

/* Adds the states of `pages` pages, at most a piece; start is page aligned. 0 or -errno. Sets bits of
 * `mixed`, which the caller clears, counted from the 2 MiB that `start` lies in. */
int mt_pagemap_read(struct mt_pagemap *m, uint64_t start, uint32_t pages);

/*
 * As mt_pagemap_read(), of private anonymous memory in a process that was forked just now: cheaper,
 * for the kernel need not look at the pages themselves. That a page is exclusive is seen where a
 * few MiB are: one page in each MiB is asked. Where the kernel can't, it reads.
 */
int mt_pagemap_read_forked(struct mt_pagemap *m, uint64_t start, uint32_t pages);

/*
 * As mt_pagemap_read(), where all pages were exclusive at an earlier look and the process did not
 * fork since: what is present is asked, and one page of each 2 MiB whether it still is exclusive.
 * If not, and where pages are huge, it reads.
 */
int mt_pagemap_read_own(struct mt_pagemap *m, uint64_t start, uint32_t pages);

/* Pages that are not looked at in this walk. */
void mt_pagemap_unseen(struct mt_pagemap *m, uint64_t pages);

/* Could the runs of one more piece be too many? */
int mt_pagemap_is_full(const struct mt_pagemap *m);

/* Ends the list: `used` bytes in `runs`, without runs of state 0 at the end. */
void mt_pagemap_end(struct mt_pagemap *m);

/* The first page at or after `start` that may have anything in it; `end`: none. */
uint64_t mt_pagemap_skip(struct mt_pagemap *m, uint64_t start, uint64_t end);

#endif
