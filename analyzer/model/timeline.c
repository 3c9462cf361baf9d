/*
 * What was measured over time: samples go to the process they are of (a relative may have taken
 * them), peaks are found, marks put in order.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "model/internal.h"

bool in_window(const struct builder *b, int64_t time)
{
	return !(b->options.has_from && time < b->options.from) &&
	       !(b->options.has_to && time > b->options.to);
}

static int by_time(const void *a, const void *b)
{
	const struct build_sample *x = a, *y = b;

	return x->s.time < y->s.time ? -1 : x->s.time > y->s.time;
}

/* Samples that a process took of another one. */
static void hand_over(struct builder *b, struct proc *p)
{
	size_t kept = 0;

	for (size_t i = 0; i < p->samples.count; i++) {
		struct build_sample s = p->samples.items[i];
		uint32_t of = s.pid ? tree_holder(b, p->trace, s.pid, s.s.time) : p->id;

		if (of == p->id) {
			p->samples.items[kept++] = s;
		} else if (of != NO_ID) {
			s.pid = 0;
			*vec_push(&b->procs.items[of].samples) = s;
		}
	}
	p->samples.count = kept;
}

static void finish_samples(struct builder *b, struct proc *p, struct process *out)
{
	if (p->samples.count)
		qsort(p->samples.items, p->samples.count, sizeof(*p->samples.items), by_time);
	for (size_t i = 0; i < p->samples.count; i++) {
		const struct sample *s = &p->samples.items[i].s;

		if (s->time > out->end)
			out->end = s->time;
		if (!in_window(b, s->time))
			continue;
		if (s->v.rss > out->peak_rss + 1)
			out->peak_rss = s->v.rss - 1;
		if (s->v.pss > out->peak_pss + 1)
			out->peak_pss = s->v.pss - 1;
		out->samples = vec_room(out->samples, &p->samples_room, out->sample_count + 1,
					sizeof(*out->samples));
		out->samples[out->sample_count++] = *s;
	}
}

void timeline_samples(struct builder *b)
{
	for (size_t i = 0; i < b->procs.count; i++)
		hand_over(b, &b->procs.items[i]);
	for (size_t i = 0; i < b->procs.count; i++)
		finish_samples(b, &b->procs.items[i], &b->processes.items[i]);
}

/* ---- what a process counts with in the tree --------------------------------------------------- */

/* As long before its first sample a process counts with what that says. */
#define KNOWN_BEFORE_NS INT64_C(2000000000)

static int64_t first_known(const struct process *p, int64_t sampled)
{
	int64_t back = sampled > INT64_MIN + KNOWN_BEFORE_NS ? sampled - KNOWN_BEFORE_NS : sampled;

	return p->start > back && p->start < sampled ? p->start : back;
}

static int by_value(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return x < y ? -1 : x > y;
}

/* The first of the sorted times that is later. */
static int64_t next_after(const int64_t *times, size_t count, int64_t time)
{
	size_t low = 0, high = count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (times[mid] > time)
			high = mid;
		else
			low = mid + 1;
	}
	return low < count ? times[low] : INT64_MAX;
}

/*
 * PSS adds up only if all are read at one moment, and they are not: a parent of 10 GiB that forks
 * four workers was read before that, each worker after it, and the sum of what was read last would
 * be 23 GiB. So a value holds until a process comes or goes, and from there on the next one does, if
 * it is smaller.
 */
static void pss_fill(struct process *p, const int64_t *changes, size_t count)
{
	VEC(struct pss_point) points = VEC_INIT;
	int64_t last = 0;

	for (size_t i = 0; i < p->sample_count; i++) {
		int64_t time = p->samples[i].time, change;
		uint64_t pss = p->samples[i].v.pss - 1;

		if (!p->samples[i].v.pss)
			continue;
		if (!points.count) {
			*vec_push(&points) = (struct pss_point){ first_known(p, time), pss };
		} else {
			change = next_after(changes, count, last);
			if (change < time && pss < points.items[points.count - 1].bytes)
				*vec_push(&points) = (struct pss_point){ change, pss };
			*vec_push(&points) = (struct pss_point){ time, pss };
		}
		last = time;
	}
	p->pss = points.items;
	p->pss_count = points.count;
}

static void pss_fill_all(struct builder *b)
{
	VEC(int64_t) changes = VEC_INIT;

	for (uint32_t t = 0; t < b->traces.count; t++) {
		changes.count = 0;
		for (size_t i = 0; i < b->processes.count; i++) {
			const struct process *p = &b->processes.items[i];

			if (p->trace != t || b->procs.items[i].ev.reason == MT_PROCESS_WATCHER)
				continue;
			if (p->reason == MT_PROCESS_FORK)
				*vec_push(&changes) = p->start;
			*vec_push(&changes) = p->end;
		}
		if (changes.count)
			qsort(changes.items, changes.count, sizeof(*changes.items), by_value);
		for (size_t i = 0; i < b->processes.count; i++)
			if (b->processes.items[i].trace == t && !b->procs.items[i].dropped)
				pss_fill(&b->processes.items[i], changes.items, changes.count);
	}
	vec_release(&changes);
}

/* ---- the tree's peak ------------------------------------------------------------------------- */

struct change {
	int64_t time; /* since the first trace's start */
	uint32_t process;
	bool gone; /* the process has ended */
	uint64_t pss;
};

/* At one time the gone come last: a process counts up to and with its end. */
static int by_change(const void *a, const void *b)
{
	const struct change *x = a, *y = b;

	if (x->time != y->time)
		return x->time < y->time ? -1 : 1;
	return (int)x->gone - (int)y->gone;
}

void timeline_tree_peak(struct builder *b)
{
	VEC(struct change) changes = VEC_INIT;
	uint64_t *held = xcalloc(b->processes.count, sizeof(*held)), total = 0;
	int64_t first = INT64_MAX;

	pss_fill_all(b);
	for (size_t i = 0; i < b->traces.count; i++)
		if (b->traces.items[i].start_realtime_ns < first)
			first = b->traces.items[i].start_realtime_ns;
	for (size_t i = 0; i < b->processes.count; i++) {
		const struct process *p = &b->processes.items[i];
		/* Damaged clocks can be anywhere: wrap, don't overflow. */
		uint64_t shift = (uint64_t)b->traces.items[p->trace].start_realtime_ns -
				 (uint64_t)first;

		if (b->procs.items[i].dropped)
			continue;
		for (size_t k = 0; k < p->pss_count; k++)
			*vec_push(&changes) =
				(struct change){ (int64_t)((uint64_t)p->pss[k].time + shift), p->id,
						 false, p->pss[k].bytes };
		*vec_push(&changes) = (struct change){ (int64_t)((uint64_t)p->end + shift), p->id,
						       true, 0 };
	}
	if (changes.count)
		qsort(changes.items, changes.count, sizeof(*changes.items), by_change);
	for (size_t i = 0; i < changes.count; i++) {
		const struct change *c = &changes.items[i];

		total += c->pss - held[c->process];
		held[c->process] = c->pss;
		if (total > b->m->tree_peak_pss) {
			b->m->tree_peak_pss = total;
			b->m->tree_peak_time = c->time;
		}
	}
	vec_release(&changes);
	free(held);
}

/* ---- marks ----------------------------------------------------------------------------------- */

static int by_mark(const void *a, const void *b)
{
	const struct mark *x = a, *y = b;

	if (x->time != y->time)
		return x->time < y->time ? -1 : 1;
	return x->process < y->process ? -1 : x->process > y->process;
}

void timeline_marks(struct builder *b)
{
	size_t kept = 0;

	for (size_t i = 0; i < b->marks.count; i++) {
		struct mark *m = &b->marks.items[i];

		if (b->procs.items[m->process].dropped || !in_window(b, m->time))
			free(m->label);
		else
			b->marks.items[kept++] = *m;
	}
	b->marks.count = kept;
	if (kept)
		qsort(b->marks.items, kept, sizeof(*b->marks.items), by_mark);
}
