/*
 * Allocations that were counted and not listed, and the peaks they may have had (docs/FORMAT.md
 * 3.7). A FOLD says what a stream had counted of a site when a window of time ended, its cell what
 * it had counted at last: each adds what it has more than the one before it. So the last FOLD
 * stands for a cell that is missing, and what a window (--from, --to) holds is the difference of
 * what was known at its two ends.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "model/replay.h"

static uint64_t hash_of(uint32_t stream, uint32_t site)
{
	uint32_t key[2] = { stream, site };

	return hash_bytes(key, sizeof(key));
}

/* NULL: nothing was said of it before. */
static struct fold_count *find(struct replay *r, uint32_t stream, uint32_t site)
{
	index_each (&r->fold_set, hash_of(stream, site), i) {
		struct fold_count *f = &r->folds.items[i];

		if (f->stream == stream && f->site == site)
			return f;
	}
	return NULL;
}

static void remember(struct replay *r, struct fold_count *last, const struct fold_count *now)
{
	if (!last) {
		index_add(&r->fold_set, hash_of(now->stream, now->site), (uint32_t)r->folds.count);
		last = vec_push(&r->folds);
	}
	*last = *now;
}

/* Is this end of the window where the process set a mark? Then counts end there, too. */
static bool at_mark(const struct replay *r, int64_t time)
{
	for (size_t i = r->b->marks.count; i-- > 0;)
		if (r->b->marks.items[i].process == r->p->id && r->b->marks.items[i].time == time)
			return true;
	return false;
}

/* What happened after `first` and until `last` is one sum; does the window cut through it? */
static void note_cut(struct replay *r, uint64_t first, uint64_t last)
{
	const struct build_options *o = &r->b->options;

	if (r->p->folds_coarse)
		return;
	if ((o->has_from && first < r->from && last > r->from && !at_mark(r, o->from)) ||
	    (o->has_to && first < r->to && last > r->to && !at_mark(r, o->to)))
		r->p->folds_coarse = true;
}

static void add_totals(struct replay *r, struct local_site *s, uint64_t count, uint64_t bytes)
{
	struct kind_totals *k = &r->out->kinds[s->kind & MT_KIND_MASK];

	s->allocations += count;
	s->frees += count;
	s->bytes_allocated += bytes;
	k->allocations += count;
	k->frees += count;
	k->bytes_allocated += bytes;
	r->b->events += 2 * count;
	if ((s->kind & MT_KIND_MASK) != MT_KIND_HEAP && (s->kind & MT_KIND_MASK) != MT_KIND_PYTHON)
		return;
	r->out->allocations += count;
	r->out->frees += count;
	r->out->bytes_allocated += bytes;
}

/*
 * `now` is the site's count at now->time, or at last: its cell's. `first`: nothing of it is older;
 * 0: not known.
 */
static void count_up_to(struct replay *r, const struct fold_count *now, uint64_t first,
			bool is_cell)
{
	struct fold_count none = { .time = r->p->first_time };
	struct fold_count *known = find(r, now->stream, now->site);
	const struct fold_count *last = known ? known : &none;
	struct local_site *s = &r->p->sites.items[now->site];

	if ((s->kind & MT_KIND_MASK) == MT_KIND_HEAP && now->time <= r->to) {
		replay_freed_large(r, now->largest, r->p->id, now->site);
		if (now->largest >= LARGE_LEAST && now->bytes > last->bytes)
			r->large_heap.folded += now->bytes - last->bytes;
	}
	if (now->count <= last->count)
		return; /* as it was; a FOLD may also be younger than a cell read before it */
	if (now->bytes < last->bytes || now->brief < last->brief) {
		r->p->bad_values++;
		return;
	}
	note_cut(r, first > last->time ? first : last->time, now->time);
	if (now->time > r->to)
		return;
	if (!r->b->options.has_from || now->time > r->from) {
		add_totals(r, s, now->count - last->count, now->bytes - last->bytes);
		growth_folded(r, s, first > last->time ? first : last->time, now->time,
			      now->count - last->count);
		s->short_lived_count += now->brief - last->brief;
		if ((!last->count || now->largest > last->largest) && now->largest > s->peak_bytes)
			s->peak_bytes = now->largest;
	}
	if (known || !is_cell) /* nothing comes after a cell: a site has one in its stream */
		remember(r, known, now);
}

void folds_add(struct replay *r, const struct mt_ev_fold *e, uint32_t stream)
{
	struct fold_count now = { .stream = stream,
				  .time = e->time,
				  .count = e->count,
				  .bytes = e->bytes,
				  .brief = e->brief,
				  .largest = e->largest };

	if (!replay_plausible(r, ~UINT64_C(0), e->largest, e->kind))
		return;
	if (e->count > MAX_BLOCK_BYTES || e->bytes > MAX_BLOCK_BYTES || e->brief > e->count ||
	    e->largest > e->bytes) {
		r->p->bad_values++;
		return;
	}
	now.site = replay_site(r, e->native, e->python, (uint32_t)e->kind);
	count_up_to(r, &now, 0, false);
}

/* The reader has looked at its values. */
void folds_cell(struct replay *r, const struct mt_cell *cell, uint32_t stream)
{
	struct fold_count now = { .stream = stream,
				  .site = replay_site(r, cell->native, cell->python, cell->kind),
				  .time = cell->last,
				  .count = cell->count,
				  .bytes = cell->bytes,
				  .brief = cell->brief,
				  .largest = cell->largest };

	count_up_to(r, &now, cell->first, true);
}

/* ---- peaks ----------------------------------------------------------------------------------- */

/*
 * At `time` the process held what is listed, and e->bytes more; no moment of e's window had more
 * than e->most in this nursery. The window ends where the next one begins: the one that --from cuts
 * counts, too.
 */
void folds_young(struct replay *r, const struct mt_ev_young *e, uint32_t stream)
{
	uint64_t held = r->out->live_bytes + r->out->inherited_live_bytes;
	uint64_t *most;

	if (e->most > MAX_BLOCK_BYTES || e->bytes > e->most) {
		r->p->bad_values++;
		return;
	}
	if (e->time > r->to && e->time - r->to > e->since)
		return;
	vec_reserve(&r->young_most, stream + 1);
	if (r->young_most.count < stream + 1)
		r->young_most.count = stream + 1;
	most = &r->young_most.items[stream];
	if (!r->counting || e->most > *most)
		*most = e->most;
	if (r->counting && e->time <= r->to && held + e->bytes > r->young_peak) {
		r->young_peak = held + e->bytes;
		r->young_peak_time = e->time;
	}
}

void folds_peak(struct replay *r)
{
	uint64_t listed = r->out->peak_live_bytes, possible = listed;

	for (size_t i = 0; i < r->young_most.count; i++)
		r->out->young_most_bytes += r->young_most.items[i];
	possible += r->out->young_most_bytes;
	if (r->young_peak > listed) {
		r->out->peak_live_bytes = r->young_peak;
		r->peak_time = r->young_peak_time;
	}
	r->out->peak_error_bytes = possible - r->out->peak_live_bytes;
}

void folds_release(struct replay *r)
{
	vec_release(&r->folds);
	index_release(&r->fold_set);
	vec_release(&r->young_most);
}

void folds_note(struct builder *b)
{
	size_t coarse = 0;

	for (size_t i = 0; i < b->procs.count; i++)
		coarse += b->procs.items[i].folds_coarse && !b->procs.items[i].dropped;
	if (coarse)
		builder_note(b,
			     "short-lived allocations are known for every ten seconds and between "
			     "marks only: where --from or --to lies between, those around it are "
			     "counted as if they came just before that stretch's end (%zu of the "
			     "processes)",
			     coarse);
}
