/*
 * The live set of a process: which blocks it holds at this point of the replay. A forked child
 * starts with its parent's, without a copy: the parent's table is frozen, both refer to it, and
 * each writes its own changes into a table on top (a block that the child frees is marked gone
 * there). When the child is done and the parent alone again, the frozen table becomes the parent's
 * own once more. So memory follows the number of live blocks and not that of processes.
 *
 * Tables are open addressing with linear probing. A key is an address, for other address spaces
 * than the heap's mixed with the kind (live_key). Not thread-safe.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_LIVE_H
#define MEMTRACE_ANALYZER_LIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LIVE_LAYERS 8 /* more are merged: a look-up visits each */

struct live_block {
	uint64_t key; /* never 0 */
	uint64_t size : 57;
	uint64_t mean : 7; /* index of the mean it was sampled with; 0: not sampled */
	uint64_t birth; /* time, in the trace's units */
	uint32_t site; /* of the process that made it */
	uint32_t owner; /* that process, < LIVE_MAX_OWNER */
};

#define LIVE_MAX_OWNER 0x7fffffffu
#define LIVE_MAX_MEAN 127

struct live_layer;

/* Zeroed: empty. */
struct live_set {
	struct live_layer *top; /* changes are made here; NULL: none yet */
	struct live_layer *under[LIVE_LAYERS + 1]; /* frozen, oldest first */
	uint32_t depth;
	uint32_t own; /* frozen tables below this one hold nothing made since live_fork() */
	size_t count; /* live blocks */
};

/* Blocks of different kinds may share an address: a device segment and the tensor in it. */
static inline uint64_t live_key(uint64_t addr, unsigned int kind)
{
	return addr ^ (uint64_t)(kind & 15) << 60;
}

/* True: a block was live there already; it is replaced and *old is it. */
bool live_add(struct live_set *set, const struct live_block *block, struct live_block *old);
/* False: no block is live there. */
bool live_remove(struct live_set *set, uint64_t key, struct live_block *block);
bool live_find(const struct live_set *set, uint64_t key, struct live_block *block);
/* `child` must be empty. It then holds what the parent holds. */
void live_fork(struct live_set *parent, struct live_set *child);
void live_release(struct live_set *set);
/* Calls fn once per live block, in no particular order. */
void live_each(const struct live_set *set, void (*fn)(void *arg, const struct live_block *block),
	       void *arg);
/* The same for the blocks that were added since the set was forked (all, if it was not). May visit
 * a few older ones: their owner is another. */
void live_each_own(const struct live_set *set,
		   void (*fn)(void *arg, const struct live_block *block), void *arg);
/* Bytes of tables this set refers to; shared ones are counted in full. */
size_t live_memory(const struct live_set *set);
/* For tests: every invariant of the tables. */
bool live_is_valid(const struct live_set *set);

#ifdef __cplusplus
}
#endif

#endif
