/*
 * Processes that are equal but for their number, as one: 36 workers of a loader are one row of a
 * table that somebody can read. Only where there are many; each is in `processes` in any case.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "analysis/analysis.h"
#include "analysis/common.h"
#include "util/vec.h"

#define MANY 16 /* processes; fewer are listed one by one */

struct group {
	const struct process *first;
	VEC(uint32_t) members;
	uint64_t allocations, bytes_allocated, live, peak_live, peak_rss, peak_pss;
	bool has_pss;
};

static bool is_alike(const struct process *a, const struct process *b)
{
	return !strcmp(a->role, b->role) && a->parent == b->parent && a->rank == b->rank &&
	       a->worker.is == b->worker.is && a->worker.node == b->worker.node &&
	       a->generation == b->generation && a->end_kind == b->end_kind &&
	       a->end_code == b->end_code && !strcmp(a->command, b->command);
}

/* A main process or rank stands for itself. */
static bool is_single(const struct process *p)
{
	return !strcmp(p->role, "main") || !strcmp(p->role, "rank") ||
	       !strcmp(p->role, "forkserver");
}

static void add(struct group *g, const struct process *p)
{
	*vec_push(&g->members) = p->id;
	g->allocations += p->allocations;
	g->bytes_allocated += p->bytes_allocated;
	g->live += p->live_bytes;
	g->peak_live = p->peak_live_bytes > g->peak_live ? p->peak_live_bytes : g->peak_live;
	g->peak_rss = p->peak_rss > g->peak_rss ? p->peak_rss : g->peak_rss;
	g->peak_pss += p->peak_pss;
	g->has_pss |= p->peak_pss != 0;
}

static void put(struct result *doc, struct rvalue *list, const struct model *m,
		const struct group *g)
{
	struct rvalue *o = r_push_object(doc, list), *procs, *end;
	const struct process *last = &m->processes[g->members.items[g->members.count - 1]];

	put_count(doc, o, "count", g->members.count);
	r_string(doc, o, "role", g->first->role);
	put_id(doc, o, "rank", g->first->rank < 0 ? NO_ID : (uint32_t)g->first->rank);
	r_int(doc, o, "generation", g->first->generation);
	put_id(doc, o, "index",
	       g->members.count > 1 || g->first->worker.index < 0
		       ? NO_ID
		       : (uint32_t)g->first->worker.index);
	r_string(doc, o, "command", g->first->command);
	r_int(doc, o, "first_pid", g->first->pid);
	r_int(doc, o, "last_pid", last->pid);
	end = r_object(doc, o, "end");
	put_end_members(doc, end, g->first);
	put_count(doc, o, "allocations", g->allocations);
	put_count(doc, o, "bytes_allocated", g->bytes_allocated);
	put_count(doc, o, "live_at_end_bytes", g->live);
	put_count(doc, o, "peak_live_bytes", g->peak_live); /* of one */
	put_measured(doc, o, "peak_rss_bytes", g->peak_rss); /* of one: they share */
	put_measured(doc, o, "peak_pss_bytes", g->has_pss ? g->peak_pss : 0);
	procs = r_array(doc, o, "procs");
	for (size_t i = 0; i < g->members.count; i++)
		r_push_int(doc, procs, g->members.items[i]);
}

void analyse_process_groups(struct analysis_input *in, struct result *doc)
{
	const struct model *m = in->m;
	VEC(struct group) groups = VEC_INIT;
	struct rvalue *list;

	list = r_array(doc, result_root(doc), "process_groups");
	if (m->process_count <= MANY)
		return;
	for (size_t i = 0; i < m->process_count; i++) {
		const struct process *p = &m->processes[i];
		struct group *g = NULL;

		/* The like are near each other; a run of 10,000 helpers must not take forever. */
		for (size_t k = groups.count; k-- > 0 && groups.count - k < 256 && !g;)
			if (!is_single(p) && is_alike(groups.items[k].first, p))
				g = &groups.items[k];
		if (!g) {
			g = vec_push(&groups);
			*g = (struct group){ .first = p };
		}
		add(g, p);
	}
	for (size_t i = 0; i < groups.count; i++) {
		put(doc, list, m, &groups.items[i]);
		vec_release(&groups.items[i].members);
	}
	vec_release(&groups);
}
