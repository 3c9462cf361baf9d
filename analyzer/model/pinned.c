/*
 * Pinned memory that a fork copied: what a device may be writing to can't be shared with a child, so
 * the kernel copies those pages at once. A child's first walk shows which they were, the parent's
 * records which memory was pinned then, and by whom.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "model/gpu_state.h"
#include "model/internal.h"
#include "model/sharing.h"
#include "model/tally.h"

void pinned_fork(struct sharing *s, const struct replay *parent)
{
	const struct gpu_state *g = parent->gpu;

	for (size_t i = 0; g && i < g->pins.count; i++) {
		const struct gpu_pin *p = &g->pins.items[i];

		*vec_push(&s->pinned) = (struct pinned_range){ p->addr, p->addr + p->size,
							       parent->p->id, p->site, true };
	}
	for (size_t i = 0; g && i < g->ranges.count; i++) {
		const struct gpu_range *p = &g->ranges.items[i];

		if (p->kind == MT_KIND_PINNED && p->physical == NO_ID)
			*vec_push(&s->pinned) = (struct pinned_range){ p->addr, p->addr + p->size,
								       parent->p->id, p->site,
								       false };
	}
}

/* Pages of it that the fork copied. */
static uint64_t eager_pages(const struct tally *t, const struct pinned_range *range)
{
	uint64_t first = range->start / t->page, end = (range->end + t->page - 1) / t->page;
	size_t low = 0, high = t->eager_spans.count;
	uint64_t pages = 0;

	while (low < high) { /* the first span that ends after it begins */
		size_t mid = low + (high - low) / 2;

		if (t->eager_spans.items[mid].first + t->eager_spans.items[mid].count <= first)
			low = mid + 1;
		else
			high = mid;
	}
	for (; low < t->eager_spans.count && t->eager_spans.items[low].first < end; low++) {
		const struct span *s = &t->eager_spans.items[low];
		uint64_t from = s->first > first ? s->first : first;
		uint64_t to = s->first + s->count < end ? s->first + s->count : end;

		pages += to - from;
	}
	return pages;
}

/* The place in cow->pinned of who pinned the range. Until pinned_settle() `native` is the process and
 * `python` the number of the site there. */
static struct cow_pinned *part_of(struct process_cow *cow, const struct pinned_range *r)
{
	struct cow_pinned *p;

	for (size_t i = 0; i < cow->pinned_count; i++) {
		p = &cow->pinned[i];
		if (p->native == r->owner && p->python == r->site &&
		    p->is_registered == r->is_registered)
			return p;
	}
	cow->pinned = xrealloc(cow->pinned, cow->pinned_count + 1, sizeof(*cow->pinned));
	p = &cow->pinned[cow->pinned_count++];
	*p = (struct cow_pinned){ r->owner, r->site, r->is_registered, 0 };
	return p;
}

void pinned_charge(const struct sharing *s, const struct tally *t, struct process_cow *cow)
{
	uint64_t left = cow->eager; /* some are its own early writes: those are not told apart */

	for (size_t i = 0; i < s->pinned.count && left; i++) {
		uint64_t bytes = eager_pages(t, &s->pinned.items[i]) * t->page;

		bytes = bytes < left ? bytes : left;
		left -= bytes;
		if (bytes)
			part_of(cow, &s->pinned.items[i])->bytes += bytes;
	}
}

static int by_bytes(const void *a, const void *b)
{
	const struct cow_pinned *x = a, *y = b;

	return x->bytes == y->bytes ? 0 : x->bytes > y->bytes ? -1 : 1;
}

void pinned_settle(struct builder *b)
{
	for (size_t i = 0; i < b->processes.count; i++) {
		struct process_cow *cow = b->processes.items[i].cow;

		for (size_t k = 0; cow && k < cow->pinned_count; k++) {
			struct cow_pinned *p = &cow->pinned[k];
			const struct local_site *site =
				&b->procs.items[p->native].sites.items[p->python];

			p->native = site->native;
			p->python = site->python;
		}
		if (cow && cow->pinned_count)
			qsort(cow->pinned, cow->pinned_count, sizeof(*cow->pinned), by_bytes);
	}
}
