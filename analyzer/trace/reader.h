/*
 * A trace file as chunks: opens it, checks its header, finds every chunk that is whole enough to
 * be read and sorts them into processes and streams. Works on a file that is still being written,
 * was cut off, or is damaged at any byte: what can't be read is counted in struct trace_problems
 * and skipped. Decoding records is cursor.h.
 *
 * The file is read with pread(), never mapped: a file that shrinks meanwhile must not end us with
 * SIGBUS. What is there at trace_open() is what the reader sees. Not thread-safe.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_READER_H
#define MEMTRACE_ANALYZER_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memtrace/format.h"

#ifdef __cplusplus
extern "C" {
#endif

struct trace; /* opaque */

struct trace_chunk {
	uint64_t offset; /* of its header in the file */
	uint64_t base_time;
	uint64_t low_water; /* no event of this or a later chunk of the stream is older */
	uint64_t lost;
	uint32_t proc, stream, seq, kind;
	uint32_t used; /* payload bytes that are there */
	uint32_t slack; /* bytes behind them that belong to the chunk */
	bool copied; /* its payload changes: what stood there before the records were looked at */
	const uint8_t *copy; /* the trace's; NULL with copied: nothing */
	bool cut; /* its header says more bytes than there are */
};

/* Chunks of one stream, each kind in order: trace->chunks[first] and on. Records come first, then
 * nurseries, then counters, then what this reader does not know. */
struct trace_stream {
	uint32_t proc, stream;
	size_t first, count; /* of records; count 0: they are lost */
	size_t nurseries, counters;
	size_t all; /* of any kind */
};

/* Streams of one process: trace->streams[first] and on. */
struct trace_process {
	uint32_t proc;
	size_t first, count;
};

struct trace_problems {
	uint64_t header_damage; /* fields of the file header that can't be true */
	uint64_t missing_bytes; /* claimed by writers, but the file ends before */
	uint64_t garbage_bytes; /* not zero, and in no chunk */
	uint64_t cut_chunks; /* `used` is more than the chunk has */
	uint64_t bad_chunks; /* hold bytes that are no record */
	uint64_t bad_bytes; /* of those chunks, from there on: not read */
	uint64_t uncounted_chunks; /* hold whole records behind what was committed */
	uint64_t missing_chunks; /* gaps in a stream's sequence */
	uint64_t duplicate_chunks; /* second of the same number: not read */
	uint64_t lost_events; /* dropped by the writer, by its own count */
	uint64_t lost_processes; /* have a number and no chunk: new, or killed at their start */
	uint64_t unknown_records; /* of a later format version: skipped */
	uint64_t records, record_bytes; /* decoded so far: no problem, but counted here */
};

/*
 * NULL: it can't be read at all; *error is then a sentence with the path in it, the caller's to
 * free(). The buffer of trace_open_buffer() must stay until trace_close().
 */
struct trace *trace_open(const char *path, char **error);
struct trace *trace_open_buffer(const void *data, size_t size, const char *name, char **error);
void trace_close(struct trace *t); /* accepts NULL */

const char *trace_path(const struct trace *t);
uint64_t trace_bytes(const struct trace *t); /* size when it was opened */
const struct mt_file_header *trace_header(const struct trace *t);
struct trace_problems *trace_damage(struct trace *t);

const struct trace_chunk *trace_chunks(const struct trace *t, size_t *count);
const struct trace_stream *trace_streams(const struct trace *t, size_t *count);
const struct trace_process *trace_processes(const struct trace *t, size_t *count);
/* NULL: no chunk of it. */
const struct trace_process *trace_find(const struct trace *t, uint32_t proc);

/*
 * The chunk's payload and behind it its slack: *used bytes, then *slack bytes, both possibly less
 * than the chunk says when the file has shrunk since. Points into the trace's memory, or to *buf,
 * which is grown to *room as needed and is the caller's to free().
 */
const uint8_t *trace_payload(struct trace *t, const struct trace_chunk *chunk, uint8_t **buf,
			     size_t *room, uint32_t *used, uint32_t *slack);

/* May there be nurseries, and records that stand later than their time? */
bool trace_is_folded(const struct trace *t);
void trace_set_folded(struct trace *t); /* its records say so */

/* Has its writer added records since the trace was opened? They are not read. */
bool trace_chunk_grew(struct trace *t, const struct trace_chunk *chunk);

#ifdef __cplusplus
}
#endif

#endif
