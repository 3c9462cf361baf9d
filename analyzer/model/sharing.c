/*
 * See sharing.h. A worker that ended by itself was walked then: it is settled at once, and what it
 * inherited need not be kept. One that was killed waits for the walks that others made of it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "model/sharing.h"

#include <string.h>

#include "model/tally.h"
#include "model/touch.h"

#define MIN_ATTRIBUTED                                                                             \
	(UINT64_C(1) << 20) /* less is not told apart by site: helpers, by thousands */
#define MAX_HELD 256 /* processes whose inherited live sets are kept until all is read */
#define MAX_REPEATS 2 /* in a row: the first and the last tell when nothing changed */
#define MAX_WALKS 32 /* of a process that are kept; more are thinned out */

/* ---- walks as they come -------------------------------------------------------------------------- */

static struct sharing *sharing_of(struct proc *p)
{
	if (!p->sharing)
		p->sharing = xcalloc(1, sizeof(*p->sharing));
	return p->sharing;
}

void sharing_fork(struct replay *r, struct replay *parent)
{
	struct sharing *s = sharing_of(r->p);

	live_fork(&parent->live, &s->at_fork);
	maps_fork(&parent->maps, &s->maps_at_fork);
	pinned_fork(s, parent);
	s->holds = true;
}

/* Every second one goes, but the first and the last two. */
static void thin_out(struct sharing *s)
{
	size_t kept = 0;

	for (size_t i = 0; i < s->walks.count; i++) {
		if (i % 2 && i + 2 < s->walks.count)
			page_walk_release(&s->walks.items[i]);
		else
			s->walks.items[kept++] = s->walks.items[i];
	}
	s->walks.count = kept;
}

static void begin_walk(struct replay *r, const struct mt_ev_scan *e)
{
	struct sharing *s = sharing_of(r->p);
	struct page_walk w;

	s->open = false;
	if (r->now > r->to)
		return;
	if (!page_walk_begin(&w, e, timebase_ns(&r->b->clocks.items[r->p->trace], r->now))) {
		r->p->bad_values += e->scope != MT_SCAN_ALL; /* else walk.c counts it */
		return;
	}
	if (w.pid == r->p->ev.pid)
		w.pid = 0;
	if (s->walks.count >= MAX_WALKS)
		thin_out(s);
	*vec_push(&s->walks) = w;
	s->open = true;
}

/* The last walk before w that this process made of the same one; NULL: none. */
static struct page_walk *walk_before(const struct replay *r, const struct page_walk *w)
{
	struct sharing *s = r->p->sharing;

	if (!w->pid)
		return s->walks.count > 1 ? &s->walks.items[s->walks.count - 2] : NULL;
	for (size_t i = r->b->foreign.count; i-- > 0;) {
		struct foreign_walk *f = &r->b->foreign.items[i];

		if (f->by == r->p->id && f->walk.pid == w->pid)
			return &f->walk;
	}
	return NULL;
}

/* Of a process that stands still for hours two repetitions are kept. */
static void repeat_walk(struct replay *r, struct page_walk *w)
{
	struct page_walk *earlier = walk_before(r, w);

	if (earlier && earlier->repeats < MAX_REPEATS) {
		page_walk_repeat(w, earlier);
		return;
	}
	w->bad = true;
	if (earlier) {
		earlier->time = w->time;
		earlier->minflt = w->minflt;
	}
}

/* A walk is over, or was cut short: of another process, or without an end, it is put aside. */
static void end_walk(struct replay *r, const struct mt_ev_scan_end *e)
{
	struct sharing *s = r->p->sharing;
	struct page_walk *w = &s->walks.items[s->walks.count - 1];

	if (e->id != w->id)
		return;
	s->open = false;
	if (w->scope == MT_SCAN_NONE)
		repeat_walk(r, w);
	w->complete = e->complete && !w->bad;
	if (!w->complete) {
		page_walk_release(w);
		s->walks.count--;
	} else if (w->pid) {
		*vec_push(&r->b->foreign) = (struct foreign_walk){ r->p->trace, r->p->id, *w };
		s->walks.count--;
	}
}

void sharing_record(struct replay *r, const struct mt_record *record)
{
	struct sharing *s = r->p->sharing;

	if (record->id == MT_EV_SCAN) {
		if (s && s->open)
			page_walk_release(&s->walks.items[--s->walks.count]);
		begin_walk(r, &record->u.scan);
		return;
	}
	if (!s || !s->open)
		return;
	if (record->id == MT_EV_SCAN_END)
		end_walk(r, &record->u.scan_end);
	else if (record->u.range.scan == s->walks.items[s->walks.count - 1].id &&
		 !page_walk_add(&s->walks.items[s->walks.count - 1], &record->u.range))
		r->p->bad_values += s->walks.items[s->walks.count - 1].scope != MT_SCAN_ALL;
}

/* ---- a process ------------------------------------------------------------------------------------ */

/* Pages that were its own at its first walk: copied before that by its own writes, which are faults
 * of its own, or by the fork itself, which are none. */
static uint64_t early_pages(const struct tally *t, const struct page_walk *base)
{
	uint64_t faults = base && base->minflt ? base->minflt - 1 : 0;

	return t->eager < faults ? t->eager : faults;
}

/* At most as many pages were copied as there were minor faults, which a child counts from 0. */
static double fault_share(const struct tally *t, uint64_t early, const struct page_walk *w)
{
	uint64_t faults;

	if (!w->minflt || !t->copied)
		return 1;
	faults = w->minflt - 1 > early ? w->minflt - 1 - early : 0;
	return faults < t->copied ? (double)faults / (double)t->copied : 1;
}

static uint64_t copied_bytes(const struct tally *t, uint64_t early, const struct page_walk *w)
{
	return (uint64_t)((double)t->copied * fault_share(t, early, w) * (double)t->page) +
	       early * t->page;
}

static void settle_points(const struct proc *p, struct process_cow *cow)
{
	const struct sharing *s = p->sharing;

	free(cow->points);
	cow->points = xcalloc(s->walks.count, sizeof(*cow->points));
	cow->point_count = 0;
	for (size_t i = 0; i < s->walks.count; i++) {
		const struct page_walk *w = &s->walks.items[i];
		struct tally t = tally_of(p, w, false);

		cow->points[cow->point_count].time = w->time;
		cow->points[cow->point_count++].copied =
			copied_bytes(&t, early_pages(&t, baseline_of(s)), w);
		tally_release(&t);
	}
}

/* What the last walk says of the process, with what it inherited at hand. */
static void settle(struct builder *b, struct proc *p)
{
	struct sharing *s = p->sharing;
	const struct page_walk *last = &s->walks.items[s->walks.count - 1];
	struct process_cow *cow = xcalloc(1, sizeof(*cow));
	struct tally t = tally_of(p, last, true);
	uint64_t early = early_pages(&t, baseline_of(s));
	double share = fault_share(&t, early, last);

	cow->scan_time = last->time;
	cow->has_baseline = t.has_baseline;
	cow->by_relative = last->pid != 0;
	cow->shared = t.shared * t.page;
	cow->copied = copied_bytes(&t, early, last);
	cow->copied_error = (uint64_t)(1.96 * t.error * (double)t.page); /* 95 % of a normal one */
	cow->eager = (t.eager - early) * t.page;
	pinned_charge(s, &t, cow);
	cow->unknown = t.unknown * t.page;
	if (t.copied * t.page >= MIN_ATTRIBUTED)
		tally_charge(&t, cow, share, &p->cow_owners);
	p->backing_owners = xcalloc(t.backing.count, sizeof(*p->backing_owners));
	for (size_t i = 0; i < t.backing.count; i++)
		p->backing_owners[i] = site_key(t.owners.items[i], t.backing.items[i].site);
	cow->backing = t.backing.items;
	cow->backing_count = t.backing.count;
	memset(&t.backing, 0, sizeof(t.backing));
	tally_release(&t);
	settle_points(p, cow);
	b->processes.items[p->id].cow = cow;
}

static void let_go(struct sharing *s)
{
	live_release(&s->at_fork);
	vec_release(&s->pinned);
	maps_release(&s->maps_at_fork);
	maps_release(&s->maps_own);
	touches_release(s->touches);
	s->touches = NULL;
	s->holds = false;
}

void sharing_end(struct replay *r)
{
	struct sharing *s = r->p->sharing;

	if (!s)
		return;
	if (s->open)
		page_walk_release(&s->walks.items[--s->walks.count]);
	s->open = false;
	if (!s->holds)
		return;
	maps_fork(&r->maps, &s->maps_own);
	if (s->walks.count && s->walks.items[s->walks.count - 1].reason == MT_SCAN_EXIT)
		settle(r->b, r->p);
	else if (s->walks.count && r->b->held < MAX_HELD) {
		r->b->held++;
		return;
	}
	let_go(s);
}

static int by_time(const void *a, const void *b)
{
	const struct page_walk *x = a, *y = b;

	return x->time == y->time ? 0 : x->time < y->time ? -1 : 1;
}

/* Walks that others made, to those they are about: the last one of the pid that had begun then. */
static void place_foreign(struct builder *b)
{
	for (size_t i = 0; i < b->foreign.count; i++) {
		struct foreign_walk *f = &b->foreign.items[i];
		uint32_t id = tree_holder(b, f->trace, f->walk.pid, f->walk.time);

		if (id == NO_ID)
			page_walk_release(&f->walk);
		else
			*vec_push(&sharing_of(&b->procs.items[id])->walks) = f->walk;
	}
	vec_release(&b->foreign);
}

void sharing_release(struct proc *p)
{
	free(p->cow_owners);
	free(p->backing_owners);
	p->cow_owners = p->backing_owners = NULL;
	if (!p->sharing)
		return;
	for (size_t i = 0; i < p->sharing->walks.count; i++)
		page_walk_release(&p->sharing->walks.items[i]);
	vec_release(&p->sharing->walks);
	let_go(p->sharing);
	free(p->sharing);
	p->sharing = NULL;
}

void sharing_finish(struct builder *b)
{
	uint64_t extra;

	place_foreign(b);
	for (size_t i = 0; i < b->procs.count; i++) {
		struct proc *p = &b->procs.items[i];
		struct sharing *s = p->sharing;

		if (!s || !s->walks.count)
			continue;
		qsort(s->walks.items, s->walks.count, sizeof(*s->walks.items), by_time);
		if (s->holds)
			settle(b, p);
		else if (b->processes.items[i].cow)
			settle_points(p, b->processes.items[i].cow);
		touch_stacks(b, p, b->processes.items[i].cow);
	}
	for (uint32_t i = 0; i < b->procs.count; i++)
		if (sharing_family(b, i, &extra)) {
			b->m->cow_extra += extra;
			b->m->cow_known = true;
		}
}

/* ---- sites of the run ----------------------------------------------------------------------------- */

static uint32_t run_site(uint32_t **of, uint64_t key)
{
	return of[key >> 32] ? of[key >> 32][(uint32_t)key] : NO_ID;
}

void sharing_sites_of_run(struct builder *b, const uint32_t *new_id, uint32_t **of)
{
	for (size_t i = 0; i < b->procs.count; i++) {
		struct proc *p = &b->procs.items[i];
		struct process_cow *cow = new_id[i] == NO_ID ? NULL
							     : b->m->processes[new_id[i]].cow;

		for (size_t k = 0; cow && k < cow->site_count; k++)
			cow->sites[k].site = run_site(of, p->cow_owners[k]);
		if (cow)
			touch_sites(cow);
		for (size_t k = 0; cow && k < cow->backing_count; k++)
			cow->backing[k].site = run_site(of, p->backing_owners[k]);
		sharing_release(p);
	}
}

static int by_copied(const void *a, const void *b)
{
	const struct cow_site *x = a, *y = b;

	return x->copied == y->copied ? 0 : x->copied > y->copied ? -1 : 1;
}

void sharing_sites_sorted(struct model *m, const uint32_t *place)
{
	for (size_t i = 0; i < m->process_count; i++) {
		struct process_cow *cow = m->processes[i].cow;

		if (!cow)
			continue;
		for (size_t k = 0; k < cow->site_count; k++)
			if (cow->sites[k].site != NO_ID)
				cow->sites[k].site = place[cow->sites[k].site];
		for (size_t k = 0; k < cow->backing_count; k++)
			if (cow->backing[k].site != NO_ID)
				cow->backing[k].site = place[cow->backing[k].site];
		for (size_t k = 0; k < cow->touch_count; k++)
			if (cow->touches[k].site != NO_ID)
				cow->touches[k].site = place[cow->touches[k].site];
		if (cow->site_count)
			qsort(cow->sites, cow->site_count, sizeof(*cow->sites), by_copied);
	}
}

void process_cow_free(struct process_cow *cow)
{
	if (!cow)
		return;
	free(cow->sites);
	free(cow->backing);
	free(cow->pinned);
	free(cow->points);
	free(cow->touches);
	free(cow);
}
