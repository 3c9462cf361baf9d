/*
 * See sampling.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "model/sampling.h"

#include <math.h>

#define NO_MORE (UINT64_C(1) << 50) /* mean: nothing is picked any more */

struct sampling {
	VEC(uint8_t) mean; /* by stream; 0: it lists all */
};

/* A small number for a mean; 0: too many different ones, the block is taken as exact. */
static uint8_t index_of(struct builder *b, uint64_t mean)
{
	uint32_t i = 1;

	if (!mean)
		return 0;
	while (i <= b->mean_count && b->means[i] != mean)
		i++;
	if (i > LIVE_MAX_MEAN)
		return 0;
	if (i > b->mean_count) {
		b->mean_count = i;
		b->means[i] = mean;
	}
	return (uint8_t)i;
}

static void make(struct replay *r)
{
	if (r->sampling)
		return;
	r->sampling = xcalloc(1, sizeof(*r->sampling));
	r->out->sampled = arena_alloc(&r->b->m->arena, sizeof(*r->out->sampled));
}

/* A trace that began in full and came near its cap. */
static void note_thinning(struct replay *r, uint64_t mean, uint64_t time)
{
	struct trace_info *t = &r->b->traces.items[r->p->trace];
	int64_t ns = timebase_ns(&r->b->clocks.items[r->p->trace], time);

	if (!t->coarsest_bytes || ns < t->sampled_from)
		t->sampled_from = ns;
	if (mean > t->coarsest_bytes)
		t->coarsest_bytes = mean;
}

void sampling_begin(struct replay *r, uint32_t stream, uint64_t mean, uint64_t time)
{
	struct sampled *all;
	double bytes = (double)mean;

	make(r);
	note_thinning(r, mean, time);
	vec_reserve(&r->sampling->mean, stream + 1);
	if (stream >= r->sampling->mean.count)
		r->sampling->mean.count = stream + 1;
	r->sampling->mean.items[stream] = index_of(r->b, mean);
	/* Until a block was seen, one that was missed may have had up to that many bytes, of any
	 * number of blocks. */
	all = &r->out->sampled->all;
	if (!all->taken.count.blocks)
		all->step_count = all->step_bytes = bytes;
}

void sampling_fork(struct replay *r, const struct replay *parent)
{
	const struct process_sampled *from = parent->out->sampled;
	struct process_sampled *to;

	if (!from)
		return;
	make(r);
	to = r->out->sampled;
	to->inherited = from->inherited;
	estimates_sum(&to->inherited, &from->all.live);
	to->all.step_count = from->all.step_count;
	to->all.step_bytes = from->all.step_bytes;
}

void sampling_free(struct replay *r)
{
	if (r->sampling)
		vec_release(&r->sampling->mean);
	free(r->sampling);
}

uint32_t sampling_mean(const struct replay *r, uint32_t stream, unsigned int kind)
{
	if ((kind != MT_KIND_HEAP && kind != MT_KIND_PYTHON) || stream >= r->sampling->mean.count)
		return 0;
	return r->sampling->mean.items[stream];
}

static double weight_of(const struct replay *r, const struct live_block *block)
{
	return sampled_weight(block->size, block->mean ? r->b->means[block->mean] : 0);
}

static struct sampled *by_kind(struct replay *r, const struct local_site *s)
{
	return (s->kind & MT_KIND_MASK) == MT_KIND_HEAP ? &r->out->sampled->heap
							: &r->out->sampled->python;
}

static struct sampled *of_site(struct replay *r, struct local_site *s)
{
	if (!s->sampled)
		s->sampled = arena_alloc(&r->b->m->arena, sizeof(*s->sampled));
	return s->sampled;
}

static double more(const struct estimate *e)
{
	return e->sum - e->raw;
}

uint64_t sampling_live_more(const struct replay *r)
{
	const struct process_sampled *p = r->out->sampled;
	double bytes = more(&p->all.live.bytes) + more(&p->inherited.bytes);

	return bytes > 0 ? (uint64_t)llround(bytes) : 0;
}

static void note_peaks(struct replay *r, struct local_site *s)
{
	struct process_sampled *p = r->out->sampled;
	double held = (double)(r->out->live_bytes + r->out->inherited_live_bytes) +
		      (double)sampling_live_more(r);

	if (held > p->peak) {
		p->peak = held;
		p->peak_time = r->now;
		p->all.peak = p->all.live;
		estimates_sum(&p->all.peak, &p->inherited);
	}
	if (s->sampled) {
		held = (double)s->live_bytes + more(&s->sampled->live.bytes);
		if (held > s->peak_estimate) {
			s->peak_estimate = held;
			s->sampled->peak = s->sampled->live;
		}
	}
}

static void note_taken(struct replay *r, struct sampled *to, uint64_t size, double weight)
{
	double spread = sqrt(weight * (weight - 1));
	bool first = !to->taken.count.blocks && !to->live.count.blocks;

	estimates_add(&to->live, size, weight, 1);
	if (r->counting)
		estimates_add(&to->taken, size, weight, 1);
	to->step_count = first ? spread : fmax(to->step_count, spread);
	to->step_bytes = first ? spread * (double)size
			       : fmax(to->step_bytes, spread * (double)size);
}

void sampling_taken(struct replay *r, struct local_site *s, const struct live_block *block)
{
	double weight = weight_of(r, block);

	if (block->mean) {
		note_taken(r, of_site(r, s), block->size, weight);
		note_taken(r, by_kind(r, s), block->size, weight);
		note_taken(r, &r->out->sampled->all, block->size, weight);
	}
	if (r->counting)
		note_peaks(r, s);
}

void sampling_dropped(struct replay *r, struct local_site *s, const struct live_block *block,
		      bool freed, bool brief)
{
	struct sampled *all[] = { s->sampled, by_kind(r, s), &r->out->sampled->all };
	double weight = weight_of(r, block);

	if (!block->mean || !s->sampled)
		return;
	for (size_t i = 0; i < 3; i++) {
		estimates_add(&all[i]->live, block->size, weight, -1);
		if (freed && r->counting)
			estimates_add(&all[i]->freed, block->size, weight, 1);
		if (brief && r->counting)
			estimates_add(&all[i]->brief, block->size, weight, 1);
	}
}

void sampling_dropped_inherited(struct replay *r, const struct live_block *block, bool freed)
{
	struct process_sampled *p = r->out->sampled;
	double weight = weight_of(r, block);

	if (!block->mean)
		return;
	estimates_add(&p->inherited, block->size, weight, -1);
	if (freed && r->counting)
		estimates_add(&p->inherited_freed, block->size, weight, 1);
}

/* ---- the end --------------------------------------------------------------------------------- */

static void raise(uint64_t *v, const struct estimate *e)
{
	*v += (uint64_t)llround(more(e));
}

static void raise_kind(struct kind_totals *k, const struct sampled *s)
{
	raise(&k->allocations, &s->taken.count);
	raise(&k->bytes_allocated, &s->taken.bytes);
	raise(&k->frees, &s->freed.count);
	raise(&k->live_bytes, &s->live.bytes);
	raise(&k->live_count, &s->live.count);
}

static void settle_process(const struct builder *b, const struct proc *proc, struct process *p)
{
	struct process_sampled *s = p->sampled;

	raise(&p->allocations, &s->all.taken.count);
	raise(&p->bytes_allocated, &s->all.taken.bytes);
	raise(&p->frees, &s->all.freed.count);
	raise(&p->live_bytes, &s->all.live.bytes);
	raise(&p->live_count, &s->all.live.count);
	raise(&p->inherited_live_bytes, &s->inherited.bytes);
	raise(&p->inherited_live_count, &s->inherited.count);
	raise(&p->inherited_freed_bytes, &s->inherited_freed.bytes);
	raise(&p->inherited_freed_count, &s->inherited_freed.count);
	raise_kind(&p->kinds[MT_KIND_HEAP], &s->heap);
	raise_kind(&p->kinds[MT_KIND_PYTHON], &s->python);
	s->all.peak_seen = p->peak_live_bytes;
	if (s->peak > (double)p->peak_live_bytes) {
		p->peak_live_bytes = (uint64_t)llround(s->peak);
		p->peak_live_time = timebase_ns(&b->clocks.items[proc->trace], s->peak_time);
	}
}

static void settle_site(struct local_site *s)
{
	raise(&s->allocations, &s->sampled->taken.count);
	raise(&s->bytes_allocated, &s->sampled->taken.bytes);
	raise(&s->frees, &s->sampled->freed.count);
	raise(&s->live_bytes, &s->sampled->live.bytes);
	raise(&s->live_count, &s->sampled->live.count);
	raise(&s->short_lived_count, &s->sampled->brief.count);
	s->sampled->peak_seen = s->peak_bytes;
	if (s->peak_estimate > (double)s->peak_bytes)
		s->peak_bytes = (uint64_t)llround(s->peak_estimate);
}

static void settle_trace(struct builder *b, struct trace_info *t)
{
	if (!t->coarsest_bytes || !strcmp(t->mode, "sample"))
		return;
	builder_note(b,
		     "%s: near its size cap (MEMTRACE_MAX_BYTES) recording fell from full to "
		     "sampling, at %.3f s. What was allocated before is exact and frees of it were "
		     "still recorded; the rest is estimated",
		     t->path, (double)t->sampled_from / 1e9);
	if (t->coarsest_bytes >= NO_MORE)
		builder_note(b,
			     "%s: in the end no new allocations were recorded any more: totals "
			     "and live values lack them",
			     t->path);
	memcpy(t->mode, "sample", sizeof("sample"));
	t->sample_bytes = t->coarsest_bytes;
}

void sampling_settle(struct builder *b)
{
	for (size_t i = 0; i < b->procs.count; i++) {
		struct proc *p = &b->procs.items[i];

		if (b->processes.items[i].sampled)
			settle_process(b, p, &b->processes.items[i]);
		for (size_t k = 0; k < p->sites.count; k++)
			if (p->sites.items[k].sampled)
				settle_site(&p->sites.items[k]);
	}
	for (size_t i = 0; i < b->traces.count; i++)
		settle_trace(b, &b->traces.items[i]);
}

static void site_add(struct sampled *to, const struct site *s, const struct site_use *u, bool live)
{
	struct sampled part = *u->sampled;

	if (!live)
		memset(&part.live, 0, sizeof(part.live));
	sampled_sum(to, &part);
	if (u->peak_bytes == s->peak_bytes) {
		to->peak = part.peak;
		to->peak_seen = part.peak_seen;
	}
}

void sampling_sites(struct model *m, const bool *superseded)
{
	for (size_t i = 0; i < m->site_count; i++) {
		struct site *s = &m->sites[i];

		for (uint32_t k = 0; k < s->use_count; k++) {
			const struct site_use *u = &m->uses[s->first_use + k];

			if (!u->sampled)
				continue;
			if (!s->sampled)
				s->sampled = arena_alloc(&m->arena, sizeof(*s->sampled));
			site_add(s->sampled, s, u, !superseded[u->process]);
		}
	}
}

/* ---- traces that were stopped ---------------------------------------------------------------- */

static void forget_kinds(struct process *p)
{
	for (size_t k = 0; k < MT_KINDS; k++)
		p->kinds[k].live_bytes = p->kinds[k].live_count = 0;
	p->live_unknown = true;
	p->live_bytes = p->live_count = 0;
	p->inherited_live_bytes = p->inherited_live_count = 0;
	if (p->sampled) {
		memset(&p->sampled->all.live, 0, sizeof(p->sampled->all.live));
		memset(&p->sampled->heap.live, 0, sizeof(p->sampled->heap.live));
		memset(&p->sampled->python.live, 0, sizeof(p->sampled->python.live));
		memset(&p->sampled->inherited, 0, sizeof(p->sampled->inherited));
	}
}

void model_forget_live(struct model *m)
{
	for (size_t i = 0; i < m->process_count; i++)
		if (m->traces[m->processes[i].trace].stopped)
			forget_kinds(&m->processes[i]);
	for (size_t i = 0; i < m->use_count; i++) {
		struct site_use *u = &m->uses[i];
		struct site *s = &m->sites[u->site];

		if (!m->processes[u->process].live_unknown)
			continue;
		/* A superseded one is not in the site's sum. */
		s->live_bytes -= u->live_bytes < s->live_bytes ? u->live_bytes : s->live_bytes;
		s->live_count -= u->live_count < s->live_count ? u->live_count : s->live_count;
		u->live_bytes = u->live_count = 0;
		if (u->sampled)
			memset(&u->sampled->live, 0, sizeof(u->sampled->live));
		if (s->sampled)
			memset(&s->sampled->live, 0, sizeof(s->sampled->live));
	}
}
