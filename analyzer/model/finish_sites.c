/*
 * The sites of all processes put together: equal ones become one, in order of what they held when most was held, and
 * everything that names a site by number is told the new ones. The rest of the model: finish.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "model/cohorts.h"
#include "model/sampling.h"
#include "model/sharing.h"
#include "model/walk.h"

struct sites {
	VEC(struct site) sites;
	VEC(struct site_use) uses;
	struct index set;
};

static uint32_t site_intern(struct sites *all, const struct local_site *s)
{
	uint32_t key[3] = { s->native, s->python, s->kind };
	uint64_t hash = hash_bytes(key, sizeof(key));
	uint8_t kind = s->kind & MT_KIND_MASK;
	bool backing = s->kind & MT_KIND_BACKING;
	struct site *site;

	index_each (&all->set, hash, i) {
		site = &all->sites.items[i];
		if (site->native == s->native && site->python == s->python && site->kind == kind &&
		    site->backing == backing)
			return (uint32_t)i;
	}
	index_add(&all->set, hash, (uint32_t)all->sites.count);
	site = vec_push(&all->sites);
	site->id = (uint32_t)all->sites.count - 1;
	site->native = s->native;
	site->python = s->python;
	site->kind = kind;
	site->backing = backing;
	return site->id;
}

/* Index of the site in all->sites; NO_ID: it has nothing to show. */
static uint32_t add_use(struct sites *all, struct local_site *s, uint32_t process)
{
	struct site_use *u;

	if (!s->allocations && !s->frees && !s->live_count && !s->live_bytes)
		return NO_ID;
	u = vec_push(&all->uses);
	u->site = site_intern(all, s);
	u->process = process;
	u->allocations = s->allocations;
	u->frees = s->frees;
	u->bytes_allocated = s->bytes_allocated;
	u->live_bytes = s->live_bytes;
	u->live_count = s->live_count;
	u->peak_bytes = s->peak_bytes;
	u->at_peak_bytes = s->at_peak_bytes;
	u->short_lived_count = s->short_lived_count;
	u->sampled = s->sampled;
	u->cohorts = s->cohorts;
	s->cohorts = NULL;
	return u->site;
}

/* Puts uses of one site together, in order of process: that is the order they came in. */
static void group_uses(struct sites *all)
{
	uint32_t *place = xcalloc(all->sites.count + 1, sizeof(*place));
	struct site_use *grouped = xcalloc(all->uses.count, sizeof(*grouped));

	for (size_t i = 0; i < all->uses.count; i++)
		place[all->uses.items[i].site + 1]++;
	for (size_t i = 0; i < all->sites.count; i++)
		place[i + 1] += place[i];
	for (size_t i = 0; i < all->uses.count; i++)
		grouped[place[all->uses.items[i].site]++] = all->uses.items[i];
	free(place);
	free(all->uses.items);
	all->uses.items = grouped;
	all->uses.room = all->uses.count;
}

static void merge_cohorts(struct site_use *to, const struct site_use *u)
{
	if (to->cohorts && u->cohorts) {
		to->cohorts = cohorts_merge(to->cohorts, u->cohorts);
		free(u->cohorts);
	} else if (u->cohorts) {
		to->cohorts = u->cohorts;
	}
}

/* Ids that a process gave to one stack twice (two threads met it at once). */
static void merge_uses(struct sites *all)
{
	size_t kept = 0;

	for (size_t i = 0; i < all->uses.count; i++) {
		const struct site_use *u = &all->uses.items[i];
		struct site_use *to = kept ? &all->uses.items[kept - 1] : NULL;

		if (!to || to->site != u->site || to->process != u->process) {
			all->uses.items[kept++] = *u;
			continue;
		}
		merge_cohorts(to, u);
		to->allocations += u->allocations;
		to->frees += u->frees;
		to->bytes_allocated += u->bytes_allocated;
		to->live_bytes += u->live_bytes;
		to->live_count += u->live_count;
		to->at_peak_bytes += u->at_peak_bytes;
		to->short_lived_count += u->short_lived_count;
		if (u->sampled && to->sampled)
			sampled_sum(to->sampled, u->sampled);
		else if (u->sampled)
			to->sampled = u->sampled;
		if (u->peak_bytes > to->peak_bytes)
			to->peak_bytes = u->peak_bytes;
	}
	all->uses.count = kept;
}

/* superseded: by process; a later generation of the same worker stands for it. */
static void sum_sites(struct sites *all, const bool *superseded)
{
	for (size_t i = 0; i < all->uses.count; i++) {
		const struct site_use *u = &all->uses.items[i];
		struct site *s = &all->sites.items[u->site];

		if (!s->use_count++)
			s->first_use = (uint32_t)i;
		s->allocations += u->allocations;
		s->frees += u->frees;
		s->bytes_allocated += u->bytes_allocated;
		s->short_lived_count += u->short_lived_count;
		if (u->peak_bytes > s->peak_bytes)
			s->peak_bytes = u->peak_bytes;
		if (superseded[u->process])
			continue;
		s->live_bytes += u->live_bytes;
		s->live_count += u->live_count;
		s->at_peak_bytes += u->at_peak_bytes;
	}
}

/* What sites are sorted by; they are too big to be moved about by qsort(). */
struct site_rank {
	uint64_t at_peak_bytes, live_bytes, bytes_allocated;
	uint32_t site; /* the order they were met in decides last */
};

static int by_size(const void *a, const void *b)
{
	const struct site_rank *x = a, *y = b;

	if (x->at_peak_bytes != y->at_peak_bytes)
		return x->at_peak_bytes > y->at_peak_bytes ? -1 : 1;
	if (x->live_bytes != y->live_bytes)
		return x->live_bytes > y->live_bytes ? -1 : 1;
	if (x->bytes_allocated != y->bytes_allocated)
		return x->bytes_allocated > y->bytes_allocated ? -1 : 1;
	return x->site < y->site ? -1 : x->site > y->site;
}

static void sort_sites(struct sites *all)
{
	size_t count = all->sites.count;
	struct site_rank *ranks = xcalloc(count, sizeof(*ranks));
	struct site *sorted = xcalloc(count, sizeof(*sorted));

	for (size_t i = 0; i < count; i++) {
		const struct site *s = &all->sites.items[i];

		ranks[i] = (struct site_rank){ s->at_peak_bytes, s->live_bytes, s->bytes_allocated,
					       (uint32_t)i };
	}
	qsort(ranks, count, sizeof(*ranks), by_size);
	for (size_t i = 0; i < count; i++)
		sorted[i] = all->sites.items[ranks[i].site];
	free(ranks);
	free(all->sites.items);
	all->sites.items = sorted;
	all->sites.room = count;
}

/* All uses of a process; its backing events get sites of the run. Returns which site of the run
 * each of its own became. */
static uint32_t *add_process(struct sites *all, struct builder *b, struct proc *p,
			     struct process *out)
{
	uint32_t *site = xcalloc(p->sites.count, sizeof(*site));
	size_t kept = 0;

	for (size_t k = 0; k < p->sites.count; k++)
		site[k] = add_use(all, &p->sites.items[k], out->id);
	for (size_t k = 0; k < out->backing_count; k++) {
		struct backing_event e = out->backing[k];

		e.site = site[e.site];
		if (e.site != NO_ID)
			out->backing[kept++] = e;
	}
	out->backing_count = kept;
	gpu_renumber(out, site);
	shm_sites(b, p, site);
	for (size_t k = 0; k < out->phase_site_count; k++)
		out->phase_sites[k].site = site[out->phase_sites[k].site];
	return site;
}

/* Sites were sorted: their numbers are their places from now on. */
static void number_sites(struct sites *all, struct builder *b, struct model *m)
{
	uint32_t *place = xcalloc(all->sites.count, sizeof(*place));

	for (uint32_t i = 0; i < all->sites.count; i++) {
		struct site *s = &all->sites.items[i];

		place[s->id] = i;
		s->id = i;
		for (uint32_t k = 0; k < s->use_count; k++)
			all->uses.items[s->first_use + k].site = i;
	}
	for (size_t i = 0; i < m->process_count; i++)
		for (size_t k = 0; k < m->processes[i].backing_count; k++)
			m->processes[i].backing[k].site = place[m->processes[i].backing[k].site];
	for (size_t i = 0; i < m->process_count; i++)
		gpu_renumber(&m->processes[i], place);
	walk_sites_sorted(m, place);
	sharing_sites_sorted(m, place);
	phases_sites_sorted(m, place);
	shm_renumber_sites(b, place);
	free(place);
}

void finish_sites(struct builder *b, const uint32_t *new_id)
{
	struct sites all;
	bool *superseded = roles_superseded(b->m->processes, b->m->process_count);
	uint32_t **of = xcalloc(b->procs.count, sizeof(*of));

	memset(&all, 0, sizeof(all));
	for (size_t i = 0; i < b->procs.count; i++) {
		struct proc *p = &b->procs.items[i];

		if (new_id[i] != NO_ID)
			of[i] = add_process(&all, b, p, &b->m->processes[new_id[i]]);
		for (size_t k = 0; k < p->sites.count; k++)
			free(p->sites.items[k].cohorts);
		vec_release(&p->sites);
	}
	walk_sites_of_run(b->m, of);
	sharing_sites_of_run(b, new_id, of);
	for (size_t i = 0; i < b->procs.count; i++)
		free(of[i]);
	free(of);
	group_uses(&all);
	merge_uses(&all);
	sum_sites(&all, superseded);
	sort_sites(&all);
	number_sites(&all, b, b->m);
	index_release(&all.set);
	b->m->sites = all.sites.items;
	b->m->site_count = all.sites.count;
	b->m->uses = all.uses.items;
	b->m->use_count = all.uses.count;
	sampling_sites(b->m, superseded);
	free(superseded);
}
