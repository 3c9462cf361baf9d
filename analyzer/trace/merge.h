/*
 * All streams of one process as one sequence in order of time. What gives memory back comes before
 * what takes it at the same time: frees are stamped before the call and allocations after it, so
 * this order never shows an address in use twice. A record that does both (REALLOC, REMAP) comes
 * twice, at its two times, so that what other threads did with the address meanwhile lies between.
 * SURVIVOR and YOUNG come when their time says and not where they stand; what is still in a nursery
 * comes as SURVIVORs; at a stream's end its cells.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_MERGE_H
#define MEMTRACE_ANALYZER_MERGE_H

#include "trace/cursor.h"

#ifdef __cplusplus
extern "C" {
#endif

enum merge_part { PART_WHOLE, PART_FREE, PART_ALLOC };

struct merge; /* opaque */

struct merge_event {
	const struct mt_record *record; /* valid until the next merge_next() */
	const struct mt_cell
		*cell; /* not NULL: no record, but a stream's count of what it folded */
	enum merge_part part;
	uint32_t stream; /* number of the stream in the trace */
	uint32_t slot; /* index of the stream within this merge: dense from 0 */
	uint64_t time; /* units; never less than the event before */
	const struct cursor *cursor; /* where the record stands */
};

/* Borrows the trace. */
struct merge *merge_new(struct trace *t, const struct trace_process *process);
/* False: no more. */
bool merge_next(struct merge *m, struct merge_event *e);
uint64_t merge_bytes(const struct merge *m); /* payload of the chunks begun so far */
size_t merge_streams(const struct merge *m);
void merge_free(struct merge *m); /* accepts NULL */

#ifdef __cplusplus
}
#endif

#endif
