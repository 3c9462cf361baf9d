/*
 * The section on where memory was allocated. Of very many sites only the largest are listed and
 * symbolised; what the others hold is summed up beside them.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "analysis/analysis.h"
#include "analysis/common.h"
#include "analysis/stack.h"

#define LONG_LIST 100 /* from here on a list has room for the leaders by other measures, too */

typedef uint64_t measure_fn(const struct site *s);

static uint64_t live_of(const struct site *s)
{
	return s->live_bytes;
}

static uint64_t peak_of(const struct site *s)
{
	return s->peak_bytes;
}

static uint64_t at_peak_of(const struct site *s)
{
	return s->at_peak_bytes;
}

static uint64_t traffic_of(const struct site *s)
{
	return s->bytes_allocated;
}

static uint64_t count_of(const struct site *s)
{
	return s->allocations;
}

struct ranked {
	uint64_t value;
	uint32_t site;
};

static int by_value(const void *a, const void *b)
{
	const struct ranked *x = a, *y = b;

	if (x->value != y->value)
		return x->value > y->value ? -1 : 1;
	return x->site < y->site ? -1 : x->site > y->site;
}

static void list_leaders(struct analysis_input *in, measure_fn *measure, size_t count)
{
	const struct model *m = in->m;
	struct ranked *all = xcalloc(m->site_count, sizeof(*all));

	for (uint32_t i = 0; i < m->site_count; i++)
		all[i] = (struct ranked){ measure(&m->sites[i]), i };
	qsort(all, m->site_count, sizeof(*all), by_value);
	for (size_t i = 0; i < count && i < m->site_count; i++)
		in->listed[all[i].site] = true;
	free(all);
}

/* The largest; of mappings that back an allocator only those that a long list has room for. */
static void choose(struct analysis_input *in)
{
	measure_fn *const others[] = { live_of, at_peak_of, peak_of, traffic_of, count_of };
	const struct model *m = in->m;
	size_t count = 0;

	for (size_t i = 0; i < m->site_count && count < in->top; i++)
		if (!m->sites[i].backing || in->top >= m->site_count) {
			in->listed[i] = true; /* the model has them by at_peak_bytes */
			count++;
		}
	if (in->top >= m->site_count || in->top < LONG_LIST)
		return;
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		list_leaders(in, others[i], in->top / 4);
}

void stack_put_frame(struct result *doc, struct rvalue *list, const struct stack_frame *f)
{
	struct rvalue *o = r_push_object(doc, list);

	r_string(doc, o, "function", f->f.function);
	r_string(doc, o, "file", f->f.file);
	if (f->f.line)
		r_int(doc, o, "line", f->f.line);
	else
		r_null(doc, o, "line");
	r_string(doc, o, "module", f->f.module);
	r_string(doc, o, "language", f->f.is_python ? "python" : "native");
	if (f->f.inlined)
		r_bool(doc, o, "inlined", true);
	if (f->plumbing)
		r_bool(doc, o, "plumbing", true);
}

static void put_stack(struct analysis_input *in, struct result *doc, struct rvalue *o,
		      const struct site *s)
{
	struct strbuf place = STRBUF_INIT, through = STRBUF_INIT;
	const struct stack_frame *f, *leaf;
	struct rvalue *list;
	struct stack st;

	stack_merge(in->m, in->symbols, s->native, s->python, &st);
	f = stack_place(&st);
	if (f)
		stack_place_add(&place, f);
	r_string(doc, o, "place", f ? place.buf : NULL);
	r_string(doc, o, "place_function", f && f->f.line ? f->f.function : NULL);
	leaf = f && f->f.is_python ? stack_native_leaf(&st) : NULL;
	if (leaf)
		stack_function_add(&through, leaf);
	r_string(doc, o, "place_through", leaf ? through.buf : NULL);
	list = r_array(doc, o, "stack");
	for (size_t i = 0; i < st.frames.count; i++)
		stack_put_frame(doc, list, &st.frames.items[i]);
	if (st.uncertain)
		r_bool(doc, o, "merge_uncertain", true);
	strbuf_release(&through);
	strbuf_release(&place);
	stack_release(&st);
}

static void put_counts(struct result *doc, struct rvalue *o, const struct site_use *u)
{
	const struct sampled *e = u->sampled;
	double count = e ? e->step_count : 0, bytes = e ? e->step_bytes : 0;

	put_estimate(doc, o, "live_bytes", u->live_bytes, ESTIMATE(e, live.bytes), bytes);
	put_estimate(doc, o, "live_count", u->live_count, ESTIMATE(e, live.count), count);
	put_estimate(doc, o, "allocations", u->allocations, ESTIMATE(e, taken.count), count);
	put_estimate(doc, o, "frees", u->frees, ESTIMATE(e, freed.count), count);
	put_estimate(doc, o, "bytes_allocated", u->bytes_allocated, ESTIMATE(e, taken.bytes),
		     bytes);
	put_peak(doc, o, "peak_bytes", u->peak_bytes, e);
	put_at_peak(doc, o, u->at_peak_bytes, e);
}

static void put_uses(struct analysis_input *in, struct result *doc, struct rvalue *o,
		     const struct site *s)
{
	struct rvalue *list = r_array(doc, o, "by_process");

	for (uint32_t i = 0; i < s->use_count; i++) {
		const struct site_use *u = &in->m->uses[s->first_use + i];
		struct rvalue *part = r_push_object(doc, list);

		r_int(doc, part, "proc", u->process);
		r_int(doc, part, "pid", in->m->processes[u->process].pid);
		put_counts(doc, part, u);
	}
}

static void put_totals(struct result *doc, struct rvalue *o, const struct site *s)
{
	const struct sampled *e = s->sampled;
	double count = e ? e->step_count : 0, bytes = e ? e->step_bytes : 0;

	put_estimate(doc, o, "allocations", s->allocations, ESTIMATE(e, taken.count), count);
	put_estimate(doc, o, "frees", s->frees, ESTIMATE(e, freed.count), count);
	put_estimate(doc, o, "bytes_allocated", s->bytes_allocated, ESTIMATE(e, taken.bytes),
		     bytes);
	put_estimate(doc, o, "live_bytes", s->live_bytes, ESTIMATE(e, live.bytes), bytes);
	put_estimate(doc, o, "live_count", s->live_count, ESTIMATE(e, live.count), count);
	put_peak(doc, o, "peak_bytes", s->peak_bytes, e);
	put_at_peak(doc, o, s->at_peak_bytes, e);
	put_estimate(doc, o, "short_lived_count", s->short_lived_count, ESTIMATE(e, brief.count),
		     count);
}

static void put_site(struct analysis_input *in, struct result *doc, struct rvalue *list,
		     const struct site *s)
{
	struct rvalue *o = r_push_object(doc, list);

	r_int(doc, o, "id", s->id);
	r_string(doc, o, "kind", s->kind < MT_KINDS ? kind_names[s->kind] : NULL);
	r_bool(doc, o, "backing", s->backing);
	r_null(doc, o, "component");
	put_stack(in, doc, o, s);
	put_totals(doc, o, s);
	put_uses(in, doc, o, s);
}

struct rest {
	uint64_t sites, short_lived;
	struct kind_totals kinds[MT_KINDS];
	struct process_sampled sampled;
	bool is_sampled;
};

static void rest_add(struct rest *rest, const struct site *s)
{
	struct kind_totals *k = &rest->kinds[s->kind & (MT_KINDS - 1)];

	rest->sites++;
	rest->short_lived += s->short_lived_count;
	k->allocations += s->allocations;
	k->frees += s->frees;
	k->bytes_allocated += s->bytes_allocated;
	if (s->sampled) {
		sampled_sum(s->kind == MT_KIND_HEAP ? &rest->sampled.heap : &rest->sampled.python,
			    s->sampled);
		rest->is_sampled = true;
	}
	if (!s->backing) {
		k->live_bytes += s->live_bytes;
		k->live_count += s->live_count;
	}
}

/* What allocators hold for the blocks that are listed one by one. */
static void put_backing(struct result *doc, const struct model *m)
{
	struct rvalue *o = r_object(doc, result_root(doc), "backing_store");
	uint64_t sites = 0, bytes = 0;

	for (size_t i = 0; i < m->site_count; i++)
		if (m->sites[i].backing) {
			sites++;
			bytes += m->sites[i].live_bytes;
		}
	put_count(doc, o, "sites", sites);
	put_count(doc, o, "live_bytes", bytes);
}

/* What is needed to make the sites of a list one by one, when they are printed. */
struct site_list {
	struct analysis_input in;
	size_t count;
	uint32_t sites[];
};

static void make_site(void *arg, size_t index, struct result *doc, struct rvalue *list)
{
	struct site_list *all = arg;

	put_site(&all->in, doc, list, &all->in.m->sites[all->sites[index]]);
}

/* Symbols are looked up now: what is to be said of them stands at the head of the report. */
static void put_made_sites(struct analysis_input *in, struct result *doc)
{
	size_t bytes = sizeof(struct site_list) + in->m->site_count * sizeof(uint32_t);
	struct site_list *all = result_alloc(doc, bytes);

	all->in = *in;
	for (uint32_t i = 0; i < in->m->site_count; i++) {
		const struct site *s = &in->m->sites[i];
		struct stack st;

		if (!in->listed[i])
			continue;
		stack_merge(in->m, in->symbols, s->native, s->python, &st);
		stack_release(&st);
		all->sites[all->count++] = i;
	}
	r_array_made(doc, result_root(doc), "sites", all->count, make_site, all);
}

static void put_all_sites(struct analysis_input *in, struct result *doc)
{
	struct rvalue *list = r_array(doc, result_root(doc), "sites");

	for (size_t i = 0; i < in->m->site_count; i++)
		if (in->listed[i])
			put_site(in, doc, list, &in->m->sites[i]);
}

void analyse_sites(struct analysis_input *in, struct result *doc)
{
	struct rvalue *o;
	struct rest rest;

	memset(&rest, 0, sizeof(rest));
	choose(in);
	if (in->streamed)
		put_made_sites(in, doc);
	else
		put_all_sites(in, doc);
	for (size_t i = 0; i < in->m->site_count; i++)
		if (!in->listed[i])
			rest_add(&rest, &in->m->sites[i]);
	put_backing(doc, in->m);
	if (!rest.sites)
		return;
	o = r_object(doc, result_root(doc), "sites_not_listed");
	put_count(doc, o, "sites", rest.sites);
	put_count(doc, o, "short_lived_count", rest.short_lived);
	put_kinds(doc, o, rest.kinds, rest.is_sampled ? &rest.sampled : NULL);
}
