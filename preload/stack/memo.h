/*
 * The path memo: whole native stacks of one thread, found again by comparing memory.
 *
 * A path is the list of all stack words that its walk depended on (return addresses, saved frame
 * pointers that an outer frame is found by), with the stack it gave. If every word still holds what
 * it held, the unwinder would do again what it did: the answer is exact, costs 0.3 to 0.4 ns a word
 * and asks no table about any frame.
 *
 * A path is looked for by the place and value of the innermost return address. Where several paths
 * share these (one call site, different callers), the innermost word in which they differ becomes
 * part of the key. Tables have two places for each key: with one, of 700 paths in 4,096 places one
 * in six shares its place with another, and then both are walked every time.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_MEMO_H
#define MEMTRACE_PRELOAD_MEMO_H

#include <stdint.h>

enum {
	MT_MEMO_KEYS = 4, /* words besides the return address */
	MT_MEMO_SITES_BITS = 13,
	MT_MEMO_PATHS_BITS = 13,
	MT_MEMO_BYTES = 4096 << 10, /* of words and offsets; touched as it fills */
	MT_MEMO_CHILD_BYTES = 256 << 10, /* of these, for a forked process */
	MT_MEMO_WORDS_MAX = 400, /* longer paths are not worth the room */
};

/* One call site at one depth: which words tell its paths apart. */
struct mt_memo_site {
	uint64_t key; /* slot and return address, hashed */
	uint16_t at[MT_MEMO_KEYS]; /* words from the innermost slot */
	uint16_t count;
};

struct mt_memo_path {
	uint64_t key; /* of the site and the words that tell paths apart */
	uintptr_t slot; /* of the innermost return address */
	uintptr_t rbp; /* compared if need */
	uint32_t words; /* where its values stand in the arena, in units of 8 bytes */
	uint16_t count;
	uint16_t need;
	uint32_t node; /* 0: empty */
};

struct mt_memo {
	uint32_t used; /* of the arena, units of 8 bytes */
	uint32_t base, end; /* the part that may be written; end 0: all of it */
	uint32_t filled; /* 1: there may be paths */
	uint32_t turn; /* which of two places is given up next */
	struct mt_memo_site sites[1 << MT_MEMO_SITES_BITS];
	struct mt_memo_path paths[1 << MT_MEMO_PATHS_BITS];
	uint64_t arena[MT_MEMO_BYTES / 8];
};

struct mt_check {
	uintptr_t address, value;
};

/*
 * The stack whose innermost return address is at `slot`, or 0. The slot, and all of the stack above
 * it up to where it was when paths were added, must be mapped: own stack of the thread.
 */
uint32_t mt_memo_find(struct mt_memo *m, uintptr_t slot, uintptr_t rbp);

/* Remembers a walk: its checks, outermost first, all at or above `slot`. need: rbp counts. */
void mt_memo_add(struct mt_memo *m, uintptr_t slot, uintptr_t rbp, int need,
		 const struct mt_check *checks, uint32_t count, uint32_t node);

/* Forgets everything: another thread, other modules. */
void mt_memo_clear(struct mt_memo *m);

/* In a forked child: what is inherited stays shared, and a small part behind it is its own. */
void mt_memo_child(struct mt_memo *m);

#endif
