/*
 * What became of the blocks of one call site in one process, by when they were born: the numbers
 * that leak verdicts are made of (docs/VERDICTS.md).
 *
 * The site's life, from its first tracked block on, is cut into at most COHORT_WINDOWS windows of
 * equal length. When it outgrows them, either their number doubles or pairs of windows become one,
 * so memory is bounded by a number of windows and never follows the number of events. A cohort is
 * what was born in one window.
 *
 * Every count is kept twice: as of the site's last birth, and changes since. What a program gives
 * back when it winds up comes after the last birth and can be told apart from what it frees in the
 * course of its work.
 *
 * A chain of reallocations is one object, that was born when it last changed its size and belongs
 * to the site that did so: cohorts_leave() takes it away without a death, cohorts_birth() adds it
 * again.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_COHORTS_H
#define MEMTRACE_ANALYZER_COHORTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define COHORT_WINDOWS 64
#define COHORT_LIFETIMES 24 /* lifetimes of dead blocks by powers of 4 units */

struct cohort {
	uint32_t births; /* blocks born in this window */
	uint32_t alive; /* of them, at the last birth */
	uint32_t gone; /* of those alive: dead since then */
	uint32_t deaths; /* blocks that died so many windows after their birth */
	uint32_t late; /* the same, since the last birth */
	float floor, top; /* least and most bytes the site held in this window */
	double bytes, gone_bytes; /* of alive and gone */
};

struct cohorts {
	uint64_t origin; /* units: the first window begins */
	uint64_t last_birth; /* units */
	uint64_t until; /* units: the current window ends; UINT64_MAX: never */
	uint8_t shift; /* a window has 1 << shift units */
	uint8_t count; /* windows in use: the last one is the current one */
	uint8_t room; /* windows there is memory for */
	bool missed; /* a free of a block of this site was not seen: no verdict can rest on it */
	uint8_t low, high; /* windows with gone */
	uint8_t low_age, high_age; /* ages with late */
	bool dirty; /* something died since the last birth */
	uint64_t born; /* all births since origin */
	uint64_t folded; /* of them: what they held, and when, is not known */
	uint64_t resized; /* chains that left for another size */
	double level; /* bytes held now, those from before the origin included */
	double before; /* of them */
	double leaving; /* of blocks that are being resized */
	uint32_t lifetimes[COHORT_LIFETIMES];
	/* Set by cohorts_settle(): nanoseconds since the trace's start. */
	int64_t start_ns;
	double window_ns;
	double end; /* windows, and a part of one, from origin to the end of what was seen */
	double last; /* the same to the last birth */
	struct cohort windows[];
};

/* level: bytes that the site holds already; they were born before. Freed with free(). */
struct cohorts *cohorts_new(uint64_t now, double level);

/* Memory may move: each returns where it is. `now` never goes back. bytes: what it stands for. */
struct cohorts *cohorts_birth(struct cohorts *c, uint64_t now, double bytes);
/* blocks 0: part of a mapping. */
struct cohorts *cohorts_death(struct cohorts *c, uint64_t now, uint64_t birth, double bytes,
			      unsigned int blocks);
/* It is being resized: what it becomes is born at once. */
struct cohorts *cohorts_leave(struct cohorts *c, uint64_t now, uint64_t birth, double bytes);
/* Births between two times that died at once (folded): nothing else is known of them. */
void cohorts_add_dead(struct cohorts *c, uint64_t from, uint64_t to, uint64_t count);
/* The end of what is to be judged. */
struct cohorts *cohorts_settle(struct cohorts *c, uint64_t end);
/* Puts b's numbers into a's, on a's grid (a's origin or b's, whichever is earlier). Both must be settled; b
 * stays as it is. */
struct cohorts *cohorts_merge(struct cohorts *a, const struct cohorts *b);

#ifdef __cplusplus
}
#endif

#endif
