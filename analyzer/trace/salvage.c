/*
 * Finds the chunks of a trace that may be cut, damaged or still growing. Chunks are found by their
 * own headers, never by the file header's counters: a header counts when magic, its own offset and
 * its check all match, which payload or garbage can't do by chance. `units` and `used` change while
 * a chunk is written and are not under the check; where they can't be true the next header decides.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "trace/internal.h"

#define UNIT MT_UNIT_BYTES

static bool chunk_at(struct trace *t, uint64_t offset, struct mt_chunk *chunk)
{
	const uint8_t *p = trace_at(t, offset, sizeof(*chunk));
	uint32_t magic;

	if (!p)
		return false;
	memcpy(&magic, p, sizeof(magic));
	if (magic != MT_CHUNK_MAGIC)
		return false;
	memcpy(chunk, p, sizeof(*chunk));
	return chunk->self == offset && chunk->check == mt_chunk_check(chunk) && chunk->proc;
}

static bool all_zero(const uint8_t *p, size_t len)
{
	return !len || (!p[0] && !memcmp(p, p + 1, len - 1));
}

/* First unit in [from, to) that starts a chunk, or `to`. */
static uint64_t next_header(struct trace *t, uint64_t from, uint64_t to)
{
	struct mt_chunk chunk;

	for (; from < to && from < t->size; from += UNIT)
		if (chunk_at(t, from, &chunk))
			return from;
	return to;
}

static uint64_t units_up(uint64_t bytes)
{
	return (bytes + UNIT - 1) / UNIT * UNIT;
}

/*
 * Where the chunk's bytes end. In a sound file that is `units`, and nothing but zeros lies between
 * the used part and that end, so only this part has to be looked at for headers.
 */
static uint64_t chunk_end(struct trace *t, uint64_t offset, const struct mt_chunk *chunk, bool *odd)
{
	uint64_t claimed = (uint64_t)chunk->units * UNIT;
	uint64_t needed = units_up(sizeof(*chunk) + (uint64_t)chunk->used);
	uint64_t most = (uint64_t)MT_CHUNK_MAX_UNITS * UNIT, end;

	if (claimed && claimed <= most && needed <= claimed) {
		end = next_header(t, offset + needed, offset + claimed);
		*odd = end != offset + claimed;
		return end;
	}
	*odd = true;
	if (needed > most)
		needed = most;
	return next_header(t, offset + UNIT, offset + (needed > claimed ? needed : claimed));
}

/* Adds the chunk at `offset` and returns where the next one can be. */
static uint64_t chunk_add(struct trace *t, uint64_t offset, struct mt_chunk *chunk)
{
	bool odd;
	uint64_t end = chunk_end(t, offset, chunk, &odd), room;
	struct trace_chunk *c;

	trace_follow(t, end);
	if (odd && !t->data) {
		/* Or its writer gave the tail back and another one claimed it, just now. */
		t->window_len = 0;
		if (chunk_at(t, offset, chunk))
			end = chunk_end(t, offset, chunk, &odd);
	}
	room = (end < t->size ? end : t->size) - offset - sizeof(*chunk);
	if (room > (uint64_t)MT_CHUNK_MAX_UNITS * UNIT)
		room = (uint64_t)MT_CHUNK_MAX_UNITS * UNIT;
	c = vec_push(&t->chunks);
	c->offset = offset;
	c->base_time = chunk->base_time;
	c->low_water = chunk->low_water;
	c->lost = chunk->lost;
	c->proc = chunk->proc;
	c->stream = chunk->stream;
	c->seq = chunk->seq;
	c->kind = chunk->kind;
	c->used = chunk->used < room ? chunk->used : (uint32_t)room;
	c->slack = (uint32_t)(room - c->used);
	c->copied = false; /* the list is used again */
	c->copy = NULL;
	c->cut = odd || c->used < chunk->used;
	if (c->cut)
		t->problems.cut_chunks++;
	t->problems.lost_events += c->lost;
	return end;
}

/*
 * Units that hold no chunk are zero: given back, or claimed by a process that died right then. One
 * that died while it filled in the chunk's header leaves some of that, but never the magic, which is
 * stored last, and nothing behind it.
 */
static void note_hole(struct trace *t, uint64_t from)
{
	uint64_t left = t->size - from;
	size_t len = left < UNIT ? (size_t)left : UNIT;
	const uint8_t *p = trace_at(t, from, len);

	if (!p || all_zero(p, len))
		return;
	if (len > sizeof(struct mt_chunk) && all_zero(p, sizeof(uint32_t)) &&
	    all_zero(p + sizeof(struct mt_chunk), len - sizeof(struct mt_chunk)))
		return;
	t->problems.garbage_bytes += len;
}

static int by_place_in_stream(const void *a, const void *b)
{
	const struct trace_chunk *x = a, *y = b;

	if (x->proc != y->proc)
		return x->proc < y->proc ? -1 : 1;
	if (x->stream != y->stream)
		return x->stream < y->stream ? -1 : 1;
	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	if (x->seq != y->seq)
		return x->seq < y->seq ? -1 : 1;
	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static bool is_sequel(const struct trace_chunk *x, const struct trace_chunk *y)
{
	return x->proc == y->proc && x->stream == y->stream && x->kind == y->kind;
}

static void drop_duplicates(struct trace *t)
{
	size_t kept = 0;

	for (size_t i = 0; i < t->chunks.count; i++) {
		const struct trace_chunk *c = &t->chunks.items[i];
		const struct trace_chunk *last = kept ? &t->chunks.items[kept - 1] : NULL;

		if (last && is_sequel(last, c) && last->seq == c->seq)
			t->problems.duplicate_chunks++;
		else
			t->chunks.items[kept++] = *c;
	}
	t->chunks.count = kept;
}

/* The stream of the chunk at `i`: that of the one before it, or a new one. */
static struct trace_stream *group_stream(struct trace *t, size_t i)
{
	const struct trace_chunk *c = &t->chunks.items[i];
	struct trace_process *p = NULL;
	struct trace_stream *s;

	if (i && c[-1].proc == c->proc && c[-1].stream == c->stream)
		return &t->streams.items[t->streams.count - 1];
	if (i && c[-1].proc == c->proc) {
		p = &t->processes.items[t->processes.count - 1];
	} else {
		p = vec_push(&t->processes);
		p->proc = c->proc;
		p->first = t->streams.count;
	}
	p->count++;
	s = vec_push(&t->streams);
	s->proc = c->proc;
	s->stream = c->stream;
	s->first = i;
	return s;
}

static void group(struct trace *t)
{
	for (size_t i = 0; i < t->chunks.count; i++) {
		const struct trace_chunk *c = &t->chunks.items[i];
		struct trace_stream *s = group_stream(t, i);

		s->all++;
		s->count += c->kind == MT_CHUNK_RECORDS;
		s->nurseries += c->kind == MT_CHUNK_NURSERY;
		s->counters += c->kind == MT_CHUNK_COUNTERS;
		t->problems.unknown_records += c->kind > MT_CHUNK_COUNTERS;
		t->folded |= c->kind != MT_CHUNK_RECORDS;
		t->problems.missing_chunks += c->seq -
					      (i && is_sequel(c - 1, c) ? c[-1].seq + 1 : 0);
	}
}

/* What the file header's counters say against what was found. */
static void compare_with_header(struct trace *t, uint64_t last_end)
{
	struct mt_file_header now = t->header;
	const uint8_t *p;
	uint64_t next, claimed_end;

	t->window_len = 0; /* not what was read before the search: writers went on meanwhile */
	p = trace_at(t, 0, sizeof(now));
	if (p)
		memcpy(&now, p, sizeof(now));
	next = now.next > t->header.next ? now.next : t->header.next;
	claimed_end = next < UINT64_MAX / UNIT / 2 ? MT_HEADER_BYTES + next * UNIT : UINT64_MAX;
	if (claimed_end < last_end)
		t->problems.header_damage++;
	if (t->header.next < UINT64_MAX / UNIT / 2)
		trace_follow(t, MT_HEADER_BYTES + t->header.next * UNIT);
	if (t->header.next < UINT64_MAX / UNIT / 2 &&
	    MT_HEADER_BYTES + t->header.next * UNIT > t->size)
		t->problems.missing_bytes += MT_HEADER_BYTES + t->header.next * UNIT - t->size;
	else if (claimed_end == UINT64_MAX)
		t->problems.header_damage++;
	for (uint32_t number = 1, i = 0; number < t->header.next_proc; number++) {
		if (i < t->processes.count && t->processes.items[i].proc == number)
			i++;
		else if (i >= t->processes.count) {
			t->problems.lost_processes += t->header.next_proc - number;
			break;
		} else {
			t->problems.lost_processes++;
		}
	}
	if (t->processes.count && t->processes.items[t->processes.count - 1].proc >= now.next_proc)
		t->problems.header_damage++;
}

/* Adds all chunks in order of the file; returns where the last one ends. */
static uint64_t walk(struct trace *t)
{
	uint64_t at = MT_HEADER_BYTES, last_end = at;
	struct mt_chunk chunk;

	while (at < t->size) {
		if (chunk_at(t, at, &chunk)) {
			last_end = at = chunk_add(t, at, &chunk);
		} else {
			note_hole(t, at);
			at += UNIT;
		}
	}
	return last_end;
}

/* What the records of a running process end with has to be looked up after its nurseries. */
static uint64_t walk_again(struct trace *t, const struct trace_problems *before)
{
	uint64_t last_end;

	trace_copy_young(t);
	t->chunks.count = 0;
	t->problems = *before;
	t->window_len = 0;
	last_end = walk(t);
	trace_use_copies(t);
	return last_end;
}

void trace_index(struct trace *t)
{
	struct trace_problems before = t->problems;
	uint64_t last_end;

	/* Space is made before it is claimed: what is claimed by now is there. */
	if (t->header.next < UINT64_MAX / UNIT / 2)
		trace_follow(t, MT_HEADER_BYTES + t->header.next * UNIT);
	last_end = walk(t);
	if (trace_is_written(t))
		last_end = walk_again(t, &before);
	if (t->chunks.count)
		qsort(t->chunks.items, t->chunks.count, sizeof(*t->chunks.items),
		      by_place_in_stream);
	drop_duplicates(t);
	group(t);
	compare_with_header(t, last_end);
	/* Nurseries may be among what is missing. */
	t->folded |= t->problems.missing_bytes || t->problems.garbage_bytes ||
		     t->problems.missing_chunks || t->problems.cut_chunks;
}
