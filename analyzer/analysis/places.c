/*
 * Memory by line: all stacks that a person would name by the same line, put together. It answers
 * what a list of stacks does not: which line of the program holds the memory, when there is most of
 * it. Unlike stacks, all of them are here, however many: a Python line needs no look-up of symbols.
 * Of those without Python frames the largest are looked up; the others are told by module.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "analysis/analysis.h"
#include "analysis/common.h"
#include "analysis/stack.h"
#include "util/alloc.h"
#include "util/hashmap.h"
#include "util/index.h"
#include "util/vec.h"

#define LOOKED_UP 200 /* stacks without Python frames */

/* Beside the place and the kind. */
enum { PLACE_IMPORTS = 1, PLACE_ARENAS = 2 };

struct place {
	char *text, *function; /* owned; function NULL: none to tell */
	uint8_t kind, what;
	uint64_t at_peak, live, count, allocations, bytes, sites;
	struct sampled sampled;
	bool is_sampled;
};

struct places {
	const struct analysis_input *in;
	VEC(struct place) all;
	struct index set;
	uint32_t *by_python; /* by Python stack: index + 1 of a place that is on its line */
	bool *importing;
	bool objects; /* what lies in Python's arenas is known one by one */
};

static struct place *intern(struct places *ps, const char *text, const char *function,
			    unsigned int kind, unsigned int what)
{
	struct strbuf key = STRBUF_INIT;
	struct place *p = NULL;
	uint64_t hash;

	strbuf_addf(&key, "%s\n%s\n%u\n%u", text, function ? function : "", kind, what);
	hash = hash_bytes(key.buf, key.len);
	strbuf_release(&key);
	index_each (&ps->set, hash, i) {
		p = &ps->all.items[i];
		if (p->kind == kind && p->what == what && !strcmp(p->text, text) &&
		    !strcmp(p->function ? p->function : "", function ? function : ""))
			return p;
	}
	index_add(&ps->set, hash, (uint32_t)ps->all.count);
	p = vec_push(&ps->all);
	p->text = xstrdup(text);
	p->function = function ? xstrdup(function) : NULL;
	p->kind = (uint8_t)kind;
	p->what = (uint8_t)what;
	return p;
}

/* Where a stack stands, looked up; native 0: its Python part alone, for which no symbol is needed. */
static struct place *look_up(struct places *ps, uint32_t native, uint32_t python, unsigned int kind,
			     unsigned int what)
{
	struct strbuf text = STRBUF_INIT;
	const struct stack_frame *f;
	struct place *p = NULL;
	struct stack st;

	stack_merge(ps->in->m, ps->in->symbols, native, python, &st);
	f = stack_place(&st);
	if (f) {
		stack_place_add(&text, f);
		p = intern(ps, text.buf, f->f.line ? f->f.function : NULL, kind, what);
	}
	strbuf_release(&text);
	stack_release(&st);
	return p;
}

static struct place *of_python(struct places *ps, const struct site *s, unsigned int what)
{
	uint32_t *known = &ps->by_python[s->python];
	struct place *p;

	if (*known) {
		p = &ps->all.items[*known - 1];
		return p->kind == s->kind && p->what == what
			       ? p
			       : intern(ps, p->text, p->function, s->kind, what);
	}
	p = look_up(ps, 0, s->python, s->kind, what);
	if (p)
		*known = (uint32_t)(p - ps->all.items) + 1;
	return p;
}

/* The module of the nearest function. */
static struct place *of_module(struct places *ps, const struct site *s)
{
	const struct model *m = ps->in->m;
	const char *path = NULL, *slash;

	for (uint32_t n = s->native; n && !path; n = m->native[n].parent)
		if (m->native[n].module != NO_ID)
			path = m->modules[m->native[n].module].path;
	slash = path ? strrchr(path, '/') : NULL;
	return intern(ps, slash ? slash + 1 : path ? path : "(unknown)", NULL, s->kind, 0);
}

static void count_in(struct place *p, const struct site *s)
{
	p->sites++;
	p->at_peak += s->at_peak_bytes;
	p->live += s->live_bytes;
	p->count += s->live_count;
	p->allocations += s->allocations;
	p->bytes += s->bytes_allocated;
	if (s->sampled) {
		sampled_sum(&p->sampled, s->sampled);
		p->is_sampled = true;
	}
}

static uint64_t size_of(const struct site *s)
{
	return s->at_peak_bytes > s->live_bytes ? s->at_peak_bytes : s->live_bytes;
}

static int by_size(const void *a, const void *b)
{
	const struct site *x = *(const struct site *const *)a;
	const struct site *y = *(const struct site *const *)b;

	if (size_of(x) != size_of(y))
		return size_of(x) > size_of(y) ? -1 : 1;
	return x->id < y->id ? -1 : x->id > y->id;
}

static void add_native(struct places *ps)
{
	const struct model *m = ps->in->m;
	const struct site **order = xcalloc(m->site_count, sizeof(const struct site *));
	size_t count = 0;

	for (size_t i = 0; i < m->site_count; i++)
		if (!m->sites[i].backing && !m->sites[i].python &&
		    m->sites[i].kind != MT_KIND_TENSOR)
			order[count++] = &m->sites[i];
	qsort(order, count, sizeof(const struct site *), by_size);
	for (size_t i = 0; i < count; i++) {
		const struct site *s = order[i];
		struct place *p = i < LOOKED_UP ? look_up(ps, s->native, 0, s->kind, 0) : NULL;

		count_in(p ? p : of_module(ps, s), s);
	}
	free(order);
}

/* A tensor's memory is also what it was taken from; arenas count where their objects don't. */
static void add_python(struct places *ps)
{
	const struct model *m = ps->in->m;

	for (size_t i = 0; i < m->site_count; i++) {
		const struct site *s = &m->sites[i];
		unsigned int what = 0;
		struct place *p;

		if (!s->python || s->kind == MT_KIND_TENSOR)
			continue;
		if (ps->importing[s->python])
			what = PLACE_IMPORTS;
		if (s->backing) {
			if (ps->objects || !site_is_python_arena(m, s))
				continue;
			what |= PLACE_ARENAS;
		}
		p = of_python(ps, s, what);
		count_in(p ? p : of_module(ps, s), s);
	}
}

static int by_held(const void *a, const void *b)
{
	const struct place *x = a, *y = b;
	uint64_t of_x = x->is_sampled ? x->live : x->at_peak;
	uint64_t of_y = y->is_sampled ? y->live : y->at_peak;

	if (of_x != of_y)
		return of_x > of_y ? -1 : 1;
	if (x->bytes != y->bytes)
		return x->bytes > y->bytes ? -1 : 1;
	return strcmp(x->text, y->text);
}

static void put_numbers(struct result *doc, struct rvalue *o, const struct place *p)
{
	const struct sampled *e = p->is_sampled ? &p->sampled : NULL;
	double count = e ? e->step_count : 0, bytes = e ? e->step_bytes : 0;

	put_count(doc, o, "sites", p->sites);
	put_at_peak(doc, o, p->at_peak, e);
	put_estimate(doc, o, "live_bytes", p->live, ESTIMATE(e, live.bytes), bytes);
	put_estimate(doc, o, "live_count", p->count, ESTIMATE(e, live.count), count);
	put_estimate(doc, o, "allocations", p->allocations, ESTIMATE(e, taken.count), count);
	put_estimate(doc, o, "bytes_allocated", p->bytes, ESTIMATE(e, taken.bytes), bytes);
}

static void put_place(struct result *doc, struct rvalue *list, const struct place *p)
{
	struct rvalue *o = r_push_object(doc, list);

	r_string(doc, o, "place", p->text);
	r_string(doc, o, "place_function", p->function);
	r_string(doc, o, "kind", p->kind < MT_KINDS ? kind_names[p->kind] : NULL);
	r_bool(doc, o, "imports", p->what & PLACE_IMPORTS);
	r_bool(doc, o, "python_arenas", p->what & PLACE_ARENAS);
	put_numbers(doc, o, p);
}

/* How much is in the places that are not listed. */
static void put_others(struct places *ps, struct result *doc, size_t first)
{
	struct rvalue *o = r_object(doc, result_root(doc), "places_not_listed");
	struct place rest = { .kind = 0 };

	for (size_t i = first; i < ps->all.count; i++) {
		const struct place *p = &ps->all.items[i];

		rest.sites += p->sites;
		rest.at_peak += p->at_peak;
		rest.live += p->live;
		rest.count += p->count;
		rest.allocations += p->allocations;
		rest.bytes += p->bytes;
		if (p->is_sampled)
			sampled_sum(&rest.sampled, &p->sampled);
		rest.is_sampled |= p->is_sampled;
	}
	put_count(doc, o, "places", ps->all.count - first);
	put_numbers(doc, o, &rest);
}

void analyse_places(struct analysis_input *in, struct result *doc)
{
	const struct model *m = in->m;
	struct places ps = { .in = in, .importing = stack_importing(m) };
	struct rvalue *list = r_array(doc, result_root(doc), "places");
	size_t shown;

	ps.by_python = xcalloc(m->python_count, sizeof(*ps.by_python));
	for (size_t i = 0; i < m->process_count; i++)
		ps.objects |= m->processes[i].kinds[MT_KIND_PYTHON].allocations != 0;
	add_python(&ps);
	add_native(&ps);
	if (ps.all.count)
		qsort(ps.all.items, ps.all.count, sizeof(*ps.all.items), by_held);
	shown = ps.all.count < in->top ? ps.all.count : in->top;
	for (size_t i = 0; i < shown; i++)
		put_place(doc, list, &ps.all.items[i]);
	if (shown < ps.all.count)
		put_others(&ps, doc, shown);
	for (size_t i = 0; i < ps.all.count; i++) {
		free(ps.all.items[i].text);
		free(ps.all.items[i].function);
	}
	free(ps.by_python);
	free(ps.importing);
	index_release(&ps.set);
	vec_release(&ps.all);
}
