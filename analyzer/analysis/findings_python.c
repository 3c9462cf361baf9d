/*
 * Growth of Python's own heap. In `frames` mode its small objects are not seen one by one, only the
 * arenas that CPython's allocator maps for them. Which line happens to run when an arena is full
 * says little about which line keeps the objects: lines are named as likely, never as the cause.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "analysis/common.h"
#include "analysis/findings.h"
#include "util/hashmap.h"

#define MIN_GROWTH (UINT64_C(2) << 20) /* from the first quarter to the last */
#define PARTS 4
#define LINES 5

/* Arenas of one process, from the first that was mapped when modules were no longer imported. */
struct arenas {
	int64_t start;
	uint64_t peak[PARTS]; /* most bytes held in each quarter of the time from start to end */
	int64_t first_peak, last_peak; /* when, in the first and the last quarter */
};

static bool is_arena(const struct model *m, const bool *importing, uint32_t site)
{
	const struct site *s = &m->sites[site];

	return site_is_python_arena(m, s) && s->python && !importing[s->python];
}

/* False: it never mapped an arena. */
static bool measure(const struct process *p, const bool *arena, struct arenas *a)
{
	int64_t held = 0, span;
	size_t i = 0, part = 0;

	memset(a, 0, sizeof(*a));
	while (i < p->backing_count && !arena[p->backing[i].site])
		i++;
	if (i == p->backing_count)
		return false;
	a->start = p->backing[i].time;
	span = p->end > a->start ? p->end - a->start : 0;
	for (; i < p->backing_count; i++) {
		const struct backing_event *e = &p->backing[i];

		if (!arena[e->site])
			continue;
		/* What is held when a quarter begins counts in it, too. */
		for (; part + 1 < PARTS && e->time - a->start > span / PARTS * ((int64_t)part + 1);
		     part++)
			a->peak[part + 1] = held > 0 ? (uint64_t)held : 0;
		held += e->delta;
		if (held <= 0 || (uint64_t)held <= a->peak[part])
			continue;
		a->peak[part] = (uint64_t)held;
		if (!part)
			a->first_peak = e->time;
		a->last_peak = e->time;
	}
	for (; part + 1 < PARTS; part++)
		a->peak[part + 1] = held > 0 ? (uint64_t)held : 0;
	return true;
}

/* Still growing in the second half: what is loaded once, at the start, is not growth. */
static bool grows(const struct arenas *a)
{
	return a->peak[3] > a->peak[2] && a->peak[2] > a->peak[1] &&
	       a->peak[3] >= a->peak[0] + MIN_GROWTH;
}

struct likely {
	char *place;
	uint64_t bytes;
};

typedef VEC(struct likely) likely_list;

static int by_bytes(const void *a, const void *b)
{
	const struct likely *x = a, *y = b;

	if (x->bytes != y->bytes)
		return x->bytes > y->bytes ? -1 : 1;
	return strcmp(x->place, y->place);
}

static char *place_of(struct findings *all, uint32_t site)
{
	const struct site *s = &all->in->m->sites[site];
	const struct stack_frame *f;
	struct strbuf sb = STRBUF_INIT;
	struct stack st;

	stack_merge(all->in->m, all->in->symbols, s->native, s->python, &st);
	f = stack_place(&st);
	if (f && f->f.is_python)
		stack_place_add(&sb, f);
	stack_release(&st);
	return strbuf_detach(&sb);
}

/* The lines that ran when arenas were mapped in the time of growth, by the bytes mapped. */
static void collect_lines(struct findings *all, const struct process *p, const struct arenas *a,
			  const bool *arena, likely_list *out)
{
	struct hashmap seen = HASHMAP_INIT;

	for (size_t i = 0; i < p->backing_count; i++) {
		const struct backing_event *e = &p->backing[i];
		uint64_t *slot;
		char *place;
		bool is_new;

		if (!arena[e->site] || e->delta <= 0 || e->time <= a->first_peak ||
		    e->time > a->last_peak)
			continue;
		place = place_of(all, e->site);
		slot = hashmap_slot(&seen, place, strlen(place), &is_new);
		if (!*place || !is_new) {
			if (*place)
				out->items[*slot].bytes += (uint64_t)e->delta;
			free(place);
			continue;
		}
		*slot = out->count;
		*vec_push(out) = (struct likely){ place, (uint64_t)e->delta };
	}
	hashmap_release(&seen);
	if (out->count)
		qsort(out->items, out->count, sizeof(*out->items), by_bytes);
}

static void put_lines(struct finding *f, likely_list *lines)
{
	struct strbuf sb = STRBUF_INIT;

	for (size_t i = 0; i < lines->count && i < LINES; i++) {
		strbuf_reset(&sb);
		strbuf_addf(&sb, "%s (", lines->items[i].place);
		size_add(&sb, lines->items[i].bytes);
		strbuf_addch(&sb, ')');
		finding_item(f, "likely_lines", sb.buf);
		strbuf_addf(&f->detail, "%s %s",
			    i ? ","
			      : " Likely lines, that ran when it asked for "
				"more (not proof):",
			    sb.buf);
	}
	if (lines->count)
		strbuf_addch(&f->detail, '.');
	strbuf_release(&sb);
}

static void put_growth(struct findings *all, const struct process *p, const struct arenas *a,
		       const bool *arena)
{
	static const char *const keys[PARTS] = { "most_held_in_first_quarter",
						 "most_held_in_second_quarter",
						 "most_held_in_third_quarter",
						 "most_held_in_last_quarter" };
	const struct model *m = all->in->m;
	uint64_t growth = a->peak[3] - a->peak[0];
	struct finding *f = finding_new(all, "growth",
					growth > p->peak_rss / 4 && p->peak_rss ? SEVERITY_WARNING
										: SEVERITY_INFO);
	likely_list lines = VEC_INIT;

	finding_bytes(f, growth);
	finding_process(f, p->id);
	strbuf_addstr(&f->title, "Python's heap grew by ");
	size_add(&f->title, growth);
	strbuf_addstr(&f->title, " in ");
	process_name_add(&f->title, p);
	strbuf_addstr(&f->detail,
		      "The arenas that Python keeps its small objects in, apart from those "
		      "of its imports, grew from ");
	size_add(&f->detail, a->peak[0]);
	strbuf_addf(&f->detail, " at %.1f s to ", process_seconds(m, p, a->first_peak));
	size_add(&f->detail, a->peak[3]);
	strbuf_addf(&f->detail, " at %.1f s.", process_seconds(m, p, a->last_peak));
	if (!p->kinds[MT_KIND_PYTHON].allocations) /* else the objects' own lines are known */
		collect_lines(all, p, a, arena, &lines);
	put_lines(f, &lines);
	strbuf_addstr(&f->advice, p->kinds[MT_KIND_PYTHON].allocations
					  ? "The objects are in this trace: the sites of the kind "
					    "python tell which lines keep them."
					  : "The objects themselves are not in this trace: record "
					    "once more with MEMTRACE_PYTHON=objects to see which "
					    "lines keep them.");
	for (size_t i = 0; i < PARTS; i++)
		finding_int(f, keys[i], a->peak[i]);
	for (size_t i = 0; i < lines.count; i++)
		free(lines.items[i].place);
	vec_release(&lines);
}

void find_python_growth(struct findings *all)
{
	const struct model *m = all->in->m;
	bool *arena = xcalloc(m->site_count, sizeof(*arena)), *importing = stack_importing(m);
	struct arenas a;

	for (uint32_t i = 0; i < m->site_count; i++)
		arena[i] = is_arena(m, importing, i);
	for (size_t i = 0; i < m->process_count; i++)
		if (measure(&m->processes[i], arena, &a) && grows(&a))
			put_growth(all, &m->processes[i], &a, arena);
	free(importing);
	free(arena);
}
