/*
 * See maps.h. A sorted array: a process has at most 65530 mappings (vm.max_map_count), and moving
 * a few hundred kilobytes per mmap costs less than the mmap did.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "model/maps.h"

#include <stdlib.h>
#include <string.h>

#include "util/alloc.h"

struct map_array {
	uint32_t refs;
	size_t count, room;
	struct map_range *items;
};

/* The array, owned by this set alone and with room for `extra` more. */
static struct map_array *maps_own(struct maps *maps, size_t extra)
{
	struct map_array *a = maps->array;

	if (!a || a->refs > 1) {
		struct map_array *copy = xcalloc(1, sizeof(*copy));

		copy->refs = 1;
		if (a) {
			copy->count = a->count;
			copy->room = a->count;
			copy->items = xrealloc(NULL, a->count, sizeof(*a->items));
			if (a->count)
				memcpy(copy->items, a->items, a->count * sizeof(*a->items));
			a->refs--;
		}
		maps->array = a = copy;
	}
	if (a->count + extra > a->room) {
		a->room = a->room + a->room / 2 + extra + 8;
		a->items = xrealloc(a->items, a->room, sizeof(*a->items));
	}
	return a;
}

/* Index of the first range that ends after the address. */
static size_t first_after(const struct map_array *a, uint64_t addr)
{
	size_t low = 0, high = a ? a->count : 0;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (a->items[mid].end <= addr)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static uint64_t bytes_between(const struct map_range *r, uint64_t start, uint64_t end)
{
	if (end > r->asked)
		end = r->asked;
	return end > start ? end - start : 0;
}

uint64_t map_bytes(const struct map_range *r)
{
	return bytes_between(r, r->start, r->end);
}

size_t maps_remove(struct maps *maps, uint64_t start, uint64_t end, maps_removed_fn *fn, void *arg)
{
	size_t first = first_after(maps->array, start), at = first, touched = 0, gone;
	struct map_array *a;

	if (start >= end || !maps->array || first == maps->array->count ||
	    maps->array->items[first].start >= end)
		return 0;
	a = maps_own(maps, 1);
	if (a->items[at].start < start && a->items[at].end > end) {
		/* A hole in the middle: two are left. */
		struct map_range *r = &a->items[at];

		fn(arg, r, bytes_between(r, start, end), 2);
		memmove(r + 1, r, (a->count - at) * sizeof(*r));
		a->count++;
		r[0].end = start;
		r[1].start = end;
		return 1;
	}
	if (a->items[at].start < start) {
		fn(arg, &a->items[at], bytes_between(&a->items[at], start, a->items[at].end), 1);
		a->items[at].end = start;
		touched++;
		first = ++at;
	}
	for (; at < a->count && a->items[at].end <= end; at++, touched++)
		fn(arg, &a->items[at], map_bytes(&a->items[at]), 0);
	gone = at - first;
	if (at < a->count && a->items[at].start < end) {
		fn(arg, &a->items[at], bytes_between(&a->items[at], a->items[at].start, end), 1);
		a->items[at].start = end;
		touched++;
	}
	if (gone) {
		memmove(a->items + first, a->items + at, (a->count - at) * sizeof(*a->items));
		a->count -= gone;
	}
	return touched;
}

void maps_add(struct maps *maps, const struct map_range *range)
{
	struct map_array *a;
	size_t at;

	if (range->start >= range->end)
		return;
	a = maps_own(maps, 1);
	at = first_after(a, range->start);
	memmove(a->items + at + 1, a->items + at, (a->count - at) * sizeof(*a->items));
	a->items[at] = *range;
	a->count++;
}

const struct map_range *maps_find(const struct maps *maps, uint64_t addr)
{
	size_t at = first_after(maps->array, addr);

	if (!maps->array || at == maps->array->count || maps->array->items[at].start > addr)
		return NULL;
	return &maps->array->items[at];
}

const struct map_range *maps_all(const struct maps *maps, size_t *count)
{
	*count = maps->array ? maps->array->count : 0;
	return maps->array ? maps->array->items : NULL;
}

struct map_range *maps_own_all(struct maps *maps)
{
	return maps->array ? maps_own(maps, 0)->items : NULL;
}

void maps_fork(const struct maps *parent, struct maps *child)
{
	child->array = parent->array;
	if (child->array)
		child->array->refs++;
}

void maps_release(struct maps *maps)
{
	struct map_array *a = maps->array;

	if (a && !--a->refs) {
		free(a->items);
		free(a);
	}
	maps->array = NULL;
}
