/*
 * Places that lose memory or grow, by the verdicts of growth.c. Sites of one line and process are
 * one finding: a line that is reached in several ways is still one line to look at.
 *
 * In `frames` mode the interpreter's own blocks stand for containers whose content is not seen: they
 * are left to findings_python.c, unless they are so large that they are the content.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "analysis/common.h"
#include "analysis/findings.h"
#include "analysis/growth.h"
#include "util/hashmap.h"

#define MIN_BYTES (64 * 1024) /* below: only if it is MIN_SHARE of all that is live then */
#define MIN_SHARE 0.01
#define MIN_EACH (16 * 1024) /* in each of several processes: less is the same start in all */
#define WARN_BYTES (UINT64_C(1) << 20)
#define CRITICAL_BYTES (UINT64_C(16) << 20)
#define CONTAINER_BYTES (16 * 1024) /* mean size of an interpreter's block that is content */
#define CANDIDATES 500 /* rows that are looked at, largest first */
#define SHOWN 10

/* Rows of one place and verdict. */
struct group {
	char *place;
	enum verdict verdict;
	uint64_t bytes, allocations, frees;
	struct range rate;
	double confidence, first_s, last_s;
	bool wound_up;
	const struct growth_row *row; /* the largest */
	VEC(const struct growth_row *) rows;
};

typedef VEC(struct group) group_list;

static bool is_container(const struct model *m, const struct growth_row *r)
{
	const struct process *p = &m->processes[r->processes.items[0]];
	const struct site *s = &m->sites[r->site];
	const struct native_node *leaf = &m->native[s->native];

	if (p->kinds[MT_KIND_PYTHON].allocations || s->kind != MT_KIND_HEAP || !s->native ||
	    !s->python || leaf->module == NO_ID ||
	    !stack_is_interpreter(m->modules[leaf->module].path))
		return false;
	return s->bytes_allocated < CONTAINER_BYTES * s->allocations;
}

static uint64_t peak_of(const struct model *m, const struct growth_row *r)
{
	uint64_t peak = 0;

	for (size_t i = 0; i < r->processes.count; i++)
		peak += m->processes[r->processes.items[i]].peak_live_bytes;
	return peak;
}

static bool is_worth_it(const struct model *m, const struct growth_row *r)
{
	return r->j.verdict >= VERDICT_GROWTH && !m->sites[r->site].backing &&
	       m->sites[r->site].kind < MT_KIND_DEVICE /* findings_gpu.c; tensors are heap, too */
	       && (r->processes.count < 2 || r->bytes >= MIN_EACH * r->processes.count) &&
	       (r->bytes >= MIN_BYTES || (double)r->bytes >= MIN_SHARE * (double)peak_of(m, r)) &&
	       !is_container(m, r);
}

/* line: only of the line, however it was reached and whatever it called. */
static char *place_of(struct findings *all, uint32_t site, bool line)
{
	const struct site *s = &all->in->m->sites[site];
	struct strbuf sb = STRBUF_INIT;
	const struct stack_frame *f;
	struct stack st;

	stack_merge(all->in->m, all->in->symbols, s->native, s->python, &st);
	f = stack_place(&st);
	if (line && f && f->f.line)
		stack_place_add(&sb, f);
	else
		place_add(&sb, &st);
	stack_release(&st);
	return strbuf_detach(&sb);
}

static void group_add(struct group *g, const struct growth_row *r)
{
	if (!g->rows.count || r->first_s < g->first_s)
		g->first_s = r->first_s;
	if (!g->rows.count || r->last_s > g->last_s)
		g->last_s = r->last_s;
	if (!g->rows.count || r->j.confidence > g->confidence)
		g->confidence = r->j.confidence;
	if (!g->rows.count || r->bytes > g->row->bytes)
		g->row = r;
	g->bytes += r->bytes;
	g->allocations += r->allocations;
	g->frees += r->frees;
	g->rate.value += r->j.rate.value;
	g->rate.low += r->j.rate.low;
	g->rate.high += r->j.rate.high;
	g->wound_up |= r->wound_up;
	*vec_push(&g->rows) = r;
}

static void collect(struct findings *all, group_list *groups)
{
	const struct growth *growth = all->in->growth;
	struct hashmap places = HASHMAP_INIT;
	struct strbuf key = STRBUF_INIT;
	size_t looked = 0;

	for (size_t i = 0; i < growth->rows.count && looked < CANDIDATES; i++) {
		const struct growth_row *r = &growth->rows.items[i];
		uint64_t *slot;
		char *place;
		bool is_new;

		if (!is_worth_it(all->in->m, r))
			continue;
		looked++;
		place = place_of(all, r->site, true);
		strbuf_reset(&key);
		strbuf_addf(&key, "%d %s", (int)r->j.verdict, place);
		slot = hashmap_slot(&places, key.buf, key.len, &is_new);
		if (is_new) {
			*slot = groups->count;
			*vec_push(groups) = (struct group){ .place = place,
							    .verdict = r->j.verdict };
		} else {
			free(place);
		}
		group_add(&groups->items[*slot], r);
	}
	hashmap_release(&places);
	strbuf_release(&key);
}

/* ---- what is said ---------------------------------------------------------------------------- */

static enum severity severity_of(const struct model *m, const struct group *g)
{
	uint64_t peak = peak_of(m, g->row);

	if (g->verdict == VERDICT_LEAK && (g->bytes >= UINT64_C(1) << 30 || g->bytes > peak / 4))
		return g->bytes >= CRITICAL_BYTES ? SEVERITY_CRITICAL : SEVERITY_WARNING;
	return g->bytes >= WARN_BYTES && !g->row->cache ? SEVERITY_WARNING : SEVERITY_INFO;
}

static void rate_add(struct strbuf *sb, struct range r, double per_s, const char *unit)
{
	size_add(sb, (uint64_t)(r.value / per_s));
	strbuf_addf(sb, " a %s (", unit);
	size_add(sb, (uint64_t)(r.low > 0 ? r.low / per_s : 0));
	strbuf_addstr(sb, " to ");
	size_add(sb, (uint64_t)(r.high / per_s));
	strbuf_addch(sb, ')');
}

static void put_rates(struct strbuf *sb, const struct group *g)
{
	strbuf_addstr(sb, " It takes ");
	rate_add(sb, g->rate, 1, "second");
	if (g->row->steps_per_s > 0) {
		strbuf_addstr(sb, ", ");
		rate_add(sb, g->rate, g->row->steps_per_s, "step");
	}
	if (g->row->epochs_per_s > 0) {
		strbuf_addstr(sb, ", ");
		rate_add(sb, g->rate, g->row->epochs_per_s, "epoch");
	}
	strbuf_addch(sb, '.');
}

static void put_leak_texts(struct finding *f, const struct group *g)
{
	const struct judgement *j = &g->row->j;

	strbuf_addf(
		&f->detail,
		"Of the %llu allocations made there between %.1f s and %.1f s the same share of "
		"every part of the run stayed: %.0f blocks in %zu of %zu windows of time, of "
		"which %.0f that came to the age of %.1f s %.0f died later. A cache or a "
		"warm-up does not look like that (confidence %.4f).",
		(unsigned long long)g->allocations, g->first_s, g->last_s, j->survivors,
		j->occupied, j->windows, j->reached_guard, j->guard_s, j->died_after_guard,
		g->confidence);
	put_rates(&f->detail, g);
	if (g->wound_up)
		strbuf_addstr(&f->detail, " It was given back only when the program wound up.");
	strbuf_addstr(&f->advice,
		      g->frees * 10 < g->allocations
			      ? "Nobody gives these blocks back while the program works: look for "
				"a missing free, or for a list, dict or cache that is only ever "
				"added to, and bound it."
			      : "Most blocks of this line are freed, some never are: look for the "
				"path that forgets (an error, an early return, a callback that "
				"stays registered).");
}

static void put_cache_texts(struct finding *f, const struct group *g)
{
	strbuf_addf(
		&f->detail,
		"It lies in %s. Such a cache has a limit and is no leak, but until it is full it "
		"grows with every new shape or kind that is asked for.",
		g->row->cache);
	put_rates(&f->detail, g);
	strbuf_addstr(&f->advice, "Use fewer different shapes (pad to a few sizes), or lower the "
				  "cache's limit.");
}

static void put_growth_texts(struct finding *f, const struct group *g)
{
	if (g->row->cache) {
		put_cache_texts(f, g);
		return;
	}
	strbuf_addf(&f->detail,
		    "What this line holds rose in the first and in the second half of its time, "
		    "%.1f s to %.1f s, but not by a constant share of its allocations (%s): a "
		    "container that is resized, or objects that live long.",
		    g->first_s, g->last_s, g->row->j.reason ? g->row->j.reason : "");
	put_rates(&f->detail, g);
	strbuf_addstr(&f->advice, "See whether it levels off in a longer run; if it is a list or "
				  "buffer that is only ever added to, bound it.");
}

static void put_evidence(struct finding *f, const struct group *g)
{
	const struct judgement *j = &g->row->j;

	finding_int(f, "allocations", g->allocations);
	finding_int(f, "frees", g->frees);
	finding_float(f, "confidence", g->confidence);
	finding_float(f, "bytes_per_s", g->rate.value);
	finding_float(f, "bytes_per_s_low", g->rate.low);
	finding_float(f, "bytes_per_s_high", g->rate.high);
	finding_int(f, "survivors_looked_at", (uint64_t)j->survivors);
	finding_int(f, "windows", j->windows);
	finding_int(f, "windows_with_survivors", j->occupied);
	finding_int(f, "stacks", g->rows.count);
	finding_text(f, "method",
		     g->verdict == VERDICT_LEAK ? "survivor cohorts" : "level over time");
}

static void put_group(struct findings *all, const struct group *g)
{
	const struct model *m = all->in->m;
	struct finding *f = finding_new(all, verdict_names[g->verdict], severity_of(m, g));

	char *place = place_of(all, g->row->site, false);

	finding_bytes(f, g->bytes);
	f->site = g->row->site;
	for (size_t i = 0; i < g->row->processes.count; i++)
		finding_process(f, g->row->processes.items[i]);
	for (size_t i = 0; i < g->rows.count; i++)
		for (size_t k = 0; k < g->rows.items[i]->processes.count; k++)
			finding_process(f, g->rows.items[i]->processes.items[k]);
	size_add(&f->title, g->bytes);
	strbuf_addf(&f->title, " %s %s, in ",
		    g->verdict == VERDICT_LEAK ? "lost at" : "more held by", place);
	free(place);
	finding_processes_add(&f->title, m, f->processes.items, f->processes.count);
	if (g->verdict == VERDICT_LEAK)
		put_leak_texts(f, g);
	else
		put_growth_texts(f, g);
	put_evidence(f, g);
}

static int by_bytes(const void *a, const void *b)
{
	const struct group *x = a, *y = b;

	if (x->bytes != y->bytes)
		return x->bytes > y->bytes ? -1 : 1;
	return strcmp(x->place, y->place);
}

void find_leaks(struct findings *all)
{
	group_list groups = VEC_INIT;

	collect(all, &groups);
	if (groups.count)
		qsort(groups.items, groups.count, sizeof(*groups.items), by_bytes);
	for (size_t i = 0; i < groups.count; i++) {
		if (i < SHOWN)
			put_group(all, &groups.items[i]);
		free(groups.items[i].place);
		vec_release(&groups.items[i].rows);
	}
	vec_release(&groups);
}
