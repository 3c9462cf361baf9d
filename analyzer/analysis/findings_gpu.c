/*
 * GPU memory that is lost, stranded or ratchets up.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "analysis/common.h"
#include "analysis/findings.h"
#include "analysis/gpu.h"
#include "analysis/growth.h"
#include "model/cohorts.h"

#define MIN_BYTES ((uint64_t)1 << 20) /* a card has 10^5 times that */
#define MIN_STRANDED ((uint64_t)64 << 20) /* less is how the allocator works */
#define MIN_PINNED ((uint64_t)16 << 20)
#define MIN_UNUSABLE_SHARE 0.2 /* of what is reserved */
#define MIN_BLOCKS 4
#define SHOWN 3

static void add_place(struct findings *all, struct strbuf *sb, uint32_t site)
{
	const struct site *s = &all->in->m->sites[site];
	struct stack st;

	stack_merge(all->in->m, all->in->symbols, s->native, s->python, &st);
	place_add(sb, &st);
	stack_release(&st);
}

/* ---- stranded segments ------------------------------------------------------------------------------ */

static const struct gpu_site *most_stranded(const struct gpu_snapshot *s)
{
	const struct gpu_site *most = NULL;

	for (size_t i = 0; i < s->site_count; i++)
		if (s->sites[i].stranded && (!most || s->sites[i].stranded > most->stranded))
			most = &s->sites[i];
	return most;
}

static void put_fragmentation(struct findings *all, const struct gpu_use *u,
			      const struct gpu_site *holder)
{
	const struct gpu_snapshot *s = &u->d->worst;
	const struct process *p = &all->in->m->processes[u->process];
	struct finding *f = finding_new(all, "gpu-fragmentation",
					u->d->ooms ? SEVERITY_CRITICAL : SEVERITY_WARNING);

	finding_bytes(f, s->unusable);
	finding_process(f, u->process);
	size_add(&f->title, s->unusable);
	strbuf_addf(&f->title, " of device %u can't be given back: ", u->d->device);
	size_add(&f->title, holder->stranded);
	strbuf_addf(&f->title, " of it in %u mostly empty segment%s held by blocks from ",
		    holder->segments, holder->segments == 1 ? "" : "s");
	if (holder->site != NO_ID) {
		f->site = holder->site;
		all->in->listed[holder->site] = true;
		add_place(all, &f->title, holder->site);
	}
	strbuf_addf(&f->detail, "At %.1f s PyTorch had reserved ",
		    process_seconds(all->in->m, p, s->time));
	size_add(&f->detail, s->reserved);
	strbuf_addstr(&f->detail, " and used ");
	size_add(&f->detail, s->allocated);
	strbuf_addf(
		&f->detail,
		". A segment with one live tensor can't be returned by empty_cache(), and what is "
		"free in it serves only requests that fit.%s",
		u->d->ooms ? " The allocator ran out of memory in this run." : "");
	strbuf_addstr(&f->advice, "Allocate what lives long before what lives short, or set "
				  "PYTORCH_ALLOC_CONF=expandable_segments:True.");
	finding_int(f, "device", u->d->device);
	finding_int(f, "reserved_bytes", s->reserved);
	finding_int(f, "allocated_bytes", s->allocated);
	finding_int(f, "unusable_bytes", s->unusable);
	finding_int(f, "stranded_by_site_bytes", holder->stranded);
	finding_int(f, "stranded_by_site_segments", holder->segments);
	finding_int(f, "out_of_memory_count", u->d->ooms);
}

void find_gpu_fragmentation(struct findings *all)
{
	struct gpu_use *uses;
	size_t count = gpu_uses(all->in->m, &uses);

	for (size_t i = 0; i < count; i++) {
		const struct gpu_snapshot *s = &uses[i].d->worst;
		const struct gpu_site *holder = most_stranded(s);

		if (holder && s->stranded >= MIN_STRANDED &&
		    (double)s->stranded >= MIN_UNUSABLE_SHARE * (double)s->reserved)
			put_fragmentation(all, &uses[i], holder);
	}
	free(uses);
}

/* ---- kept blocks ------------------------------------------------------------------------------------ */

/* Born in at least three quarters of its process's life, the last one too, and still there. */
static bool is_growing(const struct model *m, const struct site_use *u)
{
	const struct process *p = &m->processes[u->process];
	int64_t end = p->shutdown ? p->shutdown : p->end;
	bool in_quarter[4] = { false };

	if (!u->cohorts || u->cohorts->missed || u->live_count < MIN_BLOCKS)
		return false;
	for (unsigned int i = 0; i < u->cohorts->count; i++) {
		double at = (double)u->cohorts->start_ns + u->cohorts->window_ns * (i + 0.5);
		double share = (at - (double)p->start) / (double)(end - p->start + 1);

		if (u->cohorts->windows[i].alive > u->cohorts->windows[i].gone)
			in_quarter[share < 0 ? 0 : share >= 1 ? 3 : (int)(share * 4)] = true;
	}
	return in_quarter[3] && in_quarter[0] + in_quarter[1] + in_quarter[2] >= 2;
}

static bool is_on_device(const struct gpu_process *g, uint32_t site)
{
	for (size_t i = 0; i < g->device_count; i++)
		for (size_t k = 0; k < g->devices[i].last.site_count; k++)
			if (g->devices[i].last.sites[k].site == site)
				return true;
	return false;
}

static void put_kept(struct findings *all, const struct site_use *u, bool pinned)
{
	const struct model *m = all->in->m;
	const struct gpu_process *g = m->processes[u->process].gpu;
	struct finding *f = finding_new(all, pinned ? "pinned-growth" : "gpu-leak",
					SEVERITY_WARNING);

	finding_bytes(f, u->live_bytes);
	f->site = u->site;
	all->in->listed[u->site] = true;
	finding_process(f, u->process);
	strbuf_addstr(&f->title, pinned ? "pinned host memory only grows: " : "never freed: ");
	strbuf_addf(&f->title, "%llu blocks, ", (unsigned long long)u->live_count);
	size_add(&f->title, u->live_bytes);
	strbuf_addstr(&f->title, ", from ");
	add_place(all, &f->title, u->site);
	strbuf_addf(&f->detail,
		    "Of %llu blocks made there %llu were alive at the end, and they were made "
		    "throughout "
		    "the run. This is a count, not a statistical verdict.",
		    (unsigned long long)u->allocations, (unsigned long long)u->live_count);
	if (pinned) {
		strbuf_addstr(&f->detail,
			      " PyTorch rounds pinned blocks up to powers of two and never "
			      "gives them back; of what the process holds ");
		size_add(&f->detail, g->pinned_power_of_two);
		strbuf_addstr(&f->detail,
			      " is in such blocks, and up to half of that is rounding.");
		strbuf_addstr(&f->advice,
			      "Batches of one size reuse the same blocks: pad or bucket "
			      "them, or pin fewer at once (prefetch_factor).");
		finding_int(f, "power_of_two_bytes", g->pinned_power_of_two);
		finding_int(f, "peak_pinned_bytes", g->pinned_peak);
	} else {
		strbuf_addstr(&f->advice,
			      "Look for a list that tensors are appended to with their graph "
			      "(loss instead of loss.item()), or a missing free.");
	}
	finding_int(f, "live_bytes", u->live_bytes);
	finding_int(f, "live_count", u->live_count);
	finding_int(f, "allocations", u->allocations);
}

static int by_live(const void *a, const void *b)
{
	const struct site_use *x = *(const struct site_use *const *)a;
	const struct site_use *y = *(const struct site_use *const *)b;

	if (x->live_bytes != y->live_bytes)
		return x->live_bytes > y->live_bytes ? -1 : 1;
	return x->site < y->site ? -1 : x->site > y->site;
}

/* By its course over time the site levels off: a cache, whose blocks are replaced. */
static bool is_bounded(const struct growth *g, const struct site_use *u)
{
	for (size_t i = 0; g && i < g->rows.count; i++) {
		const struct growth_row *r = &g->rows.items[i];

		if (r->site != u->site || r->j.verdict != VERDICT_BOUNDED)
			continue;
		for (size_t k = 0; k < r->processes.count; k++)
			if (r->processes.items[k] == u->process)
				return true;
	}
	return false;
}

static bool is_kept(const struct model *m, const struct site_use *u, bool pinned)
{
	const struct gpu_process *g = m->processes[u->process].gpu;
	uint8_t kind = m->sites[u->site].kind;

	if (!g || u->live_bytes < (pinned ? MIN_PINNED : MIN_BYTES) || !is_growing(m, u))
		return false;
	if (pinned)
		return kind == MT_KIND_PINNED;
	/* A segment of a caching allocator that holds tensors is no leak of its own. */
	return ((kind == MT_KIND_DEVICE || kind == MT_KIND_MANAGED) &&
		u->live_count == u->allocations && !g->devices[0].has_torch) ||
	       (kind == MT_KIND_TENSOR && is_on_device(g, u->site) &&
		u->live_count * 2 > u->allocations);
}

static void find_kept(struct findings *all, bool pinned)
{
	const struct model *m = all->in->m;
	VEC(const struct site_use *) kept = VEC_INIT;

	for (size_t i = 0; i < m->use_count; i++)
		if (is_kept(m, &m->uses[i], pinned) && !is_bounded(all->in->growth, &m->uses[i]))
			*vec_push(&kept) = &m->uses[i];
	if (kept.count)
		qsort(kept.items, kept.count, sizeof(*kept.items), by_live);
	for (size_t i = 0; i < kept.count && i < SHOWN; i++)
		put_kept(all, kept.items[i], pinned);
	vec_release(&kept);
}

void find_gpu_leak(struct findings *all)
{
	find_kept(all, false);
}

void find_pinned_growth(struct findings *all)
{
	find_kept(all, true);
}
