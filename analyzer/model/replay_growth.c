/*
 * What becomes of the blocks of each call site, by when they were born: see cohorts.h. A site is
 * followed once it holds several blocks at a time, or one that is resized: most sites of a program
 * are passed once, and most traffic is of blocks that are alone.
 *
 * Only what lies in the window (--from, --to) counts, and only until Python begins to shut down:
 * from then on it frees all it can.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "model/cohorts.h"
#include "model/replay.h"

#define FOLLOWED_BYTES 4096 /* of a block that was resized */

static bool is_judged(const struct replay *r)
{
	return r->counting && !r->shutdown;
}

void growth_born(struct replay *r, struct local_site *s, uint64_t size)
{
	double weight = r->mean ? sampled_weight(size, r->b->means[r->mean]) : 1;
	double bytes = weight * (double)size;

	if (!is_judged(r))
		return;
	if (!s->cohorts) {
		double level = (double)s->live_bytes;

		if (s->live_count < GROWTH_BLOCKS && !(r->resizing && size >= FOLLOWED_BYTES))
			return;
		if (s->sampled)
			level += s->sampled->live.bytes.sum - s->sampled->live.bytes.raw;
		s->cohorts = cohorts_new(r->now, level > bytes ? level - bytes : 0);
	}
	s->cohorts = cohorts_birth(s->cohorts, r->now, bytes);
}

void growth_died(struct replay *r, struct local_site *s, uint64_t birth, uint64_t bytes,
		 uint32_t mean, unsigned int blocks)
{
	double weight = mean ? sampled_weight(bytes, r->b->means[mean]) : 1;

	if (!is_judged(r))
		return;
	if (r->resizing)
		s->cohorts = cohorts_leave(s->cohorts, r->now, birth, weight * (double)bytes);
	else
		s->cohorts = cohorts_death(s->cohorts, r->now, birth, weight * (double)bytes,
					   blocks);
}

void growth_missed(struct replay *r, struct local_site *s, uint64_t birth, uint64_t bytes,
		   uint32_t mean)
{
	bool resizing = r->resizing;

	s->missed = true;
	r->resizing = false; /* that is said of another block */
	if (s->cohorts)
		growth_died(r, s, birth, bytes, mean, 1);
	r->resizing = resizing;
}

void growth_folded(struct replay *r, struct local_site *s, uint64_t from, uint64_t to,
		   uint64_t count)
{
	if (s->cohorts && is_judged(r) && to >= from)
		cohorts_add_dead(s->cohorts, from, to, count);
}

void growth_settle(struct replay *r)
{
	const struct timebase *tb = &r->b->clocks.items[r->p->trace];
	uint64_t end = r->shutdown ? r->shutdown : r->now < r->to ? r->now : r->to;

	for (size_t i = 0; i < r->p->sites.count; i++) {
		struct local_site *s = &r->p->sites.items[i];
		struct cohorts *c = s->cohorts;

		if (!c)
			continue;
		c = s->cohorts = cohorts_settle(c, end);
		c->missed = s->missed;
		c->start_ns = timebase_ns(tb, c->origin);
		c->window_ns = (double)(timebase_ns(tb, c->origin + (UINT64_C(1) << c->shift)) -
					c->start_ns);
		if (c->window_ns < 1)
			c->window_ns = 1;
	}
}
