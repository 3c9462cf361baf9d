/*
 * See walk.h. Of many walks two results are kept: the one with most resident, and the last.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "model/walk.h"

#include <stdlib.h>
#include <string.h>

#include "memtrace/varint.h"
#include "model/pages.h"

#define MAX_PAGES (UINT64_C(1) << 44)
#define ADDRESS_BITS 60 /* live_key() mixes the kind in above */

struct walks {
	struct walk *open; /* SCAN came, SCAN_END did not */
	struct resident *most, *last; /* may be one */
	bool shut_down; /* the last one was taken when Python had begun to shut down */
};

static void walk_free(struct walk *w)
{
	if (!w)
		return;
	for (size_t i = 0; i < w->ranges.count; i++)
		free(w->ranges.items[i].name);
	vec_release(&w->ranges);
	vec_release(&w->runs);
	vec_release(&w->arenas);
	vec_release(&w->stacks);
	vec_release(&w->tools);
	vec_release(&w->pools);
	vec_release(&w->pool);
	vec_release(&w->blocks);
	free(w);
}

/* Blocks that lie in the process's own memory. */
static void take_block(void *arg, const struct live_block *b)
{
	struct walk *w = arg;
	uint64_t kind = b->key >> ADDRESS_BITS;
	uint64_t addr = b->key & ((UINT64_C(1) << ADDRESS_BITS) - 1);

	if (kind != MT_KIND_HEAP && kind != MT_KIND_PYTHON && kind != MT_KIND_PINNED)
		return;
	*vec_push(&w->blocks) = (struct walk_block){
		.addr = addr, .size = b->size, .birth = b->birth, .owner = b->owner, .site = b->site
	};
}

static int by_address(const void *a, const void *b)
{
	const struct walk_block *x = a, *y = b;

	return x->addr < y->addr ? -1 : x->addr > y->addr;
}

static void begin(struct replay *r, const struct mt_ev_scan *e)
{
	struct walk *w;

	if (!r->walks)
		r->walks = xcalloc(1, sizeof(*r->walks));
	walk_free(r->walks->open);
	r->walks->open = NULL;
	/* Of another process, whose blocks are not at hand; or not of all its mappings. */
	if ((e->pid && e->pid != r->p->ev.pid) || e->scope != MT_SCAN_ALL || r->over ||
	    !r->counting)
		return;
	/* The first one after Python began to shut down tells how the program left it. */
	if (r->walks->shut_down)
		return;
	if (e->page_bytes < 512 || e->page_bytes & (e->page_bytes - 1) ||
	    e->page_bytes > 1u << 20) {
		r->p->bad_values++;
		return;
	}
	w = r->walks->open = xcalloc(1, sizeof(*w));
	w->scan = *e;
	w->time = r->now;
	w->page = e->page_bytes;
	live_each(&r->live, take_block, w);
	if (w->blocks.count)
		qsort(w->blocks.items, w->blocks.count, sizeof(*w->blocks.items), by_address);
}

static void add_run(void *arg, uint64_t first, uint64_t count, uint32_t state)
{
	struct walk *w = arg;

	(void)first;
	*vec_push(&w->runs) = (struct walk_run){ count, state };
}

/* Bytes of a range that no run tells of, when it is to reach up to `end`: nothing is there. */
static void fill_gap(struct walk *w, struct walk_range *last, size_t at, size_t behind,
		     uint64_t end)
{
	uint64_t told = 0;
	struct walk_run *gap;

	for (size_t i = 0; i < last->runs; i++)
		told += w->runs.items[last->first_run + i].pages;
	(void)vec_push(&w->runs);
	gap = &w->runs.items[at];
	memmove(gap + 1, gap, behind * sizeof(*gap));
	*gap = (struct walk_run){ (end - last->start) / w->page - told, 0 };
}

/*
 * One mapping may come in several pieces: they become one range again. What is not resident may be
 * left out in between; that matters for the heap, whose bounds are asked for.
 */
static bool add_piece(struct walk *w, const struct walk_range *piece, const char *name)
{
	struct walk_range *last = w->ranges.count ? &w->ranges.items[w->ranges.count - 1] : NULL;

	if (!last || last->flags != piece->flags || last->prot != piece->prot ||
	    last->inode != piece->inode || last->end > piece->start ||
	    (last->end < piece->start && !(piece->flags & MT_RANGE_HEAP)) ||
	    strcmp(last->name, name) != 0)
		return false;
	/* The last runs of the list are the new piece's. */
	fill_gap(w, last, piece->first_run, piece->runs, piece->start);
	last->runs += piece->runs + 1;
	last->end = piece->end;
	return true;
}

/* Of mappings of one file that follow each other only the first is named. */
static char *name_of(const struct walk *w, const struct mt_ev_range *e)
{
	if (!e->name.len && e->inode)
		for (size_t i = w->ranges.count; i-- > 0;)
			if (w->ranges.items[i].inode == e->inode &&
			    w->ranges.items[i].dev == e->dev)
				return xstrdup(w->ranges.items[i].name);
	return xstrndup(e->name.data, e->name.len);
}

static void add_range(struct replay *r, struct walk *w, const struct mt_ev_range *e)
{
	struct walk_range range = { .start = e->start,
				    .flags = (uint32_t)e->flags,
				    .prot = (uint32_t)e->prot,
				    .dev = e->dev,
				    .inode = e->inode,
				    .first_run = w->runs.count };

	if (e->pages > MAX_PAGES || e->start % w->page ||
	    e->start > UINT64_MAX - e->pages * w->page ||
	    !page_runs_each(e->runs, e->start / w->page, e->pages, add_run, w)) {
		r->p->bad_values++;
		w->runs.count = range.first_run;
		return;
	}
	range.end = e->start + e->pages * w->page;
	range.runs = w->runs.count - range.first_run;
	if (w->ranges.count && w->ranges.items[w->ranges.count - 1].end > range.start)
		w->disordered = true;
	range.name = name_of(w, e);
	if (add_piece(w, &range, range.name)) {
		free(range.name);
		return;
	}
	*vec_push(&w->ranges) = range;
}

static void add_pools(struct replay *r, struct walk *w, const struct mt_ev_pools *e)
{
	const uint8_t *p = (const uint8_t *)e->pools.data, *end = p + e->pools.len;
	struct walk_pools pools = { e->start, e->size, e->pool_bytes, w->pool.count, 0 };
	uint64_t code, used;

	if (!e->pool_bytes || e->pool_bytes & (e->pool_bytes - 1) || e->size > 1u << 30 ||
	    e->pool_bytes > e->size || e->start > UINT64_MAX - e->size) {
		r->p->bad_values++;
		return;
	}
	for (; p < end && pools.pools < e->size / e->pool_bytes; pools.pools++) {
		used = 0;
		p = mt_get_varint(p, end, &code);
		if (p && code > 2)
			p = mt_get_varint(p, end, &used);
		if (!p || used * (code - 2) * 16 > e->pool_bytes || code > 66) {
			r->p->bad_values++;
			break;
		}
		*vec_push(&w->pool) = (struct walk_pool){ (uint16_t)code, (uint16_t)used };
	}
	*vec_push(&w->pools) = pools;
}

static int arena_order(const void *a, const void *b)
{
	const struct walk_arena *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

static int pools_order(const void *a, const void *b)
{
	const struct walk_pools *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

static int tool_order(const void *a, const void *b)
{
	const struct walk_tool *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

static int stack_order(const void *a, const void *b)
{
	const struct walk_stack *x = a, *y = b;

	return x->end < y->end ? -1 : x->end > y->end;
}

static void end(struct replay *r, const struct mt_ev_scan_end *e)
{
	struct walks *all = r->walks;
	struct walk *w = all->open;
	struct resident *found;

	w->complete = e->complete == 1;
	w->cpu_ns = e->cpu_ns;
	if (w->complete && !w->disordered) {
		if (w->arenas.count)
			qsort(w->arenas.items, w->arenas.count, sizeof(*w->arenas.items),
			      arena_order);
		if (w->tools.count)
			qsort(w->tools.items, w->tools.count, sizeof(*w->tools.items), tool_order);
		if (w->pools.count)
			qsort(w->pools.items, w->pools.count, sizeof(*w->pools.items), pools_order);
		if (w->stacks.count)
			qsort(w->stacks.items, w->stacks.count, sizeof(*w->stacks.items),
			      stack_order);
		found = resident_of(r, w);
		if (all->last != all->most)
			resident_free(all->last);
		if (!all->most || found->bytes > all->most->bytes) {
			resident_free(all->most);
			all->most = found;
		}
		all->last = found;
		all->shut_down = r->shutdown && r->shutdown <= w->time;
	}
	walk_free(w);
	all->open = NULL;
}

void walk_record(struct replay *r, const struct mt_record *record)
{
	struct walk *w;

	if (record->id == MT_EV_SCAN) {
		begin(r, &record->u.scan);
		return;
	}
	w = r->walks ? r->walks->open : NULL;
	if (!w)
		return;
	if (record->id == MT_EV_RANGE && record->u.range.scan == w->scan.id)
		add_range(r, w, &record->u.range);
	else if (record->id == MT_EV_ARENA && record->u.arena.scan == w->scan.id)
		*vec_push(&w->arenas) =
			(struct walk_arena){ record->u.arena.start, record->u.arena.end,
					     record->u.arena.arena, record->u.arena.top };
	else if (record->id == MT_EV_STACK && record->u.stack.scan == w->scan.id)
		*vec_push(&w->stacks) = (struct walk_stack){ (uint32_t)record->u.stack.tid,
							     record->u.stack.start,
							     record->u.stack.end };
	else if (record->id == MT_EV_TOOL && record->u.tool.scan == w->scan.id)
		*vec_push(&w->tools) = (struct walk_tool){ record->u.tool.start,
							   record->u.tool.end };
	else if (record->id == MT_EV_POOLS && record->u.pools.scan == w->scan.id)
		add_pools(r, w, &record->u.pools);
	else if (record->id == MT_EV_SCAN_END && record->u.scan_end.id == w->scan.id)
		end(r, &record->u.scan_end);
}

/* What was folded is told of at the end only. */
static void note_folded(const struct replay *r, struct resident *to)
{
	if (!to)
		return;
	to->large_in_heap += r->large_heap.folded;
	if (r->large_freed.size > to->large_freed) {
		to->large_freed = r->large_freed.size;
		to->large_owner = r->large_freed.owner;
		to->large_site = r->large_freed.site;
	}
}

void walk_finish(struct replay *r)
{
	struct walks *all = r->walks;

	if (!all)
		return;
	walk_free(all->open);
	note_folded(r, all->most);
	if (all->last != all->most)
		note_folded(r, all->last);
	r->out->resident_most = all->most;
	r->out->resident_last = all->last;
	free(all);
	r->walks = NULL;
}

void resident_free(struct resident *r)
{
	if (!r)
		return;
	for (size_t i = 0; i < r->name_count; i++)
		free(r->names[i].name);
	free(r->names);
	free(r->heaps);
	free(r->pins);
	free(r->larges);
	free(r);
}

/* ---- sites --------------------------------------------------------------------------------------- */

/* Applies a function to every site that a process's walks name; of processes left out: NO_ID. */
static void each_resident_site(struct process *p,
			       void (*fn)(void *arg, uint32_t *owner, uint32_t *site), void *arg)
{
	struct resident *both[] = { p->resident_most, p->resident_last == p->resident_most
							      ? NULL
							      : p->resident_last };

	for (size_t i = 0; i < 2; i++) {
		for (size_t k = 0; both[i] && k < both[i]->pin_count; k++)
			fn(arg, &both[i]->pins[k].owner, &both[i]->pins[k].site);
		for (size_t k = 0; both[i] && k < both[i]->large_count; k++)
			fn(arg, &both[i]->larges[k].owner, &both[i]->larges[k].site);
		if (both[i])
			fn(arg, &both[i]->large_owner, &both[i]->large_site);
		for (size_t k = 0; both[i] && k < both[i]->heap_count; k++) {
			struct resident_heap *h = &both[i]->heaps[k];

			fn(arg, &h->top_owner, &h->top_site);
			fn(arg, &h->owner, &h->site);
		}
	}
}

/* From a site of a process (its number before any was left out) to one of the run. */
static void site_of_run(void *arg, uint32_t *owner, uint32_t *site)
{
	uint32_t **of = arg;

	*site = *site == NO_ID || !of[*owner] ? NO_ID : of[*owner][*site];
}

static void site_sorted(void *arg, uint32_t *owner, uint32_t *site)
{
	const uint32_t *place = arg;

	(void)owner;
	if (*site != NO_ID)
		*site = place[*site];
}

void walk_sites_of_run(struct model *m, uint32_t **of)
{
	for (size_t i = 0; i < m->process_count; i++)
		each_resident_site(&m->processes[i], site_of_run, of);
}

void walk_sites_sorted(struct model *m, uint32_t *place)
{
	for (size_t i = 0; i < m->process_count; i++)
		each_resident_site(&m->processes[i], site_sorted, place);
}
