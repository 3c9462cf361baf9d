/*
 * Shared-memory objects put together from what the processes did to them (replay_shm.c).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "model/shm.h"

#include <stdlib.h>
#include <string.h>

#include "model/internal.h"

/* A semaphore of multiprocessing is such a file, too, of 32 bytes. */
#define TINY 64

/* ---- sites ------------------------------------------------------------------------------------- */

static bool is_plumbing(const struct code *c)
{
	return strstr(c->filename, "multiprocessing/") || strstr(c->filename, "torch/") ||
	       strstr(c->filename, "/threading.py") || c->filename[0] == '<';
}

/* A queue's own thread has nothing but plumbing on its stack. */
static bool has_user_line(const struct builder *b, uint32_t python)
{
	for (; python; python = b->python.items[python].parent) {
		uint32_t code = b->python.items[python].code;

		if (code != NO_ID && !is_plumbing(&b->codes.items[code]))
			return true;
	}
	return false;
}

void shm_sites(struct builder *b, const struct proc *p, const uint32_t *site)
{
	for (uint32_t at = p->shm_uses; at; at = b->shm.uses.items[at - 1].newer_of_process) {
		uint32_t object = b->shm.uses.items[at - 1].u.object;
		struct build_object *o = &b->shm.objects.items[object];

		if (o->site_of != p->id + 1)
			continue;
		o->site_of = 0; /* once */
		if (o->source != NO_ID && !has_user_line(b, p->sites.items[o->o.site].python))
			o->o.site = o->source;
		o->o.site = site[o->o.site];
	}
}

void shm_renumber_sites(struct builder *b, const uint32_t *place)
{
	for (size_t i = 0; i < b->shm.objects.count; i++) {
		struct build_object *o = &b->shm.objects.items[i];

		if (o->site_of) /* its creator was left out */
			o->o.site = NO_ID;
		else if (o->o.site != NO_ID)
			o->o.site = place[o->o.site];
	}
}

/* ---- names ------------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
	const struct build_unlink *x = a, *y = b;
	int names;

	if (x->trace != y->trace)
		return x->trace < y->trace ? -1 : 1;
	names = strcmp(x->name, y->name);
	if (names)
		return names;
	return x->time < y->time ? -1 : x->time > y->time;
}

/* When the name was taken away; a name may be used again after that. */
static int64_t unlinked_at(const struct builder *b, const struct shm_object *o)
{
	struct build_unlink key = { o->name, o->trace, o->start };
	size_t low = 0, high = b->shm.unlinks.count;
	const struct build_unlink *u;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (by_name(&b->shm.unlinks.items[mid], &key) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	u = &b->shm.unlinks.items[low];
	return low < b->shm.unlinks.count && u->trace == o->trace && !strcmp(u->name, o->name)
		       ? u->time
		       : INT64_MAX;
}

/* ---- the model --------------------------------------------------------------------------------- */

static int by_from(const void *a, const void *b)
{
	const struct shm_use *x = a, *y = b;

	if (x->from != y->from)
		return x->from < y->from ? -1 : 1;
	return x->process < y->process ? -1 : x->process > y->process;
}

/*
 * A list of descriptors tells of its own moment, and a worker that waits for work makes none: what it
 * was about to send when last asked, and another process has mapped since, it had sent by then.
 */
static void hand_over(const struct builder *b, const struct build_object *o,
		      const struct build_use *held, struct shm_use *u)
{
	int64_t taken = INT64_MAX;

	if (!u->to_end || held->maps || !b->m->processes[u->process].worker.is)
		return;
	for (uint32_t at = o->newest_use; at != NO_ID; at = b->shm.uses.items[at].older) {
		const struct shm_use *other = &b->shm.uses.items[at].u;

		if (other->process != held->u.process && other->mapped_from > held->seen_open &&
		    other->mapped_from < taken)
			taken = other->mapped_from;
	}
	if (taken < u->to) {
		u->to = taken > u->mapped_to ? taken : u->mapped_to;
		u->to_end = false;
	}
}

/* The object's uses, of processes that are kept, to the end of the model's. */
static void add_uses(struct builder *b, const struct build_object *from, struct shm_object *o,
		     const uint32_t *new_id)
{
	struct model *m = b->m;

	o->first_use = (uint32_t)m->shm_use_count;
	for (uint32_t at = from->newest_use; at != NO_ID; at = b->shm.uses.items[at].older) {
		const struct build_use *held = &b->shm.uses.items[at];
		struct shm_use u = held->u;

		if (u.from > u.to || new_id[u.process] == NO_ID)
			continue;
		u.process = new_id[u.process];
		hand_over(b, from, held, &u);
		u.object = (uint32_t)m->shm_count;
		if (u.from < o->start)
			o->start = u.from;
		if (u.to > o->end)
			o->end = u.to;
		m->shm_uses[m->shm_use_count++] = u;
	}
	o->use_count = (uint32_t)m->shm_use_count - o->first_use;
	if (o->use_count)
		qsort(m->shm_uses + o->first_use, o->use_count, sizeof(*m->shm_uses), by_from);
}

static int by_start(const void *a, const void *b)
{
	const struct build_object *const *x = a, *const *y = b;

	if ((*x)->o.start != (*y)->o.start)
		return (*x)->o.start < (*y)->o.start ? -1 : 1;
	return (*x)->o.inode < (*y)->o.inode ? -1 : (*x)->o.inode > (*y)->o.inode;
}

static bool is_object(const struct build_object *o)
{
	return (o->mapped || o->named || o->truncated) && (o->named || o->o.bytes > TINY);
}

static void add_object(struct builder *b, const struct build_object *from, const uint32_t *new_id)
{
	struct model *m = b->m;
	struct shm_object *o = &m->shm[m->shm_count];

	*o = from->o;
	o->end = INT64_MIN;
	if (o->creator != NO_ID)
		o->creator = new_id[o->creator];
	if (from->named && o->name && !o->is_memfd)
		o->unlinked_at = unlinked_at(b, o);
	add_uses(b, from, o, new_id);
	/* Who makes a file and then neither maps it nor is asked holds it for a moment at least. */
	if (o->end < o->start)
		o->end = o->start;
	if (from->certain && from->named && !o->is_memfd && o->unlinked_at == INT64_MAX)
		o->end = INT64_MAX;
	else if (o->unlinked_at != INT64_MAX && o->unlinked_at > o->end)
		o->end = o->unlinked_at;
	if (o->use_count || o->creator != NO_ID)
		m->shm_count++;
}

void shm_finish(struct builder *b, const uint32_t *new_id)
{
	size_t count = b->shm.objects.count, kept = 0;
	struct build_object **sorted = xcalloc(count, sizeof(struct build_object *));

	for (size_t i = 0; i < count; i++)
		if (is_object(&b->shm.objects.items[i]))
			sorted[kept++] = &b->shm.objects.items[i];
	if (kept)
		qsort(sorted, kept, sizeof(struct build_object *), by_start);
	if (b->shm.unlinks.count)
		qsort(b->shm.unlinks.items, b->shm.unlinks.count, sizeof(*b->shm.unlinks.items),
		      by_name);
	b->m->shm = xcalloc(kept, sizeof(*b->m->shm));
	b->m->shm_uses = xcalloc(b->shm.uses.count, sizeof(*b->m->shm_uses));
	for (size_t i = 0; i < kept; i++)
		add_object(b, sorted[i], new_id);
	free(sorted);
}
