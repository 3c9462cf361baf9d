/*
 * See run.h. Processes are replayed depth first: a forked child runs through at the moment of its
 * fork, on the live set its parent has then, and the parent goes on afterwards. So no copy of any
 * live set is made, and memory follows the live blocks along one line of descent.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "pipeline/run.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/input.h"
#include "pipeline/labels.h"
#include "util/strbuf.h"

#define PROGRESS_EVENTS 65536

const struct pipeline_count_row pipeline_count_rows[COUNTS] = {
	[COUNT_CHUNKS] = { "chunks", "chunks", false },
	[COUNT_RECORDS] = { "records", "records", false },
	[COUNT_RECORD_BYTES] = { "record_bytes", "bytes of records", false },
	[COUNT_PROCESSES] = { "processes", "processes", false },
	[COUNT_STREAMS] = { "streams", "streams (threads)", false },
	[COUNT_SILENT_PROCESSES] = { "silent_processes",
				     "processes that ended before their first record", false },
	[COUNT_HEADER_DAMAGE] = { "header_damage", "values in the file header that can't be true",
				  true },
	[COUNT_MISSING_BYTES] = { "missing_bytes", "bytes that were written but the file lacks",
				  true },
	[COUNT_GARBAGE_BYTES] = { "garbage_bytes", "bytes that belong to no chunk", true },
	[COUNT_CUT_CHUNKS] = { "cut_chunks", "chunks that are shorter than they say", true },
	[COUNT_BAD_CHUNKS] = { "bad_chunks", "chunks with bytes that are no record", true },
	[COUNT_BAD_BYTES] = { "bad_bytes", "bytes of records that could not be read", true },
	[COUNT_UNCOUNTED_CHUNKS] = { "uncounted_chunks",
				     "chunks with records behind their end mark", true },
	[COUNT_MISSING_CHUNKS] = { "missing_chunks", "chunks missing from their stream", true },
	[COUNT_DUPLICATE_CHUNKS] = { "duplicate_chunks", "chunks that are there twice", true },
	[COUNT_LOST_EVENTS] = { "lost_events", "events the program could not record", true },
	[COUNT_BAD_VALUES] = { "bad_values", "records with values that can't be true", true },
	[COUNT_MISSING_ENTRIES] = { "missing_entries", "stacks with frames that are missing",
				    true },
	[COUNT_UNKNOWN_RECORDS] = { "unknown_records", "records of a later format", true },
	[COUNT_UNKNOWN_FREES] = { "unknown_frees", "frees of memory not seen allocated", true },
	[COUNT_MISSED_FREES] = { "missed_frees", "frees that were not seen", true },
	[COUNT_WRITER_ERROR] = { "writer_error", "errno that ended recording in a process", true },
};

struct child {
	uint32_t parent, id;
	uint64_t fork_time;
};

struct run {
	input_list inputs;
	struct builder *b;
	const struct pipeline_options *opt;
	struct pipeline_report *rep;
	VEC(struct child) children; /* by parent, fork_time */
	uint64_t done, total; /* bytes of records */
	uint32_t until_progress;
};

/* A process in the middle of its replay. */
struct level {
	struct replay *replay;
	struct merge *merge;
	struct merge_event event; /* read, but a child comes first */
	bool held;
	size_t child, child_end; /* its next forked child, in run.children */
};

/* ---- replay ---------------------------------------------------------------------------------- */

static int by_parent_and_fork(const void *a, const void *b)
{
	const struct child *x = a, *y = b;

	if (x->parent != y->parent)
		return x->parent < y->parent ? -1 : 1;
	if (x->fork_time != y->fork_time)
		return x->fork_time < y->fork_time ? -1 : 1;
	return x->id < y->id ? -1 : x->id > y->id;
}

static void find_children(struct run *run)
{
	for (uint32_t id = 0; id < builder_count(run->b); id++) {
		struct build_process p = builder_get(run->b, id);

		if (p.inherits != NO_ID)
			*vec_push(&run->children) = (struct child){ p.inherits, id, p.fork_time };
	}
	if (run->children.count)
		qsort(run->children.items, run->children.count, sizeof(*run->children.items),
		      by_parent_and_fork);
}

static size_t first_child(const struct run *run, uint32_t parent)
{
	size_t low = 0, high = run->children.count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (run->children.items[mid].parent < parent)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static void level_init(struct run *run, struct level *l, uint32_t id, struct replay *parent)
{
	struct build_process p = builder_get(run->b, id);
	struct trace *t = run->inputs.items[p.trace].trace;

	memset(l, 0, sizeof(*l));
	l->replay = replay_new(run->b, id, parent);
	l->merge = merge_new(t, trace_find(t, p.number));
	l->child = first_child(run, id);
	l->child_end = first_child(run, id + 1);
}

static void level_release(struct run *run, struct level *l)
{
	run->done += merge_bytes(l->merge);
	merge_free(l->merge);
	replay_free(l->replay);
}

static void tell_progress(struct run *run, const struct level *l)
{
	run->until_progress = PROGRESS_EVENTS;
	if (run->opt->progress)
		run->opt->progress(run->opt->progress_arg, run->done + merge_bytes(l->merge),
				   run->total);
}

static const enum replay_part parts[] = {
	[PART_WHOLE] = REPLAY_WHOLE,
	[PART_FREE] = REPLAY_FREE,
	[PART_ALLOC] = REPLAY_ALLOC,
};

/* Replays up to the next fork or the end; true: a child comes first. */
static bool level_run(struct run *run, struct level *l)
{
	uint64_t fork_time = l->child < l->child_end ? run->children.items[l->child].fork_time
						     : UINT64_MAX;

	for (;;) {
		if (!l->held && !merge_next(l->merge, &l->event))
			return l->child < l->child_end;
		l->held = l->event.time > fork_time;
		if (l->held)
			return true;
		if (__builtin_expect(l->event.cell != NULL, 0))
			replay_cell(l->replay, l->event.cell, l->event.slot, l->event.time);
		else
			replay_record(l->replay, l->event.record, parts[l->event.part],
				      l->event.slot, l->event.time);
		if (!--run->until_progress)
			tell_progress(run, l);
	}
}

static void replay_family(struct run *run, uint32_t root)
{
	VEC(struct level) levels = VEC_INIT;

	level_init(run, vec_push(&levels), root, NULL);
	while (levels.count) {
		size_t at = levels.count - 1;

		if (level_run(run, &levels.items[at])) {
			uint32_t child = run->children.items[levels.items[at].child++].id;
			struct replay *parent = levels.items[at].replay;

			level_init(run, vec_push(&levels), child, parent);
		} else {
			level_release(run, &levels.items[at]);
			levels.count--;
		}
	}
	vec_release(&levels);
}

/* ---- what is wrong --------------------------------------------------------------------------- */

static void fill_check(struct pipeline_check *check, struct trace *t)
{
	const struct trace_problems *p = trace_damage(t);
	size_t chunks, streams, processes;

	trace_chunks(t, &chunks);
	trace_streams(t, &streams);
	trace_processes(t, &processes);
	check->path = xstrdup(trace_path(t));
	check->bytes = trace_bytes(t);
	check->counts[COUNT_CHUNKS] = chunks;
	check->counts[COUNT_STREAMS] = streams;
	check->counts[COUNT_PROCESSES] = processes;
	check->counts[COUNT_RECORDS] = p->records;
	check->counts[COUNT_RECORD_BYTES] = p->record_bytes;
	check->counts[COUNT_HEADER_DAMAGE] = p->header_damage;
	check->counts[COUNT_MISSING_BYTES] = p->missing_bytes;
	check->counts[COUNT_GARBAGE_BYTES] = p->garbage_bytes;
	check->counts[COUNT_CUT_CHUNKS] = p->cut_chunks;
	check->counts[COUNT_BAD_CHUNKS] = p->bad_chunks;
	check->counts[COUNT_BAD_BYTES] = p->bad_bytes;
	check->counts[COUNT_UNCOUNTED_CHUNKS] = p->uncounted_chunks;
	check->counts[COUNT_MISSING_CHUNKS] = p->missing_chunks;
	check->counts[COUNT_DUPLICATE_CHUNKS] = p->duplicate_chunks;
	check->counts[COUNT_LOST_EVENTS] = p->lost_events;
	check->counts[COUNT_SILENT_PROCESSES] = p->lost_processes;
	check->counts[COUNT_UNKNOWN_RECORDS] = p->unknown_records;
	check->counts[COUNT_WRITER_ERROR] = trace_header(t)->error;
}

/* Missing or unreadable, by the file's own account; frees the model could not place are apart. */
static bool is_damage(enum pipeline_count c)
{
	return c >= COUNT_HEADER_DAMAGE && c <= COUNT_MISSING_ENTRIES && c != COUNT_LOST_EVENTS;
}

static bool is_damaged(const struct pipeline_check *check)
{
	for (int c = 0; c < COUNTS; c++)
		if (is_damage((enum pipeline_count)c) && check->counts[c])
			return true;
	return false;
}

/* "trace.bin is damaged: 2 chunks ..., 17 bytes ...; the rest was read". */
static void note_damage(struct builder *b, const struct pipeline_check *check)
{
	struct strbuf text = STRBUF_INIT;

	for (int c = 0; c < COUNTS; c++)
		if (is_damage((enum pipeline_count)c) && check->counts[c])
			strbuf_addf(&text, "%s%llu %s", text.len ? ", " : "",
				    (unsigned long long)check->counts[c],
				    pipeline_count_rows[c].text);
	if (text.len)
		builder_note(b, "%s is cut or damaged: %s; the rest was read", check->path,
			     text.buf);
	if (check->counts[COUNT_LOST_EVENTS])
		builder_note(b, "%s: %llu events could not be recorded (no space for them)",
			     check->path, (unsigned long long)check->counts[COUNT_LOST_EVENTS]);
	if (check->counts[COUNT_WRITER_ERROR])
		builder_note(
			b, "%s: recording ended early in a process: %s", check->path,
			check->counts[COUNT_WRITER_ERROR] == EOVERFLOW
				? "its size cap (MEMTRACE_MAX_BYTES) was reached, and what was "
				  "freed after that is not known: nothing is called live"
				: strerror((int)(check->counts[COUNT_WRITER_ERROR] & 0xfff)));
	strbuf_release(&text);
}

static void check_all(struct run *run)
{
	struct pipeline_report *rep = run->rep;

	rep->check_count = run->inputs.count;
	rep->checks = xcalloc(rep->check_count, sizeof(*rep->checks));
	for (uint32_t i = 0; i < rep->check_count; i++) {
		struct pipeline_check *check = &rep->checks[i];

		fill_check(check, run->inputs.items[i].trace);
		note_damage(run->b, check);
	}
}

/* What only the finished model knows. */
static void complete_checks(struct run *run, struct model *m, const struct build_counts *counts)
{
	for (size_t i = 0; i < m->trace_count; i++) {
		struct pipeline_check *check = &run->rep->checks[i];

		check->counts[COUNT_BAD_VALUES] = counts[i].bad_values;
		check->counts[COUNT_MISSING_ENTRIES] = counts[i].missing_entries;
		check->counts[COUNT_UNKNOWN_FREES] = counts[i].unknown_frees;
		check->counts[COUNT_MISSED_FREES] = counts[i].missed_frees;
		check->running = m->traces[i].running;
		m->traces[i].stopped = check->counts[COUNT_WRITER_ERROR] == EOVERFLOW;
		m->traces[i].recovered = is_damaged(check);
		m->traces[i].complete = !m->traces[i].recovered &&
					!check->counts[COUNT_LOST_EVENTS] &&
					!check->counts[COUNT_UNKNOWN_RECORDS] &&
					!check->counts[COUNT_WRITER_ERROR];
		m->lost_events += check->counts[COUNT_LOST_EVENTS];
	}
	model_forget_live(m);
	for (size_t i = 0; i < m->process_count; i++) {
		struct process *p = &m->processes[i];
		struct trace *t = run->inputs.items[p->trace].trace;
		const struct trace_process *tp = trace_find(t, p->number);
		size_t n;
		const struct trace_stream *s = trace_streams(t, &n) + tp->first;
		const struct trace_chunk *c = trace_chunks(t, &n) + s->first;
		const struct trace_chunk *end = c + s[tp->count - 1].first - s->first +
						s[tp->count - 1].all;

		for (; c < end; c++)
			p->lost_events += c->lost;
	}
}

/* ---- the run --------------------------------------------------------------------------------- */

static bool parse_window(struct run *run, struct build_options *o)
{
	char *error = NULL;

	o->has_from = run->opt->from != NULL;
	o->has_to = run->opt->to != NULL;
	if ((!o->has_from || input_time(&run->inputs, run->opt->from, &o->from, &error)) &&
	    (!o->has_to || input_time(&run->inputs, run->opt->to, &o->to, &error))) {
		if (!o->has_from || !o->has_to || o->from <= o->to)
			return true;
		error = xstrdup("--from is later than --to");
	}
	report_error(run->rep, error);
	run->rep->usage_error = true;
	return false;
}

static void add_trace(struct run *run, const struct input *in)
{
	struct build_trace info = input_info(in);
	uint32_t t = builder_trace(run->b, &info);
	size_t n;
	const struct trace_chunk *chunks = trace_chunks(in->trace, &n);

	for (size_t i = 0; i < n; i++)
		if (chunks[i].kind == MT_CHUNK_RECORDS)
			run->total += chunks[i].used;
	for (size_t i = 0; i < in->processes.count; i++) {
		const struct input_process *p = &in->processes.items[i];

		builder_process(run->b, t, p->process->proc, p->known ? &p->ev : NULL,
				p->first_time);
	}
}

static struct model *run_inputs(struct run *run)
{
	struct build_options o = { .pid = run->opt->pid, .role = run->opt->role };
	struct build_counts *counts;
	struct model *m;

	if (!parse_window(run, &o))
		return NULL;
	run->b = builder_new(&o);
	run->until_progress = PROGRESS_EVENTS;
	for (size_t i = 0; i < run->inputs.count; i++)
		add_trace(run, &run->inputs.items[i]);
	builder_begin(run->b);
	find_children(run);
	for (uint32_t id = 0; id < builder_count(run->b); id++)
		if (builder_get(run->b, id).inherits == NO_ID)
			replay_family(run, id);
	check_all(run);
	if (run->opt->progress)
		run->opt->progress(run->opt->progress_arg, run->total, run->total);
	counts = xcalloc(run->inputs.count, sizeof(*counts));
	m = builder_finish(run->b, counts);
	complete_checks(run, m, counts);
	free(counts);
	labels_fill(m);
	return m;
}

static struct model *run_and_release(struct run *run)
{
	struct model *m = run->inputs.count ? run_inputs(run) : NULL;

	for (size_t i = 0; i < run->inputs.count; i++)
		input_release(&run->inputs.items[i]);
	vec_release(&run->inputs);
	vec_release(&run->children);
	return m;
}

static const struct pipeline_options no_options;

struct model *pipeline_run(const char *const *paths, size_t n, const struct pipeline_options *opt,
			   struct pipeline_report *rep)
{
	struct run run;

	memset(rep, 0, sizeof(*rep));
	memset(&run, 0, sizeof(run));
	run.opt = opt ? opt : &no_options;
	run.rep = rep;
	for (size_t i = 0; i < n; i++)
		inputs_open(&run.inputs, paths[i], rep);
	return run_and_release(&run);
}

struct model *pipeline_run_buffer(const void *data, size_t size, const char *name,
				  const struct pipeline_options *opt, struct pipeline_report *rep)
{
	struct run run;
	struct trace *t;
	char *error = NULL;

	memset(rep, 0, sizeof(*rep));
	memset(&run, 0, sizeof(run));
	run.opt = opt ? opt : &no_options;
	run.rep = rep;
	t = trace_open_buffer(data, size, name, &error);
	if (t)
		input_init(vec_push(&run.inputs), t);
	else
		report_error(rep, error);
	return run_and_release(&run);
}

void pipeline_report_release(struct pipeline_report *rep)
{
	for (size_t i = 0; i < rep->error_count; i++)
		free(rep->errors[i]);
	for (size_t i = 0; i < rep->check_count; i++)
		free(rep->checks[i].path);
	free(rep->errors);
	free(rep->checks);
	memset(rep, 0, sizeof(*rep));
}
