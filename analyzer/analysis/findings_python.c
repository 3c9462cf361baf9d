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

#define MIN_GROWTH (UINT64_C(2) << 20) /* after the first quarter of the run up to the peak */
#define PARTS 4
#define MIN_RISES 2 /* of the last three quarters up to the peak */
#define LINES 5

struct arenas {
	uint64_t at[PARTS + 1]; /* bytes held at the end of each quarter of the time to the peak */
	uint64_t peak;
	int64_t peak_time, first_quarter;
};

static bool is_arena(const struct model *m, uint32_t site)
{
	const struct site *s = &m->sites[site];
	const struct native_node *leaf = &m->native[s->native];

	return s->backing && s->kind == MT_KIND_MMAP && s->native && leaf->module != NO_ID &&
	       stack_is_interpreter(m->modules[leaf->module].path);
}

static struct arenas measure(const struct process *p, const bool *arena)
{
	struct arenas a = { .peak_time = p->start };
	int64_t held = 0, span;

	for (size_t i = 0; i < p->backing_count; i++) {
		if (!arena[p->backing[i].site])
			continue;
		held += p->backing[i].delta;
		if (held > 0 && (uint64_t)held > a.peak) {
			a.peak = (uint64_t)held;
			a.peak_time = p->backing[i].time;
		}
	}
	span = a.peak_time - p->start;
	a.first_quarter = p->start + span / PARTS;
	held = 0;
	for (size_t i = 0, part = 1; i < p->backing_count && part <= PARTS; i++) {
		const struct backing_event *e = &p->backing[i];

		while (part <= PARTS && e->time > p->start + span / PARTS * (int64_t)part)
			a.at[part++] = held > 0 ? (uint64_t)held : 0;
		if (arena[e->site])
			held += e->delta;
	}
	a.at[PARTS] = a.peak;
	return a;
}

static bool grows(const struct arenas *a)
{
	unsigned int rises = 0;

	for (size_t i = 2; i <= PARTS; i++)
		rises += a->at[i] > a->at[i - 1];
	return rises >= MIN_RISES && a->peak >= a->at[1] + MIN_GROWTH;
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

		if (!arena[e->site] || e->delta <= 0 || e->time <= a->first_quarter ||
		    e->time > a->peak_time)
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
		strbuf_addf(&f->detail, "%s %s", i ? "," : " Likely lines, that ran when it asked for "
							   "more (not proof):", sb.buf);
	}
	if (lines->count)
		strbuf_addch(&f->detail, '.');
	strbuf_release(&sb);
}

static void put_growth(struct findings *all, const struct process *p, const struct arenas *a,
		       const bool *arena)
{
	const struct model *m = all->in->m;
	uint64_t growth = a->peak - a->at[1];
	struct finding *f = finding_new(all, "growth", growth > p->peak_rss / 4 && p->peak_rss ?
							       SEVERITY_WARNING : SEVERITY_INFO);
	likely_list lines = VEC_INIT;

	finding_bytes(f, growth);
	finding_process(f, p->id);
	strbuf_addstr(&f->title, "Python's heap grew by ");
	size_add(&f->title, growth);
	strbuf_addstr(&f->title, " in ");
	process_name_add(&f->title, p);
	strbuf_addf(&f->detail, "The arenas that Python keeps its small objects in grew from ");
	size_add(&f->detail, a->at[1]);
	strbuf_addf(&f->detail, " at %.1f s to ", process_seconds(m, p, a->first_quarter));
	size_add(&f->detail, a->peak);
	strbuf_addf(&f->detail, " at %.1f s.", process_seconds(m, p, a->peak_time));
	collect_lines(all, p, a, arena, &lines);
	put_lines(f, &lines);
	strbuf_addstr(&f->advice, "The objects themselves are not in this trace: record once more "
				  "with MEMTRACE_PYTHON=objects to see which lines keep them.");
	finding_int(f, "held_after_first_quarter", a->at[1]);
	finding_int(f, "held_after_second_quarter", a->at[2]);
	finding_int(f, "held_after_third_quarter", a->at[3]);
	finding_int(f, "held_at_peak", a->peak);
	for (size_t i = 0; i < lines.count; i++)
		free(lines.items[i].place);
	vec_release(&lines);
}

void find_python_growth(struct findings *all)
{
	const struct model *m = all->in->m;
	bool *arena = xcalloc(m->site_count, sizeof(*arena));

	for (uint32_t i = 0; i < m->site_count; i++)
		arena[i] = is_arena(m, i);
	for (size_t i = 0; i < m->process_count; i++) {
		struct arenas a = measure(&m->processes[i], arena);

		if (grows(&a))
			put_growth(all, &m->processes[i], &a, arena);
	}
	free(arena);
}
