/*
 * What a forked process copied of the memory it shared with its parent: pages that were shared when
 * it began and are its own in a later walk, and whose blocks lay on them at the fork. Pages are
 * charged whole: to the blocks alive on them at the fork in proportion, else to the mapping they
 * belong to, else to nobody (memory that was free and is used again).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_MODEL_COW_H
#define MEMTRACE_ANALYZER_MODEL_COW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A site's part in what one process copied. */
struct cow_site {
	uint32_t site; /* index in model->sites */
	uint64_t copied; /* bytes of pages */
	uint64_t blocks; /* of the site that lay on copied pages; 0: a mapping as a whole */
};

/* A mapping that backs an allocator, such as a Python arena: all pages of the site's. */
struct cow_backing {
	uint32_t site;
	uint64_t shared, copied; /* bytes */
};

/* What was copied of a site's, by who touched it first. Several may have one stack. */
struct cow_touch {
	uint32_t site; /* index in model->sites; NO_ID: nobody's */
	uint32_t native, python; /* stack of who touched */
	uint64_t bytes;
	double weighted; /* while it is being made */
};

/* Of the pages that the fork copied at once: those in memory that its parent had pinned for a device. */
struct cow_pinned {
	uint32_t native, python; /* stacks of who pinned it */
	bool is_registered; /* it was there already (cudaHostRegister); else made so (cudaHostAlloc) */
	uint64_t bytes;
};

struct cow_point {
	int64_t time; /* ns since the trace's start */
	uint64_t copied; /* bytes */
};

struct process_cow {
	int64_t scan_time; /* of the walk that the numbers are of: the last one */
	bool has_baseline; /* it was walked when it began; else all it had is taken as shared then */
	bool by_relative; /* the last walk was made by another process */
	uint64_t shared; /* bytes it shared with its parent when it began */
	uint64_t copied, eager,
		unknown; /* bytes; eager: copied by the fork itself; unknown: swapped */
	uint64_t copied_error; /* bytes, 95 %; of reading a part of the pages; 0: all were read */
	uint64_t reused; /* of copied: no block and no mapping known there at the fork */
	struct cow_site *sites; /* largest first */
	size_t site_count;
	struct cow_backing *backing;
	size_t backing_count;
	struct cow_pinned *pinned; /* of eager, largest first */
	size_t pinned_count;
	struct cow_point *points; /* by time */
	size_t point_count;
	struct cow_touch *touches; /* what is missing to `copied` was touched by nobody known */
	size_t touch_count;
};

void process_cow_free(struct process_cow *cow); /* accepts NULL */

#ifdef __cplusplus
}
#endif

#endif
