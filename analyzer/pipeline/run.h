/*
 * From files to a model: opens traces, merges each process's streams by time, replays them. Also
 * hands out the raw records one by one, for `dump`, and counts what is wrong, for `check`.
 *
 * Errors of a file never end the program: they are in the report, and the other files are read.
 * Not thread-safe.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_PIPELINE_RUN_H
#define MEMTRACE_ANALYZER_PIPELINE_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memtrace/events.h"
#include "model/model.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A zeroed struct restricts nothing. Strings are borrowed for the duration of the call. */
struct pipeline_options {
	uint32_t pid; /* --pid; 0: all */
	const char *role; /* --role, a CONTRACT name; NULL: all */
	const char *from, *to; /* --from, --to: seconds ("1.5") or "@label" of a mark; NULL: open */
	/* Called now and then with bytes of records replayed and to replay; NULL: never. */
	void (*progress)(void *arg, uint64_t done, uint64_t total);
	void *progress_arg;
};

/* What `check` prints of one file, one row per count; see pipeline_check_rows. */
enum pipeline_count {
	COUNT_CHUNKS,
	COUNT_RECORDS,
	COUNT_RECORD_BYTES,
	COUNT_PROCESSES,
	COUNT_STREAMS,
	COUNT_SILENT_PROCESSES,
	/* from here on: problems when not 0 */
	COUNT_HEADER_DAMAGE,
	COUNT_MISSING_BYTES,
	COUNT_GARBAGE_BYTES,
	COUNT_CUT_CHUNKS,
	COUNT_BAD_CHUNKS,
	COUNT_BAD_BYTES,
	COUNT_UNCOUNTED_CHUNKS,
	COUNT_MISSING_CHUNKS,
	COUNT_DUPLICATE_CHUNKS,
	COUNT_LOST_EVENTS,
	COUNT_BAD_VALUES,
	COUNT_MISSING_ENTRIES,
	COUNT_UNKNOWN_RECORDS,
	COUNT_UNKNOWN_FREES,
	COUNT_MISSED_FREES,
	COUNT_WRITER_ERROR,
	COUNTS,
};

struct pipeline_count_row {
	const char *key; /* for JSON: "missing_chunks" */
	const char *text; /* for people: "chunks missing from their stream" */
	bool is_problem;
};
extern const struct pipeline_count_row pipeline_count_rows[COUNTS];

struct pipeline_check {
	char *path;
	uint64_t bytes; /* size of the file */
	uint64_t counts[COUNTS];
	bool running; /* a process still writes it */
};

struct pipeline_report {
	char **errors; /* one sentence per path that could not be read */
	size_t error_count;
	bool usage_error; /* the (only) error is about an option: bad time, unknown mark ... */
	struct pipeline_check
		*checks; /* one per trace that was read, in the order of the model's */
	size_t check_count;
};

/*
 * Reads all traces of the paths (a folder: every trace in it) into one model. NULL: nothing could
 * be read, or usage_error. The caller owns the model (model_free) and the report, which is filled
 * from scratch and may be released in any case.
 */
struct model *pipeline_run(const char *const *paths, size_t n, const struct pipeline_options *opt,
			   struct pipeline_report *rep);

/* The same for one trace that lies in memory: for tests and fuzzers. */
struct model *pipeline_run_buffer(const void *data, size_t size, const char *name,
				  const struct pipeline_options *opt, struct pipeline_report *rep);

void pipeline_report_release(struct pipeline_report *rep);

/*
 * A record as it stands in the file, for `dump`; or what stands in a nursery or among cells instead
 * of records: then one of the others is not NULL. Pointers are valid during the callback.
 */
struct pipeline_record {
	uint32_t proc; /* number of the process in its trace; 0 never */
	uint32_t pid; /* 0: its PROCESS record is missing */
	uint32_t stream;
	uint32_t seq; /* of the chunk */
	uint64_t chunk; /* offset of the chunk in the file */
	bool has_time; /* else: the time of the record before it */
	uint64_t units; /* absolute time, ticks >> time_shift */
	int64_t time; /* ns since the trace's start */
	const struct mt_record *record;
	const struct mt_nursery *nursery; /* a nursery begins; its entries follow */
	const struct mt_cell *folding; /* what a cell is to be: a fold was under way */
	const struct mt_young *young; /* entry `index` of the nursery */
	uint32_t index;
	const struct mt_cell *cell;
};

typedef int pipeline_record_fn(void *arg, const struct pipeline_record *r); /* not 0: stop */

enum pipeline_order {
	ORDER_FILE, /* chunk by chunk as they lie in the file */
	ORDER_TIME, /* process by process, each in order of time */
};

/* 0, the callback's value, or -1 when the file can't be read: *error is then the caller's. */
int pipeline_dump(const char *path, enum pipeline_order order, pipeline_record_fn *fn, void *arg,
		  char **error);

#ifdef __cplusplus
}
#endif

#endif
