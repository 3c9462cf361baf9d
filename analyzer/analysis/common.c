/*
 * See common.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "analysis/common.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const kind_names[MT_KINDS] = {
	[MT_KIND_HEAP] = "heap",       [MT_KIND_MMAP] = "mmap",	    [MT_KIND_SHM] = "shm",
	[MT_KIND_PYTHON] = "python",   [MT_KIND_DEVICE] = "device", [MT_KIND_PINNED] = "pinned",
	[MT_KIND_MANAGED] = "managed", [MT_KIND_TENSOR] = "tensor",
};

double seconds(int64_t ns)
{
	return (double)ns / 1e9;
}

int64_t first_start(const struct model *m)
{
	int64_t first = INT64_MAX;

	for (size_t i = 0; i < m->trace_count; i++)
		if (m->traces[i].start_realtime_ns < first)
			first = m->traces[i].start_realtime_ns;
	return m->trace_count ? first : 0;
}

int64_t process_time(const struct model *m, const struct process *p, int64_t ns)
{
	/* Damaged clocks can be anywhere: wrap, don't overflow. */
	return (int64_t)((uint64_t)ns + (uint64_t)m->traces[p->trace].start_realtime_ns -
			 (uint64_t)first_start(m));
}

double process_seconds(const struct model *m, const struct process *p, int64_t ns)
{
	return seconds(process_time(m, p, ns));
}

void put_count(struct result *doc, struct rvalue *object, const char *key, uint64_t v)
{
	r_int(doc, object, key, v > INT64_MAX ? INT64_MAX : (int64_t)v);
}

static void put_interval(struct result *doc, struct rvalue *object, const char *key, uint64_t low,
			 uint64_t high)
{
	char name[64];

	snprintf(name, sizeof(name), "%s_low", key);
	put_count(doc, object, name, low);
	snprintf(name, sizeof(name), "%s_high", key);
	put_count(doc, object, name, high);
}

void put_estimate(struct result *doc, struct rvalue *object, const char *key, uint64_t v,
		  const struct estimate *e, double step)
{
	struct interval i;

	put_count(doc, object, key, v);
	if (!e)
		return;
	i = sampled_interval(v, e, step);
	put_interval(doc, object, key, i.low, i.high);
}

void put_peak(struct result *doc, struct rvalue *object, const char *key, uint64_t v,
	      const struct sampled *s)
{
	put_count(doc, object, key, v);
	if (s)
		put_interval(doc, object, key, s->peak_seen < v ? s->peak_seen : v,
			     sampled_interval(v, &s->peak.bytes, s->step_bytes).high);
}

void put_at_peak(struct result *doc, struct rvalue *object, uint64_t v, const struct sampled *s)
{
	if (s)
		r_null(doc, object, "at_peak_bytes");
	else
		put_count(doc, object, "at_peak_bytes", v);
}

void put_measured(struct result *doc, struct rvalue *object, const char *key, uint64_t v)
{
	if (v)
		put_count(doc, object, key, v);
	else
		r_null(doc, object, key);
}

void put_id(struct result *doc, struct rvalue *object, const char *key, uint32_t id)
{
	if (id == NO_ID)
		r_null(doc, object, key);
	else
		r_int(doc, object, key, id);
}

static void put_kind(struct result *doc, struct rvalue *o, const struct kind_totals *k,
		     const struct sampled *s)
{
	double count = s ? s->step_count : 0, bytes = s ? s->step_bytes : 0;

	put_estimate(doc, o, "allocations", k->allocations, ESTIMATE(s, taken.count), count);
	put_estimate(doc, o, "frees", k->frees, ESTIMATE(s, freed.count), count);
	put_estimate(doc, o, "bytes_allocated", k->bytes_allocated, ESTIMATE(s, taken.bytes),
		     bytes);
	put_estimate(doc, o, "live_bytes", k->live_bytes, ESTIMATE(s, live.bytes), bytes);
	put_estimate(doc, o, "live_count", k->live_count, ESTIMATE(s, live.count), count);
}

void put_kinds(struct result *doc, struct rvalue *object, const struct kind_totals *kinds,
	       const struct process_sampled *sampled)
{
	struct rvalue *all = r_object(doc, object, "by_kind");

	for (size_t i = 0; i < MT_KINDS; i++) {
		const struct kind_totals *k = &kinds[i];
		struct rvalue *o;

		if (!k->allocations && !k->frees && !k->live_bytes)
			continue;
		o = r_object(doc, all, kind_names[i]);
		put_kind(doc, o, k,
			 !sampled	       ? NULL
			 : i == MT_KIND_HEAP   ? &sampled->heap
			 : i == MT_KIND_PYTHON ? &sampled->python
					       : NULL);
	}
}

bool sample_value(uint64_t stored, uint64_t *value)
{
	*value = stored ? stored - 1 : 0;
	return stored != 0;
}

void process_name_add(struct strbuf *sb, const struct process *p)
{
	strbuf_addstr(sb, p->role);
	if (p->worker.is && p->worker.index >= 0)
		strbuf_addf(sb, " %d", p->worker.index);
	else if (!strcmp(p->role, "rank") && p->rank >= 0)
		strbuf_addf(sb, " %d", p->rank);
	strbuf_addf(sb, " (pid %u)", p->pid);
}

struct capacity capacity_of(const struct model *m)
{
	struct capacity c = { 0 };
	uint64_t cgroup = 0, usage = 0, physical = 0, v;

	for (size_t i = 0; i < m->process_count; i++) {
		const struct process *p = &m->processes[i];
		const char *total = process_fact(m, p, "memory_total");

		if (total)
			physical = strtoull(total, NULL, 10);
		for (size_t k = 0; k < p->sample_count; k++) {
			const struct mt_ev_sample *s = &p->samples[k].v;

			if (sample_value(s->cgroup_limit, &v) && v && (!cgroup || v < cgroup))
				cgroup = v;
			if (sample_value(s->cgroup_usage, &v) && v > usage)
				usage = v;
		}
	}
	if (cgroup && (!physical || cgroup < physical)) {
		c = (struct capacity){ cgroup, true, usage, usage != 0 };
	} else if (physical) {
		c = (struct capacity){ physical, false, m->tree_peak_pss, m->tree_peak_pss != 0 };
	}
	return c;
}
