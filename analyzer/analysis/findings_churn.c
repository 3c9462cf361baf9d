/*
 * Places that allocate very often and free at once: no memory is lost, time is.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "analysis/common.h"
#include "analysis/findings.h"

#define MIN_COUNT 10000 /* short-lived allocations of one site, in all processes */
#define MIN_SHARE 0.02 /* of all allocations of the run */
#define SHOWN 3

static int by_short_lived(const void *a, const void *b)
{
	const struct site *x = *(const struct site *const *)a;
	const struct site *y = *(const struct site *const *)b;

	if (x->short_lived_count != y->short_lived_count)
		return x->short_lived_count > y->short_lived_count ? -1 : 1;
	return x->id < y->id ? -1 : x->id > y->id;
}

static int by_count(const void *a, const void *b)
{
	const struct site_use *x = *(const struct site_use *const *)a;
	const struct site_use *y = *(const struct site_use *const *)b;

	if (x->short_lived_count != y->short_lived_count)
		return x->short_lived_count > y->short_lived_count ? -1 : 1;
	return x->process < y->process ? -1 : x->process > y->process;
}

static void add_processes(struct finding *f, const struct model *m, const struct site *s)
{
	const struct site_use **order = xcalloc(s->use_count, sizeof(const struct site_use *));

	for (uint32_t i = 0; i < s->use_count; i++)
		order[i] = &m->uses[s->first_use + i];
	qsort(order, s->use_count, sizeof(const struct site_use *), by_count);
	for (uint32_t i = 0; i < s->use_count && order[i]->short_lived_count; i++)
		finding_process(f, order[i]->process);
	free(order);
}

static void put_churn(struct findings *all, const struct site *s, uint64_t total)
{
	const struct model *m = all->in->m;
	struct finding *f = finding_new(all, "short-lived-churn", SEVERITY_INFO);
	double share = (double)s->short_lived_count / (double)total;
	struct stack st;

	finding_bytes(f, s->bytes_allocated);
	f->site = s->id;
	add_processes(f, m, s);
	strbuf_addf(&f->title, "%llu short-lived allocations at ",
		    (unsigned long long)s->short_lived_count);
	stack_merge(m, all->in->symbols, s->native, s->python, &st);
	place_add(&f->title, &st);
	stack_release(&st);
	strbuf_addstr(&f->title, ", in ");
	finding_processes_add(&f->title, m, f->processes.items, f->processes.count);
	strbuf_addf(&f->detail,
		    "%.0f %% of all allocations of the run are made here and freed within "
		    "%.1f ms. They lose no memory; they cost time.",
		    share * 100, (double)m->brief_ns / 1e6);
	strbuf_addstr(&f->advice, "Where this runs in every step, allocate once and use the buffer "
				  "again.");
	finding_int(f, "short_lived_count", s->short_lived_count);
	finding_int(f, "allocations", s->allocations);
	finding_int(f, "bytes_allocated", s->bytes_allocated);
	finding_float(f, "share_of_allocations", share);
}

void find_churn(struct findings *all)
{
	const struct model *m = all->in->m;
	const struct site **order = xcalloc(m->site_count, sizeof(const struct site *));
	uint64_t total = 0;

	for (size_t i = 0; i < m->site_count; i++) {
		order[i] = &m->sites[i];
		total += m->sites[i].allocations;
	}
	qsort(order, m->site_count, sizeof(const struct site *), by_short_lived);
	for (size_t i = 0; i < m->site_count && i < SHOWN; i++) {
		const struct site *s = order[i];

		if (s->short_lived_count >= MIN_COUNT &&
		    (double)s->short_lived_count >= MIN_SHARE * (double)total)
			put_churn(all, s, total);
	}
	free(order);
}
