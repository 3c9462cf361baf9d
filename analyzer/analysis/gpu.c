/*
 * The section on GPU memory: one entry per device, its processes put together. Reserved is what was
 * taken from the driver, allocated what of that is in use: in tensors, where PyTorch's caching
 * allocator says so, and whole where somebody took it directly.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/analysis.h"
#include "analysis/common.h"
#include "analysis/gpu.h"
#include "util/alloc.h"
#include "util/vec.h"

/* The same card, seen by several processes, maybe under other ordinals. */
static bool is_same(const struct model *m, const struct gpu_use *a, const struct gpu_use *b)
{
	if (m->processes[a->process].trace != m->processes[b->process].trace)
		return a->d->has_uuid && b->d->has_uuid && !memcmp(a->d->uuid, b->d->uuid, 16);
	if (a->d->has_uuid && b->d->has_uuid)
		return !memcmp(a->d->uuid, b->d->uuid, 16);
	return a->d->device == b->d->device;
}

size_t gpu_uses(const struct model *m, struct gpu_use **out)
{
	VEC(struct gpu_use) all = VEC_INIT;
	uint32_t cards = 0;

	for (uint32_t i = 0; i < m->process_count; i++)
		for (size_t k = 0; m->processes[i].gpu && k < m->processes[i].gpu->device_count;
		     k++) {
			struct gpu_use *u = vec_push(&all);
			size_t same = 0;

			u->process = i;
			u->d = &m->processes[i].gpu->devices[k];
			while (same + 1 < all.count && !is_same(m, &all.items[same], u))
				same++;
			u->card = same + 1 < all.count ? all.items[same].card : cards++;
		}
	*out = all.items;
	return all.count;
}

static void put_uuid(struct result *doc, struct rvalue *o, const struct gpu_device *d)
{
	char text[48] = "GPU-";
	size_t n = 4;

	for (int i = 0; i < 16; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%02x",
				      i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", d->uuid[i]);
	r_string(doc, o, "uuid", d->has_uuid ? text : NULL);
}

struct gpu_sums gpu_sums_of(const struct gpu_device *d)
{
	const struct gpu_snapshot *s = &d->last;
	struct gpu_sums sums = { .reserved = s->taken ? s->reserved : d->live + d->pool_slack };

	sums.allocated = s->taken ? s->allocated : sums.reserved;
	if (sums.allocated > sums.reserved)
		sums.allocated = sums.reserved;
	sums.cached_free = sums.reserved - sums.allocated;
	sums.unusable = s->unusable;
	if (sums.unusable > sums.cached_free)
		sums.unusable = sums.cached_free;
	return sums;
}

static void put_sums(struct result *doc, struct rvalue *o, const struct gpu_sums *s)
{
	put_count(doc, o, "reserved_bytes", s->reserved);
	put_count(doc, o, "allocated_bytes", s->allocated);
	put_count(doc, o, "cached_free_bytes", s->cached_free);
	put_count(doc, o, "unusable_bytes", s->unusable);
}

/* 0 stands for: not measured. */
static void put_more(struct result *doc, struct rvalue *o, const char *key, uint64_t plus_one)
{
	if (plus_one)
		put_count(doc, o, key, plus_one - 1);
	else
		r_null(doc, o, key);
}

/* Pools that the program made of this device's memory. */
static void put_pools(struct result *doc, struct rvalue *o, const struct gpu_process *g,
		      const struct gpu_device *d)
{
	struct rvalue *list = r_array(doc, o, "pools");

	for (size_t i = 0; i < g->heap_count; i++) {
		const struct gpu_heap *h = &g->heaps[i];
		struct rvalue *pool;

		if (!h->size || h->device != (uint64_t)d->device + 1)
			continue;
		pool = r_push_object(doc, list);
		r_string(doc, pool, "name", h->name);
		put_count(doc, pool, "bytes", h->size);
		put_count(doc, pool, "used_bytes", h->used);
	}
}

static void put_process(const struct model *m, struct result *doc, struct rvalue *list,
			const struct gpu_use *u)
{
	struct rvalue *o = r_push_object(doc, list);
	struct gpu_sums sums = gpu_sums_of(u->d);

	put_id(doc, o, "proc", u->process);
	put_id(doc, o, "pid", m->processes[u->process].pid);
	put_id(doc, o, "ordinal", u->d->device);
	put_sums(doc, o, &sums);
	put_count(doc, o, "peak_reserved_bytes", u->d->peak_reserved);
	put_count(doc, o, "peak_allocated_bytes", u->d->peak_allocated);
	put_count(doc, o, "pool_free_bytes", u->d->pool_slack);
	put_count(doc, o, "borrowed_bytes", u->d->borrowed);
	if (u->d->has_torch) {
		put_count(doc, o, "torch_allocated_bytes", u->d->torch_allocated);
		put_count(doc, o, "torch_reserved_bytes", u->d->torch_reserved);
		put_count(doc, o, "torch_peak_allocated_bytes", u->d->torch_peak_allocated);
		put_count(doc, o, "torch_peak_reserved_bytes", u->d->torch_peak_reserved);
	}
	put_more(doc, o, "driver_used_bytes", u->d->used);
	put_more(doc, o, "unattributed_bytes", u->d->unattributed);
	r_string(doc, o, "unattributed_from",
		 u->d->from == GPU_FROM_PROGRAM	 ? "program"
		 : u->d->from == GPU_FROM_DRIVER ? "memtrace run"
						 : NULL);
	put_count(doc, o, "out_of_memory_count", u->d->ooms);
	put_count(doc, o, "pinned_host_bytes", m->processes[u->process].gpu->pinned);
	put_count(doc, o, "registered_host_bytes", m->processes[u->process].gpu->registered);
	put_pools(doc, o, m->processes[u->process].gpu, u->d);
}

static void put_worst(struct result *doc, struct rvalue *o, const struct model *m,
		      const struct gpu_use *u)
{
	const struct gpu_snapshot *s = &u->d->worst;
	struct rvalue *w;

	if (!s->taken || !s->unusable)
		return;
	w = r_object(doc, o, "worst");
	r_float(doc, w, "at_s", process_seconds(m, &m->processes[u->process], s->time));
	put_id(doc, w, "proc", u->process);
	put_count(doc, w, "reserved_bytes", s->reserved);
	put_count(doc, w, "allocated_bytes", s->allocated);
	put_count(doc, w, "unusable_bytes", s->unusable);
	put_count(doc, w, "segments", s->segment_count);
}

static void put_sites(struct analysis_input *in, struct result *doc, struct rvalue *list,
		      const struct gpu_snapshot *s)
{
	for (size_t i = 0; i < s->site_count && i < in->top; i++) {
		struct rvalue *o;

		if (s->sites[i].site == NO_ID || !s->sites[i].bytes)
			continue;
		in->listed[s->sites[i].site] = true;
		o = r_push_object(doc, list);
		put_id(doc, o, "site", s->sites[i].site);
		put_count(doc, o, "live_bytes", s->sites[i].bytes);
		put_count(doc, o, "stranded_bytes", s->sites[i].stranded);
	}
}

static void put_card(struct analysis_input *in, struct result *doc, struct rvalue *list,
		     const struct gpu_use *uses, size_t count, uint32_t card)
{
	struct rvalue *o = r_push_object(doc, list), *processes, *sites;
	struct gpu_sums all = { 0 };
	uint64_t peak_reserved = 0, peak_allocated = 0, pinned = 0, unattributed = 0, segments = 0;
	const struct gpu_use *first = NULL, *worst = NULL;

	for (size_t i = 0; i < count; i++) {
		struct gpu_sums s = gpu_sums_of(uses[i].d);

		if (uses[i].card != card)
			continue;
		first = first ? first : &uses[i];
		if (!worst || uses[i].d->worst.unusable > worst->d->worst.unusable)
			worst = &uses[i];
		all.reserved += s.reserved;
		all.allocated += s.allocated;
		all.cached_free += s.cached_free;
		all.unusable += s.unusable;
		/* Processes rarely peak together: the sum is an upper bound. */
		peak_reserved += uses[i].d->peak_reserved;
		peak_allocated += uses[i].d->peak_allocated;
		pinned += in->m->processes[uses[i].process].gpu->pinned;
		segments += uses[i].d->last.segment_count;
		if (uses[i].d->unattributed)
			unattributed += uses[i].d->unattributed - !!unattributed;
	}
	put_id(doc, o, "device", first->d->device);
	put_uuid(doc, o, first->d);
	r_string(doc, o, "name", first->d->name && *first->d->name ? first->d->name : NULL);
	put_measured(doc, o, "total_bytes", first->d->total);
	put_sums(doc, o, &all);
	put_count(doc, o, "peak_reserved_bytes", peak_reserved);
	put_count(doc, o, "peak_allocated_bytes", peak_allocated);
	put_count(doc, o, "pinned_host_bytes", pinned);
	put_more(doc, o, "unattributed_bytes", unattributed);
	put_count(doc, o, "segments", segments);
	processes = r_array(doc, o, "processes");
	for (size_t i = 0; i < count; i++)
		if (uses[i].card == card)
			put_process(in->m, doc, processes, &uses[i]);
	put_worst(doc, o, in->m, worst);
	sites = r_array(doc, o, "sites");
	for (size_t i = 0; i < count; i++)
		if (uses[i].card == card)
			put_sites(in, doc, sites, &uses[i].d->last);
}

void analyse_gpu(struct analysis_input *in, struct result *doc)
{
	struct rvalue *list = r_array(doc, result_root(doc), "gpu");
	struct gpu_use *uses;
	size_t count = gpu_uses(in->m, &uses);
	uint32_t cards = 0;

	for (size_t i = 0; i < count; i++)
		if (uses[i].card >= cards)
			cards = uses[i].card + 1;
	for (uint32_t c = 0; c < cards; c++)
		put_card(in, doc, list, uses, count, c);
	free(uses);
}
