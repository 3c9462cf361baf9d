/*
 * Numbers for things seen before: lock-free maps from a 64-bit key to a 32-bit value, and on top
 * of them the trie of native stacks. Maps grow by whole segments and never move an entry, so a
 * reader needs nothing but loads, a fork leaves nothing half done, and a child's inserts go to
 * segments of its own instead of copying its parent's pages.
 *
 * Two threads that insert one key at the same moment may both succeed, with different values:
 * both are good, readers of a trace merge what is equal.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_INTERN_H
#define MEMTRACE_PRELOAD_INTERN_H

#include <stdint.h>

#include "core/thread.h"

enum { MT_MAP_SEGMENTS = 24 };

/* Values that mean something to the map itself; callers' values lie between 1 and BUSY. */
#define MT_MAP_EMPTY 0u
#define MT_MAP_BUSY 0xfffffffeu /* an insert is under way; stays for ever if a fork cut it off */
#define MT_MAP_DEAD 0xffffffffu /* was removed; its key may come back */

struct mt_map_entry {
	uint64_t key; /* constant once value is set */
	uint32_t value; /* atomic */
	uint32_t reserved;
};

struct mt_map_segment {
	uint32_t bits; /* log2 of its slots */
	uint32_t used; /* atomic; slots taken */
	uint64_t reserved[7]; /* entries start a cache line */
	struct mt_map_entry entries[];
};

struct mt_map {
	struct mt_map_segment *segments[MT_MAP_SEGMENTS]; /* atomic each; filled from 0 */
	uint32_t count; /* atomic; of segments */
	uint32_t frozen; /* segments below belong to an ancestor: no inserts */
	uint32_t first_bits; /* of the first segment after a start or fork */
	uint32_t limit; /* entries in all */
	uint32_t entries; /* atomic; so far */
};

/* The value of a key, or 0. */
uint32_t mt_map_find(const struct mt_map *map, uint64_t key);

/* Adds a key that find did not know. Returns its value, which is another thread's if that was
 * first; 0 when the map is full. */
uint32_t mt_map_insert(struct mt_map *map, uint64_t key, uint32_t value);

/* Forgets a key wherever it stands. */
void mt_map_remove(struct mt_map *map, uint64_t key);

/* In a forked child: see `frozen`. */
void mt_map_child(struct mt_map *map);

/* Empties it; its memory goes by mt_mem_forget. */
void mt_map_forget(struct mt_map *map);

/* ---- native stacks -----------------------------------------------------------------------------
 */

/* The stack "frame called from parent" (0: outermost). Writes NODE on first sight, before anyone
 * can find it. A full trie gives the stack that consists of MT_FRAME_LOST; 0: not even that could
 * be written. */
uint32_t mt_node_intern(struct mt_thread *t, uint32_t parent, uint32_t frame);

/* Frame id of an enum mt_pseudo_frame, written when first used; 0: it could not be. */
uint32_t mt_frame_pseudo(struct mt_thread *t, unsigned int which);

/* Stack of nothing but that pseudo frame, for the outer end of an incomplete one. */
uint32_t mt_node_pseudo(struct mt_thread *t, unsigned int which);

void mt_intern_child(void);
void mt_intern_forget(void);

#endif
