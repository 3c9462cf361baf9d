/*
 * From the cohorts of every site and process to verdicts. Processes that run the same code are
 * replicates: workers of one loader are judged together, unless one of them alone shows a leak.
 * Of the thousands of sites of a real program a few look like a leak by chance; the rate of false
 * discoveries among all that were tested is what is held down.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "analysis/growth.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/common.h"
#include "analysis/epochs.h"
#include "analysis/stack.h"

#define CACHE_BYTES 4096 /* of a row, to have its functions looked up */
#define SURE_ALONE 0.01 /* p of one process among replicates: it is judged by itself */
#define WOUND_UP_LEAST_NS 1e9 /* work that is shorter and undone is a pass, too */
#define WOUND_UP_SPAN 0.4 /* of the process's steps or life: else it grew for a while */

/* One judgement: a site in one process or in several that are replicates. */
struct unit {
	uint32_t site, lead; /* lead: index of the first use */
	struct cohort_view view;
	struct judgement j;
	VEC(uint32_t) uses;
};

typedef VEC(struct unit) unit_list;

/* ---- judging --------------------------------------------------------------------------------- */

static bool are_replicates(const struct process *p, const struct process *q)
{
	return p->worker.is && q->worker.is && p->worker.node == q->worker.node &&
	       p->parent == q->parent && p->trace == q->trace;
}

static bool unit_init(const struct model *m, const struct epochs *epochs, struct unit *u,
		      uint32_t use)
{
	const struct site_use *s = &m->uses[use];

	memset(u, 0, sizeof(*u));
	u->site = s->site;
	u->lead = use;
	if (!s->cohorts || m->processes[s->process].live_unknown || !view_of(s->cohorts, &u->view))
		return false;
	u->view.unseen = (double)m->processes[s->process].young_most_bytes;
	epochs_edges(epochs, s->process, s->cohorts, &u->view);
	*vec_push(&u->uses) = use;
	judge(&u->view, &u->j);
	return true;
}

static void unit_add(struct unit *to, const struct unit *u)
{
	view_add(&to->view, &u->view);
	for (size_t i = 0; i < u->uses.count; i++)
		*vec_push(&to->uses) = u->uses.items[i];
}

/* Puts replicates together that do not stand out by themselves. */
static void pool(const struct model *m, unit_list *units, size_t first)
{
	for (size_t i = first; i < units->count; i++) {
		struct unit *to = &units->items[i];
		const struct process *p = &m->processes[m->uses[to->lead].process];
		bool joined = false;

		if (to->j.p <= SURE_ALONE)
			continue;
		for (size_t k = i + 1; k < units->count;) {
			struct unit *u = &units->items[k];

			if (u->j.p <= SURE_ALONE ||
			    !are_replicates(p, &m->processes[m->uses[u->lead].process])) {
				k++;
				continue;
			}
			unit_add(to, u);
			joined = true;
			vec_release(&u->uses);
			memmove(u, u + 1, (units->count - k - 1) * sizeof(*u));
			memset(&units->items[--units->count], 0, sizeof(*u));
		}
		if (joined)
			judge(&to->view, &to->j);
	}
}

static void judge_all(const struct model *m, const struct epochs *epochs, unit_list *units)
{
	bool *importing = stack_importing(m);

	for (size_t i = 0; i < m->site_count; i++) {
		const struct site *s = &m->sites[i];
		size_t first = units->count;

		if (s->backing || importing[s->python])
			continue;
		for (uint32_t k = 0; k < s->use_count; k++) {
			struct unit u;

			if (unit_init(m, epochs, &u, s->first_use + k))
				*vec_push(units) = u;
		}
		if (units->count > first + 1)
			pool(m, units, first);
	}
	free(importing);
}

/* Held down among the sites that had enough blocks to be tested at all. */
static size_t settle_all(unit_list *units)
{
	double *p = xcalloc(units->count ? units->count : 1, sizeof(*p));
	size_t tested = 0;

	for (size_t i = 0; i < units->count; i++)
		if (units->items[i].j.windows)
			p[tested++] = units->items[i].j.p;
	discovery_rates(p, tested);
	tested = 0;
	for (size_t i = 0; i < units->count; i++) {
		struct unit *u = &units->items[i];

		judge_settle(&u->view, &u->j, u->j.windows ? p[tested++] : 1);
	}
	free(p);
	return tested;
}

/* ---- rows ------------------------------------------------------------------------------------ */

/* The lifetime below which a share of the dead lay; negative: none died. */
static double lifetime(const struct cohorts *c, double share)
{
	double unit_ns = c->window_ns / (double)(UINT64_C(1) << c->shift), all = 0, seen = 0;

	for (size_t i = 0; i < COHORT_LIFETIMES; i++)
		all += c->lifetimes[i];
	for (size_t i = 0; i < COHORT_LIFETIMES && all > 0; i++) {
		seen += c->lifetimes[i];
		if (seen >= share * all)
			return pow(4, (double)i) * unit_ns / 1e9;
	}
	return -1;
}

/*
 * It grew for a part of the program's work only and was given back then. Work is steps where they are
 * known: in a short run of a training most of the time are imports.
 */
static bool was_a_pass(const struct model *m, const struct epochs *epochs, const struct unit *u)
{
	const struct site_use *s = &m->uses[u->lead];
	const struct process *p = &m->processes[s->process];
	double life = (double)((p->shutdown ? p->shutdown : p->end) - p->start);
	double work = s->cohorts->last * s->cohorts->window_ns;
	double from = (double)s->cohorts->start_ns;
	double steps = epochs_share_of_steps(epochs, s->process, from, from + work);

	if (!u->view.wound_up)
		return false;
	if (steps >= 0)
		return steps < WOUND_UP_SPAN;
	return work < WOUND_UP_SPAN * life || work < WOUND_UP_LEAST_NS;
}

static void add_use(const struct model *m, struct growth_row *row, const struct site_use *u)
{
	const struct cohorts *c = u->cohorts;
	const struct process *p = &m->processes[u->process];
	double first = process_seconds(m, p, c->start_ns);
	double last = first + c->last * c->window_ns / 1e9;

	if (!row->processes.count || first < row->first_s)
		row->first_s = first;
	if (!row->processes.count || last > row->last_s)
		row->last_s = last;
	row->lifetime_p50_s = fmax(row->lifetime_p50_s, lifetime(c, 0.5));
	row->lifetime_p99_s = fmax(row->lifetime_p99_s, lifetime(c, 0.99));
	row->allocations += u->allocations;
	row->frees += u->frees;
	*vec_push(&row->processes) = u->process;
}

static void row_init(const struct model *m, const struct epochs *epochs, const struct unit *u,
		     struct growth_row *row)
{
	const struct site_use *lead = &m->uses[u->lead];
	double from = (double)lead->cohorts->start_ns;

	memset(row, 0, sizeof(*row));
	row->site = u->site;
	row->j = u->j;
	row->lifetime_p50_s = row->lifetime_p99_s = -1;
	row->pooled = u->uses.count > 1;
	row->wound_up = u->view.wound_up;
	if (row->j.verdict >= VERDICT_GROWTH && was_a_pass(m, epochs, u)) {
		row->j.verdict = VERDICT_BOUNDED;
		row->j.level_bytes = row->j.bytes;
		row->j.run_longer_s = -1;
		row->j.reason = "it was given back when its work was done";
	}
	for (size_t i = 0; i < u->uses.count; i++)
		add_use(m, row, &m->uses[u->uses.items[i]]);
	epochs_rates(epochs, lead->process, from,
		     from + lead->cohorts->last * lead->cohorts->window_ns, &row->steps_per_s,
		     &row->epochs_per_s);
	row->bytes = row->j.bytes > 0 ? (uint64_t)llround(row->j.bytes) : 0;
}

static void row_join(struct growth_row *to, struct growth_row *row)
{
	to->j.bytes += row->j.bytes;
	to->bytes += row->bytes;
	to->j.rate.value += row->j.rate.value;
	to->j.rate.low += row->j.rate.low;
	to->j.rate.high += row->j.rate.high;
	to->j.confidence = fmin(to->j.confidence, row->j.confidence);
	if (to->j.level_bytes >= 0 && row->j.level_bytes >= 0)
		to->j.level_bytes += row->j.level_bytes;
	to->j.level.low += row->j.level.low;
	to->j.level.high += row->j.level.high;
	to->j.run_longer_s = fmax(to->j.run_longer_s, row->j.run_longer_s);
	to->first_s = fmin(to->first_s, row->first_s);
	to->last_s = fmax(to->last_s, row->last_s);
	to->lifetime_p50_s = fmax(to->lifetime_p50_s, row->lifetime_p50_s);
	to->lifetime_p99_s = fmax(to->lifetime_p99_s, row->lifetime_p99_s);
	to->allocations += row->allocations;
	to->frees += row->frees;
	to->wound_up |= row->wound_up;
	for (size_t i = 0; i < row->processes.count; i++)
		*vec_push(&to->processes) = row->processes.items[i];
	vec_release(&row->processes);
}

static int by_rank(const void *a, const void *b)
{
	const struct growth_row *x = a, *y = b;

	if (x->j.verdict != y->j.verdict)
		return x->j.verdict > y->j.verdict ? -1 : 1;
	if (x->bytes != y->bytes)
		return x->bytes > y->bytes ? -1 : 1;
	if (x->site != y->site)
		return x->site < y->site ? -1 : 1;
	return x->processes.items[0] < y->processes.items[0] ? -1 : 1;
}

/* Rows of one site with one verdict in processes that are replicates are one row. */
static bool joins(const struct model *m, const struct growth_row *to, const struct growth_row *row)
{
	return to->site == row->site && to->j.verdict == row->j.verdict &&
	       are_replicates(&m->processes[to->processes.items[0]],
			      &m->processes[row->processes.items[0]]);
}

static void make_rows(const struct model *m, const struct epochs *epochs, unit_list *units,
		      struct growth *g)
{
	for (size_t i = 0; i < units->count; i++) {
		struct growth_row row;
		size_t k = g->rows.count;

		row_init(m, epochs, &units->items[i], &row);
		while (k > 0 && g->rows.items[k - 1].site == row.site &&
		       !joins(m, &g->rows.items[k - 1], &row))
			k--;
		if (k > 0 && joins(m, &g->rows.items[k - 1], &row))
			row_join(&g->rows.items[k - 1], &row);
		else
			*vec_push(&g->rows) = row;
		vec_release(&units->items[i].uses);
	}
	if (g->rows.count)
		qsort(g->rows.items, g->rows.count, sizeof(*g->rows.items), by_rank);
}

/* ---- caches ---------------------------------------------------------------------------------- */

/* Of libraries that are found in many programs, by the beginning of their functions' names. */
static const struct {
	const char *function, *cache;
} caches[] = {
	{ "dnnl::impl::primitive_cache", "oneDNN's cache of primitives "
					 "(ONEDNN_PRIMITIVE_CACHE_CAPACITY, 1024 if not set)" },
	{ "ideep::utils::computation_cache", "PyTorch's cache of oneDNN primitive descriptors "
					     "(LRU_CACHE_CAPACITY, 1024 if not set)" },
	{ "dnnl::impl::pd_info_t", "oneDNN's cache of primitives "
				   "(ONEDNN_PRIMITIVE_CACHE_CAPACITY, 1024 if not set)" },
	{ "ideep::utils::lru_cache", "PyTorch's cache of oneDNN primitive descriptors "
				     "(LRU_CACHE_CAPACITY, 1024 if not set)" },
};

/* Libraries that hold such a cache beside much else: without names of functions it can't be ruled out. */
static const char *const with_caches[] = { "libtorch_cpu", "libdnnl", "libmkldnn" };

static const char *unnamed_cache(const struct stack *st)
{
	const struct symbol_frame *leaf = NULL;
	const char *file;

	/* Without names Python's frames stand in front of all native ones. */
	for (size_t i = 0; i < st->frames.count && !leaf; i++) {
		const struct symbol_frame *f = &st->frames.items[i].f;

		if (!f->is_python && f->module && !strstr(f->module, "/libstdc++"))
			leaf = f;
	}
	if (!leaf || leaf->raw)
		return NULL;
	file = strrchr(leaf->module, '/');
	for (size_t k = 0; file && k < sizeof(with_caches) / sizeof(with_caches[0]); k++)
		if (!strncmp(file + 1, with_caches[k], strlen(with_caches[k])))
			return "a library with caches of its own (oneDNN's of primitives among "
			       "them), and names of functions are not known here to tell";
	return NULL;
}

static const char *cache_of(const struct stack *st)
{
	for (size_t i = 0; i < st->frames.count; i++) {
		const char *f = st->frames.items[i].f.function;

		for (size_t k = 0; f && k < sizeof(caches) / sizeof(caches[0]); k++)
			if (strstr(f, caches[k].function))
				return caches[k].cache;
	}
	return unnamed_cache(st);
}

/* What is put into a cache that has a limit stays, but is not lost: it grows until the limit. */
static void name_caches(const struct model *m, struct symbolizer *symbols, struct growth *g)
{
	for (size_t i = 0; i < g->rows.count; i++) {
		struct growth_row *r = &g->rows.items[i];
		const struct site *s = &m->sites[r->site];
		struct stack st;

		if (r->j.verdict < VERDICT_GROWTH || r->bytes < CACHE_BYTES)
			continue;
		stack_merge(m, symbols, s->native, s->python, &st);
		r->cache = cache_of(&st);
		stack_release(&st);
		if (!r->cache)
			continue;
		r->j.verdict = VERDICT_GROWTH;
		r->j.reason = "it lies in a cache that has a limit of its own";
		r->j.run_longer_s = fmax(r->j.run_longer_s, r->last_s - r->first_s);
	}
	if (g->rows.count)
		qsort(g->rows.items, g->rows.count, sizeof(*g->rows.items), by_rank);
}

static double total_rate(const struct model *m, const struct growth *g)
{
	double rate = 0;

	for (size_t i = 0; i < g->rows.count; i++) {
		const struct growth_row *r = &g->rows.items[i];
		const struct process *p = &m->processes[r->processes.items[0]];

		if (r->j.verdict < VERDICT_GROWTH || r->wound_up)
			continue;
		if (m->duration - p->end <= m->duration / 10)
			rate += r->j.rate.value;
	}
	return rate;
}

struct growth *growth_new(const struct model *m, struct symbolizer *symbols)
{
	struct growth *g = xcalloc(1, sizeof(*g));
	struct epochs *epochs = epochs_new(m);
	unit_list units = VEC_INIT;

	judge_all(m, epochs, &units);
	g->tested = settle_all(&units);
	make_rows(m, epochs, &units, g);
	if (symbols)
		name_caches(m, symbols, g);
	g->rate = total_rate(m, g);
	vec_release(&units);
	epochs_free(epochs);
	return g;
}

void growth_free(struct growth *g)
{
	if (!g)
		return;
	for (size_t i = 0; i < g->rows.count; i++)
		vec_release(&g->rows.items[i].processes);
	vec_release(&g->rows);
	free(g);
}
