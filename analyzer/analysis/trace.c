/*
 * The sections on the run as a whole: trace, tree, capacity, marks.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "analysis/analysis.h"
#include "analysis/before.h"
#include "analysis/common.h"
#include "analysis/growth.h"

/* ---- trace
 * --------------------------------------------------------------------------------------- */

static void put_start(struct result *doc, struct rvalue *o, const struct model *m)
{
	int64_t first = first_start(m);
	char text[64];
	struct tm tm;
	time_t when;
	size_t n;

	when = (time_t)(first / 1000000000);
	if (first <= 0 || !gmtime_r(&when, &tm)) {
		r_null(doc, o, "start");
		return;
	}
	n = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text + n, sizeof(text) - n, ".%03dZ", (int)(first % 1000000000 / 1000000));
	r_string(doc, o, "start", text);
}

/* Hosts of all traces, each once, separated by ", ". */
static void put_host(struct result *doc, struct rvalue *o, const struct model *m)
{
	struct strbuf hosts = STRBUF_INIT;

	for (size_t i = 0; i < m->trace_count; i++) {
		bool seen = !m->traces[i].host;

		for (size_t k = 0; k < i && !seen; k++)
			seen = m->traces[k].host && !strcmp(m->traces[k].host, m->traces[i].host);
		if (!seen)
			strbuf_addf(&hosts, "%s%s", hosts.len ? ", " : "", m->traces[i].host);
	}
	r_string(doc, o, "host", hosts.len ? hosts.buf : NULL);
	strbuf_release(&hosts);
}

struct totals {
	uint64_t allocations, frees, bytes, trace_bytes, peak_error;
	struct kind_totals kinds[MT_KINDS];
	struct process_sampled sampled;
	bool is_sampled;
	bool complete, recovered, running;
};

static void add_sampled(struct totals *t, const struct process_sampled *s)
{
	t->is_sampled = true;
	sampled_sum(&t->sampled.all, &s->all);
	sampled_sum(&t->sampled.heap, &s->heap);
	sampled_sum(&t->sampled.python, &s->python);
}

static struct totals totals_of(const struct model *m)
{
	struct totals t = { .complete = true };

	for (size_t i = 0; i < m->process_count; i++) {
		const struct process *p = &m->processes[i];

		t.allocations += p->allocations;
		t.frees += p->frees;
		t.bytes += p->bytes_allocated;
		if (p->peak_error_bytes > t.peak_error)
			t.peak_error = p->peak_error_bytes;
		if (p->sampled)
			add_sampled(&t, p->sampled);
		for (size_t k = 0; k < MT_KINDS; k++) {
			t.kinds[k].allocations += p->kinds[k].allocations;
			t.kinds[k].frees += p->kinds[k].frees;
			t.kinds[k].bytes_allocated += p->kinds[k].bytes_allocated;
			t.kinds[k].live_bytes += p->kinds[k].live_bytes;
			t.kinds[k].live_count += p->kinds[k].live_count;
		}
	}
	for (size_t i = 0; i < m->trace_count; i++) {
		t.trace_bytes += m->traces[i].bytes;
		t.complete &= m->traces[i].complete;
		t.recovered |= m->traces[i].recovered;
		t.running |= m->traces[i].running;
	}
	return t;
}

/* Of processes whose recording began in mid-run; null: there is none. */
static void put_older(struct result *doc, struct rvalue *o, const struct model *m)
{
	uint64_t bytes = 0;
	bool late = false, known = true;
	struct before b;

	for (size_t i = 0; i < m->process_count; i++)
		if (before_of(&m->processes[i], &b)) {
			late = true;
			known &= b.known;
			bytes += b.bytes;
		}
	if (late && known)
		put_count(doc, o, "predates_attach_bytes", bytes);
	else
		r_null(doc, o, "predates_attach_bytes");
	r_bool(doc, o, "began_late", late);
	put_count(doc, o, "predating_frees", m->older_frees);
}

void analyse_trace(struct analysis_input *in, struct result *doc)
{
	const struct model *m = in->m;
	const struct trace_info *first = m->trace_count ? &m->traces[0] : NULL;
	struct rvalue *o = r_object(doc, result_root(doc), "trace"), *files;
	struct totals t = totals_of(m);
	const struct sampled *s = t.is_sampled ? &t.sampled.all : NULL;

	files = r_array(doc, o, "files");
	for (size_t i = 0; i < m->trace_count; i++)
		r_push_string(doc, files, m->traces[i].path);
	put_host(doc, o, m);
	put_start(doc, o, m);
	r_float(doc, o, "duration_s", seconds(m->duration));
	r_string(doc, o, "mode", first && first->mode[0] ? first->mode : NULL);
	r_string(doc, o, "events_mode", first && first->events[0] ? first->events : NULL);
	put_measured(doc, o, "sample_bytes", first ? first->sample_bytes : 0);
	put_count(doc, o, "events", m->events);
	put_estimate(doc, o, "allocations", t.allocations, ESTIMATE(s, taken.count),
		     t.sampled.all.step_count);
	put_estimate(doc, o, "frees", t.frees, ESTIMATE(s, freed.count), t.sampled.all.step_count);
	put_estimate(doc, o, "bytes_allocated", t.bytes, ESTIMATE(s, taken.bytes),
		     t.sampled.all.step_bytes);
	put_kinds(doc, o, t.kinds, t.is_sampled ? &t.sampled : NULL);
	put_count(doc, o, "trace_bytes", t.trace_bytes);
	/* What the trace does not say how it kept, it may have kept in a way nobody knows. */
	if (first && first->events[0] && !t.is_sampled)
		put_count(doc, o, "peak_error_bytes", t.peak_error);
	else
		r_null(doc, o, "peak_error_bytes");
	r_bool(doc, o, "complete", t.complete);
	put_count(doc, o, "lost_events", m->lost_events);
	put_count(doc, o, "missed_frees", m->missed_frees);
	put_count(doc, o, "unknown_frees", m->unknown_frees);
	put_older(doc, o, m);
	r_bool(doc, o, "recovered", t.recovered);
	r_bool(doc, o, "running", t.running);
	in->notes = r_array(doc, o, "notes"); /* those on symbols come when all are looked up */
	for (size_t i = 0; i < m->note_count; i++)
		r_push_string(doc, in->notes, m->notes[i]);
}

/* ---- tree and capacity
 * ----------------------------------------------------------------------------- */

void analyse_tree(struct analysis_input *in, struct result *doc)
{
	const struct model *m = in->m;
	struct rvalue *o = r_object(doc, result_root(doc), "tree");

	put_measured(doc, o, "peak_pss_bytes", m->tree_peak_pss);
	if (m->tree_peak_pss)
		r_float(doc, o, "peak_s", seconds(m->tree_peak_time));
	else
		r_null(doc, o, "peak_s");
	put_count(doc, o, "processes", m->process_count);
}

void analyse_capacity(struct analysis_input *in, struct result *doc)
{
	struct rvalue *o = r_object(doc, result_root(doc), "capacity");
	struct capacity c = capacity_of(in->m);

	put_measured(doc, o, "limit_bytes", c.limit);
	r_string(doc, o, "limit_from", !c.limit ? NULL : c.is_cgroup ? "cgroup" : "physical");
	put_measured(doc, o, "peak_bytes", c.peak);
	if (c.limit && c.has_peak)
		r_float(doc, o, "peak_share", (double)c.peak / (double)c.limit);
	else
		r_null(doc, o, "peak_share");
	if (in->growth->rate > 0 && c.limit > c.peak && c.has_peak)
		r_float(doc, o, "exhausted_in_s", (double)(c.limit - c.peak) / in->growth->rate);
	else
		r_null(doc, o, "exhausted_in_s");
}

/* ---- marks
 * ----------------------------------------------------------------------------------------- */

void analyse_marks(struct analysis_input *in, struct result *doc)
{
	static const char *const names[] = {
		[MT_MARK_MARK] = "mark",   [MT_MARK_PHASE] = "phase",	[MT_MARK_STEP] = "step",
		[MT_MARK_PAUSE] = "pause", [MT_MARK_RESUME] = "resume",
	};
	const struct model *m = in->m;
	struct rvalue *list = r_array(doc, result_root(doc), "marks");

	for (size_t i = 0; i < m->mark_count; i++) {
		const struct mark *k = &m->marks[i];
		struct rvalue *o = r_push_object(doc, list);
		const char *name = k->kind < sizeof(names) / sizeof(names[0]) ? names[k->kind]
									      : NULL;

		r_float(doc, o, "t",
			k->process == NO_ID
				? seconds(k->time)
				: process_seconds(m, &m->processes[k->process], k->time));
		r_string(doc, o, "label", k->label && *k->label ? k->label : name);
		put_id(doc, o, "proc", k->process);
		r_string(doc, o, "kind", name);
		if (k->kind == MT_MARK_STEP)
			put_count(doc, o, "step", k->value);
	}
}
