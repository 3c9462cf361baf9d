/*
 * What was resident in each process when most was, and at its end: parts that sum to it, and by
 * name what they consist of. See model/resident.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/common.h"
#include "analysis/resident.h"
#include "util/alloc.h"

#define NAMES_LISTED 100 /* of each part */
#define LARGES_LISTED 20
#define SMALL_SHARE 20 /* less than this part of the largest process is a helper ... */
#define MANY_SMALL 3 /* ... and so many of them are told of together */

static const char *const part_names[RESIDENT_PARTS] = {
	[RESIDENT_LIVE] = "live",
	[RESIDENT_ROUNDING] = "rounding",
	[RESIDENT_RETURNABLE] = "heap_free_returnable",
	[RESIDENT_PINNED] = "heap_free_pinned",
	[RESIDENT_PYTHON] = "python_free",
	[RESIDENT_FILE] = "file",
	[RESIDENT_SHM] = "shm",
	[RESIDENT_STACKS] = "stacks",
	[RESIDENT_TOOL] = "tool",
	[RESIDENT_OTHER] = "other",
	[RESIDENT_UNTRACED] = "untraced",
};

static void put_untraced(struct result *doc, struct rvalue *o, const struct resident *r)
{
	struct rvalue *list = r_array(doc, o, "untraced_ranges");
	size_t listed = 0;

	for (size_t i = 0; i < r->name_count; i++) {
		const struct resident_name *n = &r->names[i];
		char text[40];
		struct rvalue *v;

		if (n->part != RESIDENT_UNTRACED || ++listed > NAMES_LISTED)
			continue;
		v = r_push_object(doc, list);
		snprintf(text, sizeof(text), "%llx-%llx", (unsigned long long)n->start,
			 (unsigned long long)n->end);
		r_string(doc, v, "range", text);
		r_string(doc, v, "name", *n->name ? n->name : NULL);
		put_count(doc, v, "bytes", n->bytes);
		r_string(doc, v, "reason", n->reason);
	}
}

/* Files, shared memory, stacks and the like, each by name. */
static void put_names(struct result *doc, struct rvalue *o, const struct resident *r)
{
	struct rvalue *list = r_array(doc, o, "named");
	enum resident_part part = RESIDENT_PARTS;
	size_t listed = 0;

	for (size_t i = 0; i < r->name_count; i++) {
		const struct resident_name *n = &r->names[i];
		struct rvalue *v;

		listed = n->part == part ? listed + 1 : 1;
		part = n->part;
		if (part == RESIDENT_UNTRACED || listed > NAMES_LISTED)
			continue;
		v = r_push_object(doc, list);
		r_string(doc, v, "part", part_names[part]);
		r_string(doc, v, "name", n->name);
		put_count(doc, v, "bytes", n->bytes);
		put_count(doc, v, "private_bytes", n->private_bytes);
		r_int(doc, v, "mappings", n->mappings);
	}
}

/* Large blocks by site: what was asked for, and what of it was touched. */
static void put_larges(struct analysis_input *in, struct result *doc, struct rvalue *o,
		       const struct resident *r)
{
	struct rvalue *list = r_array(doc, o, "large_blocks");

	for (size_t i = 0; i < r->large_count && i < LARGES_LISTED; i++) {
		const struct resident_large *l = &r->larges[i];
		struct rvalue *v;

		if (l->site == NO_ID)
			continue;
		in->listed[l->site] = true;
		v = r_push_object(doc, list);
		r_int(doc, v, "site", l->site);
		put_count(doc, v, "blocks", l->blocks);
		put_count(doc, v, "requested_bytes", l->bytes);
		put_count(doc, v, "touched_bytes", l->touched);
		put_count(doc, v, "swapped_bytes", l->swapped);
	}
}

/* What the kernel drops when memory is short, without the program losing anything. */
static uint64_t reclaimable(const struct resident *r)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < r->name_count; i++)
		if (r->names[i].part == RESIDENT_FILE)
			bytes += r->names[i].bytes - r->names[i].private_bytes;
	return bytes;
}

/* ---- helpers ----------------------------------------------------------------------------------- */

bool *small_processes(const struct model *m)
{
	bool *small = xcalloc(m->process_count ? m->process_count : 1, sizeof(*small));
	uint64_t largest = 0;
	size_t count = 0;

	for (size_t i = 0; i < m->process_count; i++) {
		const struct resident *r = m->processes[i].resident_most;

		if (r && r->bytes > largest)
			largest = r->bytes;
	}
	for (size_t i = 0; i < m->process_count; i++) {
		const struct process *p = &m->processes[i];

		small[i] = p->resident_most && p->resident_most->bytes < largest / SMALL_SHARE &&
			   (!strcmp(p->role, "exec") || !strcmp(p->role, "forked"));
		count += small[i];
	}
	if (count < MANY_SMALL)
		memset(small, 0, m->process_count * sizeof(*small));
	return small;
}

static void put_small(struct result *doc, const struct model *m, const bool *small)
{
	struct rvalue *o = r_object(doc, result_root(doc), "small_processes"), *procs;
	uint64_t most = 0, count = 0;

	procs = r_array(doc, o, "procs");
	for (size_t i = 0; i < m->process_count; i++) {
		if (!small[i])
			continue;
		r_push_int(doc, procs, m->processes[i].id);
		count++;
		if (m->processes[i].resident_most->bytes > most)
			most = m->processes[i].resident_most->bytes;
	}
	put_count(doc, o, "count", count);
	put_measured(doc, o, "most_rss_bytes", most); /* of one: they share files */
}

/* ------------------------------------------------------------------------------------------------ */

static void put_resident(struct analysis_input *in, struct result *doc, struct rvalue *list,
			 const struct process *p, const struct resident *r, const char *moment,
			 bool small)
{
	struct rvalue *o = r_push_object(doc, list), *parts;

	r_int(doc, o, "proc", p->id);
	r_int(doc, o, "pid", p->pid);
	r_string(doc, o, "moment", moment);
	r_bool(doc, o, "small", small);
	r_float(doc, o, "at_s", process_seconds(in->m, p, r->time));
	put_count(doc, o, "rss_bytes", r->bytes);
	put_measured(doc, o, "vmrss_bytes", r->rss);
	parts = r_object(doc, o, "parts");
	for (int i = 0; i < RESIDENT_PARTS; i++)
		put_count(doc, parts, part_names[i], r->parts[i]);
	put_count(doc, o, "file_reclaimable_bytes", reclaimable(r));
	put_count(doc, o, "swapped_bytes", r->swapped);
	r_bool(doc, o, "live_known", !r->sampled);
	put_untraced(doc, o, r);
	put_names(doc, o, r);
	put_larges(in, doc, o, r);
}

void analyse_rss(struct analysis_input *in, struct result *doc)
{
	struct rvalue *list = r_array(doc, result_root(doc), "rss");
	bool *small = small_processes(in->m);

	for (size_t i = 0; i < in->m->process_count; i++) {
		const struct process *p = &in->m->processes[i];

		if (!p->resident_most)
			continue;
		put_resident(in, doc, list, p, p->resident_most,
			     p->resident_most == p->resident_last ? "peak and end" : "peak",
			     small[i]);
		if (p->resident_last != p->resident_most)
			put_resident(in, doc, list, p, p->resident_last, "end", small[i]);
	}
	put_small(doc, in->m, small);
	free(small);
}
