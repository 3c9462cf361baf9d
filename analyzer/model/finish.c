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
#include "model/sharing.h"
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
	return p->outside || p->ev.reason == MT_PROCESS_WATCHER ||
	       (b->options.pid && out->pid != b->options.pid) ||
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
	process_cow_free(p->cow);
	free(p->command);
	free(p->samples);
	gpu_process_free(p->gpu);
	if (p->resident_last != p->resident_most)
		resident_free(p->resident_last);
	resident_free(p->resident_most);
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
	sharing_finish(b);
	gpu_seen_settle(b);
	pinned_settle(b);
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
	finish_sites(b, new_id);
	shm_finish(b, new_id);
	m = hand_over_all(b);
	free(new_id);
	builder_free(b);
	return m;
}
