/*
 * The list of analyses. Findings come first in it because they choose sites that must be listed,
 * and because they head the report.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "analysis/analysis.h"

#include <stdlib.h>
#include <string.h>

#include "analysis/growth.h"
#include "util/alloc.h"

const struct analysis analyses[] = {
	{ "trace", "what was recorded, and whether it is whole", analyse_trace },
	{ "findings", "what stands out, in plain words", analyse_findings },
	{ "tree", "the process tree as a whole", analyse_tree },
	{ "capacity", "the limit on memory and how near it came", analyse_capacity },
	{ "processes", "each process", analyse_processes },
	{ "gpu", "GPU and pinned memory, by device", analyse_gpu },
	{ "process_groups", "processes that are alike, where there are many",
	  analyse_process_groups },
	{ "shm", "shared memory, each object once", analyse_shm },
	{ "growth", "what is lost, grows, or is bounded: a verdict per site", analyse_growth },
	{ "phases", "what each phase took and kept", analyse_phases },
	{ "cow", "what forked workers copied of what they shared", analyse_cow },
	{ "rss", "what was resident in each process", analyse_rss },
	{ "fragmentation", "what allocators hold free, and what holds it", analyse_fragmentation },
	{ "places", "which line of the program holds how much", analyse_places },
	{ "sites", "where memory was allocated", analyse_sites },
	{ "marks", "what the program said of itself", analyse_marks },
	{ "timeline", "memory over time", analyse_timeline },
	{ NULL, NULL, NULL },
};

static bool is_wanted(const char *name, const char *const *sections)
{
	if (!sections)
		return true;
	for (; *sections; sections++)
		if (!strcmp(*sections, name))
			return true;
	return false;
}

void analysis_run(const struct analysis_options *opt, const struct model *m,
		  struct symbolizer *symbols, struct result *doc)
{
	struct analysis_input in = {
		.m = m,
		.symbols = symbols,
		.top = opt->top,
		.streamed = opt->streamed,
		.sysroot = opt->sysroot,
		.suppressions = opt->suppressions,
	};
	struct growth *growth = growth_new(m, symbols);
	const char *text;

	in.growth = growth;
	in.listed = xcalloc(m->site_count, sizeof(*in.listed));
	r_string(doc, result_root(doc), "schema", "memtrace-report/1");
	for (const struct analysis *a = analyses; a->name; a++)
		if (is_wanted(a->name, opt->sections))
			a->run(&in, doc);
	for (size_t i = 0; in.notes && (text = symbolizer_note(symbols, i)); i++)
		r_push_string(doc, in.notes, text);
	growth_free(growth);
	free(in.listed);
}
