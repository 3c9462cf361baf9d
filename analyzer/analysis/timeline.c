/*
 * The section on memory over time: RSS, PSS, USS, live bytes and swap of each process and of the tree.
 * A run of days has more samples than anybody can look at: beyond MAX_POINTS, time is cut into as
 * many equal pieces, and each shows its highest value, so that no peak is lost.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/analysis.h"
#include "analysis/common.h"
#include "analysis/shm.h"
#include "util/vec.h"

#define MAX_POINTS 1000

typedef bool metric_fn(const struct sample *s, uint64_t *v);

static bool rss_of(const struct sample *s, uint64_t *v)
{
	return sample_value(s->v.rss, v);
}

static bool pss_of(const struct sample *s, uint64_t *v)
{
	return sample_value(s->v.pss, v);
}

static bool uss_of(const struct sample *s, uint64_t *v)
{
	return sample_value(s->v.uss, v);
}

static bool live_of(const struct sample *s, uint64_t *v)
{
	*v = s->live_bytes;
	return s->live_bytes != SAMPLE_LIVE_UNKNOWN;
}

static bool swap_of(const struct sample *s, uint64_t *v)
{
	return sample_value(s->v.swap, v);
}

static const struct {
	const char *name;
	metric_fn *get;
} metrics[] = {
	{ "rss", rss_of },   { "pss", pss_of },	  { "uss", uss_of },
	{ "live", live_of }, { "swap", swap_of },
};

#define METRICS (sizeof(metrics) / sizeof(metrics[0]))

/* ---- the points in time -------------------------------------------------------------------------
 */

struct grid {
	int64_t *times; /* each is the end of its piece of time */
	size_t count;
};

static int by_value(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return x < y ? -1 : x > y;
}

static struct grid grid_of(const struct model *m)
{
	VEC(int64_t) times = VEC_INIT;
	size_t kept = 0;

	for (size_t i = 0; i < m->process_count; i++)
		for (size_t k = 0; k < m->processes[i].sample_count; k++)
			*vec_push(&times) = process_time(m, &m->processes[i],
							 m->processes[i].samples[k].time);
	if (!times.count)
		return (struct grid){ NULL, 0 };
	qsort(times.items, times.count, sizeof(*times.items), by_value);
	for (size_t i = 0; i < times.count; i++)
		if (!kept || times.items[i] != times.items[kept - 1])
			times.items[kept++] = times.items[i];
	if (kept > MAX_POINTS) {
		double first = (double)times.items[0], last = (double)times.items[kept - 1];

		for (size_t i = 0; i < MAX_POINTS; i++)
			times.items[i] =
				(int64_t)(first + (last - first) * (double)(i + 1) / MAX_POINTS);
		times.items[MAX_POINTS - 1] = (int64_t)last;
		kept = MAX_POINTS;
	}
	return (struct grid){ times.items, kept };
}

/* The point whose piece of time holds t. */
static size_t grid_at(const struct grid *g, int64_t t)
{
	size_t low = 0, high = g->count - 1;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (g->times[mid] < t)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* ---- series
 * ---------------------------------------------------------------------------------------- */

struct series {
	uint64_t *v;
	bool *known;
	bool any;
};

static struct series series_new(const struct grid *g)
{
	return (struct series){ xcalloc(g->count, sizeof(uint64_t)), xcalloc(g->count, 1), false };
}

static void series_raise(struct series *s, size_t at, uint64_t v)
{
	if (!s->known[at] || v > s->v[at])
		s->v[at] = v;
	s->known[at] = s->any = true;
}

/* Adds it to the section unless it is empty; frees it. */
static void series_put(struct series *s, const struct grid *g, struct result *doc,
		       struct rvalue *list, const struct process *p, const char *name)
{
	struct rvalue *o, *values;

	if (s->any) {
		o = r_push_object(doc, list);
		put_id(doc, o, "proc", p ? p->id : NO_ID);
		put_id(doc, o, "pid", p ? p->pid : NO_ID);
		r_string(doc, o, "name", name);
		values = r_array(doc, o, "v");
		for (size_t i = 0; i < g->count; i++) {
			if (s->known[i])
				put_count(doc, values, NULL, s->v[i]);
			else
				r_push_null(doc, values);
		}
	}
	free(s->v);
	free(s->known);
}

static void put_process(const struct model *m, const struct process *p, const struct grid *g,
			metric_fn *get, struct result *doc, struct rvalue *list, const char *name)
{
	struct series s = series_new(g);
	uint64_t v;

	for (size_t i = 0; i < p->sample_count; i++)
		if (get(&p->samples[i], &v))
			series_raise(&s, grid_at(g, process_time(m, p, p->samples[i].time)), v);
	series_put(&s, g, doc, list, p, name);
}

struct change {
	int64_t time;
	uint32_t process;
	bool gone; /* the process has ended */
	uint64_t v;
};

/* At one time the gone come last: a process counts up to and with its end. */
static int by_change(const void *a, const void *b)
{
	const struct change *x = a, *y = b;

	if (x->time != y->time)
		return x->time < y->time ? -1 : 1;
	return (int)x->gone - (int)y->gone;
}

/* The sum over processes of what each was last known to have; of PSS see struct pss_point. */
static void put_tree(const struct model *m, const struct grid *g, metric_fn *get,
		     struct result *doc, struct rvalue *list, const char *name)
{
	VEC(struct change) changes = VEC_INIT;
	uint64_t *held = xcalloc(m->process_count, sizeof(*held)), total = 0, v;
	struct series s = series_new(g);
	size_t at = 0;

	for (size_t i = 0; i < m->process_count; i++) {
		const struct process *p = &m->processes[i];

		for (size_t k = 0; get != pss_of && k < p->sample_count; k++)
			if (get(&p->samples[k], &v))
				*vec_push(&changes) = (struct change){
					process_time(m, p, p->samples[k].time), p->id, false, v
				};
		for (size_t k = 0; get == pss_of && k < p->pss_count; k++)
			*vec_push(&changes) = (struct change){ process_time(m, p, p->pss[k].time),
							       p->id, false, p->pss[k].bytes };
		*vec_push(&changes) = (struct change){ process_time(m, p, p->end), p->id, true, 0 };
	}
	if (changes.count)
		qsort(changes.items, changes.count, sizeof(*changes.items), by_change);
	for (size_t i = 0; i < changes.count; i++) {
		const struct change *c = &changes.items[i];
		size_t to = grid_at(g, c->time);

		for (; at < to && s.any; at++)
			series_raise(&s, at + 1, total);
		at = to;
		total += c->v - held[c->process];
		held[c->process] = c->v;
		if (!c->gone)
			series_raise(&s, at, total);
	}
	series_put(&s, g, doc, list, NULL, name);
	vec_release(&changes);
	free(held);
}

/* "device:0": what a process had reserved of it; between two points it is the earlier one's. */
static void put_devices(const struct model *m, const struct process *p, const struct grid *g,
			struct result *doc, struct rvalue *list)
{
	for (size_t i = 0; p->gpu && i < p->gpu->device_count; i++) {
		const struct gpu_device *d = &p->gpu->devices[i];
		struct series s = series_new(g);
		size_t at = 0, end = grid_at(g, process_time(m, p, p->end));
		char name[32];

		if (d->device == UINT32_MAX)
			snprintf(name, sizeof(name), "device:unknown");
		else
			snprintf(name, sizeof(name), "device:%u", d->device);
		for (size_t k = 0; k < d->point_count; k++) {
			size_t to = grid_at(g, process_time(m, p, d->points[k].time));

			for (; s.any && at < to; at++)
				series_raise(&s, at + 1, d->points[k - 1].reserved);
			at = to;
			series_raise(&s, at, d->points[k].reserved);
		}
		for (; s.any && at < end; at++)
			series_raise(&s, at + 1, d->points[d->point_count - 1].reserved);
		series_put(&s, g, doc, list, p, name);
	}
}

/* Shared memory of the whole run, each object once; between points at the later one. */
static void put_shm(const struct model *m, const struct grid *g, struct result *doc,
		    struct rvalue *list)
{
	VEC(struct change) changes = VEC_INIT;
	struct series s = series_new(g);
	uint64_t total = 0;
	size_t at = 0;

	for (size_t i = 0; i < m->shm_count; i++) {
		const struct shm_object *o = &m->shm[i];

		*vec_push(&changes) = (struct change){ shm_time(m, o, o->start), 0, false,
						       o->bytes };
		*vec_push(&changes) = (struct change){ shm_time(m, o, o->end), 0, true, o->bytes };
	}
	if (changes.count)
		qsort(changes.items, changes.count, sizeof(*changes.items), by_change);
	for (size_t i = 0; i < changes.count; i++) {
		const struct change *c = &changes.items[i];
		size_t to = grid_at(g, c->time);

		for (; at < to; at++) {
			series_raise(&s, at, total);
			series_raise(&s, at + 1, total);
		}
		total += c->gone ? -c->v : c->v;
		series_raise(&s, at, total);
	}
	for (; changes.count && at < g->count; at++)
		series_raise(&s, at, total);
	series_put(&s, g, doc, list, NULL, "shm");
	vec_release(&changes);
}

void analyse_timeline(struct analysis_input *in, struct result *doc)
{
	const struct model *m = in->m;
	struct rvalue *o = r_object(doc, result_root(doc), "timeline");
	struct rvalue *t = r_array(doc, o, "t"), *list = r_array(doc, o, "series");
	struct grid g = grid_of(m);

	for (size_t i = 0; i < g.count; i++)
		r_push_float(doc, t, seconds(g.times[i]));
	for (size_t k = 0; g.count && k < METRICS; k++)
		put_tree(m, &g, metrics[k].get, doc, list, metrics[k].name);
	if (g.count && m->shm_count)
		put_shm(m, &g, doc, list);
	for (size_t i = 0; g.count && i < m->process_count; i++)
		for (size_t k = 0; k < METRICS; k++)
			put_process(m, &m->processes[i], &g, metrics[k].get, doc, list,
				    metrics[k].name);
	for (size_t i = 0; g.count && i < m->process_count; i++)
		put_devices(m, &m->processes[i], &g, doc, list);
	free(g.times);
}
