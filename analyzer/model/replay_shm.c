/*
 * Shared-memory objects during the replay: who makes, maps and holds which. Processes are replayed
 * one after another and not side by side, so what one does to another's object is only noted here;
 * shm.c puts it together.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "memtrace/varint.h"
#include "model/replay.h"

struct shm_key {
	uint64_t dev, inode;
	uint32_t trace, zero;
};

static uint32_t object_at(struct replay *r, uint64_t dev, uint64_t inode)
{
	struct shm_key key = { dev, inode, r->p->trace, 0 };
	bool is_new;
	uint64_t *slot = hashmap_slot(&r->b->shm.index, &key, sizeof(key), &is_new);
	struct build_object *o;

	if (!is_new)
		return (uint32_t)*slot;
	*slot = r->b->shm.objects.count;
	o = vec_push(&r->b->shm.objects);
	o->o = (struct shm_object){ .trace = r->p->trace,
				    .dev = dev,
				    .inode = inode,
				    .creator = NO_ID,
				    .site = NO_ID,
				    .start = INT64_MAX,
				    .unlinked_at = INT64_MAX };
	o->newest_use = o->source = NO_ID;
	return (uint32_t)*slot;
}

static int64_t now_ns(const struct replay *r)
{
	return timebase_ns(&r->b->clocks.items[r->p->trace], r->now);
}

/* This process's use of the object; uses of one object are few, so they are a list. */
static struct build_use *use_of(struct replay *r, uint32_t object, uint32_t *index)
{
	uint32_t at = r->b->shm.objects.items[object].newest_use;
	struct build_use *u;

	for (; at != NO_ID; at = r->b->shm.uses.items[at].older)
		if (r->b->shm.uses.items[at].u.process == r->p->id)
			break;
	if (at == NO_ID) {
		at = (uint32_t)r->b->shm.uses.count;
		u = vec_push(&r->b->shm.uses);
		u->older = r->b->shm.objects.items[object].newest_use;
		u->newer_of_process = r->p->shm_uses;
		u->u = (struct shm_use){ .object = object,
					 .process = r->p->id,
					 .from = INT64_MAX,
					 .to = INT64_MIN,
					 .mapped_from = INT64_MAX,
					 .mapped_to = INT64_MIN };
		r->b->shm.objects.items[object].newest_use = at;
		r->p->shm_uses = at + 1;
	}
	*index = at;
	return &r->b->shm.uses.items[at];
}

static void use_mapped(struct replay *r, uint32_t object, uint32_t *index, int64_t time)
{
	struct build_use *u = use_of(r, object, index);

	u->maps++;
	if (time < u->u.mapped_from)
		u->u.mapped_from = time;
	if (time < u->u.from)
		u->u.from = time;
	u->u.mapped_to = time > u->u.mapped_to ? time : u->u.mapped_to;
	u->u.to = time > u->u.to ? time : u->u.to;
}

/* ---- where the content came from --------------------------------------------------------------- */

/*
 * A queue's thread copies a tensor into shared memory long after the line that made it: its stack
 * shows the thread. The block it copies is of just the same size and alive.
 */
static struct recent_block *recent_set(struct replay *r, uint64_t size)
{
	return &r->recent[(size * UINT64_C(0x9e3779b97f4a7c15) >> 56) * RECENT_WAYS];
}

void shm_block_taken(struct replay *r, uint64_t key, uint64_t size, uint32_t site)
{
	struct recent_block *set;

	if (!r->recent)
		r->recent = xcalloc(256 * RECENT_WAYS, sizeof(*r->recent));
	set = recent_set(r, size);
	memmove(set + 1, set, (RECENT_WAYS - 1) * sizeof(*set));
	set[0] = (struct recent_block){ key, size, site };
}

static uint32_t source_of(struct replay *r, uint64_t size)
{
	const struct recent_block *set = r->recent ? recent_set(r, size) : NULL;
	struct live_block block;

	for (int i = 0; set && i < RECENT_WAYS; i++)
		if (set[i].size == size && live_find(&r->live, set[i].key, &block) &&
		    block.owner == r->p->id && block.site == set[i].site && block.size == size)
			return set[i].site;
	return NO_ID;
}

/* ---- records ----------------------------------------------------------------------------------- */

static void created(struct replay *r, uint32_t object)
{
	struct build_object *o = &r->b->shm.objects.items[object];
	int64_t time = now_ns(r);

	if (o->certain && time >= o->o.start)
		return;
	o->o.creator = r->p->id;
	o->o.start = time;
	o->certain = true;
}

uint32_t shm_map(struct replay *r, const struct mt_ev_map *e, uint32_t site)
{
	struct build_object *o;
	uint32_t object, index;

	if ((e->kind & MT_KIND_MASK) != MT_KIND_SHM || !e->inode || !e->dev)
		return 0;
	object = object_at(r, e->dev, e->inode);
	use_mapped(r, object, &index, now_ns(r));
	o = &r->b->shm.objects.items[object];
	o->mapped = true;
	if (!o->truncated && e->offset < MAX_BLOCK_BYTES && e->offset + e->size > o->o.bytes)
		o->o.bytes = e->offset + e->size;
	if (!o->certain && now_ns(r) < o->o.start) {
		o->o.start = now_ns(r);
		o->o.creator = r->p->id;
	}
	if (o->o.creator == r->p->id && o->site_of != r->p->id + 1) {
		o->site_of = r->p->id + 1;
		o->o.site = site;
		o->source = source_of(r, e->size);
	}
	return index + 1;
}

void shm_unmap(struct replay *r, uint32_t use, int left)
{
	struct build_use *u = &r->b->shm.uses.items[use - 1];

	u->maps += (uint32_t)left - 1;
	u->u.mapped_to = now_ns(r) > u->u.mapped_to ? now_ns(r) : u->u.mapped_to;
	u->u.to = u->u.mapped_to > u->u.to ? u->u.mapped_to : u->u.to;
}

static void object_record(struct replay *r, const struct mt_ev_object *e)
{
	char name[512];
	uint32_t length = e->name.len < 255 ? e->name.len : 255;
	struct build_object *o;
	uint32_t object;

	if (length)
		memcpy(name, e->name.data, length);
	name[length] = '\0';
	if (e->op == MT_OBJECT_SHM_UNLINK) {
		struct build_unlink *u = vec_push(&r->b->shm.unlinks);

		u->name = arena_strdup(&r->b->arena, name);
		u->trace = r->p->trace;
		u->time = now_ns(r);
		return;
	}
	if (e->op == MT_OBJECT_SHMAT || e->op > MT_OBJECT_SHMAT || !e->inode)
		return;
	object = object_at(r, e->dev, e->inode);
	o = &r->b->shm.objects.items[object];
	o->named |= e->op != MT_OBJECT_TRUNCATE;
	if (length && !o->o.name)
		o->o.name = arena_strdup(&r->b->m->arena, name);
	if (e->op == MT_OBJECT_TRUNCATE) {
		o->o.bytes = e->size < MAX_BLOCK_BYTES ? e->size : 0;
		o->truncated = true;
	}
	o->o.is_memfd |= e->op == MT_OBJECT_MEMFD;
	if (e->op != MT_OBJECT_SHM_OPEN) /* opening alone may be somebody else's */
		created(r, object);
}

static void held_one(struct replay *r, const uint64_t v[5])
{
	uint32_t object = object_at(r, v[0], v[1]), index;
	struct build_use *u = use_of(r, object, &index);
	struct build_object *o = &r->b->shm.objects.items[object];
	int64_t time = now_ns(r);

	o->o.occupied = v[4] < MAX_BLOCK_BYTES ? v[4] : 0;
	if (!o->truncated && v[3] < MAX_BLOCK_BYTES)
		o->o.bytes = v[3];
	u->u.descriptors = (uint32_t)v[2];
	u->u.from = time < u->u.from ? time : u->u.from;
	u->u.to = time > u->u.to ? time : u->u.to;
	u->seen_open = time;
}

static void descriptors_record(struct replay *r, const struct mt_ev_descriptors *e)
{
	const uint8_t *p = (const uint8_t *)e->files.data, *end = p + e->files.len;
	uint64_t v[5];

	if (e->pid && e->pid != r->p->ev.pid)
		return;
	while (p < end) {
		for (int i = 0; i < 5; i++) {
			p = mt_get_varint(p, end, &v[i]);
			if (!p) {
				r->p->bad_values++;
				return;
			}
		}
		held_one(r, v);
	}
	*vec_push(&r->p->asked) = now_ns(r);
	r->p->open_most = e->open > r->p->open_most ? e->open : r->p->open_most;
}

bool shm_record(struct replay *r, const struct mt_record *rec)
{
	if (rec->id != MT_EV_OBJECT && rec->id != MT_EV_DESCRIPTORS)
		return false;
	if (r->now > r->to)
		return true;
	if (rec->id == MT_EV_OBJECT)
		object_record(r, &rec->u.object);
	else
		descriptors_record(r, &rec->u.descriptors);
	return true;
}

/* ---- forks and ends ---------------------------------------------------------------------------- */

void shm_fork(struct replay *r)
{
	size_t count;
	const struct map_range *all = maps_all(&r->maps, &count);
	struct map_range *range = NULL;

	for (size_t i = 0; i < count && !range; i++)
		if (all[i].use)
			range = maps_own_all(&r->maps);
	for (; range && count--; range++)
		if (range->use) {
			uint32_t object = r->b->shm.uses.items[range->use - 1].u.object, index;

			use_mapped(r, object, &index, now_ns(r));
			range->use = index + 1;
		}
}

/* Were descriptors asked for in this span? */
static bool was_asked(const struct proc *p, int64_t from, int64_t to)
{
	size_t low = 0, high = p->asked.count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (p->asked.items[mid] < from)
			low = mid + 1;
		else
			high = mid;
	}
	return low < p->asked.count && p->asked.items[low] <= to;
}

void shm_end(struct replay *r)
{
	int64_t last = r->p->asked.count ? r->p->asked.items[r->p->asked.count - 1] : INT64_MIN;
	int64_t time = now_ns(r);

	for (uint32_t at = r->p->shm_uses; at; at = r->b->shm.uses.items[at - 1].newer_of_process) {
		struct build_use *u = &r->b->shm.uses.items[at - 1];

		if (u->maps) {
			u->u.mapped_to = u->u.to = time;
			u->u.to_end = true;
		}
		/* Open when last asked: open until the end, for all that is known. */
		if (u->seen_open == last && u->u.descriptors) {
			u->u.to = time;
			u->u.to_end = true;
		}
		u->u.sampled = was_asked(r->p, u->u.from, u->u.to);
	}
	vec_release(&r->p->asked);
	free(r->recent);
}
