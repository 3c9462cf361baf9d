/*
 * See touch.h. One fault in `weight` was recorded where they came too fast: a page without a record
 * is then told by those with one, so each counts for so many.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "model/touch.h"

#include <stdlib.h>
#include <string.h>

#define MOST (1u << 22) /* of a process; memtrace itself records far fewer */

void touch_record(struct replay *r, const struct mt_ev_touch *e)
{
	struct sharing *s = r->p->sharing;
	struct touch *t;

	if (r->now > r->to || !s || !s->holds)
		return;
	if (!e->weight || e->weight > UINT32_MAX || e->native >= UINT32_MAX ||
	    e->python >= UINT32_MAX) {
		r->p->bad_values++;
		return;
	}
	if (!s->touches)
		s->touches = xcalloc(1, sizeof(*s->touches));
	if (s->touches->all.count >= MOST)
		return;
	t = vec_push(&s->touches->all);
	*t = (struct touch){ .addr = e->addr,
			     .weight = (uint32_t)e->weight,
			     .order = (uint32_t)s->touches->all.count,
			     .native = (uint32_t)e->native,
			     .python = (uint32_t)e->python };
}

void touches_release(struct touches *t)
{
	if (t)
		vec_release(&t->all);
	free(t);
}

static int by_address(const void *a, const void *b)
{
	const struct touch *x = a, *y = b;

	if (x->addr != y->addr)
		return x->addr < y->addr ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

/* The first touch of each copied page. Both lists are in order of address. */
void touch_join_begin(struct touch_join *j, struct touches *from, const struct tally *t)
{
	size_t at = 0;

	memset(j, 0, sizeof(*j));
	if (!from || !from->all.count)
		return;
	j->from = from;
	j->of_page = xcalloc(t->copied, sizeof(*j->of_page));
	qsort(from->all.items, from->all.count, sizeof(*from->all.items), by_address);
	for (size_t i = 0; i < from->all.count; i++) {
		uint64_t page = from->all.items[i].addr / t->page;
		const struct span *s;
		uint32_t *known;

		while (at < t->spans.count &&
		       t->spans.items[at].first + t->spans.items[at].count <= page)
			at++;
		if (at == t->spans.count)
			break;
		s = &t->spans.items[at];
		if (page < s->first)
			continue;
		known = &j->of_page[s->index + (page - s->first)];
		if (!*known || from->all.items[*known - 1].order > from->all.items[i].order)
			*known = (uint32_t)i + 1;
	}
}

void touch_join_add(struct touch_join *j, size_t page, uint32_t part, uint64_t bytes)
{
	const struct touch *t;
	struct cow_touch *c;
	uint32_t key[3];
	uint64_t *slot;
	bool is_new;

	if (!j->of_page || !j->of_page[page] || !bytes)
		return;
	t = &j->from->all.items[j->of_page[page] - 1];
	key[0] = part;
	key[1] = t->native;
	key[2] = t->python;
	slot = hashmap_slot(&j->index, key, sizeof(key), &is_new);
	if (is_new) {
		*slot = j->list.count;
		*vec_push(&j->list) = (struct cow_touch){ .site = part,
							  .native = t->native,
							  .python = t->python };
	}
	c = &j->list.items[*slot];
	c->weighted += (double)bytes * t->weight;
	j->total += (double)bytes * t->weight;
}

void touch_join_end(struct touch_join *j, struct process_cow *cow, double share)
{
	double scale = share;

	if (j->total * scale > (double)cow->copied)
		scale = (double)cow->copied / j->total;
	for (size_t i = 0; i < j->list.count; i++)
		j->list.items[i].bytes = (uint64_t)(j->list.items[i].weighted * scale);
	cow->touches = j->list.items;
	cow->touch_count = j->list.count;
	hashmap_release(&j->index);
	free(j->of_page);
}

void touch_stacks(struct builder *b, struct proc *p, struct process_cow *cow)
{
	for (size_t i = 0; cow && i < cow->touch_count; i++) {
		cow->touches[i].native = stack_native(b, p, cow->touches[i].native);
		cow->touches[i].python = stack_python(b, p, cow->touches[i].python);
	}
}

void touch_sites(struct process_cow *cow)
{
	for (size_t i = 0; i < cow->touch_count; i++)
		if (cow->touches[i].site != NO_ID)
			cow->touches[i].site = cow->sites[cow->touches[i].site].site;
}
