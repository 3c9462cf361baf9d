/*
 * See ahead.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "trace/ahead.h"

#include <stdlib.h>

#include "trace/nursery.h"

/* In `kind` of an entry: a SURVIVOR tells of the same block. */
#define LISTED UINT64_MAX

struct ahead {
	struct trace *trace;
	const struct trace_chunk *next, *end; /* chunks that may hold more SURVIVORs */
	VEC(struct mt_ev_survivor) heap; /* the oldest first */
	VEC(struct mt_ev_survivor) entries; /* of the nursery, by time */
	size_t entry; /* the next one */
	VEC(struct mt_ev_young) young; /* by time */
	size_t young_next;
	cell_list cells;
	size_t cell_next;
	uint64_t folds_until; /* FOLDs of later times are not believed */
};

/* ---- survivors ------------------------------------------------------------------------------- */

static void heap_add(struct ahead *a, const struct mt_ev_survivor *e)
{
	size_t at;

	(void)vec_push(&a->heap);
	for (at = a->heap.count - 1; at; at = (at - 1) / 2) {
		if (a->heap.items[(at - 1) / 2].time <= e->time)
			break;
		a->heap.items[at] = a->heap.items[(at - 1) / 2];
	}
	a->heap.items[at] = *e;
}

static struct mt_ev_survivor heap_take(struct ahead *a)
{
	struct mt_ev_survivor first = a->heap.items[0];
	struct mt_ev_survivor moved = a->heap.items[--a->heap.count];
	size_t at = 0;

	for (;;) {
		size_t child = 2 * at + 1;

		if (child >= a->heap.count)
			break;
		if (child + 1 < a->heap.count &&
		    a->heap.items[child + 1].time < a->heap.items[child].time)
			child++;
		if (a->heap.items[child].time >= moved.time)
			break;
		a->heap.items[at] = a->heap.items[child];
		at = child;
	}
	if (a->heap.count)
		a->heap.items[at] = moved;
	return first;
}

/* The writer was stopped between listing a block and emptying its entry. */
static void forget_entry(struct ahead *a, const struct mt_ev_survivor *e)
{
	size_t low = a->entry, high = a->entries.count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (a->entries.items[mid].time < e->time)
			low = mid + 1;
		else
			high = mid;
	}
	for (; low < a->entries.count && a->entries.items[low].time == e->time; low++)
		if (a->entries.items[low].addr == e->addr && a->entries.items[low].kind == e->kind)
			a->entries.items[low].kind = LISTED;
}

/*
 * Goes through a chunk beside the stream's own cursor, which counts what is wrong with it.
 */
static void search(struct ahead *a, const struct trace_chunk *chunk,
		   void (*see)(struct ahead *a, const struct mt_record *r))
{
	struct trace_problems before = *trace_damage(a->trace);
	struct cursor c;

	cursor_init_chunk(&c, a->trace, chunk);
	while (cursor_next(&c))
		if (ahead_has(&c.record))
			see(a, &c.record);
	cursor_release(&c);
	*trace_damage(a->trace) = before;
}

static void see_survivor(struct ahead *a, const struct mt_record *r)
{
	if (r->id != MT_EV_SURVIVOR)
		return;
	forget_entry(a, &r->u.survivor);
	heap_add(a, &r->u.survivor);
}

/* ---- nursery and cells ----------------------------------------------------------------------- */

static int by_time(const void *x, const void *y)
{
	uint64_t a = *(const uint64_t *)x, b = *(const uint64_t *)y; /* time is the first member */

	return a < b ? -1 : a > b;
}

/*
 * The moments that nurseries held most in the window that was not over. Their bytes count what was
 * still in the nursery at the end as if it were folded; but that is handed out as allocations.
 */
static void settle_present(struct ahead *a, size_t first)
{
	for (size_t k = first; k < a->young.count; k++) {
		struct mt_ev_young *young = &a->young.items[k];

		for (size_t i = 0; i < a->entries.count; i++) {
			const struct mt_ev_survivor *e = &a->entries.items[i];

			if (e->time <= young->time)
				young->bytes -= e->size < young->bytes ? e->size : young->bytes;
		}
	}
}

static bool same_site(const struct mt_cell *x, const struct mt_cell *y)
{
	return x->native == y->native && x->python == y->python && x->kind == y->kind;
}

/* What the writer was doing is done. False: the cell contradicts it. */
static bool finish_fold(struct ahead *a, const struct mt_cell *fold)
{
	for (size_t i = 0; i < a->cells.count; i++) {
		struct mt_cell *c = &a->cells.items[i];

		if (!same_site(c, fold))
			continue;
		if (fold->count < c->count || fold->bytes < c->bytes || fold->brief < c->brief)
			return false;
		*c = *fold;
		return true;
	}
	*vec_push(&a->cells) = *fold;
	return true;
}

static void read_nursery(struct ahead *a, const struct trace_chunk *chunk)
{
	uint32_t emptied = UINT32_MAX;
	struct nursery n;

	nursery_read(a->trace, chunk, &n);
	if (n.fold_valid) {
		if (finish_fold(a, &n.head.fold))
			emptied = n.head.fold_entry - 1;
		else
			trace_damage(a->trace)->bad_bytes += sizeof(n.head.fold);
	}
	for (size_t i = 0; i < n.entries.count; i++) {
		const struct nursery_entry *e = &n.entries.items[i];

		if (e->index != emptied)
			*vec_push(&a->entries) = (struct mt_ev_survivor){
				.time = e->young.time,
				.addr = young_addr(&e->young),
				.size = e->young.size,
				.native = e->young.native,
				.python = e->young.python,
				.kind = young_kind(&e->young),
			};
	}
	if (n.valid && n.head.young_most)
		*vec_push(&a->young) = (struct mt_ev_young){ n.head.young_time, n.head.young_bytes,
							     n.head.young_most,
							     n.head.young_since };
	nursery_release(&n);
}

static void see_young(struct ahead *a, const struct mt_record *r)
{
	if (r->id == MT_EV_YOUNG)
		*vec_push(&a->young) = r->u.young;
}

/* Of a stream whose nursery and cells are copies; else all FOLDs are as old as the cells. */
static uint64_t folds_until(const struct ahead *a, const struct trace_chunk *c, size_t count)
{
	uint64_t last = 0;
	bool copied = false;

	for (size_t i = 0; i < count; i++)
		copied |= c[i].copied;
	for (size_t i = 0; i < a->cells.count; i++)
		if (a->cells.items[i].last > last)
			last = a->cells.items[i].last;
	return copied ? last : UINT64_MAX;
}

bool ahead_is_too_young(const struct ahead *a, const struct mt_ev_fold *e)
{
	return e->time > a->folds_until;
}

struct ahead *ahead_new(struct trace *t, const struct trace_stream *stream)
{
	struct ahead *a = xcalloc(1, sizeof(*a));
	size_t count, present;
	const struct trace_chunk *c = trace_chunks(t, &count) + stream->first;

	a->trace = t;
	a->next = c;
	a->end = c + stream->count;
	/* A YOUNG stands up to ten seconds behind its time, and no low_water speaks of it. */
	for (const struct trace_chunk *r = a->next; r < a->end; r++)
		search(a, r, see_young);
	c = a->end + stream->nurseries;
	for (size_t i = 0; i < stream->counters; i++)
		cells_read(t, c + i, &a->cells);
	a->folds_until = folds_until(a, a->end, stream->nurseries + stream->counters);
	present = a->young.count;
	for (size_t i = 0; i < stream->nurseries; i++)
		read_nursery(a, a->end + i);
	settle_present(a, present);
	if (a->entries.count)
		qsort(a->entries.items, a->entries.count, sizeof(*a->entries.items), by_time);
	if (a->young.count)
		qsort(a->young.items, a->young.count, sizeof(*a->young.items), by_time);
	return a;
}

void ahead_free(struct ahead *a)
{
	if (!a)
		return;
	vec_release(&a->heap);
	vec_release(&a->entries);
	vec_release(&a->young);
	vec_release(&a->cells);
	free(a);
}

/* ---- in order -------------------------------------------------------------------------------- */

static const struct mt_ev_survivor *next_entry(struct ahead *a)
{
	while (a->entry < a->entries.count && a->entries.items[a->entry].kind == LISTED)
		a->entry++;
	return a->entry < a->entries.count ? &a->entries.items[a->entry] : NULL;
}

bool ahead_next(struct ahead *a, uint64_t limit, struct mt_record *r)
{
	const struct mt_ev_survivor *entry;
	const struct mt_ev_young *young;
	uint64_t first = UINT64_MAX;

	while (a->next < a->end && (a->next->low_water < limit || limit == UINT64_MAX))
		search(a, a->next++, see_survivor);
	entry = next_entry(a);
	young = a->young_next < a->young.count ? &a->young.items[a->young_next] : NULL;
	if (a->heap.count)
		first = a->heap.items[0].time;
	if (entry && entry->time < first)
		first = entry->time;
	/* Of one time, what takes memory comes first: a YOUNG's moment has all of it. */
	if (young && young->time < first && young->time < limit) {
		r->id = MT_EV_YOUNG;
		r->u.young = *young;
		a->young_next++;
		return true;
	}
	if (first >= limit)
		return false;
	r->id = MT_EV_SURVIVOR;
	if (entry && entry->time == first) {
		r->u.survivor = *entry;
		a->entry++;
	} else {
		r->u.survivor = heap_take(a);
	}
	return true;
}

const struct mt_cell *ahead_cell(struct ahead *a)
{
	return a->cell_next < a->cells.count ? &a->cells.items[a->cell_next++] : NULL;
}
