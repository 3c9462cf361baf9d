/*
 * The section on shared memory: objects that were there when all of them together were largest, and
 * those that are left at the end; and what was on its way from each loader's workers.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "analysis/shm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/analysis.h"
#include "analysis/common.h"

#define MOST_LISTED 1000 /* largest first; shm_not_listed has the rest */

struct listed {
	const struct shm_object *o;
	int64_t at; /* the moment of which it is told, in its trace */
	bool at_end;
};

/* When the run was over, as far as memory goes: then Python gives back what the program kept. */
static int64_t trace_end(const struct model *m, uint32_t trace)
{
	int64_t end = INT64_MIN;

	for (size_t i = 0; i < m->process_count; i++) {
		const struct process *p = &m->processes[i];
		int64_t over = p->shutdown ? p->shutdown : p->end;

		if (p->trace == trace && !p->worker.is && over > end)
			end = over;
	}
	return end;
}

static int by_size(const void *a, const void *b)
{
	const struct listed *x = a, *y = b;

	if (x->o->bytes != y->o->bytes)
		return x->o->bytes > y->o->bytes ? -1 : 1;
	return x->o < y->o ? -1 : x->o > y->o;
}

static void put_holders(struct result *doc, struct rvalue *e, const struct model *m,
			const struct listed *l)
{
	struct rvalue *holders = r_array(doc, e, "holders"), *pids = r_array(doc, e, "pids");
	const struct shm_object *o = l->o;
	bool mapped = false, others = false, sampled = false;
	uint64_t descriptors = 0;

	for (uint32_t i = 0; i < o->use_count; i++)
		mapped |= shm_maps_at(&m->shm_uses[o->first_use + i], l->at);
	for (uint32_t i = 0; i < o->use_count; i++) {
		const struct shm_use *u = &m->shm_uses[o->first_use + i];

		/* Without a mapping a descriptor is all that holds it: the creator's. */
		if (mapped ? !shm_maps_at(u, l->at)
			   : u->process != o->creator && !(u->from <= l->at && l->at <= u->to))
			continue;
		others |= u->process != o->creator;
		sampled |= u->sampled;
		descriptors += u->sampled ? u->descriptors : 0;
		r_push_int(doc, holders, u->process);
		r_push_int(doc, pids, m->processes[u->process].pid);
	}
	if (sampled)
		put_count(doc, e, "descriptors", descriptors);
	else
		r_null(doc, e, "descriptors");
	r_bool(doc, e, "in_flight",
	       !others && o->creator != NO_ID && m->processes[o->creator].worker.is);
}

static void put_object(struct analysis_input *in, struct result *doc, struct rvalue *list,
		       const struct listed *l)
{
	const struct model *m = in->m;
	const struct shm_object *o = l->o;
	struct rvalue *e = r_push_object(doc, list);
	char unnamed[64];

	snprintf(unnamed, sizeof(unnamed), "inode %llu", (unsigned long long)o->inode);
	r_string(doc, e, "name", o->name ? o->name : unnamed);
	put_count(doc, e, "dev", o->dev);
	put_count(doc, e, "inode", o->inode);
	put_count(doc, e, "bytes", o->bytes);
	put_measured(doc, e, "occupied_bytes", o->occupied);
	put_id(doc, e, "site", o->site);
	put_id(doc, e, "creator", o->creator);
	put_holders(doc, e, m, l);
	r_bool(doc, e, "unlinked", o->is_memfd || o->unlinked_at <= l->at);
	r_bool(doc, e, "at_end", l->at_end);
	r_float(doc, e, "start_s", seconds(shm_time(m, o, o->start)));
	if (o->end == INT64_MAX)
		r_null(doc, e, "end_s");
	else
		r_float(doc, e, "end_s", seconds(shm_time(m, o, o->end)));
	if (o->site != NO_ID)
		in->listed[o->site] = true;
}

static void put_objects(struct analysis_input *in, struct result *doc, const struct span_peak *peak)
{
	struct rvalue *list = r_array(doc, result_root(doc), "shm"), *rest;
	const struct model *m = in->m;
	int64_t *ends = xcalloc(m->trace_count, sizeof(*ends));
	VEC(struct listed) all = VEC_INIT;
	uint64_t left_out = 0;

	for (uint32_t i = 0; i < m->trace_count; i++)
		ends[i] = trace_end(m, i);
	for (size_t i = 0; i < m->shm_count; i++) {
		const struct shm_object *o = &m->shm[i];
		int64_t shift = shm_time(m, o, 0), end = ends[o->trace];
		bool at_end = o->end >= end && o->start <= end;

		if (at_end ||
		    (peak->count && o->start <= peak->time - shift && o->end >= peak->time - shift))
			*vec_push(&all) = (struct listed){ o, at_end ? end : peak->time - shift,
							   at_end };
	}
	if (all.count)
		qsort(all.items, all.count, sizeof(*all.items), by_size);
	for (size_t i = 0; i < all.count; i++) {
		if (i < MOST_LISTED)
			put_object(in, doc, list, &all.items[i]);
		else
			left_out += all.items[i].o->bytes;
	}
	if (all.count > MOST_LISTED) {
		rest = r_object(doc, result_root(doc), "shm_not_listed");
		put_count(doc, rest, "objects", all.count - MOST_LISTED);
		put_count(doc, rest, "bytes", left_out);
	}
	vec_release(&all);
	free(ends);
}

/* ---- on the way ---------------------------------------------------------------------------------- */

struct flight {
	uint32_t owner, node, worker; /* worker: one of them */
	span_list spans;
};

static void put_flight(struct result *doc, struct rvalue *list, const struct model *m,
		       struct flight *f)
{
	struct span_peak peak = spans_peak(&f->spans);
	const struct process *w = &m->processes[f->worker];
	struct rvalue *e;
	uint64_t bytes = 0;

	for (size_t i = 0; i < f->spans.count; i++)
		bytes += f->spans.items[i].bytes;
	e = r_push_object(doc, list);
	put_id(doc, e, "proc", f->owner);
	put_id(doc, e, "pid", f->owner == NO_ID ? NO_ID : m->processes[f->owner].pid);
	r_string(doc, e, "loader", w->worker.loader);
	put_id(doc, e, "workers", (uint32_t)w->worker.of);
	put_count(doc, e, "objects", f->spans.count);
	put_count(doc, e, "object_bytes", bytes / f->spans.count);
	put_count(doc, e, "peak_objects", peak.count);
	put_count(doc, e, "peak_bytes", peak.bytes);
	r_float(doc, e, "peak_s", seconds(peak.time));
}

/* Prefetched batches: made by a worker, not yet taken by the process that its loader is in. */
static void put_flights(struct result *doc, const struct model *m)
{
	struct rvalue *list = r_array(doc, result_root(doc), "shm_in_flight");
	VEC(struct flight) flights = VEC_INIT;
	struct flight *f;

	for (size_t i = 0; i < m->shm_count; i++) {
		const struct shm_object *o = &m->shm[i];
		const struct process *p = o->creator == NO_ID ? NULL : &m->processes[o->creator];
		int64_t arrival = shm_arrival(m, o);
		size_t k = 0;

		if (!p || !p->worker.is)
			continue;
		while (k < flights.count && (flights.items[k].owner != p->worker.owner ||
					     flights.items[k].node != p->worker.node))
			k++;
		if (k == flights.count) {
			f = vec_push(&flights);
			*f = (struct flight){ p->worker.owner, p->worker.node, p->id, VEC_INIT };
		}
		f = &flights.items[k];
		*vec_push(&f->spans) =
			(struct span){ shm_time(m, o, o->start),
				       shm_time(m, o, arrival < o->end ? arrival : o->end),
				       o->bytes, (uint32_t)i };
	}
	for (size_t k = 0; k < flights.count; k++) {
		put_flight(doc, list, m, &flights.items[k]);
		vec_release(&flights.items[k].spans);
	}
	vec_release(&flights);
}

void analyse_shm(struct analysis_input *in, struct result *doc)
{
	struct span_peak peak = shm_peak(in->m);

	put_objects(in, doc, &peak);
	put_flights(doc, in->m);
}
