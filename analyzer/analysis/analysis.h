/*
 * An analysis turns the model into one section of the result document. The table in registry.c
 * lists them in the order of the report; docs/HOWTO-add-an-analysis.md says how one is added.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_ANALYSIS_H
#define MEMTRACE_ANALYZER_ANALYSIS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/model.h"
#include "result/result.h"
#include "symbols/symbolizer.h"

struct growth;
struct suppressions;

struct analysis_input {
	const struct model *m;
	struct symbolizer *symbols;
	size_t top; /* sites that are listed; ALL_SITES */
	bool streamed; /* the renderer takes sites one by one (r_array_made) */
	const char *sysroot; /* where the programs of the run lie; NULL: here */
	const struct suppressions *suppressions; /* findings that are left out; NULL: none */
	bool *listed; /* by site: it is listed. Findings add those they name, sites.c the largest */
	const struct growth *growth; /* the verdicts on all sites */
	struct rvalue *notes; /* of the trace section, once it is there */
};

#define ALL_SITES SIZE_MAX

struct analysis {
	const char *name; /* the key of its section */
	const char *help;
	void (*run)(struct analysis_input *in, struct result *doc);
};

extern const struct analysis analyses[]; /* ends with a NULL name */

struct analysis_options {
	size_t top;
	bool streamed; /* long lists are made when they are printed: keep model and symbols */
	const char *sysroot; /* NULL: none */
	const struct suppressions *suppressions; /* NULL: none */
	const char *const *sections; /* NULL-terminated; NULL: all */
};

/* Fills doc with the sections wanted, in the order of the registry. All is borrowed. */
void analysis_run(const struct analysis_options *opt, const struct model *m,
		  struct symbolizer *symbols, struct result *doc);

/* The parts; each in the file that bears its name or the group's. */
void analyse_trace(struct analysis_input *in, struct result *doc);
void analyse_tree(struct analysis_input *in, struct result *doc);
void analyse_capacity(struct analysis_input *in, struct result *doc);
void analyse_marks(struct analysis_input *in, struct result *doc);
void analyse_processes(struct analysis_input *in, struct result *doc);
void analyse_rss(struct analysis_input *in, struct result *doc);
void analyse_fragmentation(struct analysis_input *in, struct result *doc);
void analyse_sites(struct analysis_input *in, struct result *doc);
void analyse_places(struct analysis_input *in, struct result *doc);
void analyse_timeline(struct analysis_input *in, struct result *doc);
void analyse_phases(struct analysis_input *in, struct result *doc);
void analyse_gpu(struct analysis_input *in, struct result *doc);
void analyse_process_groups(struct analysis_input *in, struct result *doc);
void analyse_shm(struct analysis_input *in, struct result *doc);
void analyse_growth(struct analysis_input *in, struct result *doc);
void analyse_cow(struct analysis_input *in, struct result *doc); /* cow.c */
void analyse_findings(struct analysis_input *in, struct result *doc);

#endif
