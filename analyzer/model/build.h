/*
 * Building a model from records, whoever reads them: the pipeline from a file, a test from memory.
 *
 *	b = builder_new(&options);
 *	t = builder_trace(b, &info);
 *	builder_process(b, t, number, ...);        every process of every trace
 *	builder_begin(b);                          ids are fixed: order of start
 *	for each root: r = replay_new(b, id, NULL); replay_record(r, ...) ...; replay_free(r);
 *	    A forked child is replayed when its parent has come to the child's fork_time, by
 *	    replay_new(b, child, parent's replay), before the parent's next record.
 *	model = builder_finish(b);
 *
 * Records may hold anything: what can't be true is counted as a bad value and left out.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_BUILD_H
#define MEMTRACE_ANALYZER_BUILD_H

#include "memtrace/events.h"
#include "model/model.h"

#ifdef __cplusplus
extern "C" {
#endif

struct builder;
struct replay;

struct build_options {
	uint32_t pid; /* 0: all */
	const char *role; /* NULL: all; borrowed until builder_finish() */
	bool has_from, has_to;
	int64_t from, to; /* ns since a trace's start */
};

/* A trace's clock: a second point beside the header's start. */
struct build_clock {
	uint64_t ticks; /* 0: none known */
	uint64_t monotonic_ns;
};

struct build_trace {
	const char *path; /* copied */
	uint64_t bytes;
	const struct mt_file_header *header; /* copied */
	struct build_clock clock;
};

/* Which of the two times of a REALLOC or REMAP; PART_WHOLE for all other records. */
enum replay_part { REPLAY_WHOLE, REPLAY_FREE, REPLAY_ALLOC };

struct builder *builder_new(const struct build_options *options);
/* Returns the trace's index. */
uint32_t builder_trace(struct builder *b, const struct build_trace *info);
/* ev NULL: the PROCESS record is missing. first_time in units: of its first chunk. */
void builder_process(struct builder *b, uint32_t trace, uint32_t number,
		     const struct mt_ev_process *ev, uint64_t first_time);
void builder_begin(struct builder *b);

size_t builder_count(const struct builder *b); /* processes */
/* Which process of which trace an id is; inherits: from whom it inherits its live set or NO_ID. */
struct build_process {
	uint32_t trace, number;
	uint32_t inherits;
	uint64_t fork_time; /* units */
};
struct build_process builder_get(const struct builder *b, uint32_t id);
int64_t builder_ns(const struct builder *b, uint32_t trace, uint64_t units);

/* parent: the replay it inherits from, at the fork; NULL: none. */
struct replay *replay_new(struct builder *b, uint32_t id, struct replay *parent);
/* stream: any number below 2^32 that tells streams of the process apart, dense from 0. */
void replay_record(struct replay *r, const struct mt_record *record, enum replay_part part,
		   uint32_t stream, uint64_t time);
/* What a stream folded, after its last record. Streams as above; time: not before the last one's. */
void replay_cell(struct replay *r, const struct mt_cell *cell, uint32_t stream, uint64_t time);
/* Ends the process and frees the replay. */
void replay_free(struct replay *r);

/* Counts about the data of one trace, after builder_finish() kept by the caller's copy. */
struct build_counts {
	uint64_t bad_values, missing_entries, unknown_frees, missed_frees;
};

/* A sentence for the report; the same one twice is kept once. */
__attribute__((format(printf, 2, 3))) void builder_note(struct builder *b, const char *fmt, ...);

/* Frees the builder. counts: one per trace, or NULL. */
struct model *builder_finish(struct builder *b, struct build_counts *counts);
void builder_free(struct builder *b); /* without a model; accepts NULL */

#ifdef __cplusplus
}
#endif

#endif
