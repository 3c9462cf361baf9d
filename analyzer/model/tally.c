/*
 * See tally.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "model/tally.h"
#include "model/touch.h"

#include <math.h>
#include <string.h>

#define HUGE_PAGES 512
#define ADDRESS_MASK ((UINT64_C(1) << 60) - 1)

/* ---- what two walks say -------------------------------------------------------------------------- */

/* Pages of [at, end) up to where the map changes; *range: what is there, NULL: nothing known. */
static uint64_t same_map(const struct maps *maps, uint64_t page, uint64_t at, uint64_t end,
			 const struct map_range **range)
{
	size_t count, low = 0, high;
	const struct map_range *all = maps_all(maps, &count);
	uint64_t next = end;

	for (high = count; low < high;) {
		size_t mid = low + (high - low) / 2;

		if (all[mid].end <= at * page)
			low = mid + 1;
		else
			high = mid;
	}
	*range = low < count && all[low].start <= at * page ? &all[low] : NULL;
	if (*range)
		next = (*range)->end / page;
	else if (low < count)
		next = all[low].start / page;
	return next < end && next > at ? next - at : end - at;
}

static void count_backing(struct tally *t, uint64_t at, uint64_t end, bool copied)
{
	while (t->wants_backing && at < end) {
		const struct map_range *range;
		uint64_t n = same_map(&t->s->maps_at_fork, t->page, at, end, &range);
		struct cow_backing *b = NULL;

		at += n;
		if (!range || !(range->kind & MT_KIND_BACKING))
			continue;
		for (size_t i = t->backing.count; i-- > 0 && !b;)
			if (t->backing.items[i].site == range->site &&
			    t->owners.items[i] == range->owner)
				b = &t->backing.items[i];
		if (!b) {
			b = vec_push(&t->backing);
			b->site = range->site;
			*vec_push(&t->owners) = range->owner;
		}
		b->shared += n * t->page;
		b->copied += copied ? n * t->page : 0;
	}
}

/* Without what the process has mapped itself since: that is new memory at an old address. */
static void count_copied(struct tally *t, uint64_t at, uint64_t end)
{
	while (at < end) {
		const struct map_range *range;
		uint64_t n = same_map(&t->s->maps_own, t->page, at, end, &range);

		if (!range || range->owner != t->self) {
			*vec_push(&t->spans) = (struct span){ at, n, t->copied };
			t->copied += n;
		}
		at += n;
	}
}

static void close_group(struct tally *t)
{
	double step = t->groups.copied - t->groups.last;

	if (t->groups.count++)
		t->groups.squares += step * step;
	t->groups.last = t->groups.copied;
	t->groups.copied = 0;
}

/* Pages of one group that were shared; groups come in ascending order. */
static void count_in_group(struct tally *t, uint64_t at, uint64_t end, bool copied)
{
	uint64_t group = at / MT_PAGE_GROUP;

	if (t->shared && group != t->groups.at)
		close_group(t);
	t->groups.at = group;
	t->groups.copied += copied ? (double)(end - at) : 0;
	t->shared += end - at;
}

/* Of the whole groups in between only the first is looked at: the next ones do not differ. */
static void count_groups(struct tally *t, uint64_t at, uint64_t end, bool copied)
{
	uint64_t first = (at + MT_PAGE_GROUP - 1) / MT_PAGE_GROUP * MT_PAGE_GROUP;
	uint64_t last = end / MT_PAGE_GROUP * MT_PAGE_GROUP;

	if (first >= last) {
		first = first < end ? first : end;
		last = first;
	}
	if (at < first)
		count_in_group(t, at, first, copied);
	if (first < last) {
		uint64_t more = (last - first) / MT_PAGE_GROUP - 1;

		count_in_group(t, first, first + MT_PAGE_GROUP, copied);
		t->groups.count += more;
		t->groups.at += more;
		t->shared += more * MT_PAGE_GROUP;
	}
	if (last < end)
		count_in_group(t, last, end, copied);
}

/*
 * Of each group a part was read, at one place, which says how much of it was copied. What neighbours
 * differ in is in part that there are other places, in part that they do differ: so the variance is
 * too large rather than too small. Wolter, Introduction to Variance Estimation, 2nd ed., 8.2: v2.
 */
static double error_of(const struct tally *t, const struct page_walk *w)
{
	double n = (double)t->groups.count, unread = 1 - (double)w->part / MT_PAGE_GROUP;

	return n > 1 ? sqrt(unread * n / (2 * (n - 1)) * t->groups.squares) : 0;
}

/* a: when it began, b: now. A huge page that is exclusive has not been copied, see FORMAT 3.9. */
static void compare(void *arg, uint64_t first, uint64_t count, uint32_t a, uint32_t b)
{
	struct tally *t = arg;
	bool copied;

	if (!t->has_baseline)
		a = b & MT_PAGE_PRESENT;
	if (a & MT_PAGE_SWAPPED) {
		t->unknown += b & MT_PAGE_PRESENT ? count : 0;
		return;
	}
	if (!(a & MT_PAGE_PRESENT))
		return;
	if (a & MT_PAGE_EXCLUSIVE && !(a & MT_PAGE_HUGE)) {
		*vec_push(&t->eager_spans) = (struct span){ first, count, t->eager };
		t->eager += count;
		return;
	}
	t->unknown += b & MT_PAGE_SWAPPED ? count : 0;
	copied = b & MT_PAGE_PRESENT && b & MT_PAGE_EXCLUSIVE &&
		 !(b & MT_PAGE_HUGE && count >= HUGE_PAGES);
	count_groups(t, first, first + count, copied);
	count_backing(t, first, first + count, copied);
	if (copied)
		count_copied(t, first, first + count);
}

const struct page_walk *baseline_of(const struct sharing *s)
{
	const struct page_walk *w = s->walks.count ? &s->walks.items[0] : NULL;

	return w && w->reason == MT_SCAN_START ? w : NULL;
}

struct tally tally_of(const struct proc *p, const struct page_walk *w, bool wants_backing)
{
	struct tally t = { .s = p->sharing, .self = p->id, .page = w->page_bytes };
	const struct page_walk *base = baseline_of(p->sharing);

	t.has_baseline = base != NULL;
	t.wants_backing = wants_backing;
	page_pairs(base, w, compare, &t);
	close_group(&t);
	t.error = error_of(&t, w);
	return t;
}

void tally_release(struct tally *t)
{
	vec_release(&t->spans);
	vec_release(&t->eager_spans);
	vec_release(&t->backing);
	vec_release(&t->owners);
}

/* ---- whose blocks --------------------------------------------------------------------------------- */

struct charge {
	struct tally *t;
	uint32_t *bytes; /* by copied page: of blocks on it */
	bool second; /* pass: shares are given out */
	struct hashmap parts; /* owner and site to index */
	VEC(struct cow_site) sites;
	VEC(uint32_t) owners;
	uint64_t low, high; /* pages between which all spans lie */
	struct touch_join touch;
};

static size_t part_of(struct charge *c, uint32_t owner, uint32_t site)
{
	uint32_t key[2] = { owner, site };
	bool is_new;
	uint64_t *slot = hashmap_slot(&c->parts, key, sizeof(key), &is_new);

	if (is_new) {
		*slot = c->sites.count;
		vec_push(&c->sites)->site = site;
		*vec_push(&c->owners) = owner;
	}
	return *slot;
}

/* First span that ends after the page. */
static size_t span_at(const struct tally *t, uint64_t page)
{
	size_t low = 0, high = t->spans.count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (t->spans.items[mid].first + t->spans.items[mid].count <= page)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* What `own` bytes of a block are of their page, of all blocks there. */
static uint64_t share_out(struct charge *c, size_t page, size_t part, uint64_t own)
{
	uint64_t bytes = c->t->page * own / c->bytes[page];

	touch_join_add(&c->touch, page, (uint32_t)part, bytes);
	return bytes;
}

static void charge_block(void *arg, const struct live_block *b)
{
	struct charge *c = arg;
	struct tally *t = c->t;
	uint64_t kind = b->key >> 60, start = b->key & ADDRESS_MASK;
	uint64_t end = start + (b->size ? b->size : 1), shares = 0;
	size_t part = SIZE_MAX;

	if (start / t->page >= c->high || (end - 1) / t->page < c->low ||
	    (kind != MT_KIND_HEAP && kind != MT_KIND_PYTHON))
		return;
	for (size_t i = span_at(t, start / t->page); i < t->spans.count; i++) {
		const struct span *s = &t->spans.items[i];
		uint64_t page = start / t->page > s->first ? start / t->page : s->first;

		if (s->first * t->page >= end)
			break;
		for (; page < s->first + s->count && page * t->page < end; page++) {
			uint64_t from = page * t->page > start ? page * t->page : start;
			uint64_t to = (page + 1) * t->page < end ? (page + 1) * t->page : end;
			uint32_t *bytes = &c->bytes[s->index + (page - s->first)];

			if (!c->second) {
				*bytes += (uint32_t)(to - from);
				continue;
			}
			if (part == SIZE_MAX)
				part = part_of(c, b->owner, b->site);
			if (*bytes)
				shares += share_out(c, s->index + (page - s->first), part,
						    to - from);
		}
	}
	if (part != SIZE_MAX) {
		c->sites.items[part].copied += shares;
		c->sites.items[part].blocks++;
	}
}

/* Pages on which no block was alive. Returns those of no mapping that is known. */
static uint64_t charge_rest(struct charge *c)
{
	struct tally *t = c->t;
	uint64_t reused = 0;

	for (size_t i = 0; i < t->spans.count; i++) {
		const struct span *s = &t->spans.items[i];

		for (uint64_t k = 0; k < s->count; k++) {
			const struct map_range *range;

			if (c->bytes[s->index + k])
				continue;
			range = maps_find(&t->s->maps_at_fork, (s->first + k) * t->page);
			if (range) {
				size_t part = part_of(c, range->owner, range->site);

				c->sites.items[part].copied += t->page;
				touch_join_add(&c->touch, s->index + k, (uint32_t)part, t->page);
			} else {
				reused += t->page;
				touch_join_add(&c->touch, s->index + k, NO_ID, t->page);
			}
		}
	}
	return reused;
}

void tally_charge(struct tally *t, struct process_cow *cow, double share, uint64_t **owners)
{
	struct charge c = { .t = t };

	c.low = t->spans.items[0].first;
	c.high = t->spans.items[t->spans.count - 1].first +
		 t->spans.items[t->spans.count - 1].count;
	c.bytes = xcalloc(t->copied, sizeof(*c.bytes));
	touch_join_begin(&c.touch, t->s->touches, t);
	live_each(&t->s->at_fork, charge_block, &c);
	c.second = true;
	live_each(&t->s->at_fork, charge_block, &c);
	cow->reused = (uint64_t)((double)charge_rest(&c) * share);
	*owners = xcalloc(c.sites.count, sizeof(**owners));
	for (size_t i = 0; i < c.sites.count; i++) {
		(*owners)[i] = site_key(c.owners.items[i], c.sites.items[i].site);
		c.sites.items[i].copied = (uint64_t)((double)c.sites.items[i].copied * share);
	}
	cow->sites = c.sites.items;
	cow->site_count = c.sites.count;
	touch_join_end(&c.touch, cow, share);
	vec_release(&c.owners);
	hashmap_release(&c.parts);
	free(c.bytes);
}
