/*
 * See merge.h. A binary heap of stream heads. A stream is opened only when its first chunk's time
 * has come and closed with its last record, so that memory follows the streams that run at the
 * same time and not all a process ever had.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "trace/merge.h"

#include <stdlib.h>

#include "trace/ahead.h"
#include "util/alloc.h"

/* Order at one time. What says how much is held comes when all of it is taken. */
enum rank { RANK_FIRST, RANK_TAKES, RANK_SAYS };

struct head {
	uint8_t part; /* enum merge_part of what comes next */
	bool begun; /* there is a next event */
	bool read; /* the cursor holds a record that is still to be given out */
	bool done; /* the cursor is at its end */
	bool other; /* next is not the cursor's record but `late` or `cell` */
	uint32_t stream;
	uint32_t rank; /* of the cursor's record, as in the heap */
	uint64_t place; /* of the cursor's record: never goes back */
	const struct trace_stream *source;
	struct ahead *ahead; /* NULL: all records stand where their time says */
	const struct mt_cell *cell;
	struct mt_record late;
	struct cursor cursor;
};

/* What the heap compares, apart from the heads: those are too big to be walked through. */
struct entry {
	uint64_t time; /* never goes back within a stream */
	uint32_t head; /* index */
	uint32_t rank;
};

struct merge {
	struct head *heads;
	struct entry *heap; /* first is the next */
	const struct entry *second; /* in the heap: what comes next but for the first; NULL: none */
	size_t count; /* in the heap */
	size_t streams;
	uint64_t bytes; /* of streams that are done */
	uint64_t time; /* of the last event */
	bool at_top; /* heap[0] was given out and has to move on first */
	struct trace *trace;
};

static inline bool before(const struct entry *x, const struct entry *y)
{
	if (x->time != y->time)
		return x->time < y->time;
	if (x->rank != y->rank)
		return x->rank < y->rank;
	return x->head < y->head; /* any fixed order */
}

static void sift_down(struct merge *m, size_t at)
{
	struct entry moved = m->heap[at];

	for (;;) {
		size_t child = 2 * at + 1;

		if (child >= m->count)
			break;
		if (child + 1 < m->count && before(&m->heap[child + 1], &m->heap[child]))
			child++;
		if (!before(&m->heap[child], &moved))
			break;
		m->heap[at] = m->heap[child];
		at = child;
	}
	m->heap[at] = moved;
}

/* heap[0] has changed. */
static void settle(struct merge *m)
{
	if (m->count > 1)
		sift_down(m, 0);
	m->second = m->count > 1 ? &m->heap[1] : NULL;
	if (m->count > 2 && before(&m->heap[2], m->second))
		m->second = &m->heap[2];
}

struct merge *merge_new(struct trace *t, const struct trace_process *process)
{
	struct merge *m = xcalloc(1, sizeof(*m));
	size_t chunk_count, stream_count;
	const struct trace_chunk *chunks = trace_chunks(t, &chunk_count);
	const struct trace_stream *streams = trace_streams(t, &stream_count) + process->first;

	m->trace = t;
	m->streams = m->count = process->count;
	m->heads = xcalloc(m->streams, sizeof(*m->heads));
	m->heap = xcalloc(m->streams, sizeof(*m->heap));
	for (size_t i = 0; i < m->streams; i++) {
		const struct trace_chunk *first = &chunks[streams[i].first];

		cursor_init(&m->heads[i].cursor, t, &streams[i]);
		m->heads[i].stream = streams[i].stream;
		m->heads[i].source = &streams[i];
		m->heap[i].time = first->low_water < first->base_time ? first->low_water
								      : first->base_time;
		if (!streams[i].count)
			m->heap[i].time = 0; /* only what is in the nursery is left of it */
		m->heap[i].head = (uint32_t)i;
	}
	for (size_t i = m->count / 2; i-- > 0;)
		sift_down(m, i);
	settle(m);
	return m;
}

enum { TAKES = 1, GIVES_FIRST = 2 };

/* What kinds of records do; all others do nothing of this. */
static const uint8_t does[256] = {
	[MT_EV_ALLOC] = TAKES,
	[MT_EV_SURVIVOR] = TAKES,
	[MT_EV_MAP] = TAKES,
	[MT_EV_BREAK] = TAKES,
	[MT_EV_REALLOC] = TAKES | GIVES_FIRST,
	[MT_EV_REMAP] = TAKES | GIVES_FIRST,
};

static inline uint8_t does_of(const struct mt_record *r)
{
	return does[r->id & 0xff];
}

static inline bool takes_two_parts(const struct mt_record *r)
{
	return does_of(r) & GIVES_FIRST && (r->id == MT_EV_REALLOC || r->u.remap.old_size);
}

static inline uint32_t rank_of(const struct head *h)
{
	return does_of(&h->cursor.record) & TAKES && h->part != PART_FREE ? RANK_TAKES : RANK_FIRST;
}

static uint64_t took(const struct mt_record *r)
{
	return r->id == MT_EV_REALLOC ? r->u.realloc.took : r->u.remap.took;
}

static bool is_passed_over(const struct ahead *a, const struct mt_record *r)
{
	return ahead_has(r) || (r->id == MT_EV_FOLD && ahead_is_too_young(a, &r->u.fold));
}

static inline void head_place(struct head *h, uint64_t time, enum merge_part part)
{
	h->part = (uint8_t)part;
	if (time > h->place)
		h->place = time;
	h->rank = rank_of(h);
}

/* The cursor has read a record. */
static inline void head_record(struct head *h)
{
	h->read = true;
	head_place(h, h->cursor.time, takes_two_parts(&h->cursor.record) ? PART_FREE : PART_WHOLE);
}

/* The next event of the cursor alone. */
static void cursor_advance(struct head *h)
{
	uint64_t time;

	if (h->read && h->part == PART_FREE) {
		if (__builtin_add_overflow(h->cursor.time, took(&h->cursor.record), &time))
			time = h->place; /* damaged: no order to keep */
		head_place(h, time, PART_ALLOC);
		return;
	}
	do {
		if (!cursor_next(&h->cursor)) {
			h->done = true;
			return;
		}
	} while (h->ahead && is_passed_over(h->ahead, &h->cursor.record));
	head_record(h);
}

/* What comes before the cursor's event: records that stand later than their time; at last cells. */
static bool head_other(struct head *h, struct entry *e)
{
	h->cell = NULL;
	h->other = ahead_next(h->ahead, h->done ? UINT64_MAX : h->place, &h->late);
	if (h->other) {
		e->time = h->late.u.survivor.time; /* first member of both */
		e->rank = h->late.id == MT_EV_YOUNG ? RANK_SAYS : RANK_TAKES;
		return true;
	}
	h->cell = h->done ? ahead_cell(h->ahead) : NULL;
	h->other = h->cell != NULL;
	if (!h->other)
		return false;
	if (h->cell->last > h->place)
		h->place = h->cell->last;
	e->time = h->place;
	e->rank = RANK_FIRST;
	return true;
}

/* Moves the head to its next event; false: its stream is done. */
static bool head_advance(struct merge *m, struct head *h, struct entry *e)
{
	if (!h->begun) {
		h->begun = true;
		h->place = h->source->count ? h->cursor.next->base_time : e->time;
		if (trace_is_folded(m->trace))
			h->ahead = ahead_new(m->trace, h->source);
	}
	if (h->other)
		h->other = false; /* the cursor's event still waits */
	else if (!h->done)
		cursor_advance(h);
	if (h->ahead && head_other(h, e))
		return true;
	e->time = h->place;
	e->rank = h->rank;
	return !h->done;
}

static void head_close(struct merge *m, struct head *h)
{
	m->bytes += h->cursor.bytes;
	h->cursor.bytes = 0;
	cursor_release(&h->cursor);
	ahead_free(h->ahead);
	h->ahead = NULL;
	m->heap[0] = m->heap[--m->count];
}

/*
 * Most events: the stream that had the last one has a record more, and nothing else to come before
 * it. The top has moved on then.
 */
static inline void top_advance(struct merge *m)
{
	struct head *h = &m->heads[m->heap[0].head];

	if (h->ahead || h->part == PART_FREE || !cursor_next(&h->cursor))
		return;
	head_record(h);
	m->heap[0].time = h->place;
	m->heap[0].rank = h->rank;
	m->at_top = false;
	if (m->second && before(m->second, &m->heap[0]))
		settle(m);
}

bool merge_next(struct merge *m, struct merge_event *e)
{
	struct head *h;

	if (m->at_top)
		top_advance(m);
	for (;;) {
		if (!m->count)
			return false;
		h = &m->heads[m->heap[0].head];
		if (!m->at_top && h->begun)
			break;
		/* given out, or not opened yet */
		m->at_top = false;
		if (!head_advance(m, h, &m->heap[0]))
			head_close(m, h);
		else if (!m->second || !before(m->second, &m->heap[0]))
			continue; /* streams take turns rarely */
		settle(m);
	}
	m->at_top = true;
	if (m->heap[0].time > m->time)
		m->time = m->heap[0].time;
	e->record = h->other ? &h->late : &h->cursor.record;
	e->cell = h->other ? h->cell : NULL;
	e->part = h->other ? PART_WHOLE : (enum merge_part)h->part;
	e->stream = h->stream;
	e->slot = m->heap[0].head;
	e->time = m->time;
	e->cursor = &h->cursor;
	return true;
}

uint64_t merge_bytes(const struct merge *m)
{
	uint64_t bytes = m->bytes;

	for (size_t i = 0; i < m->streams; i++)
		bytes += m->heads[i].cursor.bytes;
	return bytes;
}

size_t merge_streams(const struct merge *m)
{
	return m->streams;
}

void merge_free(struct merge *m)
{
	if (!m)
		return;
	for (size_t i = 0; i < m->streams; i++) {
		cursor_release(&m->heads[i].cursor);
		ahead_free(m->heads[i].ahead);
	}
	free(m->heads);
	free(m->heap);
	free(m);
}
