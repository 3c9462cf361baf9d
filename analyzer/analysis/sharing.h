/*
 * Copy-on-write, judged: what one worker copied and why. Used by the section and by the findings.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_ANALYSIS_SHARING_H
#define MEMTRACE_ANALYZER_ANALYSIS_SHARING_H

#include "analysis/analysis.h"

enum cow_cause {
	COW_NONE, /* too little was copied to ask */
	COW_REFCOUNT,
	COW_GC,
	COW_REUSE,
	COW_WRITES,
	COW_MIXED,
};
extern const char *const cow_cause_names[]; /* NULL for COW_NONE */

/* What a site's memory is: decides what a copy of it means. */
enum cow_class { COW_OBJECTS, COW_DATA, COW_FREE };

struct sharing_view {
	const struct model *m;
	enum cow_class *class_of; /* by site */
	bool *arena; /* by site: a mapping in which Python keeps small objects */
	bool *imports; /* by site: made while a module was imported */
};

void sharing_view_init(struct sharing_view *v, struct analysis_input *in);
void sharing_view_release(struct sharing_view *v);

enum cow_cause sharing_cause(const struct sharing_view *v, const struct process_cow *cow);

/* Python's objects that it shared when it began: all of this could be copied by reading. */
uint64_t sharing_countable(const struct sharing_view *v, const struct process_cow *cow);

/* The same, over the workers that were alive together, at most. */
uint64_t sharing_forecast(const struct sharing_view *v);

/* Does a worker copy more and more, as far as its walks tell? */
enum cow_course {
	COW_COURSE_UNKNOWN, /* too few walks, or too little was copied */
	COW_RISING,
	COW_LEVEL, /* hardly anything came in the last third of its time, or there is no more to copy */
};
enum cow_course sharing_course(const struct sharing_view *v, const struct process_cow *cow);

/* Bytes copied for each byte written at least, when each object there was touched; 0: not known. */
double sharing_amplification(const struct sharing_view *v, uint32_t site, uint64_t copied,
			     uint64_t blocks);

#endif
