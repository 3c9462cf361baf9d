/*
 * Workers: what each of them holds of its own that one could hold for all, and those that outlive
 * the process they work for.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "analysis/common.h"
#include "analysis/findings.h"
#include "util/pyfile.h"

/* Of each worker; less is no reason to change a program. */
#define LEAST_BYTES (UINT64_C(4) << 20)

/* ---- the workers of a loader ----------------------------------------------------------------- */

struct team {
	uint32_t owner, node, generation, ranks;
	const char *method;
	VEC(uint32_t) workers; /* processes */
};

typedef VEC(struct team) team_list;

/* The latest generation of each loader's. */
static void teams_of(const struct model *m, team_list *teams)
{
	for (size_t i = 0; i < m->process_count; i++) {
		const struct process *p = &m->processes[i];
		struct team *t = NULL;

		if (!p->worker.is)
			continue;
		for (size_t k = 0; k < teams->count && !t; k++)
			if (teams->items[k].owner == p->worker.owner &&
			    teams->items[k].node == p->worker.node)
				t = &teams->items[k];
		if (!t) {
			t = vec_push(teams);
			*t = (struct team){ p->worker.owner,	    p->worker.node,
					    p->generation,	    1,
					    p->worker.start_method, VEC_INIT };
		}
		if (p->generation > t->generation) {
			t->generation = p->generation;
			t->workers.count = 0;
		}
		if (p->generation == t->generation)
			*vec_push(&t->workers) = p->id;
	}
}

static bool same_method(const struct team *a, const struct team *b)
{
	return a->method && b->method && !strcmp(a->method, b->method);
}

/* Each rank has a loader at that line: what is wrong with one is wrong with all, and is said once. */
static void teams_join_ranks(const struct model *m, team_list *teams)
{
	size_t kept = 0;

	for (size_t i = 0; i < teams->count; i++) {
		struct team *t = &teams->items[i], *to = NULL;
		int32_t rank = m->processes[t->workers.items[0]].rank;

		for (size_t k = 0; k < kept && rank >= 0 && t->node && !to; k++)
			if (teams->items[k].node == t->node && same_method(&teams->items[k], t) &&
			    m->processes[teams->items[k].workers.items[0]].rank >= 0 &&
			    teams->items[k].owner != t->owner)
				to = &teams->items[k];
		if (!to) {
			struct team copy = *t;

			teams->items[kept++] = copy;
			continue;
		}
		for (size_t k = 0; k < t->workers.count; k++)
			*vec_push(&to->workers) = t->workers.items[k];
		to->ranks++;
		vec_release(&t->workers);
	}
	teams->count = kept;
}

static void teams_release(team_list *teams)
{
	for (size_t i = 0; i < teams->count; i++)
		vec_release(&teams->items[i].workers);
	vec_release(teams);
}

static const struct site_use *use_in(const struct model *m, const struct site *s, uint32_t process)
{
	for (uint32_t i = 0; i < s->use_count; i++)
		if (m->uses[s->first_use + i].process == process)
			return &m->uses[s->first_use + i];
	return NULL;
}

/* ---- what a stack is about ------------------------------------------------------------------- */

enum about {
	ABOUT_SPAWN = 1, /* the part of a new process that unpickles what it was sent */
	ABOUT_RUN = 2, /* ... and the part that runs it */
	ABOUT_USER = 4, /* a file of the program itself */
};

struct stacks {
	uint8_t *about; /* by Python stack: of it and all its callers */
	bool *importing;
};

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), k = strlen(end);

	return n >= k && !strcmp(s + n - k, end);
}

static struct stacks stacks_of(const struct model *m)
{
	struct stacks st = { xcalloc(m->python_count, 1), stack_importing(m) };
	uint8_t *codes = xcalloc(m->code_count, 1);

	for (size_t i = 0; i < m->code_count; i++) {
		const char *file = m->codes[i].filename;

		if (ends_with(file, "multiprocessing/spawn.py"))
			codes[i] |= ABOUT_SPAWN;
		if (ends_with(file, "multiprocessing/process.py"))
			codes[i] |= ABOUT_RUN;
		if (pyfile_is_users(file))
			codes[i] |= ABOUT_USER;
	}
	for (size_t i = 1; i < m->python_count; i++) {
		uint32_t code = m->python[i].code;

		st.about[i] = st.about[m->python[i].parent] | (code == NO_ID ? 0 : codes[code]);
	}
	free(codes);
	return st;
}

/* ---- the same data in every worker ----------------------------------------------------------- */

struct copies {
	uint64_t total, least, most; /* bytes; the latter two of a worker */
	uint32_t site; /* the largest part */
	uint64_t site_bytes;
};

static void copies_finish(struct copies *c, const uint64_t *bytes, size_t count)
{
	c->least = UINT64_MAX;
	for (size_t i = 0; i < count; i++) {
		c->total += bytes[i];
		c->least = bytes[i] < c->least ? bytes[i] : c->least;
		c->most = bytes[i] > c->most ? bytes[i] : c->most;
	}
}

/*
 * What the workers of a team unpickled when they began, without modules imported for it. Python's
 * small objects are counted by their arenas: so in every mode, and never twice.
 */
static struct copies unpickled_by(const struct model *m, const struct stacks *st,
				  const struct team *t)
{
	uint64_t *bytes = xcalloc(t->workers.count, sizeof(*bytes));
	struct copies c = { .site = NO_ID };

	for (size_t i = 0; i < m->site_count; i++) {
		const struct site *s = &m->sites[i];
		uint64_t here = 0;

		if ((st->about[s->python] & (ABOUT_SPAWN | ABOUT_RUN)) != ABOUT_SPAWN ||
		    st->importing[s->python] || s->kind == MT_KIND_PYTHON || s->kind == MT_KIND_SHM)
			continue;
		for (size_t k = 0; k < t->workers.count; k++) {
			const struct site_use *u = use_in(m, s, t->workers.items[k]);

			bytes[k] += u ? u->peak_bytes : 0;
			here += u ? u->peak_bytes : 0;
		}
		if (here > c.site_bytes) {
			c.site = s->id;
			c.site_bytes = here;
		}
	}
	copies_finish(&c, bytes, t->workers.count);
	free(bytes);
	return c;
}

static void add_team(struct finding *f, const struct model *m, const struct team *t)
{
	for (size_t k = 0; k < t->workers.count; k++)
		finding_process(f, t->workers.items[k]);
	finding_int(f, "workers", t->workers.count);
	if (t->ranks > 1)
		finding_int(f, "ranks", t->ranks);
	finding_text(f, "start_method", t->method ? t->method : "fork");
	if (m->processes[t->workers.items[0]].worker.loader)
		finding_text(f, "loader", m->processes[t->workers.items[0]].worker.loader);
}

static void put_sizes(struct finding *f, const struct copies *c, const struct team *t)
{
	size_t count = t->workers.count;

	size_add(&f->title, c->total / count);
	strbuf_addf(&f->title, " each, ");
	size_add(&f->title, c->total);
	strbuf_addf(&f->title, " in %zu workers", count);
	if (t->ranks > 1)
		strbuf_addf(&f->title, " of %u ranks", t->ranks);
	finding_bytes(f, c->total);
	finding_int(f, "bytes_per_worker", c->total / count);
	finding_int(f, "least_bytes", c->least);
	finding_int(f, "most_bytes", c->most);
}

static void find_unpickled(struct findings *all, const struct stacks *st, const struct team *t)
{
	const struct model *m = all->in->m;
	const char *loader = m->processes[t->workers.items[0]].worker.loader;
	struct copies c;
	struct finding *f;

	if (t->workers.count < 2 || !t->method || !strcmp(t->method, "fork"))
		return;
	c = unpickled_by(m, st, t);
	/* The same data: equal but for what the allocator rounds. */
	if (c.least < LEAST_BYTES || c.most - c.least > c.least / 4 + (UINT64_C(2) << 20))
		return;
	f = finding_new(all, "per-worker-copy", SEVERITY_WARNING);
	f->site = c.site;
	add_team(f, m, t);
	strbuf_addf(&f->title,
		    "every %s worker%s%s has its own copy of what it was started with: ", t->method,
		    loader ? " of " : "", loader ? loader : "");
	put_sizes(f, &c, t);
	strbuf_addf(&f->detail,
		    "With start method %s the data set is pickled and each worker unpickles all of "
		    "it into memory of its own. That is counted where the worker read it, without "
		    "modules that it imports; the process that has the loader holds one more.",
		    t->method);
	strbuf_addstr(&f->advice,
		      "Put the data into one array or tensor that can be shared (numpy.memmap, "
		      "tensor.share_memory_(), a byte buffer with offsets), or let the data set "
		      "open its files in the worker. Each worker fewer saves ");
	size_add(&f->advice, c.total / t->workers.count);
	strbuf_addch(&f->advice, '.');
}

/* ---- caches ---------------------------------------------------------------------------------- */

/* What stays of a site in each worker until its end; a spawned worker's Python gives all back
 * first, so there it is what was alive at one time, if most of all was. */
static uint64_t stays(const struct model *m, const struct site_use *u)
{
	const char *method = m->processes[u->process].worker.start_method;
	bool spawned = method && !strcmp(method, "spawn");

	if (!spawned)
		return u->live_bytes;
	return u->peak_bytes >= u->bytes_allocated / 2 &&
			       u->peak_bytes / 8 >= u->bytes_allocated / (u->allocations + 1)
		       ? u->peak_bytes
		       : 0;
}

static void put_cache(struct findings *all, const struct team *t, const struct site *s,
		      const struct copies *c)
{
	const struct model *m = all->in->m;
	struct finding *f = finding_new(all, "per-worker-copy", SEVERITY_WARNING);
	struct stack st;

	f->site = s->id;
	add_team(f, m, t);
	strbuf_addstr(&f->title, "every worker fills its own: ");
	stack_merge(m, all->in->symbols, s->native, s->python, &st);
	place_add(&f->title, &st);
	stack_release(&st);
	strbuf_addstr(&f->title, ": ");
	put_sizes(f, c, t);
	strbuf_addstr(&f->detail,
		      "All workers keep what they allocate there. A cache in the data set is one "
		      "cache per worker: a limit on it holds for each, so the whole may take that "
		      "limit times the workers, and each fills from nothing again in every epoch "
		      "unless persistent_workers=True.");
	strbuf_addf(&f->advice,
		    "Divide the cache's limit by the number of workers (%zu), share one cache "
		    "(share_memory_(), a memory-mapped file), or use fewer workers: each saves ",
		    t->workers.count);
	size_add(&f->advice, c->total / t->workers.count);
	strbuf_addch(&f->advice, '.');
}

static bool may_be_cache(const struct site *s, const struct stacks *st, const struct team *t)
{
	/* Python's arenas say where one was filled up, not what fills it. */
	return !s->backing && s->kind != MT_KIND_SHM && s->use_count >= t->workers.count &&
	       s->peak_bytes >= LEAST_BYTES / 64 && !st->importing[s->python] &&
	       (st->about[s->python] & (ABOUT_RUN | ABOUT_USER)) == (ABOUT_RUN | ABOUT_USER);
}

/* One Python line is one cache, whatever it calls and by whatever way it was come to. */
static void find_caches(struct findings *all, const struct stacks *st, const struct team *t)
{
	const struct model *m = all->in->m;
	uint64_t *bytes = xcalloc(t->workers.count, sizeof(*bytes));
	VEC(const struct site *) sites = VEC_INIT; /* NULL: counted already */

	for (size_t i = 0; i < m->site_count && t->workers.count >= 2; i++)
		if (may_be_cache(&m->sites[i], st, t))
			*vec_push(&sites) = &m->sites[i];
	for (size_t i = 0; i < sites.count; i++) {
		const struct site *first = sites.items[i];
		struct copies c = { .site = first ? first->id : NO_ID };

		if (!first)
			continue;
		memset(bytes, 0, t->workers.count * sizeof(*bytes));
		for (size_t n = i; n < sites.count; n++) {
			const struct site *s = sites.items[n];

			if (!s || s->kind != first->kind ||
			    m->python[s->python].code != m->python[first->python].code ||
			    m->python[s->python].offset != m->python[first->python].offset)
				continue;
			sites.items[n] = NULL;
			for (size_t k = 0; k < t->workers.count; k++) {
				const struct site_use *u = use_in(m, s, t->workers.items[k]);

				bytes[k] += u ? stays(m, u) : 0;
			}
		}
		copies_finish(&c, bytes, t->workers.count);
		if (c.least >= LEAST_BYTES)
			put_cache(all, t, first, &c);
	}
	vec_release(&sites);
	free(bytes);
}

void find_worker_copies(struct findings *all)
{
	struct stacks st = stacks_of(all->in->m);
	team_list teams = VEC_INIT;

	teams_of(all->in->m, &teams);
	teams_join_ranks(all->in->m, &teams);
	for (size_t i = 0; i < teams.count; i++) {
		find_unpickled(all, &st, &teams.items[i]);
		find_caches(all, &st, &teams.items[i]);
	}
	teams_release(&teams);
	free(st.about);
	free(st.importing);
}

/* ---- orphans --------------------------------------------------------------------------------- */

/* A process that ended by itself said when; of one that was killed only its last sample is known,
 * and a silent one is sampled every other interval. */
#define OUTLIVED_NS INT64_C(1000000000)
#define OUTLIVED_KILLED_NS INT64_C(2000000000)

/* For whom the process works; a daemon that lets its parent go on purpose works for nobody. */
static const struct process *master_of(const struct model *m, const struct process *p)
{
	uint32_t id = p->worker.is ? p->worker.owner : p->parent;
	const struct process *master = id == NO_ID ? NULL : &m->processes[id];

	if (!master || master->trace != p->trace)
		return NULL;
	return p->worker.is || master->end_kind == END_SIGNAL ? master : NULL;
}

static int64_t outlived(const struct process *p, const struct process *master)
{
	int64_t over = p->end - master->end;

	if (master->end_kind == END_RUNNING || master->end_kind == END_EXEC)
		return 0;
	if (p->end_kind == END_RUNNING)
		return over > 1 ? over : 1;
	return over > (master->end_kind == END_EXIT ? OUTLIVED_NS : OUTLIVED_KILLED_NS) ? over : 0;
}

static uint64_t last_size(const struct process *p)
{
	uint64_t v;

	for (size_t i = p->sample_count; i-- > 0;)
		if (sample_value(p->samples[i].v.pss, &v))
			return v;
	return p->peak_rss;
}

static void put_orphans(struct findings *all, const struct process *master, const uint32_t *orphans,
			size_t count)
{
	const struct model *m = all->in->m;
	struct finding *f = finding_new(all, "orphan-worker", SEVERITY_WARNING);
	int64_t longest = 0;
	uint64_t bytes = 0;
	size_t running = 0;

	for (size_t i = 0; i < count; i++) {
		const struct process *p = &m->processes[orphans[i]];
		int64_t over = outlived(p, master);

		finding_process(f, p->id);
		bytes += last_size(p);
		longest = over > longest ? over : longest;
		running += p->end_kind == END_RUNNING;
	}
	finding_bytes(f, bytes);
	finding_processes_add(&f->title, m, orphans, count);
	strbuf_addf(&f->title, " lived on %s", count > 1 ? "each " : "");
	strbuf_addf(&f->title, "after ");
	process_name_add(&f->title, master);
	strbuf_addf(&f->title, " had ended, for %.1f s, with ", seconds(longest));
	size_add(&f->title, bytes);
	strbuf_addf(
		&f->detail,
		"It ended at %.1f s. Their memory is taken until they notice: PyTorch's workers "
		"look every few seconds, one that is busy in native code or blocked does not.",
		process_seconds(m, master, master->end));
	if (running)
		strbuf_addf(&f->detail, " %zu of them still %s.", running,
			    running == 1 ? "runs" : "run");
	strbuf_addstr(&f->advice, running ? "Kill what is left, by the pids given. " : "");
	strbuf_addstr(&f->advice,
		      "Let the main process end by an exception or sys.exit(), which ends its "
		      "workers, or kill the whole process group.");
	finding_int(f, "orphans", count);
	finding_int(f, "running", running);
	finding_int(f, "parent_pid", master->pid);
	finding_float(f, "outlived_s", seconds(longest));
}

void find_orphans(struct findings *all)
{
	const struct model *m = all->in->m;
	VEC(uint32_t) orphans = VEC_INIT;
	bool *has = xcalloc(m->process_count, sizeof(*has));

	for (size_t i = 0; i < m->process_count; i++) {
		const struct process *master = master_of(m, &m->processes[i]);

		if (master && outlived(&m->processes[i], master))
			has[master->id] = true;
	}
	for (size_t i = 0; i < m->process_count; i++) {
		const struct process *master = &m->processes[i];

		orphans.count = 0;
		if (!has[i])
			continue;
		for (size_t k = 0; k < m->process_count; k++) {
			const struct process *p = &m->processes[k];

			if (master_of(m, p) == master && outlived(p, master))
				*vec_push(&orphans) = p->id;
		}
		if (orphans.count)
			put_orphans(all, master, orphans.items, orphans.count);
	}
	vec_release(&orphans);
	free(has);
}
