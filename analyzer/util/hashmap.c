/*
 * See hashmap.h. Entries lie in one array, so that a walk over the map is in order of insertion
 * and does not depend on the hash.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "util/hashmap.h"

#include <stdlib.h>
#include <string.h>

#include "util/alloc.h"
#include "util/vec.h"

uint64_t hash_bytes(const void *data, size_t len)
{
	const char *p = data;
	uint64_t hash = 0x9e3779b97f4a7c15u ^ len;

	while (len) {
		uint64_t word = 0;
		size_t n = len < 8 ? len : 8;

		memcpy(&word, p, n);
		hash = (hash ^ word) * 0xff51afd7ed558ccdu;
		hash ^= hash >> 32;
		p += n;
		len -= n;
	}
	return hash;
}

static void hashmap_rehash(struct hashmap *map, size_t slots)
{
	free(map->table);
	map->table = xcalloc(slots, sizeof(*map->table));
	map->mask = slots - 1;
	for (size_t i = 0; i < map->count; i++) {
		size_t at = map->entries[i].hash & map->mask;

		while (map->table[at])
			at = (at + 1) & map->mask;
		map->table[at] = (uint32_t)i + 1;
	}
}

static size_t hashmap_find(const struct hashmap *map, const void *key, size_t len, uint64_t hash)
{
	size_t at = hash & map->mask;

	for (; map->table[at]; at = (at + 1) & map->mask) {
		const struct hashmap_entry *e = &map->entries[map->table[at] - 1];

		if (e->hash == hash && e->len == len && (!len || !memcmp(e->key, key, len)))
			break;
	}
	return at;
}

uint64_t *hashmap_get(const struct hashmap *map, const void *key, size_t len)
{
	size_t at;

	if (!map->count)
		return NULL;
	at = hashmap_find(map, key, len, hash_bytes(key, len));
	return map->table[at] ? &map->entries[map->table[at] - 1].value : NULL;
}

uint64_t *hashmap_slot(struct hashmap *map, const void *key, size_t len, bool *is_new)
{
	uint64_t hash = hash_bytes(key, len);
	struct hashmap_entry *e;
	size_t at;

	if (map->count * 2 >= map->mask)
		hashmap_rehash(map, map->mask ? (map->mask + 1) * 2 : 16);
	at = hashmap_find(map, key, len, hash);
	if (is_new)
		*is_new = !map->table[at];
	if (map->table[at])
		return &map->entries[map->table[at] - 1].value;
	map->entries = vec_room(map->entries, &map->room, map->count + 1, sizeof(*map->entries));
	e = &map->entries[map->count++];
	e->key = arena_strndup(&map->keys, key, len);
	e->len = len;
	e->hash = hash;
	e->value = 0;
	map->table[at] = (uint32_t)map->count;
	return &e->value;
}

void hashmap_release(struct hashmap *map)
{
	free(map->entries);
	free(map->table);
	arena_release(&map->keys);
	memset(map, 0, sizeof(*map));
}
