/*
 * What reader.c, salvage.c and snapshot.c share: the trace's insides.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_TRACE_INTERNAL_H
#define MEMTRACE_ANALYZER_TRACE_INTERNAL_H

#include "trace/reader.h"
#include "util/vec.h"

#ifdef __cplusplus
extern "C" {
#endif

#define WINDOW_BYTES (256u * 1024)

/* What stood in a nursery or among cells while the trace was written; see snapshot.c. */
struct trace_copy {
	uint64_t offset; /* of the chunk */
	uint8_t *bytes;
	uint32_t used;
};

struct trace {
	char *path;
	int fd; /* -1: in memory */
	const uint8_t *data; /* in memory */
	uint64_t size;
	uint8_t *window; /* part of the file that was looked at last */
	uint64_t window_at;
	size_t window_len;
	struct mt_file_header header; /* with impossible values replaced by the format's own */
	struct trace_problems problems;
	bool folded; /* see trace_is_folded() */
	VEC(struct trace_copy) copies;
	VEC(struct trace_chunk) chunks;
	VEC(struct trace_stream) streams;
	VEC(struct trace_process) processes;
};

/*
 * The one bounds check. `len` <= WINDOW_BYTES bytes at `offset`, or NULL when the file has not got
 * them. Valid until the next call.
 */
const uint8_t *trace_at(struct trace *t, uint64_t offset, size_t len);

/*
 * A file that is being written grows: makes bytes up to `wanted` part of what is seen, as far as
 * they are there by now. Nothing else does, so a fast writer can't keep the reader busy for ever.
 */
void trace_follow(struct trace *t, uint64_t wanted);

/* As many of `len` bytes at `offset` of the file as there are, now. */
size_t trace_read(const struct trace *t, uint64_t offset, uint8_t *to, size_t len);

/* snapshot.c: may a process be writing it; copies of what changes; used instead of the file. */
bool trace_is_written(struct trace *t);
void trace_copy_young(struct trace *t);
void trace_use_copies(struct trace *t);

/* Fills chunks, streams, processes and the problems that can be seen without decoding. */
void trace_index(struct trace *t);

#ifdef __cplusplus
}
#endif

#endif
