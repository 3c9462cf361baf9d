/*
 * Devices and their totals; and which tensors lie in which segment: what is free in a segment that holds a live tensor can't be
 * given back to the driver, and who holds most of a segment that is mostly empty is to blame.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "model/gpu_state.h"
#include "util/alloc.h"

#define ADDRESS_BITS 60
#define POINT_NS 50000000 /* points of the timeline are at least so far apart */

/* ---- devices ---------------------------------------------------------------------------------------- */

struct gpu_device *gpu_device_of(struct gpu_state *g, uint64_t device)
{
	struct gpu_process *out = g->out;
	uint32_t ordinal = device && device < UINT32_MAX ? (uint32_t)device - 1 : UINT32_MAX;
	struct gpu_device *d;

	for (size_t i = 0; i < out->device_count; i++)
		if (out->devices[i].device == ordinal)
			return &out->devices[i];
	if (out->device_count >= 256) /* damaged: no machine has so many */
		return &out->devices[0];
	out->devices = xrealloc(out->devices, out->device_count + 1, sizeof(*out->devices));
	d = &out->devices[out->device_count++];
	memset(d, 0, sizeof(*d));
	d->device = ordinal;
	return d;
}

uint64_t gpu_reserved(const struct gpu_device *d)
{
	return d->live + d->pool_slack;
}

uint64_t gpu_allocated(const struct gpu_device *d)
{
	uint64_t allocated = d->torch_allocated + d->direct;

	return d->has_torch && allocated < d->live ? allocated : d->live;
}

void gpu_settle(struct gpu_device *d)
{
	d->direct = d->live > d->torch_reserved ? d->live - d->torch_reserved : 0;
	if (d->direct > d->direct_peak)
		d->direct_peak = d->direct;
}

void gpu_note(struct replay *r, struct gpu_device *d)
{
	uint64_t reserved = gpu_reserved(d), allocated = gpu_allocated(d);
	uint64_t tracked = reserved + d->borrowed;
	int64_t now = timebase_ns(&r->b->clocks.items[r->p->trace], r->now);
	struct gpu_point *last = d->point_count ? &d->points[d->point_count - 1] : NULL;

	if (!r->counting)
		return;
	if (reserved > d->peak_reserved)
		d->peak_reserved = reserved;
	/* Beside a caching allocator only what it says itself counts: finish adds it. */
	if (!d->has_torch && allocated > d->peak_allocated)
		d->peak_allocated = allocated;
	if (last && now - last->time < POINT_NS) {
		if (reserved > last->reserved)
			last->reserved = reserved;
		if (allocated > last->allocated)
			last->allocated = allocated;
		if (tracked != last->tracked)
			last->settled = now;
		last->tracked = tracked;
		return;
	}
	d->points = vec_room(d->points, &d->point_room, d->point_count + 1, sizeof(*d->points));
	d->points[d->point_count++] = (struct gpu_point){ now, reserved, allocated, now, tracked };
}

/* ---- snapshots -------------------------------------------------------------------------------------- */

struct gather {
	VEC(struct gpu_block) blocks;
	uint32_t owner;
	uint64_t old; /* units: what was made before is no passing thing */
};

static void add_block(void *arg, const struct live_block *b)
{
	struct gather *g = arg;

	if (b->owner == g->owner && b->key >> ADDRESS_BITS == MT_KIND_TENSOR)
		*vec_push(&g->blocks) =
			(struct gpu_block){ b->key & ((UINT64_C(1) << ADDRESS_BITS) - 1), b->size,
					    b->site, b->birth < g->old, false };
}

static int by_addr(const void *a, const void *b)
{
	const struct gpu_block *x = a, *y = b;

	return x->addr < y->addr ? -1 : x->addr > y->addr;
}

static void release(struct gpu_snapshot *s)
{
	free(s->segments);
	free(s->blocks);
	free(s->sites);
	memset(s, 0, sizeof(*s));
}

static struct gpu_snapshot copy_of(const struct gpu_snapshot *s)
{
	struct gpu_snapshot c = *s;

	c.segments = xcalloc(s->segment_count, sizeof(*c.segments));
	c.blocks = xcalloc(s->block_count, sizeof(*c.blocks));
	c.sites = xcalloc(s->site_count, sizeof(*c.sites));
	if (s->segment_count)
		memcpy(c.segments, s->segments, s->segment_count * sizeof(*c.segments));
	if (s->block_count)
		memcpy(c.blocks, s->blocks, s->block_count * sizeof(*c.blocks));
	if (s->site_count)
		memcpy(c.sites, s->sites, s->site_count * sizeof(*c.sites));
	return c;
}

/* by_site has a place + 1 per site of the process; 0: none yet. */
static struct gpu_site *site_of(struct gpu_snapshot *s, uint32_t *by_site, uint32_t site)
{
	if (!by_site[site]) {
		s->sites = xrealloc(s->sites, s->site_count + 1, sizeof(*s->sites));
		memset(&s->sites[s->site_count], 0, sizeof(*s->sites));
		s->sites[s->site_count].site = site;
		by_site[site] = (uint32_t)++s->site_count;
	}
	return &s->sites[by_site[site] - 1];
}

static uint64_t shared(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
	uint64_t from = a > b ? a : b, to = a + a_size < b + b_size ? a + a_size : b + b_size;

	return to > from ? to - from : 0;
}

static uint64_t overlap(const struct gpu_segment *s, const struct gpu_block *b)
{
	return shared(s->addr, s->size, b->addr, b->size);
}

static int by_bytes(const void *a, const void *b)
{
	const struct gpu_site *x = a, *y = b;

	if (x->bytes != y->bytes)
		return x->bytes > y->bytes ? -1 : 1;
	return x->site < y->site ? -1 : x->site > y->site;
}

/* The tensors in a segment; from: the first block that can be. Returns where the next may begin. */
static size_t fill_segment(struct gpu_snapshot *s, struct gpu_segment *seg, size_t from,
			   const struct gather *all, uint32_t *by_site)
{
	const struct gpu_block *most = NULL;
	size_t i = from;

	while (i < all->blocks.count &&
	       all->blocks.items[i].addr + all->blocks.items[i].size <= seg->addr)
		i++;
	from = i;
	seg->first_block = (uint32_t)s->block_count;
	for (; i < all->blocks.count && all->blocks.items[i].addr < seg->addr + seg->size; i++) {
		const struct gpu_block *b = &all->blocks.items[i];
		uint64_t bytes = overlap(seg, b);

		if (!bytes)
			continue;
		s->blocks[s->block_count] = *b;
		s->blocks[s->block_count].size = bytes;
		s->blocks[s->block_count].is_rest = b->addr < seg->addr;
		if (b->addr < seg->addr)
			s->blocks[s->block_count].addr = seg->addr;
		s->block_count++;
		seg->block_count++;
		seg->used += bytes;
		site_of(s, by_site, b->site)->bytes += bytes;
		if (!most || b->size > most->size)
			most = b;
	}
	if (seg->used > seg->size)
		seg->used = seg->size;
	if (!most) {
		site_of(s, by_site, seg->site)->bytes += 0;
		return from;
	}
	s->unusable += seg->size - seg->used;
	if (seg->used * 2 < seg->size && most->old) {
		struct gpu_site *holder = site_of(s, by_site, most->site);

		holder->stranded += seg->size - seg->used;
		holder->segments++;
		s->stranded += seg->size - seg->used;
	}
	return from;
}

/* What pools hold free is not in use, whoever took it; what of their segments is not theirs is. */
static void look_at_heaps(struct replay *r, const struct gpu_device *d, uint64_t key,
			  struct gpu_snapshot *s)
{
	struct gpu_process *out = r->gpu->out;

	for (size_t i = 0; i < out->heap_count; i++) {
		struct gpu_heap *h = &out->heaps[i];
		uint64_t mine = 0, used = 0;

		for (size_t k = 0; k < s->segment_count; k++) {
			const struct gpu_segment *seg = &s->segments[k];
			uint64_t here = shared(seg->addr, seg->size, h->addr, h->size);

			mine += here;
			used += here ? seg->used : 0;
			if (here && seg->block_count && !d->has_torch)
				s->unusable -= seg->size - here < s->unusable ? seg->size - here
									      : s->unusable;
		}
		if (!mine)
			continue;
		h->device = key;
		h->used = used < mine ? used : mine;
		if (!d->has_torch && mine - h->used <= s->allocated)
			s->allocated -= mine - h->used;
	}
}

static void take_snapshot(struct replay *r, struct gpu_device *d, const struct gather *all)
{
	struct gpu_snapshot s = { .taken = true,
				  .time = timebase_ns(&r->b->clocks.items[r->p->trace], r->now),
				  .reserved = gpu_reserved(d),
				  .allocated = gpu_allocated(d) };
	uint32_t *by_site = xcalloc(r->p->sites.count, sizeof(*by_site));
	uint64_t key = d->device == UINT32_MAX ? 0 : (uint64_t)d->device + 1;
	size_t from = 0;

	s.segments = xcalloc(r->gpu->ranges.count, sizeof(*s.segments));
	s.blocks = xcalloc(all->blocks.count + r->gpu->ranges.count, sizeof(*s.blocks));
	for (size_t i = 0; i < r->gpu->ranges.count; i++) {
		const struct gpu_range *range = &r->gpu->ranges.items[i];
		struct gpu_segment *seg = &s.segments[s.segment_count];

		if (range->device != key || range->kind == MT_KIND_PINNED ||
		    range->flags & (MT_GPU_BORROWED | MT_GPU_GRAPH | MT_GPU_ARRAY))
			continue;
		*seg = (struct gpu_segment){ .addr = range->addr,
					     .size = range->size,
					     .site = range->site,
					     .is_mapping = range->physical != NO_ID };
		/* A tensor may reach over several mappings, so each is looked at again. */
		from = fill_segment(&s, seg, from, all, by_site);
		if (!seg->block_count && !d->has_torch)
			site_of(&s, by_site, seg->site)->bytes += seg->size;
		s.segment_count++;
	}
	look_at_heaps(r, d, key, &s);
	if (s.site_count)
		qsort(s.sites, s.site_count, sizeof(*s.sites), by_bytes);
	free(by_site);
	release(&d->last);
	d->last = s;
	if (!d->worst.taken || s.stranded > d->worst.stranded) {
		release(&d->worst);
		d->worst = copy_of(&s);
	}
}

/* A block that is there by chance strands nothing: one counts that was there at the look before, or
 * when memory ran out, or in the end. */
void gpu_snapshot(struct replay *r, bool all_count)
{
	struct gather all = { .owner = r->p->id };

	if (!r->gpu)
		return;
	all.old = all_count ? UINT64_MAX : r->gpu->last_look;
	r->gpu->last_look = r->now;
	live_each_own(&r->live, add_block, &all);
	if (all.blocks.count)
		qsort(all.blocks.items, all.blocks.count, sizeof(*all.blocks.items), by_addr);
	for (size_t i = 0; i < r->gpu->out->device_count; i++)
		take_snapshot(r, &r->gpu->out->devices[i], &all);
	vec_release(&all.blocks);
}

void gpu_finish(struct replay *r)
{
	struct gpu_state *g = r->gpu;

	if (!g)
		return;
	if (!r->shutdown)
		gpu_snapshot(r, true);
	for (size_t i = 0; i < g->out->device_count; i++) {
		struct gpu_device *d = &g->out->devices[i];

		/* Of the two parts each had its peak; together they had at most this. */
		if (d->has_torch)
			d->peak_allocated = d->torch_peak_allocated + d->direct_peak;
		if (d->peak_allocated > d->peak_reserved)
			d->peak_allocated = d->peak_reserved;
	}
	vec_release(&g->ranges);
	vec_release(&g->physical);
	vec_release(&g->given);
	vec_release(&g->pools);
	vec_release(&g->pins);
	free(g);
	r->gpu = NULL;
}

static uint32_t renumbered(const uint32_t *new_id, uint32_t id)
{
	return id == NO_ID ? NO_ID : new_id[id];
}

static void renumber_snapshot(struct gpu_snapshot *s, const uint32_t *to)
{
	for (size_t i = 0; i < s->site_count; i++)
		s->sites[i].site = renumbered(to, s->sites[i].site);
	for (size_t i = 0; i < s->segment_count; i++)
		s->segments[i].site = renumbered(to, s->segments[i].site);
	for (size_t i = 0; i < s->block_count; i++)
		s->blocks[i].site = renumbered(to, s->blocks[i].site);
}

void gpu_renumber(struct process *p, const uint32_t *to)
{
	for (size_t i = 0; p->gpu && i < p->gpu->device_count; i++) {
		renumber_snapshot(&p->gpu->devices[i].last, to);
		renumber_snapshot(&p->gpu->devices[i].worst, to);
	}
}

void gpu_process_free(struct gpu_process *g)
{
	if (!g)
		return;
	for (size_t i = 0; i < g->device_count; i++) {
		release(&g->devices[i].last);
		release(&g->devices[i].worst);
		free(g->devices[i].points);
		free(g->devices[i].name);
	}
	for (size_t i = 0; i < g->heap_count; i++)
		free(g->heaps[i].name);
	free(g->heaps);
	free(g->devices);
	free(g);
}
