/*
 * Shared memory that is kept: batches that a loader's process holds on to, each a file and a
 * descriptor; and names left behind in /dev/shm.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "analysis/common.h"
#include "analysis/findings.h"
#include "analysis/shm.h"

#define LEAST_OBJECTS 6
#define LEAST_BYTES (UINT64_C(1) << 20)
#define NAMES_SHOWN 8
#define LEVEL 0.8 /* what is kept without a bound was half as much when half had come */

/* ---- kept by the process they were made for -------------------------------------------------- */

/* What a process got of one site. */
struct received {
	uint32_t holder, site;
	span_list held; /* mapped by the holder */
	span_list flights; /* on the way to it */
};

typedef VEC(struct received) received_list;

static struct received *received_of(received_list *all, uint32_t holder, uint32_t site)
{
	struct received *r;

	for (size_t i = 0; i < all->count; i++)
		if (all->items[i].holder == holder && all->items[i].site == site)
			return &all->items[i];
	r = vec_push(all);
	*r = (struct received){ .holder = holder, .site = site };
	return r;
}

static void receive_all(const struct model *m, received_list *all)
{
	for (size_t i = 0; i < m->shm_use_count; i++) {
		const struct shm_use *u = &m->shm_uses[i];
		const struct shm_object *o = &m->shm[u->object];
		struct received *r;

		if (u->mapped_from > u->mapped_to || o->site == NO_ID ||
		    !shm_is_made_for(m, o, u->process))
			continue;
		r = received_of(all, u->process, o->site);
		*vec_push(&r->held) = (struct span){ u->mapped_from, u->mapped_to, o->bytes,
						     u->object };
		*vec_push(&r->flights) = (struct span){ o->start, u->mapped_from, o->bytes,
							u->object };
	}
}

/* How many came, from when the oldest that is held at the peak came until then. */
static size_t came_since(const struct received *r, const struct span_peak *peak)
{
	int64_t oldest = INT64_MAX;
	size_t n = 0;

	for (size_t i = 0; i < r->held.count; i++) {
		const struct span *s = &r->held.items[i];

		if (s->from <= peak->time && s->to >= peak->time && s->from < oldest)
			oldest = s->from;
	}
	for (size_t i = 0; i < r->held.count; i++)
		n += r->held.items[i].from >= oldest && r->held.items[i].from <= peak->time;
	return n;
}

static int by_arrival(const void *a, const void *b)
{
	const struct span *x = a, *y = b;

	return x->from < y->from ? -1 : x->from > y->from;
}

/* The first half of what came already filled it: a ring, that came to its size and stays there. */
static bool is_level(const struct received *r, const struct span_peak *held)
{
	span_list early = VEC_INIT;
	struct span_peak peak;

	for (size_t i = 0; i < r->held.count; i++)
		*vec_push(&early) = r->held.items[i];
	qsort(early.items, early.count, sizeof(*early.items), by_arrival);
	early.count /= 2;
	peak = spans_peak(&early);
	vec_release(&early);
	return (double)peak.bytes >= LEVEL * (double)held->bytes;
}

/*
 * A loader's process holds the batch that it works on, and some that came out of turn: no more than
 * its workers have under way at a time. So what is kept is either most of what came since its oldest,
 * and more than that, or several times as much.
 */
static bool is_kept(const struct received *r, const struct span_peak *held,
		    const struct span_peak *flight)
{
	size_t came = came_since(r, held);

	if (held->count < LEAST_OBJECTS || held->bytes < LEAST_BYTES || is_level(r, held))
		return false;
	return (held->count * 2 >= came && came * 4 > flight->count * 5 + 8) ||
	       held->count > flight->count * 4 + 8;
}

static void add_creators(struct finding *f, const struct model *m, const struct received *r,
			 int64_t time)
{
	for (size_t i = 0; i < r->held.count; i++)
		if (r->held.items[i].from <= time && r->held.items[i].to >= time)
			finding_process(f, m->shm[r->held.items[i].object].creator);
}

/* Descriptors that the holder was seen to have of what it held then; false: it was not asked. */
static bool descriptors_at(const struct model *m, const struct received *r, int64_t time,
			   uint64_t *count)
{
	bool asked = false;

	*count = 0;
	for (size_t i = 0; i < r->held.count; i++) {
		const struct span *s = &r->held.items[i];
		const struct shm_object *o = &m->shm[s->object];

		for (uint32_t k = 0; k < o->use_count && s->from <= time && s->to >= time; k++) {
			const struct shm_use *u = &m->shm_uses[o->first_use + k];

			if (u->process != r->holder || !u->sampled)
				continue;
			asked = true;
			*count += u->descriptors;
		}
	}
	return asked;
}

static void put_kept(struct findings *all, const struct received *r, const struct span_peak *held)
{
	const struct model *m = all->in->m;
	const struct process *p = &m->processes[r->holder];
	struct finding *f = finding_new(all, "shm-leak", SEVERITY_WARNING);
	double at = process_seconds(m, p, held->time);
	uint64_t descriptors;
	struct stack st;

	f->site = r->site;
	finding_bytes(f, held->bytes);
	finding_process(f, r->holder);
	add_creators(f, m, r, held->time);
	strbuf_addf(&f->title, "%zu shared-memory tensors, ", held->count);
	size_add(&f->title, held->bytes);
	strbuf_addstr(&f->title, ", kept by ");
	process_name_add(&f->title, p);
	strbuf_addstr(&f->title, "; made in ");
	stack_merge(m, all->in->symbols, m->sites[r->site].native, m->sites[r->site].python, &st);
	place_add(&f->title, &st);
	stack_release(&st);
	strbuf_addstr(&f->title, " by ");
	finding_processes_add(&f->title, m, f->processes.items + 1, f->processes.count - 1);
	strbuf_addf(&f->detail,
		    "It had them at %.1f s, of %zu that came from there in all. Each is a file in "
		    "memory that is counted in the cgroup and in no RSS but of who touches it",
		    at, r->held.count);
	if (descriptors_at(m, r, held->time, &descriptors)) {
		strbuf_addf(&f->detail, "; %llu descriptors were open for them",
			    (unsigned long long)descriptors);
		finding_int(f, "descriptors", descriptors);
	}
	strbuf_addstr(&f->detail, p->shutdown && held->time < p->shutdown
					  ? ". They were given back before the end."
					  : ".");
	strbuf_addstr(&f->advice,
		      "Keep a copy in place of the batch itself: kept.append(batch.clone()), or "
		      "only the numbers that are needed (loss.item()). As it is, this ends in "
		      "\"Too many open files\" or a full /dev/shm.");
	finding_int(f, "objects", held->count);
	finding_int(f, "objects_received", r->held.count);
	finding_float(f, "at_s", at);
}

static void find_kept(struct findings *all)
{
	received_list list = VEC_INIT;

	receive_all(all->in->m, &list);
	for (size_t i = 0; i < list.count; i++) {
		struct received *r = &list.items[i];
		struct span_peak held = spans_peak(&r->held), flight = spans_peak(&r->flights);

		if (is_kept(r, &held, &flight))
			put_kept(all, r, &held);
		vec_release(&r->held);
		vec_release(&r->flights);
	}
	vec_release(&list);
}

/* ---- names left behind ----------------------------------------------------------------------- */

static void find_left(struct findings *all)
{
	const struct model *m = all->in->m;
	struct finding *f = NULL;
	uint64_t bytes = 0, count = 0;

	for (size_t i = 0; i < m->shm_count; i++) {
		const struct shm_object *o = &m->shm[i];

		if (o->end != INT64_MAX || m->traces[o->trace].running || m->restricted)
			continue;
		if (!f)
			f = finding_new(all, "shm-leak", SEVERITY_WARNING);
		bytes += o->bytes;
		if (o->creator != NO_ID)
			finding_process(f, o->creator);
		if (count++ < NAMES_SHOWN)
			finding_item(f, "names", o->name);
		if (f->site == NO_ID)
			f->site = o->site;
	}
	if (!f)
		return;
	finding_bytes(f, bytes);
	strbuf_addf(&f->title, "%llu shared-memory %s left in /dev/shm, ",
		    (unsigned long long)count, count == 1 ? "file is" : "files are");
	size_add(&f->title, bytes);
	if (f->processes.count) {
		strbuf_addstr(&f->title, ", made by ");
		finding_processes_add(&f->title, m, f->processes.items, f->processes.count);
	}
	strbuf_addstr(&f->detail,
		      "No process of the run took their names away: they stay in memory until "
		      "somebody deletes them or the machine starts again.");
	strbuf_addstr(&f->advice,
		      "Call unlink() once, in the process that made them, also when it ends by an "
		      "error; what is there now: ls /dev/shm, then rm.");
	finding_int(f, "objects", count);
}

void find_shm(struct findings *all)
{
	find_kept(all);
	find_left(all);
}
