/*
 * Two walks of a process compared, page by page: what was copied in between, and whose blocks lay
 * there at the fork.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_TALLY_H
#define MEMTRACE_ANALYZER_TALLY_H

#include "model/sharing.h"

struct span {
	uint64_t first, count; /* pages */
	size_t index; /* of the first one among all copied pages */
};

struct tally {
	const struct sharing *s;
	uint32_t self;
	uint64_t page;
	bool has_baseline;
	uint64_t shared, copied, eager, unknown; /* pages */
	double error; /* of copied: one standard error of not reading all pages */
	struct {
		uint64_t at; /* the one that is open */
		double copied, last; /* pages of it, and of the one before */
		double squares; /* of the differences between neighbours */
		uint64_t count;
	} groups; /* of MT_PAGE_GROUP pages, some of which were shared */
	VEC(struct span) spans, eager_spans; /* copied; by the fork itself */
	bool wants_backing;
	VEC(struct cow_backing) backing; /* site: of `owners` */
	VEC(uint32_t) owners;
};

/* Its walk when it began; NULL: it was not walked then. */
const struct page_walk *baseline_of(const struct sharing *s);

/* Of the process's beginning and a walk; wants_backing: also by mapping. */
struct tally tally_of(const struct proc *p, const struct page_walk *w, bool wants_backing);
void tally_release(struct tally *t);

/*
 * Fills the sites and `reused` of *cow; share: of each page that counts. owners[i], the caller's to
 * free: whose the site is (site_key), for cow->sites[i].site is a number of its owner's.
 */
void tally_charge(struct tally *t, struct process_cow *cow, double share, uint64_t **owners);

static inline uint64_t site_key(uint32_t owner, uint32_t site)
{
	return (uint64_t)owner << 32 | site;
}

#endif
