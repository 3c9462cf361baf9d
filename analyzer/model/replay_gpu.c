/*
 * GPU records, replayed: blocks of kinds device, managed and pinned, physical memory with its
 * references and mappings, devices' totals, and now and then which tensors lie in which segment.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "model/gpu_state.h"
#include "util/alloc.h"

/* ---- segments: what was taken from the driver, by address ------------------------------------------ */

/* Index of the first one at or after addr. */
static size_t place_of(const struct gpu_state *g, uint64_t addr)
{
	size_t low = 0, high = g->ranges.count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (g->ranges.items[mid].addr < addr)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static void range_insert(struct gpu_state *g, struct gpu_range range)
{
	size_t at = place_of(g, range.addr);

	(void)vec_push(&g->ranges);
	memmove(&g->ranges.items[at + 1], &g->ranges.items[at],
		(g->ranges.count - 1 - at) * sizeof(range));
	g->ranges.items[at] = range;
}

static void range_remove(struct gpu_state *g, size_t at)
{
	memmove(&g->ranges.items[at], &g->ranges.items[at + 1],
		(g->ranges.count - 1 - at) * sizeof(g->ranges.items[0]));
	g->ranges.count--;
}

static bool is_power_of_two(uint64_t v)
{
	return v && !(v & (v - 1));
}

/* sign 1 or -1 */
static void count_range(struct replay *r, const struct gpu_range *s, int64_t sign)
{
	struct gpu_process *out = r->gpu->out;
	struct gpu_device *d;
	uint64_t bytes = (uint64_t)((int64_t)s->size * sign);

	if (s->flags & MT_GPU_GRAPH)
		return;
	if (s->kind == MT_KIND_PINNED) {
		out->pinned += bytes;
		if (is_power_of_two(s->size))
			out->pinned_power_of_two += bytes;
		if (out->pinned > out->pinned_peak)
			out->pinned_peak = out->pinned;
		return;
	}
	d = gpu_device_of(r->gpu, s->device);
	if (s->flags & MT_GPU_BORROWED)
		d->borrowed += bytes;
	else
		d->live += bytes;
	gpu_note(r, d);
}

static bool is_counted(const struct gpu_range *s)
{
	return !(s->flags & (MT_GPU_BORROWED | MT_GPU_GRAPH));
}

static void drop_range(struct replay *r, size_t at)
{
	struct gpu_range s = r->gpu->ranges.items[at];

	range_remove(r->gpu, at);
	if (is_counted(&s))
		replay_block_give(r, r->now, s.addr, s.kind);
	count_range(r, &s, -1);
}

static void take(struct replay *r, const struct mt_ev_gpu_take *e)
{
	struct gpu_range s = { .addr = e->addr,
			       .size = e->size,
			       .device = e->device,
			       .context = e->context,
			       .kind = (uint8_t)e->kind,
			       .flags = (uint32_t)e->flags,
			       .physical = NO_ID };
	size_t at;

	if (!replay_plausible(r, e->addr, e->size, e->kind) ||
	    (e->kind != MT_KIND_DEVICE && e->kind != MT_KIND_MANAGED &&
	     e->kind != MT_KIND_PINNED)) {
		r->p->bad_values++;
		return;
	}
	for (size_t i = 0; e->pool && i < r->gpu->pools.count; i++)
		if (r->gpu->pools.items[i].pool == e->pool && r->gpu->pools.items[i].device)
			s.device = r->gpu->pools.items[i].device;
	at = place_of(r->gpu, e->addr);
	if (at < r->gpu->ranges.count && r->gpu->ranges.items[at].addr == e->addr) {
		r->p->missed_frees++; /* its end was not seen */
		drop_range(r, at);
	}
	s.site = replay_site(r, e->native, e->python, (uint32_t)e->kind);
	if (is_counted(&s))
		replay_block_take(r, r->now, s.addr, s.size, s.site);
	range_insert(r->gpu, s);
	count_range(r, &s, 1);
}

/* The free just replayed failed: the block is there, and neither was made nor given back. */
static void give_failed(struct replay *r, uint32_t stream)
{
	struct gpu_given *last = stream < r->gpu->given.count ? &r->gpu->given.items[stream] : NULL;
	struct local_site *site;
	struct kind_totals *k;

	if (!last || !last->is_fresh)
		return;
	last->is_fresh = false;
	if (!last->found) {
		r->p->unknown_frees--;
		r->out->kinds[MT_KIND_DEVICE].frees -= r->counting;
		return;
	}
	range_insert(r->gpu, last->range);
	count_range(r, &last->range, 1);
	if (!is_counted(&last->range))
		return;
	replay_block_take(r, r->now, last->range.addr, last->range.size, last->range.site);
	if (!r->counting)
		return;
	site = &r->p->sites.items[last->range.site];
	k = &r->out->kinds[last->range.kind];
	site->allocations--;
	site->frees--;
	site->bytes_allocated -= last->range.size;
	k->allocations--;
	k->frees--;
	k->bytes_allocated -= last->range.size;
}

static void give(struct replay *r, const struct mt_ev_gpu_give *e, uint32_t stream)
{
	struct gpu_state *g = r->gpu;
	size_t at = place_of(g, e->addr);
	struct gpu_given *last;

	if (!e->addr) {
		give_failed(r, stream);
		return;
	}
	if (stream > 65536)
		return;
	while (g->given.count <= stream)
		(void)vec_push(&g->given);
	last = &g->given.items[stream];
	last->is_fresh = true;
	last->found = at < g->ranges.count && g->ranges.items[at].addr == e->addr &&
		      (g->ranges.items[at].kind == MT_KIND_PINNED) == (e->kind == MT_KIND_PINNED) &&
		      g->ranges.items[at].physical == NO_ID;
	if (!last->found) {
		replay_freed_unknown(r, MT_KIND_DEVICE);
		return;
	}
	last->range = g->ranges.items[at];
	drop_range(r, at);
}

static void reset(struct replay *r, const struct mt_ev_gpu_reset *e)
{
	for (size_t i = r->gpu->ranges.count; i-- > 0;) {
		const struct gpu_range *s = &r->gpu->ranges.items[i];

		if (s->kind != MT_KIND_PINNED && s->physical == NO_ID &&
		    (e->context ? s->context == e->context && !(s->flags & MT_GPU_ASYNC)
				: s->device == e->device))
			drop_range(r, i);
	}
}

/* ---- physical memory -------------------------------------------------------------------------------- */

#define PHYSICAL_BASE (UINT64_C(1) << 58) /* keys of physical memory among addresses */

/* The handle's present meaning: the one with references. */
static struct gpu_physical *physical_of(struct gpu_state *g, uint64_t handle)
{
	for (size_t i = g->physical.count; i-- > g->physical_first;)
		if (g->physical.items[i].handle == handle && g->physical.items[i].refs)
			return &g->physical.items[i];
	return NULL;
}

static void physical_look(struct replay *r, struct gpu_physical *p)
{
	struct gpu_state *g = r->gpu;

	if (p->refs || p->maps || p->gone)
		return;
	p->gone = true;
	if (!p->imported) {
		replay_block_give(r, r->now, PHYSICAL_BASE + (uint64_t)(p - g->physical.items),
				  p->range.kind);
		count_range(r, &p->range, -1);
	}
	while (g->physical_first < g->physical.count && g->physical.items[g->physical_first].gone)
		g->physical_first++;
}

static void physical_add(struct replay *r, const struct mt_ev_gpu_vmm *e)
{
	struct gpu_state *g = r->gpu;
	unsigned int kind = e->device || e->op == MT_GPU_VMM_IMPORT ? MT_KIND_DEVICE
								    : MT_KIND_PINNED;
	uint64_t key = PHYSICAL_BASE + g->physical.count;
	struct gpu_physical *p;

	if (e->size > MAX_BLOCK_BYTES) {
		r->p->bad_values++;
		return;
	}
	p = vec_push(&g->physical);
	p->handle = e->handle;
	p->refs = 1;
	p->imported = e->op == MT_GPU_VMM_IMPORT;
	p->range =
		(struct gpu_range){ .size = e->size, .device = e->device, .kind = (uint8_t)kind };
	p->range.site = replay_site(r, e->native, e->python, kind);
	if (p->imported)
		return;
	replay_block_take(r, r->now, key, e->size, p->range.site);
	count_range(r, &p->range, 1);
}

/* Another process's memory counts where and while it is mapped. */
static void count_borrowed(struct replay *r, const struct gpu_physical *p, uint64_t size, int sign)
{
	struct gpu_device *d;

	if (!p->imported || !p->range.device)
		return;
	d = gpu_device_of(r->gpu, p->range.device);
	d->borrowed += sign > 0 ? size : -size;
	gpu_note(r, d);
}

static void unmap(struct replay *r, uint64_t addr, uint64_t size)
{
	struct gpu_state *g = r->gpu;

	for (size_t i = place_of(g, addr);
	     i < g->ranges.count && g->ranges.items[i].addr - addr < size;) {
		struct gpu_range s = g->ranges.items[i];
		struct gpu_physical *p;

		if (s.physical == NO_ID) {
			i++;
			continue;
		}
		range_remove(g, i);
		p = &g->physical.items[s.physical];
		p->maps--;
		count_borrowed(r, p, s.size, -1);
		physical_look(r, p);
	}
}

static void vmm(struct replay *r, const struct mt_ev_gpu_vmm *e)
{
	struct gpu_state *g = r->gpu;
	struct gpu_physical *p = NULL;

	if (e->op == MT_GPU_VMM_CREATE || e->op == MT_GPU_VMM_IMPORT) {
		p = physical_of(g, e->handle);
		if (p && e->op == MT_GPU_VMM_IMPORT)
			p->refs++;
		else
			physical_add(r, e);
		return;
	}
	if (e->op == MT_GPU_VMM_UNMAP) {
		unmap(r, e->addr, e->size);
		return;
	}
	p = physical_of(g, e->handle);
	if (!p && e->op == MT_GPU_VMM_RETAIN) /* by address: its references were all given back */
		for (size_t i = 0; i < g->ranges.count && !p; i++)
			if (e->addr - g->ranges.items[i].addr < g->ranges.items[i].size &&
			    g->ranges.items[i].physical != NO_ID)
				p = &g->physical.items[g->ranges.items[i].physical];
	if (!p) {
		replay_freed_unknown(r, MT_KIND_DEVICE);
		return;
	}
	if (e->op == MT_GPU_VMM_RETAIN) {
		p->refs++;
	} else if (e->op == MT_GPU_VMM_RELEASE) {
		p->refs--;
		physical_look(r, p);
	} else if (e->op == MT_GPU_VMM_MAP) {
		struct gpu_range s = p->range;

		s.addr = e->addr;
		s.size = e->size;
		s.physical = (uint32_t)(p - g->physical.items);
		s.flags = p->imported ? MT_GPU_BORROWED : 0;
		p->maps++;
		range_insert(g, s);
		count_borrowed(r, p, s.size, 1);
	}
}

/* ---- the rest --------------------------------------------------------------------------------------- */

static void pool(struct replay *r, const struct mt_ev_gpu_pool *e)
{
	struct gpu_state *g = r->gpu;
	struct gpu_pool *p = NULL;
	struct gpu_device *d;

	for (size_t i = 0; i < g->pools.count && !p; i++)
		if (g->pools.items[i].pool == e->pool &&
		    (e->pool || g->pools.items[i].device == e->device))
			p = &g->pools.items[i];
	if (!p) {
		p = vec_push(&g->pools);
		p->pool = e->pool;
		p->device = e->device;
	}
	d = gpu_device_of(g, p->device);
	d->pool_slack -= p->slack;
	p->slack = e->reserved > e->used && e->used && e->op == MT_GPU_POOL_LEVEL
			   ? e->reserved - e->used
			   : 0;
	d->pool_slack += p->slack;
	gpu_note(r, d);
}

static void level(struct replay *r, const struct mt_ev_gpu_level *e)
{
	struct gpu_device *d = gpu_device_of(r->gpu, e->device);

	d->has_torch = true;
	d->torch_allocated = e->allocated;
	d->torch_reserved = e->reserved;
	d->torch_peak_allocated = e->peak_allocated;
	d->torch_peak_reserved = e->peak_reserved;
	if (e->allocated > e->reserved) {
		r->p->bad_values++;
		d->has_torch = false;
	}
	gpu_settle(d);
	gpu_note(r, d);
	if (e->flags & 1)
		gpu_snapshot(r, false);
}

static void oom(struct replay *r, const struct mt_ev_gpu_oom *e)
{
	struct gpu_device *d = gpu_device_of(r->gpu, e->device);

	d->ooms++;
	if (e->allocated <= e->reserved) {
		d->has_torch = true;
		d->torch_allocated = e->allocated;
		d->torch_reserved = e->reserved;
		gpu_settle(d);
	}
	gpu_snapshot(r, true);
}

static void describe(struct replay *r, const struct mt_ev_gpu_device *e)
{
	struct gpu_device *d = gpu_device_of(r->gpu, e->device);

	d->has_uuid = e->uuid.len == 16;
	if (d->has_uuid)
		memcpy(d->uuid, e->uuid.data, 16);
	free(d->name);
	d->name = text_of(e->name);
	d->total = e->total;
}

static void used(struct replay *r, const struct mt_ev_gpu_used *e)
{
	struct gpu_device *d = gpu_device_of(r->gpu, e->device);
	uint64_t tracked = gpu_reserved(d) + d->borrowed;

	d->used = e->own;
	d->all_used = e->all;
	/* Only now: later memory comes and goes, and the driver's number stays as it was. */
	d->from = d->used ? GPU_FROM_PROGRAM : d->from;
	if (d->used)
		d->unattributed = d->used - 1 > tracked ? d->used - tracked : 1;
	gpu_note(r, d);
}

static void registered(struct replay *r, const struct mt_ev_gpu_pin *e)
{
	struct gpu_state *g = r->gpu;

	for (size_t i = 0; i < g->pins.count; i++)
		if (g->pins.items[i].addr == e->addr) {
			g->out->registered -= g->pins.items[i].size;
			g->pins.items[i] = g->pins.items[--g->pins.count];
			break;
		}
	if (!e->size || e->size > MAX_BLOCK_BYTES)
		return;
	*vec_push(&g->pins) = (struct gpu_pin){
		e->addr, e->size, replay_site(r, e->native, e->python, MT_KIND_PINNED)
	};
	g->out->registered += e->size;
	if (g->out->registered > g->out->registered_peak)
		g->out->registered_peak = g->out->registered;
}

static void heap(struct replay *r, const struct mt_ev_gpu_heap *e)
{
	struct gpu_process *out = r->gpu->out;
	struct gpu_heap *h = NULL;

	if (e->size > MAX_BLOCK_BYTES) {
		r->p->bad_values++;
		return;
	}
	for (size_t i = 0; i < out->heap_count && !h; i++)
		if (out->heaps[i].addr == e->addr)
			h = &out->heaps[i];
	if (!h) {
		out->heaps = vec_room(out->heaps, &out->heap_room, out->heap_count + 1, sizeof(*h));
		h = &out->heaps[out->heap_count++];
		memset(h, 0, sizeof(*h));
		h->addr = e->addr;
	}
	h->size = e->size;
	free(h->name);
	h->name = e->name.len ? text_of(e->name) : NULL;
}

bool gpu_record(struct replay *r, const struct mt_record *rec, uint32_t stream)
{
	if (rec->id < MT_EV_GPU_TAKE || rec->id > MT_EV_GPU_HEAP)
		return false;
	if (!r->gpu) {
		r->gpu = xcalloc(1, sizeof(*r->gpu));
		r->gpu->out = r->out->gpu = xcalloc(1, sizeof(*r->out->gpu));
	}
	switch (rec->id) {
	case MT_EV_GPU_TAKE:
		take(r, &rec->u.gpu_take);
		break;
	case MT_EV_GPU_GIVE:
		give(r, &rec->u.gpu_give, stream);
		break;
	case MT_EV_GPU_PIN:
		registered(r, &rec->u.gpu_pin);
		break;
	case MT_EV_GPU_VMM:
		vmm(r, &rec->u.gpu_vmm);
		break;
	case MT_EV_GPU_POOL:
		pool(r, &rec->u.gpu_pool);
		break;
	case MT_EV_GPU_DEVICE:
		describe(r, &rec->u.gpu_device);
		break;
	case MT_EV_GPU_LEVEL:
		level(r, &rec->u.gpu_level);
		break;
	case MT_EV_GPU_OOM:
		oom(r, &rec->u.gpu_oom);
		break;
	case MT_EV_GPU_USED:
		used(r, &rec->u.gpu_used);
		break;
	case MT_EV_GPU_HEAP:
		heap(r, &rec->u.gpu_heap);
		break;
	default:
		reset(r, &rec->u.gpu_reset);
		break;
	}
	return true;
}
