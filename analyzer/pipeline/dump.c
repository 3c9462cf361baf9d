/*
 * The records of a trace one by one, for `dump`. See run.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "pipeline/input.h"

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

static int dump_record(struct dump *d, const struct cursor *c, uint32_t pid)
{
	struct pipeline_record r = { .proc = c->chunk->proc,
				     .pid = pid,
				     .stream = c->chunk->stream,
				     .seq = c->chunk->seq,
				     .chunk = c->chunk->offset,
				     .has_time = c->has_time,
				     .units = c->time,
				     .time = builder_ns(d->clock, 0, c->time),
				     .record = &c->record };

	return d->fn(d->arg, &r);
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
		struct cursor c;

		cursor_init_chunk(&c, d->in.trace, &sorted[i]);
		while (!rc && cursor_next(&c))
			rc = dump_record(d, &c, pid);
		cursor_release(&c);
	}
	free(sorted);
	return rc;
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
				rc = dump_record(d, e.cursor, (uint32_t)p->ev.pid);
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
