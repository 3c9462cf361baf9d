/*
 * Mappings: what mmap, munmap, mremap, brk and shmat took and gave back.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "model/replay.h"

static void note_backing(struct replay *r, uint32_t site, int64_t delta)
{
	struct backing_event *e;

	if (!(r->p->sites.items[site].kind & MT_KIND_BACKING) || !r->counting || !delta)
		return;
	e = vec_push(&r->p->backing);
	e->time = timebase_ns(&r->b->clocks.items[r->p->trace], r->now);
	e->site = site;
	e->delta = delta;
}

static void map_removed(void *arg, const struct map_range *range, uint64_t bytes, int left)
{
	struct replay *r = arg;
	struct local_site *s;

	if (r->missed)
		r->p->missed_frees++;
	if (range->use)
		shm_unmap(r, range->use, left);
	if (range->owner != r->p->id)
		return; /* inherited mappings are in no total of this process */
	s = &r->p->sites.items[range->site];
	replay_dropped(r, s, bytes, 1 - left);
	note_backing(r, range->site, -(int64_t)bytes);
	if (r->phases)
		phases_dropped(r, range->site, range->birth, bytes, 0);
	if (r->missed)
		growth_missed(r, s, range->birth, bytes, 0);
	else if (s->cohorts)
		growth_died(r, s, range->birth, bytes, 0, !left);
	if (r->missed)
		return;
	replay_freed(r, s->kind & MT_KIND_MASK);
	if (r->counting) {
		s->frees++;
		if (!left && r->now - range->birth < MT_BRIEF_UNITS && range->birth >= r->from)
			s->short_lived_count++;
	}
}

/* A range can be torn in two, so a mapping is never of a kind that counts in blocks. */
static bool is_mapping(struct replay *r, uint64_t addr, uint64_t size, uint64_t kind)
{
	if (!replay_plausible(r, addr, size, kind))
		return false;
	if ((kind & MT_KIND_MASK) != MT_KIND_HEAP && (kind & MT_KIND_MASK) != MT_KIND_PYTHON)
		return true;
	r->p->bad_values++;
	return false;
}

static uint64_t page_up(const struct replay *r, uint64_t addr)
{
	return (addr + r->page - 1) & ~(r->page - 1);
}

static void range_take(struct replay *r, uint64_t start, uint64_t end, uint64_t asked,
		       uint32_t site, uint32_t use, bool replaces)
{
	struct map_range range = { .start = start,
				   .end = end,
				   .asked = asked,
				   .birth = r->now,
				   .site = site,
				   .owner = r->p->id,
				   .use = use,
				   .kind = r->p->sites.items[site].kind };

	r->missed = !replaces;
	maps_remove(&r->maps, start, end, map_removed, r);
	r->missed = false;
	maps_add(&r->maps, &range);
	replay_taken(r, &r->p->sites.items[site], asked - start);
	note_backing(r, site, (int64_t)(asked - start));
	growth_born(r, &r->p->sites.items[site], asked - start);
	if (r->phases)
		phases_taken(r, range.kind, r->now, asked - start);
}

#define REMAP_FLAG_FIXED 2 /* MREMAP_FIXED */
#define REMAP_FLAG_KEEP 4 /* MREMAP_DONTUNMAP: the old range stays */

void map_take(struct replay *r, uint64_t addr, uint64_t size, uint64_t native, uint64_t python,
	      uint64_t kind, bool replaces)
{
	if (!is_mapping(r, addr, size, kind) || addr > UINT64_MAX - size - r->page)
		return;
	range_take(r, addr, page_up(r, addr + size), addr + size,
		   replay_site(r, native, python, (uint32_t)kind), 0, replaces);
}

void map_record(struct replay *r, const struct mt_ev_map *e)
{
	uint32_t site, use;

	if (!is_mapping(r, e->addr, e->size, e->kind) || e->addr > UINT64_MAX - e->size - r->page ||
	    !e->size)
		return;
	site = replay_site(r, e->native, e->python, (uint32_t)e->kind);
	use = shm_map(r, e, site);
	range_take(r, e->addr, page_up(r, e->addr + e->size), e->addr + e->size, site, use,
		   e->flags & MAP_FLAG_FIXED);
}

bool map_give(struct replay *r, uint64_t addr, uint64_t size)
{
	const struct map_range *range;
	uint64_t end;

	if (size > MAX_BLOCK_BYTES || addr > UINT64_MAX - size - r->page) {
		r->p->bad_values++;
		return true;
	}
	end = page_up(r, addr + size);
	if (!size) {
		range = maps_find(&r->maps, addr);
		if (!range || range->start != addr)
			return false;
		end = range->end;
	}
	return maps_remove(&r->maps, addr, end, map_removed, r) > 0;
}

void remap_give(struct replay *r, const struct mt_ev_remap *e, uint32_t stream)
{
	const struct map_range *old = maps_find(&r->maps, e->old_addr);
	struct remap *state;

	if (stream >= 1u << 20)
		return;
	vec_reserve(&r->remaps, stream + 1u);
	if (r->remaps.count <= stream)
		r->remaps.count = stream + 1u;
	state = &r->remaps.items[stream];
	state->known = old != NULL;
	state->kind = old ? old->kind : MT_KIND_MMAP;
	if (!r->over && !(e->flags & REMAP_FLAG_KEEP) && !map_give(r, e->old_addr, e->old_size))
		replay_freed_unknown(r, MT_KIND_MMAP);
}

void remap_take(struct replay *r, const struct mt_ev_remap *e, uint32_t stream)
{
	uint8_t kind = MT_KIND_MMAP;

	if (!e->old_size) {
		/* Not in two parts: nothing was given back. */
		const struct map_range *old = maps_find(&r->maps, e->old_addr);

		if (old)
			kind = old->kind;
	} else if (stream < r->remaps.count && r->remaps.items[stream].known) {
		kind = r->remaps.items[stream].kind;
	}
	map_take(r, e->addr, e->size, e->native, e->python, kind, e->flags & REMAP_FLAG_FIXED);
}

void break_move(struct replay *r, const struct mt_ev_brk *e)
{
	if (e->addr > e->old_addr) {
		if (is_mapping(r, e->addr, e->addr - e->old_addr, e->kind))
			range_take(r, e->old_addr, e->addr, e->addr,
				   replay_site(r, e->native, e->python, (uint32_t)e->kind), 0,
				   true);
	} else if (e->addr < e->old_addr) {
		maps_remove(&r->maps, e->addr, e->old_addr, map_removed, r);
	}
}
