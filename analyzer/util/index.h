/*
 * Finds items of an array by their content, for arrays of millions: 8 bytes per slot, keys stay
 * where they are. Zero-initialise. The caller compares:
 *
 *	uint64_t hash = hash_bytes(&key, sizeof(key));
 *	index_each(&index, hash, i)
 *		if (!memcmp(&array[i], &key, sizeof(key)))
 *			return i;
 *	index_add(&index, hash, new_place);
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_INDEX_H
#define MEMTRACE_ANALYZER_INDEX_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct index_slot {
	uint32_t tag; /* folded hash: its place, and a first comparison */
	uint32_t item; /* index + 1; 0: free */
};

struct index {
	struct index_slot *slots;
	size_t mask, count;
};

#define INDEX_NONE UINT32_MAX

static inline uint32_t index_tag(uint64_t hash)
{
	return (uint32_t)(hash ^ hash >> 32);
}

/* The item must not be there yet. */
void index_add(struct index *ix, uint64_t hash, uint32_t item);
void index_release(struct index *ix);

/* The first item from slot *at on whose hash may be this one; INDEX_NONE: no more. */
static inline uint32_t index_next(const struct index *ix, uint64_t hash, size_t *at)
{
	if (!ix->slots)
		return INDEX_NONE;
	for (;; ++*at) {
		const struct index_slot *s = &ix->slots[*at & ix->mask];

		if (!s->item)
			return INDEX_NONE;
		if (s->tag == index_tag(hash)) {
			++*at;
			return s->item - 1;
		}
	}
}

#define index_each(ix, hash, i)                                                                    \
	for (size_t at_ = index_tag(hash), i = index_next((ix), (hash), &at_); i != INDEX_NONE;    \
	     i = index_next((ix), (hash), &at_))

#ifdef __cplusplus
}
#endif

#endif
