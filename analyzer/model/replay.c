/*
 * Blocks and mappings of one process, replayed and counted. Everything the report says about bytes
 * comes from here. See CONTRACT section 4 for what counts where; in short: a process's own blocks
 * and the ones it inherited are never mixed, mappings that back an allocator are in no live total,
 * and outside the window (--from, --to) nothing is counted though all before its end is replayed.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "model/replay.h"
#include "model/sampling.h"
#include "model/sharing.h"
#include "model/touch.h"
#include "model/walk.h"

static inline bool in_totals(unsigned int kind)
{
	return kind == MT_KIND_HEAP || kind == MT_KIND_PYTHON;
}

/* ---- sites ----------------------------------------------------------------------------------- */

static struct site_slot *slot_of(const struct replay *r, uint64_t ids, uint32_t kind)
{
	uint64_t hash = (ids ^ (uint64_t)kind << 27) * 0x9e3779b97f4a7c15u;
	size_t at = (hash ^ hash >> 32) & r->slot_mask;

	while (r->slots[at].site && (r->slots[at].ids != ids || r->slots[at].kind != kind))
		at = (at + 1) & r->slot_mask;
	return &r->slots[at];
}

static void slots_grow(struct replay *r)
{
	size_t old_count = r->slots ? r->slot_mask + 1 : 0;
	struct site_slot *old = r->slots;

	r->slot_mask = old_count ? old_count * 2 - 1 : 255;
	r->slots = xcalloc(r->slot_mask + 1, sizeof(*r->slots));
	for (size_t i = 0; i < old_count; i++)
		if (old[i].site)
			*slot_of(r, old[i].ids, old[i].kind) = old[i];
	free(old);
}

uint32_t replay_site(struct replay *r, uint64_t native, uint64_t python, uint32_t kind)
{
	uint64_t ids = (native < UINT32_MAX ? native : UINT32_MAX) << 32 |
		       (python < UINT32_MAX ? python : UINT32_MAX);
	struct site_slot *slot;
	struct local_site *site;

	if (r->last.ids == ids && r->last.kind == kind && r->last.site)
		return r->last.site - 1;
	if (r->p->sites.count * 2 >= r->slot_mask)
		slots_grow(r);
	slot = slot_of(r, ids, kind);
	if (!slot->site) {
		site = vec_push(&r->p->sites);
		site->native = (uint32_t)(ids >> 32);
		site->python = (uint32_t)ids;
		site->kind = (uint8_t)kind;
		slot->ids = ids;
		slot->kind = kind;
		slot->site = (uint32_t)r->p->sites.count;
	}
	r->last = *slot;
	return slot->site - 1;
}

static struct local_site *site_at(struct replay *r, uint32_t owner, uint32_t site)
{
	return &r->b->procs.items[owner].sites.items[site];
}

/* ---- totals ---------------------------------------------------------------------------------- */

static void note_peak(struct replay *r)
{
	uint64_t held = r->out->live_bytes + r->out->inherited_live_bytes;

	if (r->counting && held > r->out->peak_live_bytes) {
		r->out->peak_live_bytes = held;
		r->peak_time = r->now;
		r->peak_turn++;
	}
}

/*
 * Before the site's live_bytes change. What it held at the last peak is what it holds when it changes
 * for the first time after it: so a peak costs nothing, however many sites there are.
 */
static inline void keep_at_peak(struct replay *r, struct local_site *s)
{
	if (s->peak_turn != r->peak_turn) {
		s->at_peak_bytes = s->live_bytes;
		s->peak_turn = r->peak_turn;
	}
}

/* The window opens: peaks count from what is held now. */
static void window_open(struct replay *r)
{
	r->counting = true;
	for (size_t i = 0; i < r->p->sites.count; i++)
		r->p->sites.items[i].peak_bytes = r->p->sites.items[i].live_bytes;
	r->peak_time = r->from;
	note_peak(r);
}

void replay_taken(struct replay *r, struct local_site *s, uint64_t size)
{
	unsigned int kind = s->kind & MT_KIND_MASK;
	struct kind_totals *k = &r->out->kinds[kind];

	keep_at_peak(r, s);
	s->live_bytes += size;
	s->live_count++;
	if (!(s->kind & MT_KIND_BACKING)) {
		k->live_bytes += size;
		k->live_count++;
		if (in_totals(kind)) {
			r->out->live_bytes += size;
			r->out->live_count++;
			note_peak(r);
		}
	}
	if (!r->counting)
		return;
	if (s->live_bytes > s->peak_bytes)
		s->peak_bytes = s->live_bytes;
	s->allocations++;
	s->bytes_allocated += size;
	k->allocations++;
	k->bytes_allocated += size;
	if (in_totals(kind)) {
		r->out->allocations++;
		r->out->bytes_allocated += size;
	}
}

void replay_dropped(struct replay *r, struct local_site *s, uint64_t bytes, int blocks)
{
	unsigned int kind = s->kind & MT_KIND_MASK;

	keep_at_peak(r, s);
	s->live_bytes -= bytes;
	s->live_count -= (uint64_t)(int64_t)blocks;
	if (s->kind & MT_KIND_BACKING)
		return;
	r->out->kinds[kind].live_bytes -= bytes;
	r->out->kinds[kind].live_count -= (uint64_t)(int64_t)blocks;
	if (in_totals(kind)) {
		r->out->live_bytes -= bytes;
		r->out->live_count -= (uint64_t)(int64_t)blocks;
	}
}

void replay_freed(struct replay *r, unsigned int kind)
{
	if (!r->counting)
		return;
	r->out->kinds[kind].frees++;
	if (in_totals(kind))
		r->out->frees++;
}

void replay_freed_unknown(struct replay *r, unsigned int kind)
{
	replay_freed(r, kind);
	r->p->unknown_frees++;
}

/* ---- blocks ---------------------------------------------------------------------------------- */

/* An inherited block: `freed` by this process, or lost from sight. */
static void drop_inherited(struct replay *r, const struct live_block *b, bool freed)
{
	uint8_t kind = site_at(r, b->owner, b->site)->kind;

	if (!in_totals(kind & MT_KIND_MASK) || kind & MT_KIND_BACKING)
		return;
	r->out->inherited_live_bytes -= b->size;
	r->out->inherited_live_count--;
	if (r->sampling)
		sampling_dropped_inherited(r, b, freed);
	if (freed && r->counting) {
		r->out->inherited_freed_bytes += b->size;
		r->out->inherited_freed_count++;
	}
}

static void close_missed(struct replay *r, const struct live_block *old)
{
	r->p->missed_frees++;
	if (old->owner == r->p->id) {
		struct local_site *s = site_at(r, old->owner, old->site);

		replay_dropped(r, s, old->size, 1);
		if (r->sampling)
			sampling_dropped(r, s, old, false, false);
		growth_missed(r, s, old->birth, old->size, old->mean);
		if (r->phases)
			phases_dropped(r, old->site, old->birth, old->size, old->mean);
	} else
		drop_inherited(r, old, false);
}

void replay_block_take(struct replay *r, uint64_t time, uint64_t addr, uint64_t size, uint32_t site)
{
	struct local_site *s = &r->p->sites.items[site];
	struct live_block block = { .key = live_key(addr, s->kind & MT_KIND_MASK),
				    .size = size,
				    .mean = r->mean,
				    .birth = time,
				    .site = site,
				    .owner = r->p->id };
	struct live_block old;

	if (__builtin_expect(live_add(&r->live, &block, &old), 0))
		close_missed(r, &old);
	replay_taken(r, s, size);
	if (size >= RECENT_LEAST)
		shm_block_taken(r, block.key, size, site);
	if ((s->kind & MT_KIND_MASK) == MT_KIND_HEAP)
		replay_large_in_heap(r, addr, size, true);
	if (r->sampling)
		sampling_taken(r, s, &block);
	if (s->cohorts || s->live_count >= GROWTH_BLOCKS || r->resizing)
		growth_born(r, s, size);
	if (r->phases)
		phases_taken(r, s->kind, time, size);
}

void replay_block_give(struct replay *r, uint64_t time, uint64_t addr, uint64_t kind_flags)
{
	unsigned int kind = (unsigned int)kind_flags & MT_KIND_MASK;
	struct live_block block;
	struct local_site *s;
	bool brief;

	if (kind_flags > UINT8_MAX || kind >= MT_KINDS || !live_key(addr, kind)) {
		r->p->bad_values++;
		return;
	}
	if (!live_remove(&r->live, live_key(addr, kind), &block)) {
		replay_freed_unknown(r, kind);
		return;
	}
	if (kind == MT_KIND_HEAP) {
		replay_freed_large(r, block.size, block.owner, block.site);
		replay_large_in_heap(r, addr, block.size, false);
	}
	if (block.owner != r->p->id) {
		drop_inherited(r, &block, true);
		return;
	}
	s = &r->p->sites.items[block.site];
	replay_dropped(r, s, block.size, 1);
	replay_freed(r, kind);
	if (s->cohorts)
		growth_died(r, s, block.birth, block.size, block.mean, 1);
	if (r->phases)
		phases_dropped(r, block.site, block.birth, block.size, block.mean);
	brief = time - block.birth < MT_BRIEF_UNITS && block.birth >= r->from;
	if (r->counting) {
		s->frees++;
		s->short_lived_count += brief;
	}
	if (r->sampling)
		sampling_dropped(r, s, &block, true, brief);
}

bool replay_plausible(struct replay *r, uint64_t addr, uint64_t size, uint64_t kind)
{
	if (kind <= UINT8_MAX && (kind & MT_KIND_MASK) < MT_KINDS && size <= MAX_BLOCK_BYTES &&
	    live_key(addr, (unsigned int)kind & MT_KIND_MASK))
		return true;
	r->p->bad_values++;
	return false;
}

static void take(struct replay *r, uint64_t time, uint64_t addr, uint64_t size, uint64_t native,
		 uint64_t python, uint64_t kind)
{
	if (replay_plausible(r, addr, size, kind))
		replay_block_take(r, time, addr, size,
				  replay_site(r, native, python, (uint32_t)kind));
}

/* ---- records --------------------------------------------------------------------------------- */

struct replay *replay_new(struct builder *b, uint32_t id, struct replay *parent)
{
	struct replay *r = xcalloc(1, sizeof(*r));
	const struct timebase *tb;

	r->b = b;
	r->p = &b->procs.items[id];
	r->out = &b->processes.items[id];
	tb = &b->clocks.items[r->p->trace];
	r->to = b->options.has_to ? timebase_units(tb, b->options.to) : UINT64_MAX;
	r->from = b->options.has_from ? timebase_units(tb, b->options.from) : 0;
	r->page = b->traces.items[r->p->trace].page_size;
	slots_grow(r);
	if (parent) {
		live_fork(&parent->live, &r->live);
		maps_fork(&parent->maps, &r->maps);
		r->now = r->p->first_time;
		shm_fork(r);
		r->out->inherited_live_bytes = parent->out->live_bytes +
					       parent->out->inherited_live_bytes;
		r->out->inherited_live_count = parent->out->live_count +
					       parent->out->inherited_live_count;
		sampling_fork(r, parent);
		sharing_fork(r, parent);
		r->large_freed = parent->large_freed;
		r->large_heap = parent->large_heap;
	}
	r->now = r->p->first_time;
	if (!b->options.has_from || r->now >= r->from)
		window_open(r);
	r->peak_time = r->now;
	return r;
}

/* Everything that ends with --to: what came later is as if it had not happened. */
static void replay_memory(struct replay *r, const struct mt_record *rec, enum replay_part part,
			  uint32_t stream, uint64_t time)
{
	switch (rec->id) {
	case MT_EV_SURVIVOR:
		take(r, time, rec->u.survivor.addr, rec->u.survivor.size, rec->u.survivor.native,
		     rec->u.survivor.python, rec->u.survivor.kind);
		break;
	case MT_EV_ALLOC:
		take(r, time, rec->u.alloc.addr, rec->u.alloc.size, rec->u.alloc.native,
		     rec->u.alloc.python, rec->u.alloc.kind);
		break;
	case MT_EV_FREE:
		replay_block_give(r, time, rec->u.free.addr, rec->u.free.kind);
		break;
	case MT_EV_REALLOC:
		r->resizing = true;
		if (part == REPLAY_FREE)
			replay_block_give(r, time, rec->u.realloc.old_addr, rec->u.realloc.kind);
		else
			take(r, time, rec->u.realloc.addr, rec->u.realloc.size,
			     rec->u.realloc.native, rec->u.realloc.python, rec->u.realloc.kind);
		break;
	case MT_EV_MAP:
		map_record(r, &rec->u.map);
		break;
	case MT_EV_UNMAP:
		if (!map_give(r, rec->u.unmap.addr, rec->u.unmap.size))
			replay_freed_unknown(r, MT_KIND_MMAP);
		break;
	case MT_EV_REMAP:
		r->resizing = true;
		if (part == REPLAY_FREE)
			remap_give(r, &rec->u.remap, stream);
		else
			remap_take(r, &rec->u.remap, stream);
		break;
	case MT_EV_BREAK:
		break_move(r, &rec->u.brk);
		break;
	default:
		gpu_record(r, rec, stream);
		break;
	}
}

/* Python began to shut down: what the program kept is what is alive now; soon nothing will be. */
static void note_shutdown(struct replay *r)
{
	if (r->shutdown || r->now > r->to)
		return;
	phases_settle(r);
	r->shutdown = r->now;
	r->out->shutdown = timebase_ns(&r->b->clocks.items[r->p->trace], r->now);
	gpu_snapshot(r, true);
}

static const bool is_memory[256] = {
	[MT_EV_ALLOC] = true,	 [MT_EV_FREE] = true,  [MT_EV_REALLOC] = true,
	[MT_EV_SURVIVOR] = true, [MT_EV_MAP] = true,   [MT_EV_UNMAP] = true,
	[MT_EV_REMAP] = true,	 [MT_EV_BREAK] = true, [MT_EV_GPU_TAKE... MT_EV_GPU_HEAP] = true,
};

/* All that is not memory taken or given back. */
static void replay_other(struct replay *r, const struct mt_record *record, uint32_t stream)
{
	if (record->id == MT_EV_FOLD)
		folds_add(r, &record->u.fold, stream);
	else if (record->id == MT_EV_YOUNG)
		folds_young(r, &record->u.young, stream);
	if (record->id == MT_EV_MARK && record->u.mark.kind == MT_MARK_SHUTDOWN)
		note_shutdown(r);
	if (record->id == MT_EV_MARK && record->u.mark.kind == MT_MARK_PHASE)
		phases_mark(r, record->u.mark.label);
	else if (record->id == MT_EV_FORK)
		phases_forked(r, &record->u.fork);
	else if (record->id == MT_EV_WAIT)
		phases_waited(r, record->u.wait.pid);
	if (record->id == MT_EV_SAMPLING) {
		sampling_begin(r, stream, record->u.sampling.mean_bytes, r->now);
		return;
	}
	if (shm_record(r, record))
		return;
	walk_record(r, record);
	if (record->id == MT_EV_SCAN || record->id == MT_EV_RANGE || record->id == MT_EV_SCAN_END)
		sharing_record(r, record);
	else if (record->id == MT_EV_TOUCH)
		touch_record(r, &record->u.touch);
	record_add(r->b, r->p, record, stream, r->now,
		   r->out->live_bytes + r->out->inherited_live_bytes +
			   (r->sampling ? sampling_live_more(r) : 0));
}

/* Only what is listed at once is a sample; all else was recorded in full. */
static uint32_t mean_of_record(const struct replay *r, const struct mt_record *rec, uint32_t stream)
{
	if (rec->id != MT_EV_ALLOC && rec->id != MT_EV_REALLOC)
		return 0;
	return sampling_mean(r, stream,
			     (rec->id == MT_EV_ALLOC ? rec->u.alloc.kind : rec->u.realloc.kind) &
				     MT_KIND_MASK);
}

static void pass_to(struct replay *r, uint64_t time)
{
	if (time > r->now)
		r->now = time;
	if (!r->counting && r->now >= r->from)
		window_open(r);
}

void replay_cell(struct replay *r, const struct mt_cell *cell, uint32_t stream, uint64_t time)
{
	pass_to(r, time);
	folds_cell(r, cell, stream);
}

void replay_record(struct replay *r, const struct mt_record *record, enum replay_part part,
		   uint32_t stream, uint64_t time)
{
	pass_to(r, time);
	if (!is_memory[record->id & 0xff]) {
		replay_other(r, record, stream);
		return;
	}
	r->over = r->now > r->to;
	if (r->over)
		return;
	r->b->events += r->counting && part != REPLAY_ALLOC;
	r->mean = r->sampling ? mean_of_record(r, record, stream) : 0;
	replay_memory(r, record, part, stream, r->now);
	r->resizing = false;
}

/* ---- the end --------------------------------------------------------------------------------- */

void replay_free(struct replay *r)
{
	struct builder *b = r->b;
	const struct timebase *tb = &b->clocks.items[r->p->trace];

	if (!r->counting && r->now >= r->from)
		window_open(r);
	for (size_t i = 0; i < r->p->sites.count; i++)
		keep_at_peak(r, &r->p->sites.items[i]);
	shm_end(r);
	growth_settle(r);
	phases_settle(r);
	phases_release(r);
	r->out->end = timebase_ns(tb, r->now);
	folds_peak(r);
	r->out->peak_live_time = timebase_ns(tb, r->peak_time);
	r->p->outside = (b->options.has_from && r->now < r->from) ||
			(b->options.has_to && r->p->first_time > r->to);
	walk_finish(r);
	sharing_end(r);
	r->out->unknown_frees = r->p->unknown_frees;
	r->out->missed_frees = r->p->missed_frees;
	gpu_finish(r);
	live_release(&r->live);
	maps_release(&r->maps);
	vec_release(&r->remaps);
	folds_release(r);
	sampling_free(r);
	free(r->slots);
	free(r);
}
