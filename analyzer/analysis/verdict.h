/*
 * Is memory of one call site lost, does it grow, is it bounded, or can that not be told yet? The
 * test itself: numbers in, a judgement out. The mathematics and how often it is right stand in
 * docs/VERDICTS.md.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_VERDICT_H
#define MEMTRACE_ANALYZER_VERDICT_H

#include <stdbool.h>
#include <stddef.h>

#include "analysis/stats.h"
#include "model/cohorts.h"

#ifdef __cplusplus
extern "C" {
#endif

enum verdict { VERDICT_UNDECIDED, VERDICT_BOUNDED, VERDICT_GROWTH, VERDICT_LEAK };
extern const char *const verdict_names[];

/* A site's cohorts at the moment they are judged. All arrays have n entries. */
struct cohort_view {
	size_t n;
	size_t worked; /* windows until the last birth */
	double births[COHORT_WINDOWS], alive[COHORT_WINDOWS], bytes[COHORT_WINDOWS];
	double deaths[COHORT_WINDOWS]; /* by age in windows */
	double floor[COHORT_WINDOWS], top[COHORT_WINDOWS];
	double before; /* bytes held from before the first window */
	double held; /* bytes at the end of what was seen */
	double window_s, seen_s; /* seconds: of a window, of all of them */
	/* Where epochs begin, in windows, rising; what is judged together begins and ends there. */
	double edges[COHORT_WINDOWS];
	double steps[COHORT_WINDOWS]; /* of the program, in each window; all 0: not known */
	size_t edge_count;
	bool wound_up; /* most of it was given back after the last birth, and that is not counted */
	bool missed;
	bool level_unknown; /* much of what it held was folded: top[] and floor[] lack it */
	double unseen; /* bytes: at no time it held more of what was folded */
};

struct judgement {
	enum verdict verdict;
	bool is_candidate; /* for a leak, if p stands beside those of all other sites */
	double p; /* that memory which is bounded would look like this; 1: not a candidate */
	double confidence; /* in the verdict */
	double bytes;
	double level_bytes, run_longer_s; /* negative: none */
	struct range level; /* of level_bytes; value negative: not an interval, or none */
	struct range rate; /* bytes per second */
	const char *reason; /* why it is no leak; static */
	/* What it rests on. */
	double guard_s; /* younger cohorts were not looked at */
	double survivors, early, late; /* of the cohorts looked at */
	double died_after_guard, reached_guard;
	double dispersion;
	size_t windows, occupied;
	size_t first, end; /* fine windows looked at */
};

/* False: there is nothing to judge. */
bool view_of(const struct cohorts *c, struct cohort_view *v);
/* Adds b's windows, stretched to a's number of them, as if one process had had both. */
void view_add(struct cohort_view *a, const struct cohort_view *b);

/*
 * How much of the program's work in windows of[0] to of[1] lies in [from, to): by its steps where
 * enough of them are known, for a machine may be busy with others at times; else by time.
 */
double share_of_work(const struct cohort_view *v, const size_t of[2], size_t from, size_t to);

void judge(const struct cohort_view *v, struct judgement *j);
/* As if it were known that it is no leak: level.c. */
void judge_level(const struct cohort_view *v, struct judgement *j);
/* rate: the false discovery rate of j->p among all candidates. */
void judge_settle(const struct cohort_view *v, struct judgement *j, double rate);

#ifdef __cplusplus
}
#endif

#endif
