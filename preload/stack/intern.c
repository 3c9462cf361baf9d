/*
 * Lock-free maps and the trie of native stacks. See intern.h.
 *
 * An entry's life: value EMPTY -> BUSY (the slot is claimed by one compare-and-swap) -> key stored
 * -> value published with release. Probing is linear and ends at an EMPTY slot; a segment is
 * closed at 5/8 of its slots, so there always is one.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "stack/intern.h"

#include <stddef.h>

#include "core/ids.h"
#include "core/mem.h"
#include "out/stream.h"

enum { BITS_MAX = 22, BITS_QUADRUPLE = 18 };

static uint64_t map_hash(uint64_t key)
{
	key ^= key >> 32;
	key *= UINT64_C(0x9e3779b97f4a7c15);
	key ^= key >> 29;
	return key * UINT64_C(0xbf58476d1ce4e5b9);
}

static uint32_t segment_slot(const struct mt_map_segment *s, uint64_t hash)
{
	return (uint32_t)(hash >> (64 - s->bits));
}

/* A plain load to the CPU; the count that lets it be called was read with acquire. */
static struct mt_map_segment *map_segment(const struct mt_map *map, uint32_t n)
{
	return __atomic_load_n(&map->segments[n], __ATOMIC_RELAXED);
}

static uint32_t segment_find(const struct mt_map_segment *s, uint64_t hash, uint64_t key)
{
	uint32_t mask = (1u << s->bits) - 1;
	uint32_t i = segment_slot(s, hash);
	uint32_t value;

	for (;; i = (i + 1) & mask) {
		/* Acquire: the key, and what the value stands for, were stored before it. */
		value = __atomic_load_n(&s->entries[i].value, __ATOMIC_ACQUIRE);
		if (value == MT_MAP_EMPTY)
			return 0;
		if (value < MT_MAP_BUSY && s->entries[i].key == key)
			return value;
	}
}

uint32_t mt_map_find(const struct mt_map *map, uint64_t key)
{
	uint32_t count = __atomic_load_n(&map->count, __ATOMIC_ACQUIRE);
	uint64_t hash = map_hash(key);
	uint32_t i, value;

	/* A miss looks into every segment: let their cache misses overlap. */
	for (i = 0; count > 1 && i < count; i++)
		__builtin_prefetch(
			&map_segment(map, i)->entries[segment_slot(map_segment(map, i), hash)]);
	for (i = count; i-- > 0;) {
		value = segment_find(map_segment(map, i), hash, key);
		if (value)
			return value;
	}
	return 0;
}

/* Makes segment number `n` exist; 0 or -1. */
static int map_grow(struct mt_map *map, uint32_t n)
{
	struct mt_map_segment *s = NULL, *old;
	uint32_t bits, expected = n;
	size_t size;

	if (n >= MT_MAP_SEGMENTS)
		return -1;
	old = __atomic_load_n(&map->segments[n], __ATOMIC_ACQUIRE);
	if (!old) {
		bits = map->first_bits;
		if (n > map->frozen)
			bits = map_segment(map, n - 1)->bits +
			       (map_segment(map, n - 1)->bits < BITS_QUADRUPLE ? 2 : 1);
		bits = bits > BITS_MAX ? BITS_MAX : bits;
		size = sizeof(*s) + (sizeof(s->entries[0]) << bits);
		size = (size + 4095) & ~(size_t)4095;
		s = mt_mem_map(size);
		if (!s)
			return -1;
		s->bits = bits;
		/* Release: bits before the pointer. */
		if (!__atomic_compare_exchange_n(&map->segments[n], &old, s, 0, __ATOMIC_RELEASE,
						 __ATOMIC_RELAXED))
			mt_mem_unmap(s, size);
	}
	/* Whoever comes first counts it, so a thread that a fork cut off here is made up for. */
	__atomic_compare_exchange_n(&map->count, &expected, n + 1, 0, __ATOMIC_RELEASE,
				    __ATOMIC_RELAXED);
	return 0;
}

/* The value that now stands for the key in this segment, or 0 when another has to be used. */
static uint32_t segment_insert(struct mt_map_segment *s, uint64_t key, uint32_t value)
{
	uint32_t mask = (1u << s->bits) - 1;
	uint32_t i = segment_slot(s, map_hash(key));
	struct mt_map_entry *e;
	uint32_t seen;

	if (__atomic_load_n(&s->used, __ATOMIC_RELAXED) >= (mask + 1) / 8 * 5)
		return 0;
	__atomic_fetch_add(&s->used, 1, __ATOMIC_RELAXED);
	for (;; i = (i + 1) & mask) {
		e = &s->entries[i];
		seen = __atomic_load_n(&e->value, __ATOMIC_ACQUIRE);
		if (seen == MT_MAP_EMPTY) {
			if (!__atomic_compare_exchange_n(&e->value, &seen, MT_MAP_BUSY, 0,
							 __ATOMIC_ACQUIRE, __ATOMIC_ACQUIRE)) {
				i = (i - 1) & mask; /* look at the same slot again */
				continue;
			}
			e->key = key;
			__atomic_store_n(&e->value, value, __ATOMIC_RELEASE);
			return value;
		}
		if (seen == MT_MAP_BUSY || e->key != key)
			continue;
		if (seen == MT_MAP_DEAD &&
		    __atomic_compare_exchange_n(&e->value, &seen, value, 0, __ATOMIC_RELEASE,
						__ATOMIC_ACQUIRE))
			seen = value;
		if (seen != MT_MAP_DEAD) {
			__atomic_fetch_sub(&s->used, 1,
					   __ATOMIC_RELAXED); /* no new slot after all */
			return seen;
		}
	}
}

uint32_t mt_map_insert(struct mt_map *map, uint64_t key, uint32_t value)
{
	uint32_t n, found;

	if (__atomic_fetch_add(&map->entries, 1, __ATOMIC_RELAXED) >= map->limit) {
		__atomic_fetch_sub(&map->entries, 1, __ATOMIC_RELAXED);
		return 0;
	}
	for (;;) {
		n = __atomic_load_n(&map->count, __ATOMIC_ACQUIRE);
		if (n > map->frozen) {
			found = segment_insert(map_segment(map, n - 1), key, value);
			if (found)
				return found;
		}
		if (map_grow(map, n) < 0)
			return 0;
	}
}

void mt_map_remove(struct mt_map *map, uint64_t key)
{
	uint32_t count = __atomic_load_n(&map->count, __ATOMIC_ACQUIRE);
	uint64_t hash = map_hash(key);
	struct mt_map_segment *s;
	struct mt_map_entry *e;
	uint32_t i, value;

	while (count-- > 0) {
		s = map_segment(map, count);
		for (i = segment_slot(s, hash);; i = (i + 1) & ((1u << s->bits) - 1)) {
			e = &s->entries[i];
			value = __atomic_load_n(&e->value, __ATOMIC_ACQUIRE);
			if (value == MT_MAP_EMPTY)
				break;
			if (value < MT_MAP_BUSY && e->key == key &&
			    __atomic_compare_exchange_n(&e->value, &value, MT_MAP_DEAD, 0,
							__ATOMIC_RELAXED, __ATOMIC_RELAXED))
				__atomic_fetch_sub(&map->entries, 1, __ATOMIC_RELAXED);
		}
	}
}

void mt_map_child(struct mt_map *map)
{
	/* A chain of forks may not use up the segments: then the last one is shared after all. */
	if (map->count < MT_MAP_SEGMENTS / 2)
		map->frozen = map->count;
	map->first_bits = 8;
}

void mt_map_forget(struct mt_map *map)
{
	map->count = map->frozen = map->entries = 0;
	for (uint32_t i = 0; i < MT_MAP_SEGMENTS; i++)
		map->segments[i] = NULL;
}

/* ---- native stacks -----------------------------------------------------------------------------
 */

/* 16 M nodes are 430 MB at the fill a grown map has: more than that is not a stack dictionary. */
static struct mt_map nodes = { .first_bits = 12, .limit = 16u << 20 };
static uint32_t pseudo_frames[MT_FRAME_LOST + 1]; /* atomic each; ids, 0: not written yet */

uint32_t mt_frame_pseudo(struct mt_thread *t, unsigned int which)
{
	uint32_t id = __atomic_load_n(&pseudo_frames[which], __ATOMIC_ACQUIRE);

	if (id)
		return id;
	id = mt_id_new(t, MT_ID_FRAME);
	if (!MT_EMIT(t, frame, .id = id, .module = 0, .offset = which))
		return 0;
	__atomic_store_n(&pseudo_frames[which], id, __ATOMIC_RELEASE);
	return id;
}

static uint32_t node_new(struct mt_thread *t, uint32_t parent, uint32_t frame, uint64_t key)
{
	uint32_t id = mt_id_new(t, MT_ID_NODE);

	if (!MT_EMIT(t, node, .id = id, .parent = parent, .frame = frame))
		return 0;
	return mt_map_insert(&nodes, key, id);
}

uint32_t mt_node_pseudo(struct mt_thread *t, unsigned int which)
{
	uint32_t frame = mt_frame_pseudo(t, which);

	return frame ? mt_node_intern(t, 0, frame) : 0;
}

/* Kept outside the map, which is full when it is needed. */
static uint32_t lost; /* atomic; id */

static uint32_t node_lost(struct mt_thread *t)
{
	uint32_t id = __atomic_load_n(&lost, __ATOMIC_ACQUIRE);
	uint32_t frame;

	if (id)
		return id;
	frame = mt_frame_pseudo(t, MT_FRAME_LOST);
	id = mt_id_new(t, MT_ID_NODE);
	if (!frame || !MT_EMIT(t, node, .id = id, .parent = 0, .frame = frame))
		return 0;
	__atomic_store_n(&lost, id, __ATOMIC_RELEASE);
	return id;
}

uint32_t mt_node_intern(struct mt_thread *t, uint32_t parent, uint32_t frame)
{
	uint64_t key = (uint64_t)parent << 32 | frame;
	uint32_t id = mt_map_find(&nodes, key);

	if (!id)
		id = node_new(t, parent, frame, key);
	return id ? id : node_lost(t);
}

void mt_intern_child(void)
{
	mt_map_child(&nodes);
}

void mt_intern_forget(void)
{
	mt_map_forget(&nodes);
	for (unsigned int i = 0; i <= MT_FRAME_LOST; i++)
		pseudo_frames[i] = 0;
	lost = 0;
}
