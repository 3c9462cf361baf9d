/*
 * Records that are not about memory: dictionaries, facts, threads, children, samples, marks. Kept
 * as they are; what they mean together is found out when all is read (tree.c, roles.c).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "model/internal.h"

/* What every handler gets. */
struct context {
	struct builder *b;
	struct proc *p;
	const struct mt_record *r;
	uint32_t stream;
	int64_t time; /* ns */
	uint64_t live_bytes;
};

static void check(struct context *c, bool plausible)
{
	if (!plausible)
		c->p->bad_values++;
}

static void add_node(struct context *c)
{
	check(c, dict_add_node(&c->p->dict, &c->r->u.node));
}

static void add_frame(struct context *c)
{
	check(c, dict_add_frame(&c->p->dict, &c->r->u.frame));
}

static void add_module(struct context *c)
{
	const struct mt_ev_module *e = &c->r->u.module;

	check(c, dict_add_module(&c->p->dict, e->id, stack_module(c->b, e->path, e->build_id)));
}

static void add_string(struct context *c)
{
	check(c, dict_add_string(&c->p->dict, &c->r->u.string, &c->b->arena));
}

static void add_code(struct context *c)
{
	check(c, dict_add_code(&c->p->dict, &c->r->u.code, &c->b->arena));
}

static void add_pynode(struct context *c)
{
	check(c, dict_add_pynode(&c->p->dict, &c->r->u.pynode));
}

/* The command line is one fact, its arguments apart by zero bytes; shown with blanks. */
static char *fact_value(struct mt_str s)
{
	char *value = xstrndup(s.data, s.len);

	while (s.len && !value[s.len - 1])
		s.len--;
	for (uint32_t i = 0; i < s.len; i++)
		if (!value[i])
			value[i] = ' ';
	return value;
}

static void add_fact(struct context *c)
{
	const struct mt_ev_fact *e = &c->r->u.fact;
	char *key = text_of(e->key);

	for (size_t i = 0; i < c->p->facts.count; i += 2) {
		if (!strcmp(c->p->facts.items[i], key)) {
			free(key);
			free(c->p->facts.items[i + 1]);
			c->p->facts.items[i + 1] = fact_value(e->value);
			return;
		}
	}
	*vec_push(&c->p->facts) = key;
	*vec_push(&c->p->facts) = fact_value(e->value);
}

static struct thread_info *open_thread(struct proc *p, uint64_t tid)
{
	for (size_t i = p->threads.count; i-- > 0;)
		if (p->threads.items[i].tid == tid && p->threads.items[i].end < 0)
			return &p->threads.items[i];
	return NULL;
}

static void add_thread(struct context *c)
{
	const struct mt_ev_thread *e = &c->r->u.thread;
	struct thread_info *t = open_thread(c->p, e->tid);

	if (!t) {
		t = vec_push(&c->p->threads);
		t->tid = (uint32_t)e->tid;
		t->start = c->time;
		t->end = -1;
	}
	free(t->name);
	t->name = text_of(e->name); /* again when it was renamed */
}

static void end_thread(struct context *c)
{
	struct thread_info *t = open_thread(c->p, c->r->u.thread_end.tid);

	if (t)
		t->end = c->time;
}

static struct child_event *add_child(struct context *c, int how, uint64_t pid, uint64_t traced)
{
	struct child_event *child = vec_push(&c->p->children);

	child->how = how;
	child->pid = (uint32_t)pid;
	child->time = c->time;
	child->traced = traced != 0;
	child->process = NO_ID;
	return child;
}

static void add_fork(struct context *c)
{
	const struct mt_ev_fork *e = &c->r->u.fork;
	struct child_event *child = add_child(c, CHILD_FORK, e->pid, 1);

	child->native = e->native < UINT32_MAX ? (uint32_t)e->native : UINT32_MAX;
	child->python = e->python < UINT32_MAX ? (uint32_t)e->python : UINT32_MAX;
}

static void add_spawn(struct context *c)
{
	const struct mt_ev_spawn *e = &c->r->u.spawn;

	add_child(c, CHILD_SPAWN, e->pid, e->traced)->path = text_of(e->path);
}

static void add_exec(struct context *c)
{
	const struct mt_ev_exec *e = &c->r->u.exec;

	add_child(c, CHILD_EXEC, e->pid, e->traced)->path = text_of(e->path);
	if (e->pid == c->p->ev.pid)
		c->p->exec_pending = true;
}

static void fail_exec(struct context *c)
{
	uint64_t pid = c->r->u.exec_failed.pid;

	for (size_t i = c->p->children.count; i-- > 0;) {
		struct child_event *e = &c->p->children.items[i];

		if (e->how == CHILD_EXEC && e->pid == pid && !e->failed) {
			e->failed = true;
			break;
		}
	}
	if (pid == c->p->ev.pid)
		c->p->exec_pending = false;
}

static void add_exit(struct context *c)
{
	if (c->r->u.exit.kind == MT_EXIT_DETACHED) {
		c->b->processes.items[c->p->id].detached = true;
		return;
	}
	c->p->exited = true;
	c->p->exit_code = (int32_t)(c->r->u.exit.code & 0xff);
}

static void add_wait(struct context *c)
{
	const struct mt_ev_wait *e = &c->r->u.wait;
	struct build_wait *w = vec_push(&c->b->waits);

	w->process = c->p->id;
	w->pid = (uint32_t)e->pid;
	w->signal = e->signal;
	w->code = e->code;
	w->time = c->time;
}

static void add_sample(struct context *c)
{
	const struct mt_ev_sample *e = &c->r->u.sample;
	struct build_sample *s = vec_push(&c->p->samples);

	s->s.time = c->time;
	s->s.v = *e;
	s->pid = e->pid == c->p->ev.pid ? 0 : (uint32_t)e->pid;
	s->s.live_bytes = s->pid ? SAMPLE_LIVE_UNKNOWN : c->live_bytes;
}

static void add_mark(struct context *c)
{
	const struct mt_ev_mark *e = &c->r->u.mark;
	struct mark *m;

	if (e->kind > MT_MARK_SHUTDOWN) {
		c->p->bad_values++;
		return;
	}
	if (e->kind == MT_MARK_SHUTDOWN) /* not the program's own; replay.c looks at it */
		return;
	m = vec_push(&c->b->marks);
	m->time = c->time;
	m->process = c->p->id;
	m->kind = (enum mt_mark_kind)e->kind;
	m->value = e->value;
	m->label = text_of(e->label);
}

static void add_launch(struct context *c)
{
	uint64_t python = c->r->u.launch.python;

	*vec_push(&c->p->launches) =
		(struct launch){ c->time, python < UINT32_MAX ? (uint32_t)python : UINT32_MAX };
}

static void add_note(struct context *c)
{
	char *text = text_of(c->r->u.note.text);

	builder_note(c->b, "%s", text);
	free(text);
}

static void add_before(struct context *c)
{
	struct process *p = &c->b->processes.items[c->p->id];

	p->late = true;
	p->before = c->r->u.before;
}

static void add_older(struct context *c)
{
	struct process *p = &c->b->processes.items[c->p->id];

	free(p->older);
	p->older = text_of(c->r->u.older.text);
}

static void add_gpu_seen(struct context *c)
{
	const struct mt_ev_gpu_seen *e = &c->r->u.gpu_seen;
	const struct timebase *clock = &c->b->clocks.items[c->p->trace];
	uint64_t asked = e->time - e->asked;
	struct gpu_seen *s;

	if (e->uuid.len != 16 || e->asked > e->time || e->took > e->asked) {
		c->p->bad_values++;
		return;
	}
	s = vec_push(&c->b->gpu_seen);
	*s = (struct gpu_seen){ .trace = c->p->trace,
				.pid = (uint32_t)e->pid,
				.from = timebase_ns(clock, asked),
				.to = timebase_ns(clock, asked + e->took),
				.own = e->own,
				.all = e->all };
	memcpy(s->uuid, e->uuid.data, sizeof(s->uuid));
}

static void (*const handlers[])(struct context *c) = {
	[MT_EV_FACT] = add_fact,	 [MT_EV_THREAD] = add_thread,
	[MT_EV_THREAD_END] = end_thread, [MT_EV_MODULE] = add_module,
	[MT_EV_FRAME] = add_frame,	 [MT_EV_STRING] = add_string,
	[MT_EV_CODE] = add_code,	 [MT_EV_PYNODE] = add_pynode,
	[MT_EV_FORK] = add_fork,	 [MT_EV_EXEC] = add_exec,
	[MT_EV_EXEC_FAILED] = fail_exec, [MT_EV_SPAWN] = add_spawn,
	[MT_EV_EXIT] = add_exit,	 [MT_EV_WAIT] = add_wait,
	[MT_EV_SAMPLE] = add_sample,	 [MT_EV_MARK] = add_mark,
	[MT_EV_NOTE] = add_note,	 [MT_EV_NODE] = add_node,
	[MT_EV_BEFORE] = add_before,	 [MT_EV_LAUNCH] = add_launch,
	[MT_EV_OLDER] = add_older,	 [MT_EV_GPU_SEEN] = add_gpu_seen,
};

bool record_add(struct builder *b, struct proc *p, const struct mt_record *r, uint32_t stream,
		uint64_t time, uint64_t live_bytes)
{
	struct context c = { .b = b, .p = p, .r = r, .stream = stream, .live_bytes = live_bytes };

	if (r->id >= sizeof(handlers) / sizeof(handlers[0]) || !handlers[r->id])
		return false;
	if (r->id == MT_EV_NODE) {
		add_node(&c); /* as frequent as allocations at times, and needs no clock */
		return true;
	}
	c.time = timebase_ns(&b->clocks.items[p->trace], time);
	handlers[r->id](&c);
	return true;
}
