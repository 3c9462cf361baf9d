/*
 * Who touched what a forked process copied: the first fault on each page (TOUCH records), joined with
 * the pages that its walks say were copied and with whose blocks lay on them.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_TOUCH_H
#define MEMTRACE_ANALYZER_TOUCH_H

#include "model/tally.h"

/* A fault, as recorded. Stacks: ids of the process. */
struct touch {
	uint64_t addr;
	uint32_t weight, order;
	uint32_t native, python;
};

struct touches {
	VEC(struct touch) all;
};

/* While pages are charged to whose they were. */
struct touch_join {
	uint32_t
		*of_page; /* by copied page: index in touches + 1; 0: not known. NULL: no touches */
	const struct touches *from;
	struct hashmap index; /* part, native, python to a place in list */
	VEC(struct cow_touch) list;
	double total;
};

void touch_record(struct replay *r, const struct mt_ev_touch *e);

void touch_join_begin(struct touch_join *j, struct touches *from, const struct tally *t);
/* So many bytes of a copied page are of the part (index in the tally's sites); NO_ID: of nobody. */
void touch_join_add(struct touch_join *j, size_t page, uint32_t part, uint64_t bytes);
/* To *cow. share: of each page that counts. */
void touch_join_end(struct touch_join *j, struct process_cow *cow, double share);

/* Stacks become canonical; then parts become sites of the run. */
void touch_stacks(struct builder *b, struct proc *p, struct process_cow *cow);
void touch_sites(struct process_cow *cow);

void touches_release(struct touches *t); /* accepts NULL; frees it */

#endif
