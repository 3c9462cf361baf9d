/*
 * The section on each process.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "analysis/analysis.h"
#include "analysis/before.h"
#include "analysis/common.h"

static const char *const end_names[] = {
	[END_UNKNOWN] = "unknown", [END_EXIT] = "exit",	      [END_SIGNAL] = "signal",
	[END_EXEC] = "exec",	   [END_RUNNING] = "running",
};

static void put_worker(struct result *doc, struct rvalue *o, const struct process *p)
{
	struct rvalue *w;

	if (!p->worker.is && !p->worker.threads) {
		r_null(doc, o, "worker");
		return;
	}
	w = r_object(doc, o, "worker");
	r_string(doc, w, "loader", p->worker.loader);
	put_id(doc, w, "index", p->worker.index < 0 ? NO_ID : (uint32_t)p->worker.index);
	put_id(doc, w, "of",
	       p->worker.threads  ? p->worker.threads
	       : p->worker.of < 0 ? NO_ID
				  : (uint32_t)p->worker.of);
	r_string(doc, w, "start_method", p->worker.is ? p->worker.start_method : "thread");
}

void put_end_members(struct result *doc, struct rvalue *end, const struct process *p)
{
	r_string(doc, end, "kind", end_names[p->end_kind]);
	if (p->end_kind == END_EXIT || p->end_kind == END_SIGNAL)
		r_int(doc, end, "code", p->end_code);
	else
		r_null(doc, end, "code");
}

/* What was there when recording began in mid-run; null where it began with the process. */
static void put_before(struct result *doc, struct rvalue *o, const struct process *p)
{
	struct before b;
	struct rvalue *parts;

	if (!before_of(p, &b)) {
		r_null(doc, o, "predates_attach_bytes");
		return;
	}
	if (b.known)
		put_count(doc, o, "predates_attach_bytes", b.bytes);
	else
		r_null(doc, o, "predates_attach_bytes");
	parts = r_object(doc, o, "predates_attach");
	for (size_t i = 0; i < BEFORE_PARTS; i++)
		if (b.parts[i].known)
			put_count(doc, parts, b.parts[i].name, b.parts[i].bytes);
		else
			r_null(doc, parts, b.parts[i].name);
	put_count(doc, parts, "frees", p->unknown_frees);
}

/* What ending it would free, at its highest. */
static uint64_t peak_uss(const struct process *p)
{
	uint64_t most = 0, v;

	for (size_t i = 0; i < p->sample_count; i++)
		if (sample_value(p->samples[i].v.uss, &v) && v > most)
			most = v;
	return most;
}

static void put_memory(struct result *doc, struct rvalue *o, const struct model *m,
		       const struct process *p)
{
	const struct process_sampled *s = p->sampled;
	double count = s ? s->all.step_count : 0, bytes = s ? s->all.step_bytes : 0;

	put_estimate(doc, o, "allocations", p->allocations, ESTIMATE(s, all.taken.count), count);
	put_estimate(doc, o, "frees", p->frees, ESTIMATE(s, all.freed.count), count);
	put_estimate(doc, o, "bytes_allocated", p->bytes_allocated, ESTIMATE(s, all.taken.bytes),
		     bytes);
	put_kinds(doc, o, p->kinds, s);
	if (p->live_unknown) {
		r_null(doc, o, "live_at_end_bytes");
		r_null(doc, o, "live_at_end_count");
	} else {
		put_estimate(doc, o, "live_at_end_bytes", p->live_bytes,
			     ESTIMATE(s, all.live.bytes), bytes);
		put_estimate(doc, o, "live_at_end_count", p->live_count,
			     ESTIMATE(s, all.live.count), count);
	}
	put_peak(doc, o, "peak_live_bytes", p->peak_live_bytes, s ? &s->all : NULL);
	r_float(doc, o, "peak_live_s", process_seconds(m, p, p->peak_live_time));
	put_count(doc, o, "peak_error_bytes", p->peak_error_bytes);
	put_estimate(doc, o, "inherited_live_bytes", p->inherited_live_bytes,
		     ESTIMATE(s, inherited.bytes), bytes);
	put_estimate(doc, o, "inherited_live_count", p->inherited_live_count,
		     ESTIMATE(s, inherited.count), count);
	put_estimate(doc, o, "inherited_freed_bytes", p->inherited_freed_bytes,
		     ESTIMATE(s, inherited_freed.bytes), bytes);
	put_estimate(doc, o, "inherited_freed_count", p->inherited_freed_count,
		     ESTIMATE(s, inherited_freed.count), count);
	put_measured(doc, o, "peak_rss_bytes", p->peak_rss);
	put_measured(doc, o, "peak_pss_bytes", p->peak_pss);
	put_measured(doc, o, "peak_uss_bytes", peak_uss(p));
	put_before(doc, o, p);
	put_measured(doc, o, "peak_descriptors", p->most_descriptors);
	put_count(doc, o, "lost_events", p->lost_events);
	put_count(doc, o, "missed_frees", p->missed_frees);
}

void analyse_processes(struct analysis_input *in, struct result *doc)
{
	const struct model *m = in->m;
	struct rvalue *list = r_array(doc, result_root(doc), "processes");

	for (size_t i = 0; i < m->process_count; i++) {
		const struct process *p = &m->processes[i];
		struct rvalue *o = r_push_object(doc, list);

		r_int(doc, o, "id", p->id);
		r_string(doc, o, "host", m->traces[p->trace].host);
		r_int(doc, o, "pid", p->pid);
		r_int(doc, o, "ppid", p->ppid);
		put_id(doc, o, "parent", p->parent);
		r_int(doc, o, "generation", p->generation);
		r_string(doc, o, "command", p->command);
		r_string(doc, o, "role", p->role);
		put_id(doc, o, "rank", p->rank < 0 ? NO_ID : (uint32_t)p->rank);
		put_worker(doc, o, p);
		r_float(doc, o, "start_s", process_seconds(m, p, p->start));
		r_float(doc, o, "end_s", process_seconds(m, p, p->end));
		put_end_members(doc, r_object(doc, o, "end"), p);
		put_memory(doc, o, m, p);
	}
}
