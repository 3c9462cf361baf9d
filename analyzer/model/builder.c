/*
 * The builder's frame: traces and their clocks, the list of processes, notes. See build.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "model/build.h"

#include <stdarg.h>
#include <string.h>

#include "model/internal.h"
#include "model/sharing.h"
#include "util/strbuf.h"

#define TIME_LIMIT (INT64_C(1) << 62) /* damaged times end here */
#define UNIT_RATE (UINT64_C(1) << 32)

struct builder *builder_new(const struct build_options *options)
{
	struct builder *b = xcalloc(1, sizeof(*b));

	if (options)
		b->options = *options;
	b->m = xcalloc(1, sizeof(*b->m));
	return b;
}

static struct timebase timebase_of(const struct mt_file_header *h, const struct build_clock *clock)
{
	struct timebase tb = { .start = h->start_ticks, .shift = h->time_shift, .rate = UNIT_RATE };
	int64_t ticks = (int64_t)(clock->ticks - h->start_ticks);
	int64_t ns = (int64_t)(clock->monotonic_ns - h->start_monotonic_ns);
	unsigned __int128 rate;

	if (!(h->flags & MT_FILE_TSC))
		return tb;
	tb.guessed = true;
	if (!clock->ticks || ticks <= 0 || ns <= 0)
		return tb;
	rate = ((unsigned __int128)ns << 32) / (unsigned __int128)ticks;
	/* Counters run at 1 MHz to 100 GHz; anything else is a damaged record. */
	if (rate < UNIT_RATE / 100 || rate > UNIT_RATE * 1000)
		return tb;
	tb.rate = (uint64_t)rate;
	tb.guessed = false;
	return tb;
}

int64_t timebase_ns(const struct timebase *tb, uint64_t units)
{
	__int128 ticks = ((__int128)units << tb->shift) - tb->start;
	__int128 ns;

	if (ticks > TIME_LIMIT)
		ticks = TIME_LIMIT;
	if (ticks < -TIME_LIMIT)
		ticks = -TIME_LIMIT;
	ns = ticks * (__int128)tb->rate / (__int128)UNIT_RATE;
	if (ns > TIME_LIMIT)
		return TIME_LIMIT;
	return ns < -TIME_LIMIT ? -TIME_LIMIT : (int64_t)ns;
}

uint64_t timebase_units(const struct timebase *tb, int64_t ns)
{
	__int128 ticks = (__int128)ns * (__int128)UNIT_RATE / (__int128)tb->rate + tb->start;

	if (ticks < 0)
		return 0;
	ticks >>= tb->shift;
	return ticks > (__int128)(UINT64_MAX / 2) ? UINT64_MAX / 2 : (uint64_t)ticks;
}

uint32_t builder_trace(struct builder *b, const struct build_trace *info)
{
	struct trace_info *t = vec_push(&b->traces);

	t->path = xstrdup(info->path);
	t->bytes = info->bytes;
	t->start_realtime_ns = (int64_t)info->header->start_realtime_ns;
	t->page_size = info->header->page_size;
	t->complete = true;
	*vec_push(&b->clocks) = timebase_of(info->header, &info->clock);
	*vec_push(&b->headers) = *info->header;
	(void)vec_push(&b->counts);
	return (uint32_t)b->traces.count - 1;
}

void builder_process(struct builder *b, uint32_t trace, uint32_t number,
		     const struct mt_ev_process *ev, uint64_t first_time)
{
	struct proc *p = vec_push(&b->procs);

	p->trace = trace;
	p->number = number;
	p->inherits = NO_ID;
	p->first_time = ev ? ev->time : first_time;
	p->known = ev != NULL;
	if (ev)
		p->ev = *ev;
}

static int by_start(const void *a, const void *b)
{
	const struct proc *x = a, *y = b;

	if (x->trace != y->trace)
		return x->trace < y->trace ? -1 : 1;
	if (x->first_time != y->first_time)
		return x->first_time < y->first_time ? -1 : 1;
	return x->number < y->number ? -1 : x->number > y->number;
}

uint32_t builder_find(const struct builder *b, uint32_t trace, uint32_t number)
{
	char key[8];
	uint64_t *id;

	memcpy(key, &trace, 4);
	memcpy(key + 4, &number, 4);
	id = hashmap_get(&b->numbers, key, sizeof(key));
	return id ? (uint32_t)*id : NO_ID;
}

static void process_start(struct builder *b, struct proc *p, uint32_t id)
{
	struct process *out = vec_push(&b->processes);
	char key[8];

	p->id = id;
	memcpy(key, &p->trace, 4);
	memcpy(key + 4, &p->number, 4);
	*hashmap_slot(&b->numbers, key, sizeof(key), NULL) = id;
	dict_init(&p->dict, p->known ? &p->ev : NULL);
	out->id = id;
	out->trace = p->trace;
	out->number = p->number;
	out->pid = (uint32_t)p->ev.pid;
	out->ppid = (uint32_t)p->ev.ppid;
	out->parent = out->image_of = NO_ID;
	out->reason = p->ev.reason <= MT_PROCESS_ATTACHED ? (enum mt_process_reason)p->ev.reason
							  : MT_PROCESS_ROOT;
	out->rank = -1;
	out->worker.index = out->worker.of = -1;
	out->worker.owner = NO_ID;
	out->fork_inexact = p->ev.flags & 1;
	out->start = out->end = timebase_ns(&b->clocks.items[p->trace], p->first_time);
	if (!p->known)
		builder_note(b,
			     "the record that says what process number %u of %s is, is missing: "
			     "its parent and what it inherited are unknown",
			     p->number, b->traces.items[p->trace].path);
}

void builder_begin(struct builder *b)
{
	if (b->procs.count)
		qsort(b->procs.items, b->procs.count, sizeof(*b->procs.items), by_start);
	for (size_t i = 0; i < b->procs.count; i++)
		process_start(b, &b->procs.items[i], (uint32_t)i);
	for (size_t i = 0; i < b->procs.count; i++) {
		struct proc *p = &b->procs.items[i];

		/* A child's number is always the higher one; a damaged record must not make a ring.
		 */
		if (p->known && p->ev.reason == MT_PROCESS_FORK && p->ev.parent < p->number)
			p->inherits = builder_find(b, p->trace, (uint32_t)p->ev.parent);
		if (p->known && p->ev.reason == MT_PROCESS_FORK && p->inherits == NO_ID)
			builder_note(
				b,
				"process %u was forked by one that is not in the trace: what it "
				"inherited is unknown",
				(unsigned int)p->ev.pid);
	}
	for (size_t i = 0; i < b->clocks.count; i++)
		if (b->clocks.items[i].guessed)
			builder_note(b,
				     "%s has no record of how fast its clock ran: times are in "
				     "ticks, not seconds",
				     b->traces.items[i].path);
}

size_t builder_count(const struct builder *b)
{
	return b->procs.count;
}

struct build_process builder_get(const struct builder *b, uint32_t id)
{
	const struct proc *p = &b->procs.items[id];

	return (struct build_process){ .trace = p->trace,
				       .number = p->number,
				       .inherits = p->inherits,
				       .fork_time = p->ev.fork_time };
}

int64_t builder_ns(const struct builder *b, uint32_t trace, uint64_t units)
{
	return timebase_ns(&b->clocks.items[trace], units);
}

void builder_note(struct builder *b, const char *fmt, ...)
{
	struct strbuf sb = STRBUF_INIT;
	va_list ap;
	bool is_new;

	va_start(ap, fmt);
	strbuf_vaddf(&sb, fmt, ap);
	va_end(ap);
	hashmap_slot(&b->note_set, sb.buf, sb.len, &is_new);
	if (is_new)
		*vec_push(&b->notes) = strbuf_detach(&sb);
	strbuf_release(&sb);
}

char *text_of(struct mt_str s)
{
	return xstrndup(s.data, s.len ? strnlen(s.data, s.len) : 0);
}

static void proc_release(struct proc *p)
{
	sharing_release(p);
	dict_release(&p->dict);
	for (size_t i = 0; i < p->sites.count; i++)
		free(p->sites.items[i].cohorts);
	vec_release(&p->sites);
	vec_release(&p->backing);
	vec_release(&p->samples);
	for (size_t i = 0; i < p->threads.count; i++)
		free(p->threads.items[i].name);
	vec_release(&p->threads);
	for (size_t i = 0; i < p->children.count; i++)
		free(p->children.items[i].path);
	vec_release(&p->children);
	for (size_t i = 0; i < p->facts.count; i++)
		free(p->facts.items[i]);
	vec_release(&p->facts);
	vec_release(&p->asked);
	vec_release(&p->launches);
}

void builder_free(struct builder *b)
{
	if (!b)
		return;
	for (size_t i = 0; i < b->procs.count; i++)
		proc_release(&b->procs.items[i]);
	vec_release(&b->procs);
	vec_release(&b->clocks);
	vec_release(&b->headers);
	vec_release(&b->counts);
	vec_release(&b->waits);
	vec_release(&b->pids);
	for (size_t i = 0; i < b->foreign.count; i++)
		page_walk_release(&b->foreign.items[i].walk);
	vec_release(&b->foreign);
	vec_release(&b->gpu_seen);
	hashmap_release(&b->shm.index);
	vec_release(&b->shm.objects);
	vec_release(&b->shm.uses);
	vec_release(&b->shm.unlinks);
	hashmap_release(&b->numbers);
	hashmap_release(&b->note_set);
	hashmap_release(&b->module_set);
	hashmap_release(&b->code_set);
	index_release(&b->native_set);
	index_release(&b->python_set);
	arena_release(&b->arena);
	/* What the model would have got: finish.c moves it there and leaves these empty. */
	b->m->traces = b->traces.items;
	b->m->trace_count = b->traces.count;
	b->m->processes = b->processes.items;
	b->m->process_count = b->processes.count;
	b->m->marks = b->marks.items;
	b->m->mark_count = b->marks.count;
	b->m->notes = b->notes.items;
	b->m->note_count = b->notes.count;
	b->m->modules = b->modules.items;
	b->m->module_count = b->modules.count;
	b->m->codes = b->codes.items;
	b->m->code_count = b->codes.count;
	b->m->native = b->native.items;
	b->m->python = b->python.items;
	model_free(b->m);
	free(b);
}
