/*
 * What of a stream does not stand where its time says: SURVIVOR and YOUNG records, which are
 * written later, and what is still in the nursery. Hands it out in order of time beside a cursor
 * that reads the same stream. Reads ahead as far as needed and no further: up to the first chunk
 * whose low_water is later than the time asked for, so what it holds is one nursery's worth, and
 * the few YOUNG records of the stream. Afterwards it has the stream's cells.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_AHEAD_H
#define MEMTRACE_ANALYZER_AHEAD_H

#include "trace/cursor.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ahead; /* opaque */

/* Borrows the trace. */
struct ahead *ahead_new(struct trace *t, const struct trace_stream *stream);
void ahead_free(struct ahead *a); /* accepts NULL */

/* Its records are handed out here; the cursor's are to be passed over. */
static inline bool ahead_has(const struct mt_record *r)
{
	return r->id == MT_EV_SURVIVOR || r->id == MT_EV_YOUNG;
}

/*
 * Is this FOLD younger than the cells? Only while the trace is written: then what it counts may
 * still have been in the nursery when that was read, and be alive here.
 */
bool ahead_is_too_young(const struct ahead *a, const struct mt_ev_fold *e);

/* The next record before `limit` (units); false: there is none. */
bool ahead_next(struct ahead *a, uint64_t limit, struct mt_record *r);
/* The next cell, when the stream is read to its end; NULL: no more. Valid until ahead_free(). */
const struct mt_cell *ahead_cell(struct ahead *a);

#ifdef __cplusplus
}
#endif

#endif
