/*
 * What followed workers have copied of the memory they shared with their parent at the fork: pages
 * that were shared at the first walk over them and are their own at the latest one, but no more than
 * there were page faults. The report goes on from there: it leaves out what was mapped anew at an old
 * address, and tells whose blocks it was.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "live/follow.h"

#define HUGE_PAGES 512

struct copies {
	uint64_t pages; /* copied since the first walk */
	uint64_t early; /* its own at the first walk already */
};

static void compare(void *arg, uint64_t first, uint64_t count, uint32_t a, uint32_t b)
{
	struct copies *c = arg;

	(void)first;
	if (!(a & MT_PAGE_PRESENT) || a & MT_PAGE_SWAPPED)
		return;
	if (a & MT_PAGE_EXCLUSIVE && !(a & MT_PAGE_HUGE))
		c->early += count;
	else if (b & MT_PAGE_PRESENT && b & MT_PAGE_EXCLUSIVE &&
		 !(b & MT_PAGE_HUGE && count >= HUGE_PAGES))
		c->pages += count;
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static void settle(struct follow_proc *p, const struct page_walk *now)
{
	const struct page_walk *first = &p->first;
	struct copies c = { 0, 0 };

	page_pairs(first, now, compare, &c);
	if (first->minflt && now->minflt >= first->minflt)
		c.pages = least(c.pages, now->minflt - first->minflt);
	if (first->minflt)
		c.early = least(c.early, first->minflt - 1);
	p->copied = (c.pages + c.early) * now->page_bytes + 1;
}

static uint32_t index_of(const struct follow *f, uint64_t pid)
{
	for (size_t i = f->procs.count; i-- > 0;)
		if (f->procs.items[i].known && f->procs.items[i].ev.pid == pid &&
		    !f->procs.items[i].ended)
			return (uint32_t)i + 1;
	return 0;
}

static void begin(struct follow *f, uint32_t proc, const struct mt_ev_scan *e)
{
	struct follow_proc *p = &f->procs.items[proc], *of;
	bool own = !e->pid || e->pid == p->ev.pid;

	if (p->walk_of)
		page_walk_release(&p->walk);
	p->walk_of = own ? proc + 1 : index_of(f, e->pid);
	of = p->walk_of ? &f->procs.items[p->walk_of - 1] : NULL;
	if (of &&
	    (of->ev.reason != MT_PROCESS_FORK || (e->reason != MT_SCAN_START && !of->has_first)))
		p->walk_of = 0;
	if (p->walk_of && !page_walk_begin(&p->walk, e, 0))
		p->walk_of = 0;
}

static void end(struct follow *f, struct follow_proc *p, const struct mt_ev_scan_end *e)
{
	struct follow_proc *of = &f->procs.items[p->walk_of - 1];

	p->walk_of = 0;
	/* Nothing was looked at, for nothing can have changed. */
	if (p->walk.scope == MT_SCAN_NONE) {
		page_walk_release(&p->walk);
		return;
	}
	if (!e->complete || p->walk.bad) {
		page_walk_release(&p->walk);
	} else if (!of->has_first) {
		of->first = p->walk;
		of->has_first = true;
		settle(of, &of->first);
	} else {
		settle(of, &p->walk);
		page_walk_release(&p->walk);
	}
}

void copies_record(struct follow *f, uint32_t proc, const struct mt_record *r)
{
	struct follow_proc *p = &f->procs.items[proc];

	if (r->id == MT_EV_SCAN)
		begin(f, proc, &r->u.scan);
	else if (p->walk_of && r->id == MT_EV_RANGE && r->u.range.scan == p->walk.id)
		page_walk_add(&p->walk, &r->u.range);
	else if (p->walk_of && r->id == MT_EV_SCAN_END && r->u.scan_end.id == p->walk.id)
		end(f, p, &r->u.scan_end);
}

void copies_release(struct follow_proc *p)
{
	if (p->walk_of)
		page_walk_release(&p->walk);
	if (p->has_first)
		page_walk_release(&p->first);
}
