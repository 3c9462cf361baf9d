/*
 * The records of a trace one by one, for `dump`. See run.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "pipeline/input.h"
#include "trace/nursery.h"

struct dump {
	struct input in;
	struct builder *clock; /* only for its conversion of times */
	pipeline_record_fn *fn;
	void *arg;
};

static uint32_t pid_of(const struct input *in, uint32_t proc)
{
	for (size_t i = 0; i < in->processes.count; i++)
		if (in->processes.items[i].process->proc == proc)
			return (uint32_t)in->processes.items[i].ev.pid;
	return 0;
}

/* All that the items of a chunk have in common, and the time of one that has a time. */
static struct pipeline_record item_of(const struct dump *d, const struct trace_chunk *chunk,
				      uint32_t pid, uint64_t units)
{
	return (struct pipeline_record){
		.proc = chunk->proc,
		.pid = pid,
		.stream = chunk->stream,
		.seq = chunk->seq,
		.chunk = chunk->offset,
		.has_time = true,
		.units = units,
		.time = builder_ns(d->clock, 0, units),
	};
}

static int dump_record(struct dump *d, const struct cursor *c, uint32_t pid)
{
	struct pipeline_record r = item_of(d, c->chunk, pid, c->time);

	r.has_time = c->has_time;
	r.record = &c->record;
	return d->fn(d->arg, &r);
}

static int dump_records(struct dump *d, const struct trace_chunk *chunk, uint32_t pid)
{
	struct cursor c;
	int rc = 0;

	cursor_init_chunk(&c, d->in.trace, chunk);
	while (!rc && cursor_next(&c))
		rc = dump_record(d, &c, pid);
	cursor_release(&c);
	return rc;
}

static int dump_nursery(struct dump *d, const struct trace_chunk *chunk, uint32_t pid)
{
	struct pipeline_record r = item_of(d, chunk, pid, chunk->base_time);
	struct nursery n;
	int rc = 0;

	nursery_read(d->in.trace, chunk, &n);
	if (n.valid) {
		r.nursery = &n.head;
		rc = d->fn(d->arg, &r);
	}
	if (!rc && n.fold_valid) {
		r = item_of(d, chunk, pid, n.head.fold.last);
		r.folding = &n.head.fold;
		rc = d->fn(d->arg, &r);
	}
	for (size_t i = 0; i < n.entries.count && !rc; i++) {
		r = item_of(d, chunk, pid, n.entries.items[i].young.time);
		r.young = &n.entries.items[i].young;
		r.index = n.entries.items[i].index;
		rc = d->fn(d->arg, &r);
	}
	nursery_release(&n);
	return rc;
}

static int dump_cells(struct dump *d, const struct trace_chunk *chunk, uint32_t pid)
{
	cell_list cells = VEC_INIT;
	int rc = 0;

	cells_read(d->in.trace, chunk, &cells);
	for (size_t i = 0; i < cells.count && !rc; i++) {
		struct pipeline_record r = item_of(d, chunk, pid, cells.items[i].last);

		r.cell = &cells.items[i];
		rc = d->fn(d->arg, &r);
	}
	vec_release(&cells);
	return rc;
}

static int by_offset(const void *a, const void *b)
{
	const struct trace_chunk *x = a, *y = b;

	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static int dump_in_file_order(struct dump *d)
{
	size_t count;
	const struct trace_chunk *chunks = trace_chunks(d->in.trace, &count);
	struct trace_chunk *sorted = xcalloc(count, sizeof(*sorted));
	int rc = 0;

	if (count) {
		memcpy(sorted, chunks, count * sizeof(*sorted));
		qsort(sorted, count, sizeof(*sorted), by_offset);
	}
	for (size_t i = 0; i < count && !rc; i++) {
		uint32_t pid = pid_of(&d->in, sorted[i].proc);

		if (sorted[i].kind == MT_CHUNK_NURSERY)
			rc = dump_nursery(d, &sorted[i], pid);
		else if (sorted[i].kind == MT_CHUNK_COUNTERS)
			rc = dump_cells(d, &sorted[i], pid);
		else
			rc = dump_records(d, &sorted[i], pid);
	}
	free(sorted);
	return rc;
}

/* The next event of the merge, as what it would be in a chunk. */
static int dump_event(struct dump *d, const struct merge_event *e, uint32_t proc, uint32_t pid)
{
	struct trace_chunk nowhere = { .proc = proc, .stream = e->stream };
	struct pipeline_record r;

	if (e->record == &e->cursor->record)
		return dump_record(d, e->cursor, pid);
	r = item_of(d, &nowhere, pid, e->time);
	r.cell = e->cell;
	r.record = e->cell ? NULL : e->record;
	return d->fn(d->arg, &r);
}

static int dump_in_time_order(struct dump *d)
{
	int rc = 0;

	for (size_t i = 0; i < d->in.processes.count && !rc; i++) {
		const struct input_process *p = &d->in.processes.items[i];
		struct merge *m = merge_new(d->in.trace, p->process);
		struct merge_event e;

		while (!rc && merge_next(m, &e))
			if (e.part != PART_ALLOC) /* the second half of what was shown already */
				rc = dump_event(d, &e, p->process->proc, (uint32_t)p->ev.pid);
		merge_free(m);
	}
	return rc;
}

int pipeline_dump(const char *path, enum pipeline_order order, pipeline_record_fn *fn, void *arg,
		  char **error)
{
	struct trace *t = trace_open(path, error);
	struct dump d = { .fn = fn, .arg = arg };
	struct build_trace info;
	int rc;

	if (!t)
		return -1;
	input_init(&d.in, t);
	info = input_info(&d.in);
	d.clock = builder_new(NULL);
	builder_trace(d.clock, &info);
	rc = order == ORDER_FILE ? dump_in_file_order(&d) : dump_in_time_order(&d);
	builder_free(d.clock);
	input_release(&d.in);
	return rc;
}
