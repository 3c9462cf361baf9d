/*
 * How allocators stood at the last walk over a process's pages: what is free and could be given
 * back, what is free and held by something alive, and which sites hold it. See model/resident.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/common.h"
#include "analysis/resident.h"

#define PINS_LISTED 20

const char *allocator_name(const struct model *m, uint32_t site)
{
	static const char *const known[] = { "jemalloc", "tcmalloc", "mimalloc" };
	const struct native_node *leaf;
	const char *path, *slash;

	if (site == NO_ID || !m->sites[site].native)
		return NULL;
	leaf = &m->native[m->sites[site].native];
	if (leaf->module == NO_ID)
		return NULL;
	path = m->modules[leaf->module].path;
	slash = strrchr(path, '/');
	path = slash ? slash + 1 : path;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strstr(path, known[i]))
			return known[i];
	return *path ? path : NULL;
}

static const char *name_of(const struct model *m, const struct resident *r,
			   const struct resident_heap *h)
{
	const char *name = NULL;

	if (heap_is_glibc(h->kind))
		return "glibc";
	if (h->kind == HEAP_PYTHON)
		return "pymalloc";
	name = r->other_malloc ? r->other_malloc : allocator_name(m, h->site);
	return name ? name : "unknown";
}

size_t allocator_sums(const struct model *m, const struct resident *r, struct allocator_sum *sums)
{
	size_t count = 0;

	for (size_t i = 0; i < r->heap_count; i++) {
		const struct resident_heap *h = &r->heaps[i];
		const char *name = name_of(m, r, h);
		struct allocator_sum *a = NULL;

		if (!h->resident)
			continue;
		for (size_t k = 0; k < count; k++)
			if (!strcmp(sums[k].name, name))
				a = &sums[k];
		if (!a) {
			a = &sums[count++];
			memset(a, 0, sizeof(*a));
			a->name = name;
			a->is_glibc = heap_is_glibc(h->kind);
			a->is_python = h->kind == HEAP_PYTHON;
		}
		a->live += h->live;
		a->resident += h->resident;
		a->rounding += h->rounding;
		a->returnable += h->returnable;
		a->pinned += a->is_python ? h->free : h->pinned;
		a->run_bytes += h->run_bytes;
		if (h->kind == HEAP_MAIN)
			a->main_returnable += h->returnable;
		if (h->kind != HEAP_ARENA)
			continue;
		a->arenas++;
		a->arena_free += h->returnable + h->pinned;
		a->arena_top += h->top;
	}
	return count;
}

/* ---- pinning sites ------------------------------------------------------------------------------- */

static bool pins_there(const struct resident_pin *pin, const struct allocator_sum *a)
{
	if (a->is_glibc)
		return heap_is_glibc(pin->kind);
	return pin->kind == (a->is_python ? HEAP_PYTHON : HEAP_MAPPED);
}

static void put_pins(struct analysis_input *in, struct result *doc, struct rvalue *o,
		     const struct process *p, const struct resident *r,
		     const struct allocator_sum *a)
{
	struct rvalue *list = r_array(doc, o, "pinning_sites");
	size_t listed = 0;

	for (size_t i = 0; i < r->pin_count && listed < PINS_LISTED; i++) {
		const struct resident_pin *pin = &r->pins[i];
		struct rvalue *v;

		if (!pins_there(pin, a) || pin->site == NO_ID)
			continue;
		listed++;
		in->listed[pin->site] = true;
		v = r_push_object(doc, list);
		r_int(doc, v, "site", pin->site);
		put_count(doc, v, "sole_pages", pin->pages);
		put_count(doc, v, "pinned_bytes", pin->pinned);
		put_count(doc, v, "blocks", pin->blocks);
		put_count(doc, v, "block_bytes", pin->block_bytes);
		r_float(doc, v, "oldest_s", process_seconds(in->m, p, pin->oldest));
		r_float(doc, v, "newest_s", process_seconds(in->m, p, pin->newest));
		r_float(doc, v, "mean_age_s", pin->age / 1e9);
	}
}

/* ---- heaps ----------------------------------------------------------------------------------------- */

static void put_cliff(struct analysis_input *in, struct result *doc, struct rvalue *o,
		      const struct process *p, const struct resident_heap *h)
{
	struct rvalue *top, *list;

	if (h->kind != HEAP_MAIN || h->top_site == NO_ID)
		return;
	in->listed[h->top_site] = true;
	top = r_object(doc, o, "topmost");
	r_int(doc, top, "site", h->top_site);
	put_count(doc, top, "block_bytes", h->top_size);
	r_float(doc, top, "born_s", process_seconds(in->m, p, h->top_birth));
	list = r_array(doc, o, "cliff");
	for (int i = 0; i < HEAP_CLIFF && h->cliff[i].count; i++) {
		struct rvalue *v = r_push_object(doc, list);

		r_int(doc, v, "topmost_blocks", h->cliff[i].count);
		put_count(doc, v, "held_bytes", h->cliff[i].bytes);
	}
}

static void put_heap(struct analysis_input *in, struct result *doc, struct rvalue *list,
		     const struct process *p, const struct resident_heap *h)
{
	static const char *const kinds[] = { "main", "arena", "mapped blocks", "python", "mapped" };
	static const char *const levels[] = { "to_1_8", "to_1_4", "to_1_2", "to_3_4", "above" };
	struct rvalue *o = r_push_object(doc, list), *pages;
	char text[40];

	snprintf(text, sizeof(text), "%llx-%llx", (unsigned long long)h->start,
		 (unsigned long long)h->end);
	r_string(doc, o, "heap", kinds[h->kind]);
	if (h->parts)
		r_string(doc, o, "range", text);
	r_int(doc, o, "parts", h->parts);
	put_count(doc, o, "live_bytes", h->live);
	put_count(doc, o, "live_blocks", h->blocks);
	put_count(doc, o, "resident_bytes", h->resident);
	put_count(doc, o, "rounding_bytes", h->rounding);
	put_count(doc, o, "returnable_bytes", h->returnable);
	put_count(doc, o, "pinned_bytes", h->kind == HEAP_PYTHON ? h->free : h->pinned);
	if (h->kind == HEAP_PYTHON) {
		put_count(doc, o, "pools_in_use", h->pools);
		put_count(doc, o, "pools_free", h->free_pools);
		put_count(doc, o, "pools_not_read", h->unread_pools);
		put_count(doc, o, "free_pool_bytes", h->free_pool_bytes);
		put_count(doc, o, "arenas_pinned", h->pinned_arenas);
		return;
	}
	if (h->kind == HEAP_ARENA)
		put_count(doc, o, "top_bytes", h->top);
	put_count(doc, o, "largest_block_bytes", h->largest_block);
	pages = r_object(doc, o, "pages_by_use");
	for (int i = 0; i < HEAP_LEVELS; i++)
		put_count(doc, pages, levels[i], h->pages[i]);
	put_cliff(in, doc, o, p, h);
}

static void put_glibc(struct analysis_input *in, struct result *doc, struct rvalue *o,
		      const struct process *p, const struct resident *r,
		      const struct allocator_sum *a)
{
	const char *set = process_fact(in->m, p, "malloc_settings");

	r_string(doc, o, "settings", set);
	r_int(doc, o, "arenas", (int64_t)a->arenas);
	put_count(doc, o, "arena_free_bytes", a->arena_free);
	put_count(doc, o, "arena_top_bytes", a->arena_top);
	put_count(doc, o, "returnable_run_bytes", a->run_bytes);
	put_measured(doc, o, "largest_freed_block_bytes", r->large_freed);
	put_id(doc, o, "largest_freed_site", r->large_site);
	if (r->large_site != NO_ID)
		in->listed[r->large_site] = true;
}

static void put_process(struct analysis_input *in, struct result *doc, struct rvalue *list,
			const struct process *p, const struct resident *r, bool small)
{
	struct allocator_sum sums[8];
	size_t count = allocator_sums(in->m, r, sums);

	for (size_t i = 0; i < count; i++) {
		const struct allocator_sum *a = &sums[i];
		struct rvalue *o = r_push_object(doc, list), *heaps;

		r_int(doc, o, "proc", p->id);
		r_int(doc, o, "pid", p->pid);
		r_string(doc, o, "allocator", a->name);
		r_bool(doc, o, "small", small);
		r_float(doc, o, "at_s", process_seconds(in->m, p, r->time));
		put_count(doc, o, "live_bytes", a->live);
		put_count(doc, o, "resident_bytes", a->resident);
		put_count(doc, o, "rounding_bytes", a->rounding);
		put_count(doc, o, "returnable_bytes", a->returnable);
		put_count(doc, o, "pinned_bytes", a->pinned);
		put_pins(in, doc, o, p, r, a);
		if (a->is_glibc)
			put_glibc(in, doc, o, p, r, a);
		heaps = r_array(doc, o, "heaps");
		for (size_t k = 0; k < r->heap_count; k++)
			if (r->heaps[k].resident &&
			    !strcmp(name_of(in->m, r, &r->heaps[k]), a->name))
				put_heap(in, doc, heaps, p, &r->heaps[k]);
	}
}

void analyse_fragmentation(struct analysis_input *in, struct result *doc)
{
	struct rvalue *list = r_array(doc, result_root(doc), "fragmentation");
	bool *small = small_processes(in->m);

	for (size_t i = 0; i < in->m->process_count; i++) {
		const struct resident *r = resident_at_end(&in->m->processes[i]);

		if (r && !r->sampled)
			put_process(in, doc, list, &in->m->processes[i], r, small[i]);
	}
	free(small);
}
