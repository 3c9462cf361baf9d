/*
 * Nurseries and cells of a trace that is being written. They change under the reader; so they are
 * copied before the records' ends are looked up, cells first and nurseries then. A block moves from
 * the nursery to a cell or to the records: read in this order, nothing is counted twice, and what
 * was under way may be missing. Of cells and entries only what two reads agree on is kept.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "trace/internal.h"

#define TRIES 16 /* a cell that is counted in all the time: its last FOLD stands for it then */

/* Numbers of the processes that may be writing: those in the file's table. */
struct writers {
	uint32_t count, proc[MT_PROC_SLOTS];
};

static struct writers writers_of(struct trace *t)
{
	struct mt_proc_slot slots[MT_PROC_SLOTS];
	const uint8_t *p = trace_at(t, MT_HEADER_BYTES - sizeof(slots), sizeof(slots));
	struct writers w = { .count = 0 };

	if (!p)
		return w;
	memcpy(slots, p, sizeof(slots));
	for (size_t i = 0; i < MT_PROC_SLOTS; i++)
		if (slots[i].pid && slots[i].proc)
			w.proc[w.count++] = slots[i].proc;
	return w;
}

static bool may_write(const struct writers *w, uint32_t proc)
{
	for (uint32_t i = 0; i < w->count; i++)
		if (w->proc[i] == proc)
			return true;
	return false;
}

bool trace_is_written(struct trace *t)
{
	return t->fd >= 0 && writers_of(t).count;
}

/* Reads an item until it is twice the same; else it is left empty. */
static void settle(const struct trace *t, uint64_t offset, uint8_t *item, size_t len)
{
	uint8_t again[sizeof(struct mt_nursery)];

	for (int i = 0; i < TRIES; i++) {
		if (trace_read(t, offset, again, len) != len)
			break;
		if (!memcmp(again, item, len))
			return;
		memcpy(item, again, len);
	}
	memset(item, 0, len);
}

static void copy_chunk(struct trace *t, const struct trace_chunk *chunk)
{
	uint64_t from = chunk->offset + sizeof(struct mt_chunk);
	size_t head = chunk->kind == MT_CHUNK_NURSERY ? sizeof(struct mt_nursery) : 0;
	size_t each = head ? sizeof(struct mt_young) : sizeof(struct mt_cell);
	struct trace_copy *copy = vec_push(&t->copies);
	uint8_t *again = xmalloc(chunk->used + 1);
	size_t got;

	copy->offset = chunk->offset;
	copy->bytes = xmalloc(chunk->used + 1);
	got = trace_read(t, from, copy->bytes, chunk->used);
	if (trace_read(t, from, again, got) < got)
		got = 0;
	copy->used = (uint32_t)got;
	if (head && got >= head && memcmp(copy->bytes, again, head) != 0) {
		struct mt_nursery n;

		settle(t, from, copy->bytes, head);
		memcpy(&n, copy->bytes, sizeof(n));
		n.entries = (uint32_t)((got - head) / each);
		memcpy(copy->bytes, &n, sizeof(n));
	}
	for (size_t at = head; at + each <= got; at += each)
		if (memcmp(copy->bytes + at, again + at, each) != 0)
			settle(t, from + at, copy->bytes + at, each);
	free(again);
}

static void copy_kind(struct trace *t, const struct writers *w, uint32_t kind)
{
	for (size_t i = 0; i < t->chunks.count; i++)
		if (t->chunks.items[i].kind == kind && may_write(w, t->chunks.items[i].proc))
			copy_chunk(t, &t->chunks.items[i]);
}

static int by_offset(const void *a, const void *b)
{
	const struct trace_copy *x = a, *y = b;

	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

void trace_copy_young(struct trace *t)
{
	struct writers w = writers_of(t);

	copy_kind(t, &w, MT_CHUNK_COUNTERS);
	copy_kind(t, &w, MT_CHUNK_NURSERY);
	if (t->copies.count)
		qsort(t->copies.items, t->copies.count, sizeof(*t->copies.items), by_offset);
}

void trace_use_copies(struct trace *t)
{
	struct writers w = writers_of(t);

	for (size_t i = 0; i < t->chunks.count; i++) {
		struct trace_chunk *c = &t->chunks.items[i];
		struct trace_copy key = { .offset = c->offset }, *copy = NULL;

		if (c->kind == MT_CHUNK_RECORDS || !may_write(&w, c->proc))
			continue;
		if (t->copies.count)
			copy = bsearch(&key, t->copies.items, t->copies.count, sizeof(key),
				       by_offset);
		c->copied = true;
		c->copy = copy ? copy->bytes : NULL; /* one that is new is too new */
		c->used = copy ? copy->used : 0;
		c->slack = 0;
	}
}
