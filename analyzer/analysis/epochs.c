/*
 * See epochs.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "analysis/epochs.h"

#include <stdlib.h>
#include <strings.h>

#include "util/alloc.h"
#include "util/vec.h"

#define STEPS_LEAST 48 /* fewer say little of what the program did when */

typedef VEC(int64_t) times;

struct of_process {
	times steps, marked; /* marked: beginnings of epochs that the program told of */
	times generations; /* or that its workers tell of */
};

struct epochs {
	const struct model *m;
	struct of_process *of; /* by process */
};

static void add_marks(struct epochs *e)
{
	for (size_t i = 0; i < e->m->mark_count; i++) {
		const struct mark *k = &e->m->marks[i];

		if (k->process == NO_ID)
			continue;
		if (k->kind == MT_MARK_STEP)
			*vec_push(&e->of[k->process].steps) = k->time;
		else if ((k->kind == MT_MARK_PHASE || k->kind == MT_MARK_MARK) && k->label &&
			 !strncasecmp(k->label, "epoch", 5))
			*vec_push(&e->of[k->process].marked) = k->time;
	}
}

/* The first worker of each generation of the parent's busiest loader: that which came first. */
static void add_generations(struct epochs *e)
{
	for (size_t i = 0; i < e->m->process_count; i++) {
		const struct process *p = &e->m->processes[i];

		if (p->worker.is && p->worker.index == 0 && p->parent != NO_ID)
			*vec_push(&e->of[p->parent].generations) = p->start;
	}
}

struct epochs *epochs_new(const struct model *m)
{
	struct epochs *e = xcalloc(1, sizeof(*e));

	e->m = m;
	e->of = xcalloc(m->process_count ? m->process_count : 1, sizeof(*e->of));
	add_marks(e);
	add_generations(e);
	return e;
}

void epochs_free(struct epochs *e)
{
	for (size_t i = 0; i < e->m->process_count; i++) {
		vec_release(&e->of[i].steps);
		vec_release(&e->of[i].marked);
		vec_release(&e->of[i].generations);
	}
	free(e->of);
	free(e);
}

/* Whoever came before it; NO_ID: nobody. Ids are in order of start. */
static uint32_t parent_of(const struct epochs *e, uint32_t process)
{
	uint32_t parent = e->m->processes[process].parent;

	return parent < process ? parent : NO_ID;
}

/* Its own, or those of the process it comes from. */
static const times *epochs_of(const struct epochs *e, uint32_t process)
{
	static const times none = VEC_INIT;

	for (; process != NO_ID; process = parent_of(e, process)) {
		const struct of_process *p = &e->of[process];

		if (p->marked.count)
			return &p->marked;
		if (p->generations.count > 1)
			return &p->generations;
	}
	return &none;
}

static const times *steps_of(const struct epochs *e, uint32_t process)
{
	static const times none = VEC_INIT;

	for (; process != NO_ID; process = parent_of(e, process))
		if (e->of[process].steps.count)
			return &e->of[process].steps;
	return &none;
}

void epochs_edges(const struct epochs *e, uint32_t process, const struct cohorts *c,
		  struct cohort_view *v)
{
	const times *all = epochs_of(e, process);

	for (size_t i = 0; i < all->count && v->edge_count < COHORT_WINDOWS; i++) {
		double at = (double)(all->items[i] - c->start_ns) / c->window_ns;

		if (at < 0 || at >= (double)v->n)
			continue;
		/* Two in one window cannot be told apart. */
		if (!v->edge_count || at >= v->edges[v->edge_count - 1] + 1)
			v->edges[v->edge_count++] = at;
	}
	all = steps_of(e, process);
	for (size_t i = 0; i < all->count; i++) {
		double at = (double)(all->items[i] - c->start_ns) / c->window_ns;

		if (at >= 0 && at < (double)v->n)
			v->steps[(size_t)at]++;
	}
}

double epochs_share_of_steps(const struct epochs *e, uint32_t process, double from_ns, double to_ns)
{
	const times *all = steps_of(e, process);
	size_t within = 0;

	if (all->count < STEPS_LEAST)
		return -1;
	for (size_t i = 0; i < all->count; i++)
		within += (double)all->items[i] >= from_ns && (double)all->items[i] <= to_ns;
	return (double)within / (double)all->count;
}

static double rate_of(const times *all, double from, double to)
{
	double first = 0, last = 0;
	size_t n = 0;

	for (size_t i = 0; i < all->count; i++) {
		double t = (double)all->items[i];

		if (t < from || t > to)
			continue;
		first = n ? first : t;
		last = t;
		n++;
	}
	return n > 1 && last > first ? (double)(n - 1) / ((last - first) / 1e9) : 0;
}

void epochs_rates(const struct epochs *e, uint32_t process, double from_ns, double to_ns,
		  double *steps, double *epochs)
{
	*steps = rate_of(steps_of(e, process), from_ns, to_ns);
	*epochs = rate_of(epochs_of(e, process), from_ns, to_ns);
}
