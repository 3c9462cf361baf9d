/*
 * From what was collected to the model: stacks become canonical, sites of all processes are put
 * together, what --pid, --role and the window leave out is dropped, the rest numbered anew.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "model/cohorts.h"
#include "model/sampling.h"
#include "model/walk.h"

const char *proc_fact(const struct proc *p, const char *key)
{
	for (size_t i = 0; i < p->facts.count; i += 2)
		if (!strcmp(p->facts.items[i], key))
			return p->facts.items[i + 1];
	return NULL;
}

/* ---- stacks ---------------------------------------------------------------------------------- */

static void resolve_stacks(struct builder *b, struct proc *p)
{
	for (size_t i = 0; i < p->sites.count; i++) {
		struct local_site *s = &p->sites.items[i];

		s->native = stack_native(b, p, s->native);
		s->python = stack_python(b, p, s->python);
	}
	for (size_t i = 0; i < p->children.count; i++) {
		struct child_event *c = &p->children.items[i];

		c->native = stack_native(b, p, c->native);
		c->python = stack_python(b, p, c->python);
	}
	for (size_t i = 0; i < p->launches.count; i++)
		p->launches.items[i].python = stack_python(b, p, p->launches.items[i].python);
}

/* ---- processes ------------------------------------------------------------------------------- */

static void describe(struct builder *b, const struct proc *p, struct process *out)
{
	const char *command = proc_fact(p, "cmdline");

	if (!command && out->reason == MT_PROCESS_FORK && out->parent != NO_ID)
		command = b->processes.items[out->parent].command;
	out->command = xstrdup(command ? command : "");
}

static void describe_trace(struct trace_info *t, const struct proc *p)
{
	const char *host = proc_fact(p, "host"), *mode = proc_fact(p, "mode");
	const char *events = proc_fact(p, "events"), *bytes = proc_fact(p, "sample_bytes");

	if (!t->host && host)
		t->host = xstrdup(host);
	if (!t->mode[0] && mode)
		memcpy(t->mode, mode, strnlen(mode, sizeof(t->mode) - 1));
	if (!t->events[0] && events)
		memcpy(t->events, events, strnlen(events, sizeof(t->events) - 1));
	if (!t->sample_bytes && bytes && !strcmp(t->mode, "sample"))
		t->sample_bytes = strtoull(bytes, NULL, 10);
}

static bool is_dropped(const struct builder *b, const struct proc *p, const struct process *out)
{
	return p->outside || (b->options.pid && out->pid != b->options.pid) ||
	       (b->options.role && strcmp(b->options.role, out->role) != 0);
}

static void hand_lists(struct proc *p, struct process *out)
{
	out->threads = p->threads.items;
	out->thread_count = p->threads.count;
	out->children = p->children.items;
	out->child_count = p->children.count;
	if (p->facts.count) {
		(void)vec_push(&p->facts);
		p->facts.items[p->facts.count - 1] = NULL;
	}
	out->facts = p->facts.items;
	out->most_descriptors = p->open_most;
	out->backing = p->backing.items;
	out->backing_count = p->backing.count;
	memset(&p->backing, 0, sizeof(p->backing));
	memset(&p->threads, 0, sizeof(p->threads));
	memset(&p->children, 0, sizeof(p->children));
	memset(&p->facts, 0, sizeof(p->facts));
}

static void release_lists(struct process *p)
{
	for (size_t i = 0; i < p->phase_count; i++)
		free(p->phases[i].name);
	free(p->phases);
	free(p->phase_sites);
	free(p->command);
	free(p->samples);
	if (p->resident_last != p->resident_most)
		resident_free(p->resident_last);
	resident_free(p->resident_most);
}

/* ---- sites ----------------------------------------------------------------------------------- */

struct sites {
	VEC(struct site) sites;
	VEC(struct site_use) uses;
	struct index set;
};

static uint32_t site_intern(struct sites *all, const struct local_site *s)
{
	uint32_t key[3] = { s->native, s->python, s->kind };
	uint64_t hash = hash_bytes(key, sizeof(key));
	uint8_t kind = s->kind & MT_KIND_MASK;
	bool backing = s->kind & MT_KIND_BACKING;
	struct site *site;

	index_each (&all->set, hash, i) {
		site = &all->sites.items[i];
		if (site->native == s->native && site->python == s->python && site->kind == kind &&
		    site->backing == backing)
			return (uint32_t)i;
	}
	index_add(&all->set, hash, (uint32_t)all->sites.count);
	site = vec_push(&all->sites);
	site->id = (uint32_t)all->sites.count - 1;
	site->native = s->native;
	site->python = s->python;
	site->kind = kind;
	site->backing = backing;
	return site->id;
}

/* Index of the site in all->sites; NO_ID: it has nothing to show. */
static uint32_t add_use(struct sites *all, struct local_site *s, uint32_t process)
{
	struct site_use *u;

	if (!s->allocations && !s->frees && !s->live_count && !s->live_bytes)
		return NO_ID;
	u = vec_push(&all->uses);
	u->site = site_intern(all, s);
	u->process = process;
	u->allocations = s->allocations;
	u->frees = s->frees;
	u->bytes_allocated = s->bytes_allocated;
	u->live_bytes = s->live_bytes;
	u->live_count = s->live_count;
	u->peak_bytes = s->peak_bytes;
	u->short_lived_count = s->short_lived_count;
	u->sampled = s->sampled;
	u->cohorts = s->cohorts;
	s->cohorts = NULL;
	return u->site;
}

/* Puts uses of one site together, in order of process: that is the order they came in. */
static void group_uses(struct sites *all)
{
	uint32_t *place = xcalloc(all->sites.count + 1, sizeof(*place));
	struct site_use *grouped = xcalloc(all->uses.count, sizeof(*grouped));

	for (size_t i = 0; i < all->uses.count; i++)
		place[all->uses.items[i].site + 1]++;
	for (size_t i = 0; i < all->sites.count; i++)
		place[i + 1] += place[i];
	for (size_t i = 0; i < all->uses.count; i++)
		grouped[place[all->uses.items[i].site]++] = all->uses.items[i];
	free(place);
	free(all->uses.items);
	all->uses.items = grouped;
	all->uses.room = all->uses.count;
}

static void merge_cohorts(struct site_use *to, const struct site_use *u)
{
	if (to->cohorts && u->cohorts) {
		to->cohorts = cohorts_merge(to->cohorts, u->cohorts);
		free(u->cohorts);
	} else if (u->cohorts) {
		to->cohorts = u->cohorts;
	}
}

/* Ids that a process gave to one stack twice (two threads met it at once). */
static void merge_uses(struct sites *all)
{
	size_t kept = 0;

	for (size_t i = 0; i < all->uses.count; i++) {
		const struct site_use *u = &all->uses.items[i];
		struct site_use *to = kept ? &all->uses.items[kept - 1] : NULL;

		if (!to || to->site != u->site || to->process != u->process) {
			all->uses.items[kept++] = *u;
			continue;
		}
		merge_cohorts(to, u);
		to->allocations += u->allocations;
		to->frees += u->frees;
		to->bytes_allocated += u->bytes_allocated;
		to->live_bytes += u->live_bytes;
		to->live_count += u->live_count;
		to->short_lived_count += u->short_lived_count;
		if (u->sampled && to->sampled)
			sampled_sum(to->sampled, u->sampled);
		else if (u->sampled)
			to->sampled = u->sampled;
		if (u->peak_bytes > to->peak_bytes)
			to->peak_bytes = u->peak_bytes;
	}
	all->uses.count = kept;
}

/* superseded: by process; a later generation of the same worker stands for it. */
static void sum_sites(struct sites *all, const bool *superseded)
{
	for (size_t i = 0; i < all->uses.count; i++) {
		const struct site_use *u = &all->uses.items[i];
		struct site *s = &all->sites.items[u->site];

		if (!s->use_count++)
			s->first_use = (uint32_t)i;
		s->allocations += u->allocations;
		s->frees += u->frees;
		s->bytes_allocated += u->bytes_allocated;
		s->short_lived_count += u->short_lived_count;
		if (u->peak_bytes > s->peak_bytes)
			s->peak_bytes = u->peak_bytes;
		if (superseded[u->process])
			continue;
		s->live_bytes += u->live_bytes;
		s->live_count += u->live_count;
	}
}

/* What sites are sorted by; they are too big to be moved about by qsort(). */
struct site_rank {
	uint64_t live_bytes, bytes_allocated;
	uint32_t site; /* the order they were met in decides last */
};

static int by_live_bytes(const void *a, const void *b)
{
	const struct site_rank *x = a, *y = b;

	if (x->live_bytes != y->live_bytes)
		return x->live_bytes > y->live_bytes ? -1 : 1;
	if (x->bytes_allocated != y->bytes_allocated)
		return x->bytes_allocated > y->bytes_allocated ? -1 : 1;
	return x->site < y->site ? -1 : x->site > y->site;
}

static void sort_sites(struct sites *all)
{
	size_t count = all->sites.count;
	struct site_rank *ranks = xcalloc(count, sizeof(*ranks));
	struct site *sorted = xcalloc(count, sizeof(*sorted));

	for (size_t i = 0; i < count; i++) {
		const struct site *s = &all->sites.items[i];

		ranks[i] = (struct site_rank){ s->live_bytes, s->bytes_allocated, (uint32_t)i };
	}
	qsort(ranks, count, sizeof(*ranks), by_live_bytes);
	for (size_t i = 0; i < count; i++)
		sorted[i] = all->sites.items[ranks[i].site];
	free(ranks);
	free(all->sites.items);
	all->sites.items = sorted;
	all->sites.room = count;
}

/* All uses of a process; its backing events get sites of the run. Returns which site of the run
 * each of its own became. */
static uint32_t *add_process(struct sites *all, struct builder *b, struct proc *p,
			     struct process *out)
{
	uint32_t *site = xcalloc(p->sites.count, sizeof(*site));
	size_t kept = 0;

	for (size_t k = 0; k < p->sites.count; k++)
		site[k] = add_use(all, &p->sites.items[k], out->id);
	for (size_t k = 0; k < out->backing_count; k++) {
		struct backing_event e = out->backing[k];

		e.site = site[e.site];
		if (e.site != NO_ID)
			out->backing[kept++] = e;
	}
	out->backing_count = kept;
	shm_sites(b, p, site);
	for (size_t k = 0; k < out->phase_site_count; k++)
		out->phase_sites[k].site = site[out->phase_sites[k].site];
	return site;
}

/* Sites were sorted: their numbers are their places from now on. */
static void number_sites(struct sites *all, struct builder *b, struct model *m)
{
	uint32_t *place = xcalloc(all->sites.count, sizeof(*place));

	for (uint32_t i = 0; i < all->sites.count; i++) {
		struct site *s = &all->sites.items[i];

		place[s->id] = i;
		s->id = i;
		for (uint32_t k = 0; k < s->use_count; k++)
			all->uses.items[s->first_use + k].site = i;
	}
	for (size_t i = 0; i < m->process_count; i++)
		for (size_t k = 0; k < m->processes[i].backing_count; k++)
			m->processes[i].backing[k].site = place[m->processes[i].backing[k].site];
	walk_sites_sorted(m, place);
	phases_sites_sorted(m, place);
	shm_renumber_sites(b, place);
	free(place);
}

static void build_sites(struct builder *b, const uint32_t *new_id)
{
	struct sites all;
	bool *superseded = roles_superseded(b->m->processes, b->m->process_count);
	uint32_t **of = xcalloc(b->procs.count, sizeof(*of));

	memset(&all, 0, sizeof(all));
	for (size_t i = 0; i < b->procs.count; i++) {
		struct proc *p = &b->procs.items[i];

		if (new_id[i] != NO_ID)
			of[i] = add_process(&all, b, p, &b->m->processes[new_id[i]]);
		for (size_t k = 0; k < p->sites.count; k++)
			free(p->sites.items[k].cohorts);
		vec_release(&p->sites);
	}
	walk_sites_of_run(b->m, of);
	for (size_t i = 0; i < b->procs.count; i++)
		free(of[i]);
	free(of);
	group_uses(&all);
	merge_uses(&all);
	sum_sites(&all, superseded);
	sort_sites(&all);
	number_sites(&all, b, b->m);
	index_release(&all.set);
	b->m->sites = all.sites.items;
	b->m->site_count = all.sites.count;
	b->m->uses = all.uses.items;
	b->m->use_count = all.uses.count;
	sampling_sites(b->m, superseded);
	free(superseded);
}

/* ---- the model ------------------------------------------------------------------------------- */

static uint32_t renumbered(const uint32_t *new_id, uint32_t id)
{
	return id == NO_ID ? NO_ID : new_id[id];
}

static void keep_processes(struct builder *b, const uint32_t *new_id)
{
	struct model *m = b->m;
	size_t kept = 0;

	for (size_t i = 0; i < b->processes.count; i++) {
		struct process p = b->processes.items[i];

		if (new_id[i] == NO_ID) {
			release_lists(&p);
			continue;
		}
		p.id = new_id[i];
		p.parent = renumbered(new_id, p.parent);
		p.image_of = renumbered(new_id, p.image_of);
		p.worker.owner = renumbered(new_id, p.worker.owner);
		hand_lists(&b->procs.items[i], &p);
		for (size_t k = 0; k < p.child_count; k++)
			p.children[k].process = renumbered(new_id, p.children[k].process);
		*(p.late ? &m->older_frees : &m->unknown_frees) += p.unknown_frees;
		m->missed_frees += p.missed_frees;
		b->processes.items[kept++] = p;
	}
	b->processes.count = kept;
	for (size_t i = 0; i < b->marks.count; i++)
		b->marks.items[i].process = new_id[b->marks.items[i].process];
	m->processes = b->processes.items;
	m->process_count = kept;
	memset(&b->processes, 0, sizeof(b->processes));
}

static void count_data(struct builder *b, struct build_counts *counts)
{
	for (size_t i = 0; i < b->procs.count; i++) {
		const struct proc *p = &b->procs.items[i];
		struct build_counts *c = &b->counts.items[p->trace];
		int64_t end = b->processes.items[i].end;

		c->bad_values += p->bad_values;
		/* Blocks from before a late beginning are freed without having been seen. */
		if (!b->processes.items[i].late)
			c->unknown_frees += p->unknown_frees;
		c->missed_frees += p->missed_frees;
		if (end > b->m->duration)
			b->m->duration = end;
	}
	for (size_t i = 0; i < b->traces.count; i++) {
		const struct build_counts *c = &b->counts.items[i];

		if (c->missing_entries)
			builder_note(b,
				     "%s: %llu stacks name frames that are not in the trace; they "
				     "show [lost]",
				     b->traces.items[i].path,
				     (unsigned long long)c->missing_entries);
		if (counts)
			counts[i] = *c;
	}
}

/* Everything that is final already moves to the model; the builder keeps empty lists. */
#define HAND_OVER(b, list, member, counter)                                                        \
	do {                                                                                       \
		(b)->m->member = (b)->list.items;                                                  \
		(b)->m->counter = (b)->list.count;                                                 \
		memset(&(b)->list, 0, sizeof((b)->list));                                          \
	} while (0)

static struct model *hand_over_all(struct builder *b)
{
	struct model *m = b->m;

	m->events = b->events;
	if (b->clocks.count)
		m->brief_ns = timebase_ns(&b->clocks.items[0], MT_BRIEF_UNITS) -
			      timebase_ns(&b->clocks.items[0], 0);
	m->restricted = b->options.pid || b->options.role || b->options.has_from ||
			b->options.has_to;
	m->window_from = b->options.has_from ? b->options.from : INT64_MIN;
	m->window_to = b->options.has_to ? b->options.to : INT64_MAX;
	HAND_OVER(b, traces, traces, trace_count);
	HAND_OVER(b, modules, modules, module_count);
	HAND_OVER(b, codes, codes, code_count);
	HAND_OVER(b, native, native, native_count);
	HAND_OVER(b, python, python, python_count);
	HAND_OVER(b, marks, marks, mark_count);
	HAND_OVER(b, notes, notes, note_count);
	b->m = xcalloc(1, sizeof(*b->m)); /* for builder_free() */
	return m;
}

struct model *builder_finish(struct builder *b, struct build_counts *counts)
{
	uint32_t *new_id = xcalloc(b->procs.count, sizeof(*new_id)), next = 0;
	struct model *m;

	stack_native(b, NULL, 0); /* the empty stacks are there in any case */
	stack_python(b, NULL, 0);
	for (size_t i = 0; i < b->procs.count; i++)
		resolve_stacks(b, &b->procs.items[i]);
	tree_parents(b);
	tree_children(b);
	timeline_samples(b);
	tree_ends(b);
	for (size_t i = 0; i < b->procs.count; i++) {
		describe(b, &b->procs.items[i], &b->processes.items[i]);
		describe_trace(&b->traces.items[b->procs.items[i].trace], &b->procs.items[i]);
	}
	sampling_settle(b);
	roles_assign(b);
	for (size_t i = 0; i < b->procs.count; i++) {
		struct proc *p = &b->procs.items[i];

		p->dropped = is_dropped(b, p, &b->processes.items[i]);
		new_id[i] = p->dropped ? NO_ID : next++;
	}
	count_data(b, counts);
	folds_note(b);
	timeline_tree_peak(b);
	timeline_marks(b);
	keep_processes(b, new_id);
	build_sites(b, new_id);
	shm_finish(b, new_id);
	m = hand_over_all(b);
	free(new_id);
	builder_free(b);
	return m;
}
