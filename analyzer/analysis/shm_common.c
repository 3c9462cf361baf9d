/*
 * See shm.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "analysis/common.h"
#include "analysis/shm.h"

struct edge {
	int64_t time;
	uint64_t bytes;
	bool ends;
};

/* What ends at a time was there at it: beginnings come first. */
static int by_time(const void *a, const void *b)
{
	const struct edge *x = a, *y = b;

	if (x->time != y->time)
		return x->time < y->time ? -1 : 1;
	return (int)x->ends - (int)y->ends;
}

struct span_peak spans_peak(span_list *spans)
{
	struct edge *edges = xcalloc(spans->count * 2, sizeof(*edges));
	struct span_peak peak = { 0, 0, 0 };
	uint64_t bytes = 0;
	size_t count = 0;

	for (size_t i = 0; i < spans->count; i++) {
		const struct span *s = &spans->items[i];

		edges[2 * i] = (struct edge){ s->from, s->bytes, false };
		edges[2 * i + 1] = (struct edge){ s->to, s->bytes, true };
	}
	if (spans->count)
		qsort(edges, spans->count * 2, sizeof(*edges), by_time);
	for (size_t i = 0; i < spans->count * 2; i++) {
		if (!edges[i].ends) {
			bytes += edges[i].bytes;
			count++;
			continue;
		}
		if (bytes > peak.bytes || (bytes == peak.bytes && count >= peak.count))
			peak = (struct span_peak){ bytes, count, edges[i].time };
		bytes -= edges[i].bytes;
		count--;
	}
	free(edges);
	return peak;
}

int64_t shm_time(const struct model *m, const struct shm_object *o, int64_t ns)
{
	if (ns == INT64_MAX || ns == INT64_MIN)
		return ns;
	return (int64_t)((uint64_t)ns + (uint64_t)m->traces[o->trace].start_realtime_ns -
			 (uint64_t)first_start(m));
}

struct span_peak shm_peak(const struct model *m)
{
	span_list spans = VEC_INIT;
	struct span_peak peak;

	for (size_t i = 0; i < m->shm_count; i++) {
		const struct shm_object *o = &m->shm[i];

		*vec_push(&spans) = (struct span){ shm_time(m, o, o->start), shm_time(m, o, o->end),
						   o->bytes, (uint32_t)i };
	}
	peak = spans_peak(&spans);
	vec_release(&spans);
	return peak;
}

bool shm_maps_at(const struct shm_use *u, int64_t ns)
{
	return u->mapped_from <= ns && ns <= u->mapped_to;
}

int64_t shm_arrival(const struct model *m, const struct shm_object *o)
{
	int64_t first = INT64_MAX;

	for (uint32_t i = 0; i < o->use_count; i++) {
		const struct shm_use *u = &m->shm_uses[o->first_use + i];

		if (u->process != o->creator && u->mapped_from < first)
			first = u->mapped_from;
	}
	return first;
}

bool shm_is_made_for(const struct model *m, const struct shm_object *o, uint32_t process)
{
	uint32_t at = o->creator;

	if (at == NO_ID || at == process)
		return false;
	if (m->processes[at].worker.is)
		return m->processes[at].worker.owner == process;
	while (at != NO_ID && at != process)
		at = m->processes[at].parent;
	return at == process;
}
