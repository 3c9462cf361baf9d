/*
 * Verdicts on the sites of a run: which lose memory, which grow, which are bounded. Made once, for
 * the section `growth`, the findings and the time until memory is exhausted.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_GROWTH_H
#define MEMTRACE_ANALYZER_GROWTH_H

#include "analysis/analysis.h"
#include "analysis/verdict.h"
#include "util/vec.h"

#ifdef __cplusplus
extern "C" {
#endif

struct growth_row {
	uint32_t site;
	struct judgement j; /* of several processes: bytes and rate are sums */
	VEC(uint32_t) processes; /* that with most bytes first */
	uint64_t bytes; /* of j, whole */
	double steps_per_s,
		epochs_per_s; /* of the process, while the site was at work; 0: unknown */
	double lifetime_p50_s, lifetime_p99_s; /* of its blocks that died; negative: none did */
	double first_s, last_s; /* births looked at, since the run's start */
	uint64_t allocations, frees; /* of the site in these processes */
	bool pooled; /* the processes were judged together */
	bool wound_up; /* given back when the program wound up */
};

struct growth {
	VEC(struct growth_row) rows; /* leaks first, then growth, ...; each by bytes */
	size_t tested; /* sites that had enough to be tested for a leak */
	double rate; /* bytes per second: of all leaks and growth in processes alive at the end */
};

struct growth *growth_new(const struct model *m);
void growth_free(struct growth *g); /* accepts NULL */

#ifdef __cplusplus
}
#endif

#endif
