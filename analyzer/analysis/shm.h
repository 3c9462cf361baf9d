/*
 * What the section on shared memory and its findings count together. Times are ns since the start of
 * the first trace (process_time()), so that several traces can be looked at as one.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_ANALYSIS_SHM_H
#define MEMTRACE_ANALYZER_ANALYSIS_SHM_H

#include "model/model.h"
#include "util/vec.h"

/* A span of time in which something holds so many bytes. */
struct span {
	int64_t from, to; /* both included; INT64_MAX: open */
	uint64_t bytes;
	uint32_t object;
};

typedef VEC(struct span) span_list;

/* The moment at which spans hold the most bytes together; the last such one, just before something
 * is given back: what is on its way from one process to another has arrived by then. */
struct span_peak {
	uint64_t bytes;
	size_t count;
	int64_t time; /* meaningless where count is 0 */
};

/* Sorts the spans. */
struct span_peak spans_peak(span_list *spans);

int64_t shm_time(const struct model *m, const struct shm_object *o, int64_t ns);

/* Of all objects of the run, each counted once. */
struct span_peak shm_peak(const struct model *m);

/* Does the use map the object at that time (of its own trace)? */
bool shm_maps_at(const struct shm_use *u, int64_t ns);

/* When the object was first mapped by another than its creator; INT64_MAX: never. */
int64_t shm_arrival(const struct model *m, const struct shm_object *o);

/* Is the process the loader's, or above it? Then what the creator makes is made for it. */
bool shm_is_made_for(const struct model *m, const struct shm_object *o, uint32_t process);

#endif
