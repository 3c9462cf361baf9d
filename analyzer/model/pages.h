/*
 * Walks over the pages of processes (docs/FORMAT.md 3.9), as far as copy-on-write needs them: which
 * pages of private anonymous memory were there, and which were the process's own. Many walks of
 * many workers are held at once, so the runs stay coded.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_PAGES_H
#define MEMTRACE_ANALYZER_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memtrace/events.h"
#include "util/vec.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Calls fn for the states that a record's `runs` give its pages, from page number `first` on; pages
 * after the last run have none. Pages that were not read get the state they are taken to have.
 * False: damage; what came before it was told.
 */
typedef void page_run_fn(void *arg, uint64_t first, uint64_t count, uint32_t state);
bool page_runs_each(struct mt_str runs, uint64_t first, uint64_t pages, page_run_fn *fn, void *arg);

/* Pages of one state, by number: address / page_bytes. */
struct page_run {
	uint64_t first, count;
	uint32_t state; /* enum mt_page_state; never 0, no files */
};

struct page_walk {
	int64_t time; /* ns since the trace's start, when it began */
	uint32_t pid; /* whose pages; 0: of the process that made it */
	uint64_t id; /* in the process that made it */
	enum mt_scan_reason reason;
	uint64_t scope; /* enum mt_scan_scope */
	uint32_t repeats; /* how many in a row, with this, only said that the one before stands */
	bool complete;
	bool bad; /* ranges that overlap or go back, runs that don't fit: not to be used */
	uint32_t page_bytes;
	uint32_t part; /* pages that were read of each MT_PAGE_GROUP */
	uint64_t minflt; /* one more than measured; 0: not measured */
	VEC(uint8_t) coded; /* gap to the last run's end, state, count; as varints */
	uint64_t end; /* page after the last one coded */
};

/* False: the record can't be true. */
bool page_walk_begin(struct page_walk *w, const struct mt_ev_scan *e, int64_t time);
bool page_walk_add(struct page_walk *w, const struct mt_ev_range *e);
/* MT_SCAN_NONE: the pages are those of an earlier walk. */
void page_walk_repeat(struct page_walk *w, const struct page_walk *earlier);
void page_walk_release(struct page_walk *w);

/* Goes over the runs in order. Zeroed but for `walk` to begin with; false: no more. */
struct page_cursor {
	const struct page_walk *walk;
	size_t at;
	uint64_t end;
	struct page_run run;
};
bool page_next(struct page_cursor *c);

/*
 * Two walks side by side: calls fn for every stretch of pages in which neither changes; a state is
 * 0 where a walk has nothing. Not called where both have nothing.
 */
typedef void page_pair_fn(void *arg, uint64_t first, uint64_t count, uint32_t a, uint32_t b);
void page_pairs(const struct page_walk *a, const struct page_walk *b, page_pair_fn *fn, void *arg);

#ifdef __cplusplus
}
#endif

#endif
