/*
 * Who touched what forked workers copied, by line: beside whose it was. See model/touch.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_ANALYSIS_TOUCHED_H
#define MEMTRACE_ANALYZER_ANALYSIS_TOUCHED_H

#include "analysis/analysis.h"
#include "util/hashmap.h"
#include "util/vec.h"

struct finding;

/* A line that touched something. */
struct toucher {
	char *text, *function; /* owned; function NULL: none to tell */
	uint32_t native, python; /* the stack that touched most */
	uint64_t most;
};

struct touch_row {
	uint32_t site; /* NO_ID: nobody's */
	uint32_t process, toucher; /* indices */
	uint64_t bytes;
};

struct touched {
	struct analysis_input *in;
	VEC(struct toucher) touchers;
	VEC(struct touch_row) rows; /* by site */
	uint64_t *copied; /* by site: in the workers in which it was measured */
	struct hashmap by_stack, by_text;
	uint64_t all; /* copied in those workers */
	bool measured; /* in any */
};

void touched_init(struct touched *t, struct analysis_input *in);
void touched_release(struct touched *t);

/* Was it asked for, and why is it not known where it was. NULL: it is, or nobody asked. */
bool touched_wanted(const struct model *m);
const char *touched_why_not(const struct model *m);

/* "touched_by" of a site, a worker, or of them all; null where it was not measured. */
void put_touched_site(const struct touched *t, struct result *doc, struct rvalue *o, uint32_t site);
void put_touched_worker(const struct touched *t, struct result *doc, struct rvalue *o,
			const struct process *p);
void put_touched_all(const struct touched *t, struct result *doc, struct rvalue *o);

/* Adds who touched what was copied of the sites in these processes. of_site[site] == mark: it is one
 * of them; of_site NULL: all are. */
void touched_say(const struct touched *t, struct finding *f, const uint32_t *of_site, uint32_t mark,
		 const uint32_t *processes, size_t count);

#endif
