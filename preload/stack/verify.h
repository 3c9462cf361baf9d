/*
 * MEMTRACE_VERIFY: every n-th native stack is walked three times, by the quick way, by the full way
 * and by libunwind, and what differs is counted. The trace itself stays what it would have been.
 * Slow; for tests, and for whoever does not trust a stack.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_VERIFY_H
#define MEMTRACE_PRELOAD_VERIFY_H

#include <stdint.h>

#include "core/thread.h"
#include "stack/stack.h"

struct mt_native_cache;

/* Every how many stacks of a thread one is verified; 0: never, as in most processes. Constant once
 * the constructor has run, but for a forked child, where it is 0. */
extern uint32_t mt_verify_every;

/* What the full walk passed, for verify.c: only where a cache has one. */
struct mt_trail {
	uint32_t count; /* frames passed, also those beyond the room */
	uint32_t end; /* pseudo frame that the walk ended at; 0: at the stack's end */
	uint32_t in_module; /* the last address lies in a module */
	uint32_t
		judged; /* frames up to the first in no module, that one too: libunwind guesses there */
	uint32_t room;
	uintptr_t *ip;
};

static inline void mt_trail_add(struct mt_trail *trail, uintptr_t ip, uint32_t module)
{
	if (trail->count < trail->room)
		trail->ip[trail->count] = ip;
	trail->count++;
	trail->in_module = module != 0;
	if (!module && trail->judged == UINT32_MAX)
		trail->judged = trail->count;
}

/* After each stack of a process that verifies; node: what was found. */
void mt_verify(struct mt_native_cache *c, struct mt_thread *t, struct mt_caller caller,
	       uint32_t node);

/* In a forked child. */
void mt_verify_child(void);

#endif
