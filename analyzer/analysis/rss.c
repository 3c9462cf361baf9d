/*
 * What was resident in each process when most was, and at its end: parts that sum to it, and by
 * name what they consist of. See model/resident.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <string.h>

#include "analysis/analysis.h"
#include "analysis/common.h"

#define NAMES_LISTED 100 /* of each part */

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

/* What the kernel drops when memory is short, without the program losing anything. */
static uint64_t reclaimable(const struct resident *r)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < r->name_count; i++)
		if (r->names[i].part == RESIDENT_FILE)
			bytes += r->names[i].bytes - r->names[i].private_bytes;
	return bytes;
}

static void put_resident(struct analysis_input *in, struct result *doc, struct rvalue *list,
			 const struct process *p, const struct resident *r, const char *moment)
{
	struct rvalue *o = r_push_object(doc, list), *parts;

	r_int(doc, o, "proc", p->id);
	r_int(doc, o, "pid", p->pid);
	r_string(doc, o, "moment", moment);
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
}

void analyse_rss(struct analysis_input *in, struct result *doc)
{
	struct rvalue *list = r_array(doc, result_root(doc), "rss");

	for (size_t i = 0; i < in->m->process_count; i++) {
		const struct process *p = &in->m->processes[i];

		if (!p->resident_most)
			continue;
		put_resident(in, doc, list, p, p->resident_most,
			     p->resident_most == p->resident_last ? "peak and end" : "peak");
		if (p->resident_last != p->resident_most)
			put_resident(in, doc, list, p, p->resident_last, "end");
	}
}
