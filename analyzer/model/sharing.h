/*
 * Building struct process_cow (cow.h) while processes are replayed: what was alive at a fork is known
 * then and not afterwards.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_SHARING_H
#define MEMTRACE_ANALYZER_SHARING_H

#include "model/cow.h"
#include "model/pages.h"
#include "model/replay.h"

struct tally;

/* Memory that a process had pinned for a device. */
struct pinned_range {
	uint64_t start, end;
	uint32_t owner, site;
	bool is_registered;
};

/* Of a process: its walks, and what it inherited until that is settled. */
struct sharing {
	VEC(struct page_walk) walks; /* its own, by time; others' are added by sharing_finish() */
	bool open; /* the last one has no SCAN_END yet */
	bool holds; /* what its parent held when it was forked is here: */
	VEC(struct pinned_range) pinned;
	struct live_set at_fork;
	struct maps maps_at_fork, maps_own;
	struct touches *touches; /* touch.h; NULL: none */
};

/* The child's replay begins, with all that its parent has. */
void sharing_fork(struct replay *r, struct replay *parent);
/* Takes SCAN, RANGE and SCAN_END. */
void sharing_record(struct replay *r, const struct mt_record *record);
/* The process's last record was replayed; its maps are still there. */
void sharing_end(struct replay *r);
/* All processes were replayed, and the tree is known. Releases everything. */
void sharing_finish(struct builder *b);
void sharing_release(struct proc *p); /* without that */

/* pinned.c: what the parent had pinned at the fork; whose of that the fork copied; and from what is
 * known in the replay to what the model holds. */
void pinned_fork(struct sharing *s, const struct replay *parent);
void pinned_charge(const struct sharing *s, const struct tally *t, struct process_cow *cow);
void pinned_settle(struct builder *b);

/* sharing_family.c: bytes that the children of one process, and it, hold more than once; false: they
 * were not walked at about the same time. */
bool sharing_family(const struct builder *b, uint32_t parent, uint64_t *extra);

/* As walk_sites_of_run() and walk_sites_sorted(). */
void sharing_sites_of_run(struct builder *b, const uint32_t *new_id, uint32_t **of);
void sharing_sites_sorted(struct model *m, const uint32_t *place);

#endif
