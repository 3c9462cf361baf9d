/*
 * Every resident page of a walk gets its class here: by what the kernel says of its mapping, what
 * the trace recorded of it, and what allocators said of themselves. See resident.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "model/resident_internal.h"

#define PROT_WRITE_BIT 2
#define HEAP_ALIGN (UINT64_C(64) << 20) /* glibc's further heaps begin at multiples of it */
#define TOP_UNKNOWN UINT64_MAX

static const char no_mapping[] =
	"private memory that no recorded call mapped: the loader's or libc's own (thread-local "
	"storage), or of a raw system call";
static const char not_listed[] = "recording was sampled, so not every live block is known";
static const char no_pool[] = "the headers of Python's pools could not be read";

/* ---- names ----------------------------------------------------------------------------------- */

static bool starts_with(const char *text, const char *with)
{
	return !strncmp(text, with, strlen(with));
}

static void name_add(struct sorting *s, const struct walk_range *range, enum resident_part part,
		     const char *name, const char *reason, uint64_t bytes, bool is_private)
{
	struct strbuf_key {
		uint32_t part;
		char text[252];
	} key = { .part = (uint32_t)part };
	struct resident_name *n;
	uint64_t *slot;
	bool is_new;
	size_t len = strnlen(name, sizeof(key.text));

	memcpy(key.text, name, len);
	if (part == RESIDENT_UNTRACED) { /* each mapping by itself */
		memcpy(key.text, &range->start, sizeof(range->start));
		len = sizeof(range->start);
	}
	slot = hashmap_slot(&s->name_set, &key, sizeof(key.part) + len, &is_new);
	if (is_new) {
		*slot = s->names.count;
		n = vec_push(&s->names);
		n->name = xstrdup(name);
		n->part = part;
		n->reason = reason;
		n->start = range->start;
		n->end = 0;
	}
	n = &s->names.items[*slot];
	n->bytes += bytes;
	n->private_bytes += is_private ? bytes : 0;
	if (n->end != range->end)
		n->mappings++;
	n->end = range->end;
}

/* ---- mappings that are of one class as a whole ------------------------------------------------- */

static bool is_shared_memory(const struct walk_range *range)
{
	static const char *const names[] = { "/dev/shm/", "/memfd:", "/SYSV", "/dev/zero",
					     "[anon_shmem" };

	if (!(range->flags & MT_RANGE_SHARED))
		return false;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (starts_with(range->name, names[i]))
			return true;
	return !range->name[0];
}

static bool is_tool(const struct walk_range *range)
{
	const char *file = strrchr(range->name, '/');

	return range->flags & MT_RANGE_TOOL || starts_with(range->name, "[anon:memtrace") ||
	       (file && starts_with(file, "/libmemtrace.so"));
}

/* RESIDENT_PARTS: it has to be looked at page by page. */
static enum resident_part class_of(const struct walk_range *range, const char **name)
{
	*name = range->name;
	if (is_tool(range)) {
		*name = "memtrace";
		return RESIDENT_TOOL;
	}
	if (is_shared_memory(range)) {
		*name = range->name[0] ? range->name : "[shared]";
		return RESIDENT_SHM;
	}
	if (range->flags & MT_RANGE_STACK || starts_with(range->name, "[stack")) {
		*name = "main thread";
		return RESIDENT_STACKS;
	}
	if (range->flags & MT_RANGE_HEAP || !range->name[0] || starts_with(range->name, "[heap]") ||
	    starts_with(range->name, "[anon:"))
		return RESIDENT_PARTS;
	return range->name[0] == '[' ? RESIDENT_OTHER : RESIDENT_FILE;
}

/* ---- private memory, page by page ---------------------------------------------------------------- */

static const struct walk_arena *arena_at(struct sorting *s, uint64_t page)
{
	const struct walk *w = s->w;

	while (s->arena < w->arenas.count && w->arenas.items[s->arena].end <= page)
		s->arena++;
	return s->arena < w->arenas.count && w->arenas.items[s->arena].start <= page
		       ? &w->arenas.items[s->arena]
		       : NULL;
}

static const struct walk_pools *pools_at(struct sorting *s, uint64_t page)
{
	const struct walk *w = s->w;

	while (s->pools < w->pools.count &&
	       w->pools.items[s->pools].start + w->pools.items[s->pools].size <= page)
		s->pools++;
	return s->pools < w->pools.count && w->pools.items[s->pools].start <= page
		       ? &w->pools.items[s->pools]
		       : NULL;
}

static const struct map_range *map_at(struct sorting *s, uint64_t page)
{
	while (s->map < s->map_count && s->maps[s->map].end <= page)
		s->map++;
	return s->map < s->map_count && s->maps[s->map].start <= page ? &s->maps[s->map] : NULL;
}

static bool is_of_tool(struct sorting *s, uint64_t page)
{
	const struct walk *w = s->w;

	while (s->tool < w->tools.count && w->tools.items[s->tool].end <= page)
		s->tool++;
	return s->tool < w->tools.count && w->tools.items[s->tool].start <= page;
}

/* The stack whose upper end lies above the page in the same mapping. */
static const struct walk_stack *stack_at(struct sorting *s, const struct walk_range *range,
					 uint64_t page)
{
	const struct walk *w = s->w;
	const struct walk_stack *stack;

	while (s->stack < w->stacks.count && w->stacks.items[s->stack].end <= page)
		s->stack++;
	if (s->stack == w->stacks.count)
		return NULL;
	stack = &w->stacks.items[s->stack];
	/* Without a known start: down to the mapping's. */
	return (stack->start ? stack->start : range->start) <= page && range->end > page &&
			       (stack->start || stack->end <= range->end + w->page)
		       ? stack
		       : NULL;
}

static void mapping_page(struct sorting *s, const struct walk_range *range,
			 const struct map_range *map, uint64_t page, struct split *out)
{
	const struct walk_pools *pools = pools_at(s, page);
	uint64_t size = s->w->page;
	struct resident_heap *h;

	if (!(map->kind & MT_KIND_BACKING)) {
		out->part[RESIDENT_LIVE] = overlap(page, page + size, map->start, map->asked);
		out->part[RESIDENT_ROUNDING] = size - out->part[RESIDENT_LIVE];
		return;
	}
	h = heap_of(s, pools ? HEAP_PYTHON : HEAP_MAPPED, 0);
	if (h->site == NO_ID) {
		h->site = map->site;
		h->owner = map->owner;
	}
	if (!pools) {
		mapped_page(s, h, page, out);
		return;
	}
	python_page(s, h, pools, page, out);
	if (out->part[RESIDENT_UNTRACED])
		name_add(s, range, RESIDENT_UNTRACED, "Python arena", no_pool, size, true);
}

/* A block lies there: it is memory of the allocator's, whoever mapped it, and when. */
static bool has_block(struct sorting *s, uint64_t start, uint64_t end)
{
	size_t low = 0, high = s->w->blocks.count;

	if (s->asked_start == start && s->asked_end == end)
		return s->asked_has;
	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (s->w->blocks.items[mid].addr < start)
			low = mid + 1;
		else
			high = mid;
	}
	s->asked_start = start;
	s->asked_end = end;
	s->asked_has = low < s->w->blocks.count && s->w->blocks.items[low].addr < end;
	return s->asked_has;
}

/* Of an allocator other than glibc's: mapped before recording began, or for what it is not known. */
static bool is_of_other_malloc(struct sorting *s, const struct walk_range *range,
			       const struct map_range *map)
{
	if (!s->out->other_malloc || s->out->sampled)
		return false;
	if (range->flags & MT_RANGE_HEAP)
		return true; /* tcmalloc moves the break itself */
	if (map)
		return !(map->kind & MT_KIND_BACKING) && has_block(s, map->start, map->end);
	return has_block(s, range->start, range->end);
}

static void private_page(struct sorting *s, const struct walk_range *range, uint64_t page,
			 struct split *out)
{
	const struct walk_arena *arena = arena_at(s, page);
	const struct map_range *map = map_at(s, page);
	uint64_t size = s->w->page;
	const char *reason = no_mapping;

	if (is_of_tool(s, page)) {
		out->part[RESIDENT_TOOL] = size;
		name_add(s, range, RESIDENT_TOOL, "memtrace", NULL, size, true);
		return;
	} else if (is_of_other_malloc(s, range, map)) {
		mapped_page(s, heap_of(s, HEAP_MAPPED, 0), page, out);
		return;
	} else if (s->out->sampled && (range->flags & MT_RANGE_HEAP || arena)) {
		reason = not_listed;
	} else if (range->flags & MT_RANGE_HEAP) {
		heap_page(s, heap_of(s, HEAP_MAIN, 0), page, range->start, range->end, 0, out);
		return;
	} else if (arena) {
		heap_page(s, heap_of(s, HEAP_ARENA, arena->arena), page, arena->start, arena->end,
			  arena->top, out);
		return;
	} else if (map) {
		mapping_page(s, range, map, page, out);
		return;
	} else if (chunk_page(s, page, out)) {
		return;
	} else if (stack_at(s, range, page)) {
		out->part[RESIDENT_STACKS] = size;
		name_add(s, range, RESIDENT_STACKS, "threads", NULL, size, true);
		return;
	} else if (s->before_end == range->start && s->before_name) {
		out->part[s->before_part] = size; /* a module's variables without initial value */
		name_add(s, range, s->before_part, s->before_name, NULL, size, true);
		return;
	}
	out->part[RESIDENT_UNTRACED] = size;
	name_add(s, range, RESIDENT_UNTRACED, range->name, reason, size, true);
}

/* ---- ranges ---------------------------------------------------------------------------------------- */

static void sort_pages(struct sorting *s, const struct walk_range *range, uint64_t start,
		       uint64_t end)
{
	for (uint64_t page = start; page < end; page += s->w->page) {
		struct split split = { { 0 } };

		private_page(s, range, page, &split);
		for (int i = 0; i < RESIDENT_PARTS; i++)
			s->out->parts[i] += split.part[i];
	}
}

static void sort_range(struct sorting *s, const struct walk_range *range)
{
	const char *name;
	enum resident_part part = class_of(range, &name);
	uint64_t at = range->start;

	for (size_t i = 0; i < range->runs; i++) {
		const struct walk_run *run = &s->w->runs.items[range->first_run + i];
		uint64_t bytes = run->pages * s->w->page;

		if (run->state & MT_PAGE_SWAPPED)
			s->out->swapped += bytes;
		if (run->state & MT_PAGE_PRESENT) {
			s->out->bytes += bytes;
			s->out->huge += run->state & MT_PAGE_HUGE ? bytes : 0;
			if (part == RESIDENT_PARTS) {
				sort_pages(s, range, at, at + bytes);
			} else {
				s->out->parts[part] += bytes;
				name_add(s, range, part, name, NULL, bytes,
					 !(run->state & MT_PAGE_FILE));
			}
		}
		at += bytes;
	}
	if ((part == RESIDENT_FILE || part == RESIDENT_TOOL) && !(range->flags & MT_RANGE_SHARED)) {
		s->before_end = range->end;
		s->before_name = name;
		s->before_part = part;
	} else if (s->before_end != range->start) {
		s->before_name = NULL;
	}
}

/* An allocator's library that is mapped was preloaded or linked to serve malloc. */
static const char *other_malloc(const struct walk *w)
{
	static const struct {
		const char *file, *name;
	} known[] = { { "/libjemalloc", "jemalloc" },
		      { "/libtcmalloc", "tcmalloc" },
		      { "/libmimalloc", "mimalloc" } };

	for (size_t i = 0; i < w->ranges.count; i++) {
		const char *file = strrchr(w->ranges.items[i].name, '/');

		for (size_t k = 0; file && k < sizeof(known) / sizeof(known[0]); k++)
			if (starts_with(file, known[k].file))
				return known[k].name;
	}
	return NULL;
}

/* Heaps of further arenas that were not announced: they begin where only those begin. */
static void guess_arenas(struct sorting *s)
{
	struct walk *w = s->w;
	size_t known = w->arenas.count, k = 0, block = 0;

	for (size_t i = 0; i < w->ranges.count; i++) {
		const struct walk_range *range = &w->ranges.items[i];
		struct walk_arena *arena;

		while (k < known && w->arenas.items[k].end <= range->start)
			k++;
		while (block < w->blocks.count && w->blocks.items[block].addr < range->start)
			block++;
		if (range->start % HEAP_ALIGN || range->name[0] ||
		    range->end - range->start > HEAP_ALIGN ||
		    range->flags & (MT_RANGE_SHARED | MT_RANGE_HEAP | MT_RANGE_STACK) ||
		    !(range->prot & PROT_WRITE_BIT) || maps_find(&s->r->maps, range->start) ||
		    (k < known && w->arenas.items[k].start < range->end) ||
		    block == w->blocks.count || w->blocks.items[block].addr >= range->end ||
		    w->blocks.items[block].addr < range->start + 4 * CHUNK_HEADER)
			continue;
		arena = vec_push(&w->arenas);
		arena->start = arena->arena = range->start;
		arena->end = range->end;
		arena->top = range->start;
		for (size_t b = block; b < w->blocks.count && w->blocks.items[b].addr < arena->end;
		     b++)
			arena->top = chunk_end(&w->blocks.items[b]);
	}
}

static int by_arena(const void *a, const void *b)
{
	const struct walk_arena *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

static void span_heaps(struct sorting *s)
{
	const struct walk *w = s->w;

	for (size_t i = 0; i < w->ranges.count; i++)
		if (w->ranges.items[i].flags & MT_RANGE_HEAP && !s->out->sampled)
			heap_span(heap_of(s, s->out->other_malloc ? HEAP_MAPPED : HEAP_MAIN, 0),
				  w->ranges.items[i].start, w->ranges.items[i].end);
	for (size_t i = 0; i < w->arenas.count && !s->out->sampled; i++)
		heap_span(heap_of(s, HEAP_ARENA, w->arenas.items[i].arena),
			  w->arenas.items[i].start, w->arenas.items[i].end);
	for (size_t i = 0; i < s->map_count; i++)
		if (s->maps[i].kind & MT_KIND_BACKING) {
			s->pools = 0;
			heap_span(heap_of(s,
					  pools_at(s, s->maps[i].start) ? HEAP_PYTHON : HEAP_MAPPED,
					  0),
				  s->maps[i].start, s->maps[i].end);
		}
	s->pools = 0;
}

/* Arenas of CPython's that are still mapped: what their pools say. */
static void count_pools(struct sorting *s)
{
	for (size_t i = 0; i < s->w->pools.count; i++) {
		const struct walk_pools *p = &s->w->pools.items[i];
		const struct map_range *map = maps_find(&s->r->maps, p->start);
		struct resident_heap *h;
		uint64_t free = 0, used = 0;

		if (!map || !(map->kind & MT_KIND_BACKING))
			continue;
		h = heap_of(s, HEAP_PYTHON, 0);
		for (size_t k = 0; k < p->pools; k++) {
			const struct walk_pool *pool = &s->w->pool.items[p->first + k];

			used += pool->code > 2 && pool->used;
			free += pool->code == 1 || (pool->code > 2 && !pool->used);
			h->unread_pools += pool->code == 2;
		}
		h->pools += used;
		h->free_pools += free;
		h->pinned_arenas += free && used;
	}
}

/* ---- the result ------------------------------------------------------------------------------------ */

static int by_part(const void *a, const void *b)
{
	const struct resident_name *x = a, *y = b;

	if (x->part != y->part)
		return x->part < y->part ? -1 : 1;
	if (x->bytes != y->bytes)
		return x->bytes > y->bytes ? -1 : 1;
	return strcmp(x->name, y->name);
}

static int by_pinned(const void *a, const void *b)
{
	const struct resident_pin *x = a, *y = b;

	if (x->pinned != y->pinned)
		return x->pinned > y->pinned ? -1 : 1;
	return x->site < y->site ? -1 : x->site > y->site;
}

static struct resident *result_of(struct sorting *s)
{
	struct resident *out = s->out;

	for (size_t i = 0; i < s->w->ranges.count; i++)
		if (s->w->ranges.items[i].flags & MT_RANGE_HEAP && !out->sampled &&
		    !out->other_malloc)
			heap_cliffs(s, heap_of(s, HEAP_MAIN, 0), s->w->ranges.items[i].start,
				    s->w->ranges.items[i].end);
	if (s->names.count)
		qsort(s->names.items, s->names.count, sizeof(*s->names.items), by_part);
	if (s->pins.count)
		qsort(s->pins.items, s->pins.count, sizeof(*s->pins.items), by_pinned);
	out->names = s->names.items;
	out->name_count = s->names.count;
	out->heaps = s->heaps.items;
	out->heap_count = s->heaps.count;
	out->pins = s->pins.items;
	out->pin_count = s->pins.count;
	hashmap_release(&s->name_set);
	index_release(&s->pin_set);
	return out;
}

struct resident *resident_of(struct replay *r, struct walk *w)
{
	struct sorting s = { .r = r, .w = w, .name_set = HASHMAP_INIT };

	s.out = xcalloc(1, sizeof(*s.out));
	s.out->time = timebase_ns(&r->b->clocks.items[r->p->trace], w->time);
	s.out->reason = (enum mt_scan_reason)w->scan.reason;
	s.out->complete = w->complete;
	s.out->sampled = r->sampling != NULL;
	s.out->rss = w->scan.rss ? w->scan.rss - 1 : 0;
	s.out->walk_cpu_ns = w->cpu_ns;
	s.out->large_freed = r->large_freed.size;
	s.out->large_in_heap = r->large_heap.peak;
	s.out->large_owner = r->large_freed.size ? r->large_freed.owner : NO_ID;
	s.out->large_site = r->large_freed.size ? r->large_freed.site : NO_ID;
	s.maps = maps_all(&r->maps, &s.map_count);
	s.out->other_malloc = other_malloc(w);
	if (s.out->other_malloc)
		w->arenas.count = 0;
	else
		guess_arenas(&s);
	if (w->arenas.count)
		qsort(w->arenas.items, w->arenas.count, sizeof(*w->arenas.items), by_arena);
	span_heaps(&s);
	for (size_t i = 0; i < w->ranges.count; i++)
		sort_range(&s, &w->ranges.items[i]);
	count_pools(&s);
	find_larges(&s);
	return result_of(&s);
}
