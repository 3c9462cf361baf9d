/*
 * The mappings of a process that its trace knows of: disjoint ranges in order of address. A range
 * can be given back in parts, and a mapping made over others replaces what lies under it.
 *
 * A range's end is rounded up to a page as the kernel does; its bytes are those asked for. A forked
 * child shares its parent's array until one of them changes it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_MAPS_H
#define MEMTRACE_ANALYZER_MAPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct map_range {
	uint64_t start, end; /* whole pages, end excluded */
	uint64_t asked; /* end of the bytes asked for, in (start, end], or less: only rounding */
	uint64_t birth;
	uint32_t site, owner; /* as in struct live_block */
	uint8_t kind; /* enum mt_kind and flags */
	uint32_t use; /* index + 1 of the struct build_use of a shared-memory object; 0: none */
};

struct map_array;

/* Zeroed: empty. */
struct maps {
	struct map_array *array;
};

/* Called for every range that gives something back: how many of the bytes asked for, and of how
 * many ranges what is left of it consists (0, 1, or 2 around a hole). Must not change the maps. */
typedef void maps_removed_fn(void *arg, const struct map_range *range, uint64_t bytes, int left);

uint64_t map_bytes(const struct map_range *r); /* asked for */

/* Removes [start, end); returns the number of ranges touched. */
size_t maps_remove(struct maps *maps, uint64_t start, uint64_t end, maps_removed_fn *fn, void *arg);
/* The range must be free: call maps_remove() first. Empty ranges are not kept. */
void maps_add(struct maps *maps, const struct map_range *range);
/* The range that holds the address, or NULL. Valid until the next change. */
const struct map_range *maps_find(const struct maps *maps, uint64_t addr);
const struct map_range *maps_all(const struct maps *maps, size_t *count);
/* The same, not shared with anybody and to be changed, but for the addresses. */
struct map_range *maps_own_all(struct maps *maps);
void maps_fork(const struct maps *parent, struct maps *child); /* child must be empty */
void maps_release(struct maps *maps);

#ifdef __cplusplus
}
#endif

#endif
