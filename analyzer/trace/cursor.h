/*
 * The records of one stream, one after the other, with absolute times. A chunk that turns out to
 * be damaged is left at the damage, counted in the trace's problems, and the next one is read.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_CURSOR_H
#define MEMTRACE_ANALYZER_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memtrace/events.h"
#include "trace/reader.h"

#ifdef __cplusplus
extern "C" {
#endif

struct cursor {
	struct trace *trace;
	struct trace_problems *problems; /* the trace's */
	const struct trace_chunk *chunk; /* being read; NULL before the first record */
	const struct trace_chunk *next, *end; /* chunks to come */
	const uint8_t *p, *used, *slack; /* next record, end of records, end of the chunk */
	uint8_t *buf;
	size_t room;
	struct mt_codec codec;
	uint64_t last_time; /* highest so far */
	uint64_t bytes; /* payload of the chunks that were begun */

	/* The record: valid until the next cursor_next(). */
	struct mt_record record;
	uint64_t time; /* units; of a record without one, of the record before it */
	bool has_time;
};

/* Borrows the trace. Nothing is read before the first cursor_next(). */
void cursor_init(struct cursor *c, struct trace *t, const struct trace_stream *stream);
/* Only this one chunk of a stream. */
void cursor_init_chunk(struct cursor *c, struct trace *t, const struct trace_chunk *chunk);
/* False: no more records. */
bool cursor_next(struct cursor *c);
void cursor_release(struct cursor *c);

/* Has this kind of record a time of its own? */
bool record_has_time(unsigned int id);

#ifdef __cplusplus
}
#endif

#endif
