/*
 * What each process was for: the root, a rank, a DataLoader worker, a forkserver, or just a child.
 * Workers are recognised by the Python stack that forked them (or, where it is not known, by what
 * runs in them), never by their number or name.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "model/internal.h"
#include "util/pyfile.h"

enum code_flag {
	CODE_LOADER = 1, /* torch/utils/data/dataloader.py */
	CODE_WORKER =
		2, /* torch/utils/data/_utils/worker.py; of a node: its loop, see roles_init() */
	CODE_MULTIPROCESSING = 4, /* the standard library's or torch's */
	CODE_TORCH = 8, /* any file of torch */
	CODE_FROZEN = 16, /* "<frozen importlib...>" and the like */
	CODE_THREADING = 32, /* threading.py */
	CODE_USERS = 64, /* in no package, not in Python's library */
};

/* Two forks of one DataLoader iterator are milliseconds apart, epochs are not; by other methods the
 * data set is pickled in between. */
#define SAME_CALL_NS INT64_C(5000000000)
#define SAME_CALL_PICKLED_NS INT64_C(60000000000)

struct loader {
	uint32_t owner; /* process whose loader it is */
	uint32_t node; /* canonical Python stack of the user's line; 0: not known */
	uint32_t round; /* of forks: one per iterator that was made */
	uint32_t first, count; /* of the round, in the list of workers */
	int64_t last; /* fork of it */
};

struct worker {
	uint32_t process;
	size_t loader;
	int64_t time; /* when its loader asked for it */
};

struct roles {
	struct builder *b;
	uint8_t *codes; /* enum code_flag per code */
	uint8_t *nodes; /* ... of a Python node and all its callers */
	VEC(struct loader) loaders;
	VEC(struct worker) workers;
};

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n >= m && !strcmp(s + n - m, end);
}

static uint8_t flags_of(const struct code *c)
{
	uint8_t flags = 0;

	if (ends_with(c->filename, "torch/utils/data/dataloader.py"))
		flags |= CODE_LOADER;
	if (ends_with(c->filename, "torch/utils/data/_utils/worker.py"))
		flags |= CODE_WORKER;
	if (strstr(c->filename, "multiprocessing/"))
		flags |= CODE_MULTIPROCESSING;
	if (strstr(c->filename, "/torch/") || !strncmp(c->filename, "torch/", 6))
		flags |= CODE_TORCH;
	if (ends_with(c->filename, "/threading.py"))
		flags |= CODE_THREADING;
	if (c->filename[0] == '<')
		flags |= CODE_FROZEN;
	if (pyfile_is_users(c->filename))
		flags |= CODE_USERS;
	return flags;
}

/* Flags of one frame. */
static uint8_t frame_flags(const struct roles *r, uint32_t node)
{
	uint32_t code = r->b->python.items[node].code;

	return code == NO_ID ? 0 : r->codes[code];
}

static void roles_init(struct roles *r, struct builder *b)
{
	memset(r, 0, sizeof(*r));
	r->b = b;
	r->codes = xcalloc(b->codes.count, 1);
	r->nodes = xcalloc(b->python.count, 1);
	for (size_t i = 0; i < b->codes.count; i++)
		r->codes[i] = flags_of(&b->codes.items[i]);
	/* A caller is always interned before those it calls. */
	for (size_t i = 1; i < b->python.count; i++) {
		uint32_t caller = b->python.items[i].parent;
		uint8_t flags = frame_flags(r, (uint32_t)i);

		/* Everybody imports that file, and main asks it who it is: a process or thread that
		 * begins in it is a worker, whatever the function is called. */
		if (!caller || !(frame_flags(r, caller) & (CODE_MULTIPROCESSING | CODE_THREADING)))
			flags &= (uint8_t)~CODE_WORKER;
		r->nodes[i] = r->nodes[caller] | flags;
	}
}

/* The DataLoader frame that is forking here, or 0: between it and the fork lies only
 * multiprocessing. */
static uint32_t forking_loader(const struct roles *r, uint32_t node)
{
	const struct python_node *nodes = r->b->python.items;
	bool through = false;

	while (node && (frame_flags(r, node) & CODE_MULTIPROCESSING)) {
		through = true;
		node = nodes[node].parent;
	}
	return through && node && (frame_flags(r, node) & CODE_LOADER) ? node : 0;
}

/* A stack inside a worker: its outer part is the stack that forked it. */
static uint32_t forking_loader_inside(const struct roles *r, uint32_t node)
{
	const struct python_node *nodes = r->b->python.items;

	if ((r->nodes[node] & (CODE_LOADER | CODE_WORKER)) != (CODE_LOADER | CODE_WORKER))
		return 0;
	while (node && !(frame_flags(r, node) & CODE_LOADER))
		node = nodes[node].parent;
	return node;
}

/* The nearest frame that is none of torch's, and of the user's own files if users. */
static uint32_t nearest(const struct roles *r, uint32_t node, bool users)
{
	const struct python_node *nodes = r->b->python.items;

	while (node &&
	       ((frame_flags(r, node) & (CODE_TORCH | CODE_MULTIPROCESSING | CODE_FROZEN)) ||
		(users && !(frame_flags(r, node) & CODE_USERS))))
		node = nodes[node].parent;
	return node;
}

/* The stack that ends in the user's line: accelerate, lightning and others go over a loader on his
 * behalf. A program may itself be an installed package. */
static uint32_t user_node(const struct roles *r, uint32_t node)
{
	uint32_t users = nearest(r, node, true);

	return users ? users : nearest(r, node, false);
}

/* Does it run a worker's loop? *loader: the DataLoader frame outside it, or 0. */
static bool runs_worker_code(const struct roles *r, const struct proc *p, uint32_t *loader)
{
	*loader = 0;
	for (size_t i = 0; i < p->sites.count; i++) {
		uint32_t node = p->sites.items[i].python;

		if (!(r->nodes[node] & CODE_WORKER))
			continue;
		*loader = forking_loader_inside(r, node);
		return true;
	}
	return false;
}

static bool ended_before(const struct builder *b, uint32_t process, int64_t time)
{
	const struct process *p = &b->processes.items[process];

	return (p->end_kind == END_EXIT || p->end_kind == END_SIGNAL) && p->end < time;
}

/* The round of forks that a worker belongs to; a new one when the last is over. */
static size_t loader_of(struct roles *r, const struct process *p, uint32_t node, int64_t time)
{
	bool forked = !strcmp(p->worker.start_method, "fork");
	struct loader *l;
	size_t i;

	for (i = r->loaders.count; i-- > 0;)
		if (r->loaders.items[i].owner == p->worker.owner &&
		    r->loaders.items[i].node == node)
			break;
	if (i < r->loaders.count) {
		bool over = time - r->loaders.items[i].last >
			    (forked ? SAME_CALL_NS : SAME_CALL_PICKLED_NS);

		for (size_t w = 0; w < r->workers.count && !over; w++)
			over = r->workers.items[w].loader == i &&
			       ended_before(r->b, r->workers.items[w].process, time);
		if (!over)
			return i;
	}
	l = vec_push(&r->loaders);
	l->owner = p->worker.owner;
	l->node = node;
	l->round = i < r->loaders.count - 1 ? r->loaders.items[i].round + 1 : 0;
	return r->loaders.count - 1;
}

/*
 * Where a loader of this process asked for a worker, the last time before: a fork server or a spawned
 * worker has none of that on its stack. 0: not seen.
 */
static uint32_t launching_loader(const struct roles *r, uint32_t owner, int64_t before)
{
	const struct proc *p = &r->b->procs.items[owner];

	for (size_t i = p->launches.count; i-- > 0;) {
		uint32_t frame;

		if (p->launches.items[i].time > before)
			continue;
		frame = forking_loader(r, p->launches.items[i].python);
		if (frame)
			return frame;
	}
	return 0;
}

static uint32_t owner_of(const struct builder *b, const struct process *p, const char *how)
{
	uint32_t up = p->parent;

	if (!strcmp(how, "forkserver") && up != NO_ID)
		up = b->processes.items[up].parent;
	return up;
}

static void make_worker(struct roles *r, struct process *p, uint32_t frame, const char *how)
{
	const struct child_event *e = r->b->procs.items[p->id].made_by;
	int64_t time = e ? e->time : p->start;
	struct worker *w = vec_push(&r->workers);
	struct loader *l;

	p->role = "dataloader-worker";
	p->worker.is = true;
	p->worker.start_method = how;
	p->worker.owner = owner_of(r->b, p, how);
	if (!frame && p->worker.owner != NO_ID)
		frame = launching_loader(r, p->worker.owner, time);
	p->worker.node = user_node(r, frame);
	w->process = p->id;
	w->time = time;
	w->loader = loader_of(r, p, p->worker.node, time);
	l = &r->loaders.items[w->loader];
	l->count++;
	p->generation = l->round;
	l->last = time;
}

static int by_loader_and_time(const void *a, const void *b)
{
	const struct worker *x = a, *y = b;

	if (x->loader != y->loader)
		return x->loader < y->loader ? -1 : 1;
	if (x->time != y->time)
		return x->time < y->time ? -1 : 1;
	return x->process < y->process ? -1 : 1;
}

/* A number that the process said of itself; -1: it did not. */
static int32_t own_number(const struct builder *b, uint32_t process, const char *key)
{
	const char *value = proc_fact(&b->procs.items[process], key);

	return value && *value >= '0' && *value <= '9' && strlen(value) < 7
		       ? (int32_t)strtol(value, NULL, 10)
		       : -1;
}

/* A loader starts its workers in order of their index; they may begin to run in another. What the
 * worker's own arguments say counts more. */
static void number_workers(struct roles *r)
{
	size_t index = 0;

	if (r->workers.count)
		qsort(r->workers.items, r->workers.count, sizeof(*r->workers.items),
		      by_loader_and_time);
	for (size_t i = 0; i < r->workers.count; i++) {
		const struct worker *w = &r->workers.items[i];
		struct process *p = &r->b->processes.items[w->process];

		index = i && w[-1].loader == w->loader ? index + 1 : 0;
		p->worker.index = (int32_t)index;
		p->worker.of = (int32_t)r->loaders.items[w->loader].count;
		if (own_number(r->b, w->process, "worker") >= 0)
			p->worker.index = own_number(r->b, w->process, "worker");
		if (own_number(r->b, w->process, "workers") > p->worker.index)
			p->worker.of = own_number(r->b, w->process, "workers");
	}
}

/* Newer loaders may have threads for workers: they run a worker's loop in the process itself. */
static void count_threads(struct roles *r, struct process *p)
{
	const struct proc *from = &r->b->procs.items[p->id];
	uint32_t frame;

	if (p->worker.is || !runs_worker_code(r, from, &frame))
		return;
	for (size_t i = 0; i < from->threads.count; i++)
		p->worker.threads += !strncmp(from->threads.items[i].name, "pt_thread_data", 14);
}

/* A number from the environment, or from torch.multiprocessing.spawn, and not its parent's. From
 * another variable it is another: a launcher may be task 0 of Slurm, and so is rank 0 below it. */
static bool is_rank(const struct builder *b, const struct process *p)
{
	const struct proc *own = &b->procs.items[p->id];
	const char *rank = proc_fact(own, "rank"), *from = proc_fact(own, "rank_from");
	const char *size = proc_fact(own, "world_size"), *above = NULL, *above_from = NULL;

	if (own_number(b, p->id, "spawn_rank") >= 0)
		return true;
	if (!rank || !*rank || (size && !strcmp(size, "1")))
		return false;
	for (uint32_t up = p->parent; up != NO_ID && !above; up = b->processes.items[up].parent) {
		above = proc_fact(&b->procs.items[up], "rank");
		above_from = proc_fact(&b->procs.items[up], "rank_from");
	}
	return !above || strcmp(above, rank) != 0 ||
	       (from && above_from && strcmp(from, above_from) != 0);
}

static bool has_fact(const struct builder *b, const struct process *p, const char *key,
		     const char *part)
{
	const char *value = proc_fact(&b->procs.items[p->id], key);

	return value && strstr(value, part);
}

static void assign_forked(struct roles *r, struct process *p)
{
	const struct process *parent = p->parent == NO_ID ? NULL
							  : &r->b->processes.items[p->parent];
	const struct child_event *e = r->b->procs.items[p->id].made_by;
	uint32_t frame = e ? forking_loader(r, e->python) : 0;

	p->role = "forked";
	if (own_number(r->b, p->id, "spawn_rank") >= 0) {
		p->role = "rank";
	} else if (frame) {
		make_worker(r, p, frame, "fork");
	} else if (parent && !strcmp(parent->role, "forkserver")) {
		if (runs_worker_code(r, &r->b->procs.items[p->id], &frame))
			make_worker(r, p, frame, "forkserver");
	} else if (!e && !(parent && parent->worker.is) &&
		   runs_worker_code(r, &r->b->procs.items[p->id], &frame) && frame) {
		make_worker(r, p, frame, "fork");
	}
}

static void assign(struct roles *r, struct process *p)
{
	const struct process *before = p->image_of == NO_ID ? NULL
							    : &r->b->processes.items[p->image_of];
	uint32_t frame;

	if (p->reason == MT_PROCESS_FORK) {
		assign_forked(r, p);
	} else if (p->reason == MT_PROCESS_ATTACHED && !is_rank(r->b, p)) {
		p->role = "forked"; /* or started: its beginning was not seen */
		if (runs_worker_code(r, &r->b->procs.items[p->id], &frame) && frame)
			make_worker(r, p, frame, "fork");
	} else if (is_rank(r->b, p)) {
		p->role = "rank";
	} else if (p->reason == MT_PROCESS_ROOT || (before && !strcmp(before->role, "main"))) {
		p->role = r->b->procs.items[p->id].known || p->number == 1 ? "main" : "forked";
	} else if (has_fact(r->b, p, "cmdline", "multiprocessing.forkserver")) {
		p->role = "forkserver";
	} else {
		p->role = "exec";
		if (has_fact(r->b, p, "cmdline", "multiprocessing.spawn") &&
		    runs_worker_code(r, &r->b->procs.items[p->id], &frame))
			make_worker(r, p, frame, "spawn");
	}
}

static void assign_rank_number(struct builder *b, struct process *p)
{
	const char *rank = NULL;

	for (uint32_t at = p->id; at != NO_ID && !rank; at = b->processes.items[at].parent) {
		rank = proc_fact(&b->procs.items[at], "spawn_rank");
		if (!rank)
			rank = proc_fact(&b->procs.items[at], "rank");
	}
	if (rank && *rank >= '0' && *rank <= '9' && strlen(rank) < 9)
		p->rank = (int32_t)strtol(rank, NULL, 10);
}

void roles_assign(struct builder *b)
{
	struct roles r;

	roles_init(&r, b);
	for (size_t i = 0; i < b->processes.count; i++) {
		assign(&r, &b->processes.items[i]);
		assign_rank_number(b, &b->processes.items[i]);
	}
	number_workers(&r);
	for (size_t i = 0; i < b->processes.count; i++)
		count_threads(&r, &b->processes.items[i]);
	vec_release(&r.loaders);
	vec_release(&r.workers);
	free(r.codes);
	free(r.nodes);
}

struct worker_key {
	uint32_t owner, node;
	int32_t index;
};

bool *roles_superseded(const struct process *processes, size_t count)
{
	bool *superseded = xcalloc(count, sizeof(*superseded));
	struct hashmap latest = HASHMAP_INIT;

	for (size_t i = 0; i < count; i++) {
		const struct process *p = &processes[i];
		struct worker_key key = { p->worker.owner, p->worker.node, p->worker.index };
		uint64_t *slot;

		if (!p->worker.is)
			continue;
		slot = hashmap_slot(&latest, &key, sizeof(key), NULL);
		if (*slot && processes[*slot - 1].generation < p->generation)
			superseded[*slot - 1] = true;
		*slot = i + 1; /* ids are in order of start, so are generations */
	}
	hashmap_release(&latest);
	return superseded;
}
