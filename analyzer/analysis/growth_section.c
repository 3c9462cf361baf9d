/*
 * The section on what grows and what is lost: one verdict for each site and group of like
 * processes, with what it rests on.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <math.h>

#include "analysis/common.h"
#include "analysis/growth.h"

#define MIN_BYTES 1024 /* of a leak or growth */
#define MIN_KEPT (64 * 1024) /* of the rest: they are many and say little */
#define MIN_ROWS 100
#define MAX_ROWS 1000

static void put_rate(struct result *doc, struct rvalue *o, const char *key, struct range r,
		     double per_s)
{
	struct rvalue *v;

	if (per_s <= 0) {
		r_null(doc, o, key);
		return;
	}
	v = r_object(doc, o, key);
	r_float(doc, v, "value", r.value / per_s);
	r_float(doc, v, "low", r.low / per_s);
	r_float(doc, v, "high", r.high / per_s);
}

static void put_time(struct result *doc, struct rvalue *o, const char *key, double s)
{
	if (s < 0)
		r_null(doc, o, key);
	else
		r_float(doc, o, key, s);
}

static void put_evidence(struct result *doc, struct rvalue *o, const struct growth_row *r)
{
	struct rvalue *e = r_object(doc, o, "evidence");
	const struct judgement *j = &r->j;

	put_count(doc, e, "allocations", r->allocations);
	put_count(doc, e, "frees", r->frees);
	r_float(doc, e, "first_s", r->first_s);
	r_float(doc, e, "last_s", r->last_s);
	put_time(doc, e, "lifetime_p50_s", r->lifetime_p50_s);
	put_time(doc, e, "lifetime_p99_s", r->lifetime_p99_s);
	r_bool(doc, e, "judged_together", r->pooled);
	r_bool(doc, e, "freed_at_the_end", r->wound_up);
	r_string(doc, e, "why_no_leak", j->verdict == VERDICT_LEAK ? NULL : j->reason);
	r_string(doc, e, "cache", r->cache);
	if (!j->windows)
		return;
	put_time(doc, e, "guard_s", j->guard_s);
	r_int(doc, e, "windows", (int64_t)j->windows);
	r_int(doc, e, "windows_with_survivors", (int64_t)j->occupied);
	r_float(doc, e, "survivors", j->survivors);
	r_float(doc, e, "survivors_early", j->early);
	r_float(doc, e, "survivors_late", j->late);
	r_float(doc, e, "reached_guard_age", j->reached_guard);
	r_float(doc, e, "died_after_guard_age", j->died_after_guard);
	r_float(doc, e, "dispersion", j->dispersion);
	r_float(doc, e, "p", j->p);
}

static void put_row(struct analysis_input *in, struct result *doc, struct rvalue *list,
		    const struct growth_row *r)
{
	struct rvalue *o = r_push_object(doc, list), *procs, *pids;

	r_int(doc, o, "site", r->site);
	procs = r_array(doc, o, "procs");
	pids = r_array(doc, o, "pids");
	for (size_t i = 0; i < r->processes.count; i++) {
		r_push_int(doc, procs, r->processes.items[i]);
		r_push_int(doc, pids, in->m->processes[r->processes.items[i]].pid);
	}
	r_string(doc, o, "verdict", verdict_names[r->j.verdict]);
	r_float(doc, o, "confidence", r->j.confidence);
	put_count(doc, o, "bytes", r->bytes);
	if (r->j.level_bytes >= 0)
		put_count(doc, o, "level_bytes", (uint64_t)llround(r->j.level_bytes));
	else
		r_null(doc, o, "level_bytes");
	if (r->j.level.value >= 0) {
		put_count(doc, o, "level_bytes_low", (uint64_t)llround(r->j.level.low));
		put_count(doc, o, "level_bytes_high", (uint64_t)llround(r->j.level.high));
	}
	put_time(doc, o, "run_longer_s", r->j.run_longer_s);
	put_rate(doc, o, "bytes_per_s", r->j.rate, 1);
	put_rate(doc, o, "bytes_per_step", r->j.rate, r->steps_per_s);
	put_rate(doc, o, "bytes_per_epoch", r->j.rate, r->epochs_per_s);
	put_evidence(doc, o, r);
	in->listed[r->site] = true;
}

void analyse_growth(struct analysis_input *in, struct result *doc)
{
	struct rvalue *list = r_array(doc, result_root(doc), "growth");
	size_t shown = 0, most = in->top < MAX_ROWS ? in->top : MAX_ROWS;

	most = most < MIN_ROWS ? MIN_ROWS : most;

	for (size_t i = 0; i < in->growth->rows.count && shown < most; i++) {
		const struct growth_row *r = &in->growth->rows.items[i];

		if (r->bytes < (r->j.verdict >= VERDICT_GROWTH ? MIN_BYTES : MIN_KEPT))
			continue;
		put_row(in, doc, list, r);
		shown++;
	}
}
