/*
 * Memory that one place allocated over and over, still did so near the process's end, and that was
 * never freed. This is a count, not a statistical verdict, and says so. What a process allocates
 * once, at its start or later, is not named: it is born in a short time, or had long come to an
 * end. CPython frees all it can when it ends: where its objects are recorded, what was alive when
 * that began counts as never freed, and that moment as the end.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "analysis/common.h"
#include "analysis/findings.h"
#include "util/hashmap.h"

#define MIN_BLOCKS 8
#define MIN_BYTES (64 * 1024) /* below: only if it is MIN_SHARE of all that is live then */
#define MIN_SHARE 0.01
#define MIN_KEPT 0.9 /* of the allocations made there */
#define LAST_PART                                                                                  \
	0.25 /* of the process's life: the last birth lies in it; winding up takes time            \
	      */
#define MIN_SPAN 0.08 /* of the process's life: from the first birth to the last */
#define MIN_SPAN_NS 200000000
#define MIN_DENSITY                                                                                \
	0.3 /* of an even spread over the span, in each quarter that it reaches into               \
	     */
#define MIN_REACH 0.2 /* of the span: a quarter that it only touches tells nothing */
#define CANDIDATES 500 /* stacks that are looked at, largest first */
#define SHOWN 10

struct candidate {
	const struct site_use *use;
	uint64_t blocks, bytes; /* of it that were never freed */
	char *place; /* groups uses of one place in all processes */
	size_t group;
};

struct group {
	uint64_t bytes, blocks, allocations, frees, quarter_blocks[4];
	uint64_t largest; /* bytes of the largest use */
	bool wound_up; /* alive when Python began to shut down, in some process */
	const struct site_use *use; /* that one */
	size_t first; /* candidate */
};

/* Winding up is no part of the life that growth is judged by. */
static int64_t end_of(const struct process *p)
{
	return p->shutdown ? p->shutdown : p->end;
}

static uint64_t blocks_of(const struct process *p, const struct site_use *u)
{
	return p->kept_known ? u->kept_count : u->live_count;
}

static uint64_t bytes_of(const struct process *p, const struct site_use *u)
{
	return p->kept_known ? u->kept_bytes : u->live_bytes;
}

/* What was held at the shutdown is not known; the most that was ever held is no less. */
static uint64_t held_at_end(const struct process *p)
{
	return p->kept_known ? p->peak_live_bytes : p->live_bytes + p->inherited_live_bytes;
}

static double overlap(double low, double high, double from, double to)
{
	low = low > from ? low : from;
	high = high < to ? high : to;
	return high > low ? high - low : 0;
}

/* Were the blocks born evenly enough between the first and the last? */
static bool is_spread(const struct process *p, const struct site_use *u)
{
	double life = (double)(end_of(p) - p->start);
	double first = (double)(u->first_live_birth - p->start);
	double last = (double)(u->last_live_birth - p->start);

	for (int i = 0; i < 4; i++) {
		double share = overlap(life * i / 4, life * (i + 1) / 4, first, last) /
			       (last - first);

		if (share >= MIN_REACH && (double)u->live_quarter_count[i] <
						  MIN_DENSITY * share * (double)blocks_of(p, u))
			return false;
	}
	return true;
}

static bool is_still_growing(const struct process *p, const struct site_use *u)
{
	double life = (double)(end_of(p) - p->start);
	double span = (double)(u->last_live_birth - u->first_live_birth);

	return span >= MIN_SPAN_NS && span >= MIN_SPAN * life &&
	       (double)(end_of(p) - u->last_live_birth) <= LAST_PART * life && is_spread(p, u);
}

/* A handful of sampled blocks tells nothing of when the others were born. */
static bool is_thin(const struct site_use *u)
{
	const struct sampled *s = u->sampled;
	double exact = s ? (double)u->live_count - s->live.count.sum : 0;

	return s && exact + (double)s->live.count.blocks < MIN_BLOCKS;
}

static bool is_suspect(const struct model *m, const bool *importing, const struct site_use *u)
{
	const struct process *p = &m->processes[u->process];
	const struct site *s = &m->sites[u->site];
	uint64_t blocks = blocks_of(p, u), bytes = bytes_of(p, u);

	/* Only of a process that was seen to its own end is it known that nobody frees it later. */
	if (m->traces[p->trace].stopped || is_thin(u) || p->end_kind != END_EXIT ||
	    m->window_to != INT64_MAX || s->backing ||
	    s->kind >= MT_KIND_DEVICE /* findings_gpu.c; tensors on the host are heap */ ||
	    importing[s->python])
		return false;
	return blocks >= MIN_BLOCKS && (double)blocks >= MIN_KEPT * (double)u->allocations &&
	       (bytes >= MIN_BYTES || (double)bytes >= MIN_SHARE * (double)held_at_end(p)) &&
	       is_still_growing(p, u);
}

static struct candidate candidate_of(const struct model *m, const struct site_use *u)
{
	const struct process *p = &m->processes[u->process];

	return (struct candidate){ .use = u, .blocks = blocks_of(p, u), .bytes = bytes_of(p, u) };
}

static int by_bytes(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;

	if (x->bytes != y->bytes)
		return x->bytes > y->bytes ? -1 : 1;
	return x->use < y->use ? -1 : x->use > y->use;
}

static void name_place(struct findings *all, struct candidate *c)
{
	const struct site *s = &all->in->m->sites[c->use->site];
	struct strbuf sb = STRBUF_INIT;
	struct stack st;

	stack_merge(all->in->m, all->in->symbols, s->native, s->python, &st);
	place_add(&sb, &st);
	stack_release(&st);
	c->place = strbuf_detach(&sb);
}

static void group_add(struct group *g, const struct candidate *c, bool wound_up)
{
	const struct site_use *u = c->use;

	g->bytes += c->bytes;
	g->blocks += c->blocks;
	g->allocations += u->allocations;
	if (!wound_up)
		g->frees += u->frees;
	else if (u->allocations > c->blocks) /* those before it */
		g->frees += u->allocations - c->blocks;
	g->wound_up |= wound_up;
	for (size_t i = 0; i < 4; i++)
		g->quarter_blocks[i] += u->live_quarter_count[i];
	if (c->bytes > g->largest) {
		g->largest = c->bytes;
		g->use = u;
	}
}

static enum severity severity_of(const struct model *m, const struct group *g)
{
	const struct process *p = &m->processes[g->use->process];

	if (g->bytes >= UINT64_C(1) << 30 || g->bytes > p->peak_live_bytes / 4)
		return g->bytes >= UINT64_C(16) << 20 ? SEVERITY_CRITICAL : SEVERITY_WARNING;
	return g->bytes >= UINT64_C(1) << 20 ? SEVERITY_WARNING : SEVERITY_INFO;
}

static void put_texts(struct finding *f, const struct model *m, const struct group *g,
		      const char *place)
{
	const struct site_use *u = g->use;
	const struct process *p = &m->processes[u->process];

	strbuf_addf(&f->title, "never freed: %llu blocks, ", (unsigned long long)g->blocks);
	size_add(&f->title, g->bytes);
	strbuf_addf(&f->title, ", from %s, in ", place);
	finding_processes_add(&f->title, m, f->processes.items, f->processes.count);
	strbuf_addf(&f->detail,
		    "Of %llu allocations made there %llu were never freed. They were "
		    "made between %.1f s and %.1f s",
		    (unsigned long long)g->allocations, (unsigned long long)g->blocks,
		    process_seconds(m, p, u->first_live_birth),
		    process_seconds(m, p, u->last_live_birth));
	strbuf_addf(&f->detail,
		    " of a process that ran from %.1f s to %.1f s. This is a count, not a "
		    "statistical verdict: a cache or list that is meant to be kept until "
		    "the end looks the same.",
		    process_seconds(m, p, p->start), process_seconds(m, p, p->end));
	if (g->wound_up)
		strbuf_addf(&f->detail,
			    " They were alive when Python began to shut down, at %.1f s; what it "
			    "frees from then on is not counted as freed.",
			    process_seconds(m, p, p->shutdown ? p->shutdown : p->end));
	strbuf_addstr(&f->advice,
		      "Look for who should give these blocks back: a missing free, or a "
		      "container that is only ever added to. Run twice as long: if the "
		      "bytes double, memory is lost or kept with every step.");
}

static void put_group(struct findings *all, const struct group *g, const struct candidate *list,
		      size_t count, size_t number)
{
	const struct model *m = all->in->m;
	struct finding *f = finding_new(all, "leak", severity_of(m, g));

	finding_bytes(f, g->bytes);
	f->site = g->use->site;
	finding_process(f, g->use->process);
	for (size_t i = 0; i < count; i++)
		if (list[i].group == number)
			finding_process(f, list[i].use->process);
	put_texts(f, m, g, list[g->first].place);
	finding_int(f, "blocks", g->blocks);
	finding_int(f, "allocations", g->allocations);
	finding_int(f, "frees", g->frees);
	finding_int(f, "born_in_first_quarter", g->quarter_blocks[0]);
	finding_int(f, "born_in_second_quarter", g->quarter_blocks[1]);
	finding_int(f, "born_in_third_quarter", g->quarter_blocks[2]);
	finding_int(f, "born_in_fourth_quarter", g->quarter_blocks[3]);
	finding_text(f, "method",
		     g->wound_up ? "count of blocks alive when Python began to shut down"
				 : "count of blocks alive at exit");
}

static int by_group_bytes(const void *a, const void *b)
{
	const struct group *x = *(const struct group *const *)a;
	const struct group *y = *(const struct group *const *)b;

	if (x->bytes != y->bytes)
		return x->bytes > y->bytes ? -1 : 1;
	return x->first < y->first ? -1 : x->first > y->first;
}

static void put_largest(struct findings *all, struct group *groups, size_t count,
			const struct candidate *list, size_t candidates)
{
	struct group **order = xcalloc(count, sizeof(struct group *));

	for (size_t i = 0; i < count; i++)
		order[i] = &groups[i];
	qsort(order, count, sizeof(struct group *), by_group_bytes);
	for (size_t i = 0; i < count && i < SHOWN; i++)
		put_group(all, order[i], list, candidates, (size_t)(order[i] - groups));
	free(order);
}

void find_never_freed(struct findings *all)
{
	const struct model *m = all->in->m;
	struct hashmap places = HASHMAP_INIT;
	VEC(struct candidate) list = VEC_INIT;
	VEC(struct group) groups = VEC_INIT;
	bool *importing = stack_importing(m);

	for (size_t i = 0; i < m->use_count; i++)
		if (is_suspect(m, importing, &m->uses[i]))
			*vec_push(&list) = candidate_of(m, &m->uses[i]);
	if (list.count)
		qsort(list.items, list.count, sizeof(*list.items), by_bytes);
	if (list.count > CANDIDATES)
		list.count = CANDIDATES;
	for (size_t i = 0; i < list.count; i++) {
		struct candidate *c = &list.items[i];
		uint64_t *slot;
		bool is_new;

		name_place(all, c);
		slot = hashmap_slot(&places, c->place, strlen(c->place), &is_new);
		if (is_new) {
			*slot = groups.count;
			vec_push(&groups)->first = i;
		}
		c->group = *slot;
		group_add(&groups.items[c->group], c, m->processes[c->use->process].kept_known);
	}
	put_largest(all, groups.items, groups.count, list.items, list.count);
	for (size_t i = 0; i < list.count; i++)
		free(list.items[i].place);
	free(importing);
	vec_release(&list);
	vec_release(&groups);
	hashmap_release(&places);
}
