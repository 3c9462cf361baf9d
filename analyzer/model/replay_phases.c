/*
 * What each phase of the program (memtrace_phase) took and still held when it ended, and when the
 * process did. Host memory of all kinds, apart from mappings that back an allocator. Of a program
 * that names no phases, the times when workers of a DataLoader are alive are phases.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <math.h>

#include "model/replay.h"

#define MAX_PHASES 10000 /* of a process; more are one with the last */
#define OUTLIVED 20 /* its phase's end by a 20th of the process's life until then */
#define WINDING_UP 10 /* the last 10th of the process's life */

struct phase_state {
	uint64_t start, end; /* units; end 0: it goes on */
	double live; /* bytes born in it and alive now */
	double at_end; /* when it ended */
	uint64_t peak; /* of the process's live bytes */
	char *name;
	bool by_workers;
};

/* Blocks of a phase and site that were freed long after the phase: if that was when the program
 * wound up (a function returned that held them all along), they were kept. */
struct freed_late {
	uint32_t phase, site;
	double bytes, moment; /* moment: sum of bytes by time since the process's first */
};

struct phases {
	VEC(struct phase_state) all;
	VEC(struct freed_late) late;
	struct index late_set;
	bool open; /* the last one goes on */
	bool named; /* by the program: workers don't count any more */
	VEC(uint32_t) workers; /* pids that were not waited for */
};

static bool is_counted(const struct replay *r, uint8_t kind)
{
	switch (kind & MT_KIND_MASK) {
	case MT_KIND_HEAP:
	case MT_KIND_PYTHON:
	case MT_KIND_MMAP:
	case MT_KIND_SHM:
	case MT_KIND_PINNED:
		return !(kind & MT_KIND_BACKING) && r->counting && !r->shutdown;
	default:
		return false;
	}
}

static void close_phase(struct replay *r)
{
	struct phases *p = r->phases;
	struct phase_state *last = p->open ? &p->all.items[p->all.count - 1] : NULL;

	if (!last)
		return;
	last->end = r->now;
	last->at_end = last->live;
	p->open = false;
}

static struct phases *phases_of(struct replay *r)
{
	if (!r->phases)
		r->phases = xcalloc(1, sizeof(*r->phases));
	return r->phases;
}

static void open_phase(struct replay *r, char *name, bool by_workers)
{
	struct phase_state *s = vec_push(&r->phases->all);

	s->start = r->now;
	s->name = name;
	s->by_workers = by_workers;
	s->peak = r->out->live_bytes + r->out->inherited_live_bytes;
	r->phases->open = true;
}

void phases_mark(struct replay *r, struct mt_str label)
{
	if (!r->counting || r->shutdown || r->now > r->to || phases_of(r)->all.count == MAX_PHASES)
		return;
	r->phases->named = true;
	close_phase(r);
	if (label.len)
		open_phase(r, text_of(label), false);
}

void phases_forked(struct replay *r, const struct mt_ev_fork *e)
{
	if (!e->python || !r->counting || r->shutdown || r->now > r->to ||
	    (r->phases && (r->phases->named || r->phases->all.count == MAX_PHASES)) ||
	    !stack_python_is_in(r->b, r->p, e->python, "torch/utils/data/dataloader.py"))
		return;
	*vec_push(&phases_of(r)->workers) = (uint32_t)e->pid;
	if (!r->phases->open)
		open_phase(r, xstrdup("DataLoader workers"), true);
}

void phases_waited(struct replay *r, uint64_t pid)
{
	struct phases *p = r->phases;

	for (size_t i = 0; p && i < p->workers.count; i++) {
		if (p->workers.items[i] != pid)
			continue;
		p->workers.items[i] = p->workers.items[--p->workers.count];
		if (!p->workers.count && !p->named && !r->shutdown && r->now <= r->to)
			close_phase(r);
		return;
	}
}

/* The phase in which a block was born; NULL: in none. */
static struct phase_state *phase_at(const struct replay *r, uint64_t birth)
{
	struct phases *p = r->phases;
	size_t low = 0, high = p->all.count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (p->all.items[mid].start <= birth)
			low = mid + 1;
		else
			high = mid;
	}
	if (!low || (p->all.items[low - 1].end && birth >= p->all.items[low - 1].end))
		return NULL;
	return &p->all.items[low - 1];
}

static double weight_of(const struct replay *r, uint64_t bytes, uint32_t mean)
{
	return (double)bytes * (mean ? sampled_weight(bytes, r->b->means[mean]) : 1);
}

void phases_taken(struct replay *r, uint8_t kind, uint64_t birth, uint64_t bytes)
{
	struct phase_state *s = phase_at(r, birth);
	uint64_t held = r->out->live_bytes + r->out->inherited_live_bytes;

	if (!s || !is_counted(r, kind))
		return;
	s->live += weight_of(r, bytes, r->mean);
	if (held > s->peak)
		s->peak = held;
}

static uint64_t key_of(uint32_t phase, uint32_t site)
{
	uint32_t key[2] = { phase, site };

	return hash_bytes(key, sizeof(key));
}

static struct freed_late *late_of(struct phases *p, uint32_t phase, uint32_t site)
{
	struct freed_late *l;

	index_each (&p->late_set, key_of(phase, site), i) {
		l = &p->late.items[i];
		if (l->phase == phase && l->site == site)
			return l;
	}
	index_add(&p->late_set, key_of(phase, site), (uint32_t)p->late.count);
	l = vec_push(&p->late);
	*l = (struct freed_late){ .phase = phase, .site = site };
	return l;
}

/* Since the process began. */
static uint64_t age_of(const struct replay *r)
{
	return r->now > r->p->first_time ? r->now - r->p->first_time : 0;
}

void phases_dropped(struct replay *r, uint32_t site, uint64_t birth, uint64_t bytes, uint32_t mean)
{
	struct phase_state *s = phase_at(r, birth);
	struct freed_late *l;
	double weight;

	if (!s || !is_counted(r, r->p->sites.items[site].kind))
		return;
	weight = weight_of(r, bytes, mean);
	s->live -= weight;
	if (!s->end || (r->now - s->end) < age_of(r) / OUTLIVED)
		return;
	l = late_of(r->phases, (uint32_t)(s - r->phases->all.items), site);
	l->bytes += weight;
	l->moment += weight * (double)age_of(r);
}

/* ---- the end --------------------------------------------------------------------------------- */

struct kept {
	struct replay *r;
	struct index set;
	VEC(struct phase_site) sites;
};

static void add_to(struct kept *k, uint32_t phase, uint32_t site, double bytes)
{
	index_each (&k->set, key_of(phase, site), i) {
		struct phase_site *to = &k->sites.items[i];

		if (to->phase == phase && to->site == site) {
			to->bytes += bytes;
			return;
		}
	}
	index_add(&k->set, key_of(phase, site), (uint32_t)k->sites.count);
	*vec_push(&k->sites) = (struct phase_site){ phase, site, bytes };
}

/* Adds a live block to what its site kept of its phase. */
static void add_kept(struct kept *k, uint32_t site, uint64_t birth, double bytes)
{
	struct phase_state *s = phase_at(k->r, birth);

	if (s && is_counted(k->r, k->r->p->sites.items[site].kind))
		add_to(k, (uint32_t)(s - k->r->phases->all.items), site, bytes);
}

static void add_late(struct kept *k)
{
	struct phases *p = k->r->phases;

	for (size_t i = 0; i < p->late.count; i++) {
		const struct freed_late *l = &p->late.items[i];
		double age = (double)age_of(k->r);

		if (l->moment < l->bytes * (age - age / WINDING_UP))
			continue;
		p->all.items[l->phase].live += l->bytes;
		add_to(k, l->phase, l->site, l->bytes);
	}
}

static void kept_block(void *arg, const struct live_block *block)
{
	struct kept *k = arg;

	if (block->owner == k->r->p->id)
		add_kept(k, block->site, block->birth, weight_of(k->r, block->size, block->mean));
}

static int by_phase_and_bytes(const void *a, const void *b)
{
	const struct phase_site *x = a, *y = b;

	if (x->phase != y->phase)
		return x->phase < y->phase ? -1 : 1;
	if (x->bytes != y->bytes)
		return x->bytes > y->bytes ? -1 : 1;
	return x->site < y->site ? -1 : x->site > y->site;
}

/* The largest of each phase. */
static void hand_sites(struct kept *k, struct process *out)
{
	size_t kept = 0, in_phase = 0;

	if (k->sites.count)
		qsort(k->sites.items, k->sites.count, sizeof(*k->sites.items), by_phase_and_bytes);
	for (size_t i = 0; i < k->sites.count; i++) {
		in_phase = i && k->sites.items[i].phase == k->sites.items[i - 1].phase
				   ? in_phase + 1
				   : 0;
		if (in_phase < PHASE_SITES)
			k->sites.items[kept++] = k->sites.items[i];
	}
	out->phase_sites = k->sites.items;
	out->phase_site_count = kept;
}

void phases_settle(struct replay *r)
{
	const struct timebase *tb = &r->b->clocks.items[r->p->trace];
	struct kept k = { .r = r };
	size_t count;
	const struct map_range *range = maps_all(&r->maps, &count);

	if (!r->phases || r->out->phases)
		return;
	live_each_own(&r->live, kept_block, &k);
	for (; count--; range++)
		if (range->owner == r->p->id)
			add_kept(&k, range->site, range->birth, (double)map_bytes(range));
	add_late(&k);
	hand_sites(&k, r->out);
	index_release(&k.set);
	r->out->phase_count = r->phases->all.count;
	r->out->phases = xcalloc(r->out->phase_count + 1, sizeof(*r->out->phases));
	for (size_t i = 0; i < r->out->phase_count; i++) {
		struct phase_state *s = &r->phases->all.items[i];
		struct phase *to = &r->out->phases[i];

		to->open = !s->end;
		to->start = timebase_ns(tb, s->start);
		to->end = timebase_ns(tb, s->end ? s->end : r->now);
		to->peak_bytes = s->peak;
		to->end_bytes = (uint64_t)llround(fmax(0, s->end ? s->at_end : s->live));
		to->kept_bytes = (uint64_t)llround(fmax(0, s->live));
		to->by_workers = s->by_workers;
		to->name = s->name;
		s->name = NULL;
	}
}

void phases_sites_sorted(struct model *m, const uint32_t *place)
{
	for (size_t i = 0; i < m->process_count; i++)
		for (size_t k = 0; k < m->processes[i].phase_site_count; k++) {
			uint32_t *site = &m->processes[i].phase_sites[k].site;

			*site = *site == NO_ID ? NO_ID : place[*site];
		}
}

void phases_release(struct replay *r)
{
	for (size_t i = 0; r->phases && i < r->phases->all.count; i++)
		free(r->phases->all.items[i].name);
	if (r->phases) {
		vec_release(&r->phases->all);
		vec_release(&r->phases->workers);
		vec_release(&r->phases->late);
		index_release(&r->phases->late_set);
	}
	free(r->phases);
}
