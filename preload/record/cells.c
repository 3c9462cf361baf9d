/*
 * See cells.h. An open-addressed table that doubles; cells never move, because they are the trace.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "record/cells.h"

#include <string.h>

#include "core/mem.h"
#include "out/file.h"
#include "out/stream.h"
#include "sys/sys.h"

#define FIRST_SLOTS 128
#define FIRST_UNITS 16 /* 4 KiB: 63 cells */
#define MOST_SHIFT 8 /* 1 MiB */
#define CAP_SHARE 64 /* as in nursery.c */
#define BUCKETS 16384
#define WAYS 4
#define WORTH 4 /* folds that are listed before a site gets a cell */

/*
 * Sites without a cell, by hash, with how often they asked for one: tag << 3 | count. A cell is
 * worth its 64 bytes for a site that comes again and again: listing one block costs some 12, and of
 * the sites of `import torch` that fold more than one, half fold two. Shared by all threads and
 * written without care: a lost entry costs a few records.
 */
static uint32_t seen[BUCKETS][WAYS];

static uint64_t site_hash(uint32_t native, uint32_t python, uint32_t kind)
{
	return (((uint64_t)python << 32 | native) + kind) * UINT64_C(0x9e3779b97f4a7c15);
}

/* The site's entry, or else that of the site which asked least: frequent ones keep theirs. */
static uint32_t *entry_of(uint32_t bucket[WAYS], uint32_t tag)
{
	uint32_t *least = &bucket[0];

	for (uint32_t i = 0; i < WAYS; i++) {
		uint32_t e = __atomic_load_n(&bucket[i], __ATOMIC_RELAXED);

		if (e >> 3 == tag)
			return &bucket[i];
		if ((e & 7) < (__atomic_load_n(least, __ATOMIC_RELAXED) & 7))
			least = &bucket[i];
	}
	return least;
}

static int comes_again(uint64_t hash)
{
	uint32_t tag = (uint32_t)(hash >> 16) >> 3 | 1;
	uint32_t *entry = entry_of(seen[hash >> 50], tag);
	uint32_t e = __atomic_load_n(entry, __ATOMIC_RELAXED);
	uint32_t count = e >> 3 == tag ? e & 7 : 0;

	if (count == WORTH)
		return 1;
	__atomic_store_n(entry, tag << 3 | (count + 1), __ATOMIC_RELAXED);
	return 0;
}

static struct mt_cell_slot *slot_of(struct mt_cell_slot *slots, uint32_t room, uint32_t native,
				    uint32_t python, uint32_t kind)
{
	uint32_t at = (uint32_t)(site_hash(native, python, kind) >> 32) & (room - 1);

	while (slots[at].cell &&
	       (slots[at].native != native || slots[at].python != python || slots[at].kind != kind))
		at = (at + 1) & (room - 1);
	return &slots[at];
}

static int grow(struct mt_cells *c)
{
	uint32_t room = c->room ? 2 * c->room : FIRST_SLOTS;
	struct mt_cell_slot *slots;

	if (!c->front)
		c->front = mt_mem_map(MT_CELL_FRONT * sizeof(*c->front));
	slots = c->front ? mt_mem_map(room * sizeof(*slots)) : NULL;
	if (!slots)
		return 0;
	for (uint32_t i = 0; i < c->room; i++)
		if (c->slots[i].cell)
			*slot_of(slots, room, c->slots[i].native, c->slots[i].python,
				 c->slots[i].kind) = c->slots[i];
	mt_mem_unmap(c->slots, c->room * sizeof(*slots));
	c->slots = slots;
	c->room = room;
	memset(c->front, 0, MT_CELL_FRONT * sizeof(*c->front)); /* homes moved */
	return 1;
}

static int chunk_open(struct mt_thread *t, struct mt_cells *c)
{
	uint32_t units = FIRST_UNITS << (c->seq < MOST_SHIFT ? c->seq : MOST_SHIFT);

	while (mt_file.max_bytes && units * MT_UNIT_BYTES > mt_file.max_bytes / CAP_SHARE)
		units /= 2;
	if (c->maps == MT_CELL_MAPS || units < FIRST_UNITS)
		return 0;
	c->chunk = mt_stream_side_chunk(t, MT_CHUNK_COUNTERS, c->seq, units, &c->map[c->maps].at,
					&c->map[c->maps].bytes);
	if (!c->chunk)
		return 0;
	c->maps++;
	c->seq++;
	c->chunk_cells = (uint32_t)((units * MT_UNIT_BYTES - sizeof(struct mt_chunk)) /
				    sizeof(struct mt_cell));
	return 1;
}

/* A cell of its own for the slot, committed. */
static int cell_new(struct mt_thread *t, struct mt_cells *c, struct mt_cell_slot *slot)
{
	uint32_t n = c->chunk ? c->chunk->used / (uint32_t)sizeof(struct mt_cell) : 0;
	struct mt_cell *cell;

	if (!c->chunk || n == c->chunk_cells) {
		if (!chunk_open(t, c))
			return 0;
		n = 0;
	}
	cell = (struct mt_cell *)(c->chunk + 1) + n;
	cell->native = slot->native;
	cell->python = slot->python;
	cell->kind = slot->kind;
	/* Release: a cell that counts as used has its names. */
	__atomic_store_n(&c->chunk->used, (n + 1) * (uint32_t)sizeof(*cell), __ATOMIC_RELEASE);
	slot->offset = c->chunk->self + sizeof(struct mt_chunk) + n * sizeof(*cell);
	slot->cell = cell;
	return 1;
}

/* The site's place in the table, with a cell; NULL as in mt_cells_find. */
static struct mt_cell_slot *home_of(struct mt_thread *t, struct mt_cells *c, uint32_t native,
				    uint32_t python, uint32_t kind)
{
	struct mt_cell_slot *slot;

	if (c->count >= c->room / 4 * 3 && !grow(c))
		return NULL;
	slot = slot_of(c->slots, c->room, native, python, kind);
	if (slot->cell)
		return slot;
	if (!comes_again(site_hash(native, python, kind)))
		return NULL;
	slot->native = native;
	slot->python = python;
	slot->kind = kind;
	if (!cell_new(t, c, slot))
		return NULL;
	c->count++;
	return slot;
}

struct mt_cell_front *mt_cells_find(struct mt_thread *t, struct mt_cells *c, uint32_t native,
				    uint32_t python, uint32_t kind)
{
	uint64_t hash = site_hash(native, python, kind);
	struct mt_cell_front *f = c->front ? &c->front[hash >> (64 - MT_CELL_FRONT_BITS)] : NULL;
	struct mt_cell_slot *home;

	if (f && f->slot.native == native && f->slot.python == python && f->slot.kind == kind &&
	    f->slot.cell)
		return f;
	home = home_of(t, c, native, python, kind);
	if (!home)
		return NULL;
	f = &c->front[hash >> (64 - MT_CELL_FRONT_BITS)];
	f->slot = *home;
	f->home = home;
	return f;
}

void mt_cells_drop(struct mt_cells *c)
{
	for (uint32_t i = 0; i < c->maps; i++)
		mt_sys_munmap(c->map[i].at, c->map[i].bytes);
	mt_mem_unmap(c->slots, c->room * sizeof(*c->slots));
	mt_mem_unmap(c->front, MT_CELL_FRONT * sizeof(*c->front));
	memset(c, 0, sizeof(*c));
}
