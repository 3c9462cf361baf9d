/*
 * From bytes to a number: strings to indices, for things that are looked up more than a few times.
 * Zero-initialise (HASHMAP_INIT). Keys are copied. Not for event rates: see model/live.h.
 *
 *	uint64_t *slot = hashmap_slot(&map, name, strlen(name), &is_new);
 *	if (is_new)
 *		*slot = next++;
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_HASHMAP_H
#define MEMTRACE_ANALYZER_HASHMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/arena.h"

#ifdef __cplusplus
extern "C" {
#endif

struct hashmap {
	struct hashmap_entry *entries; /* in the order they were added */
	uint32_t *table; /* open addressing: 1 + index in entries, 0 free */
	size_t count, room;
	size_t mask; /* slots of table - 1 */
	struct arena keys;
};

struct hashmap_entry {
	const char *key;
	size_t len;
	uint64_t hash;
	uint64_t value;
};

#define HASHMAP_INIT                                                                               \
	{                                                                                          \
		NULL, NULL, 0, 0, 0, ARENA_INIT                                                    \
	}

/* The value of the key, or NULL. */
uint64_t *hashmap_get(const struct hashmap *map, const void *key, size_t len);
/* The value of the key, made with 0 where it is not there. Valid until the next one is made. */
uint64_t *hashmap_slot(struct hashmap *map, const void *key, size_t len, bool *is_new);
void hashmap_release(struct hashmap *map);

/* FNV-like, 8 bytes at a time; not stable between versions. */
uint64_t hash_bytes(const void *data, size_t len);

#ifdef __cplusplus
}
#endif

#endif
