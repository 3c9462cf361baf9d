/*
 * Numbers for dictionary entries (stacks, frames, code objects ...): dense, from 1, unique within a
 * process. A stream takes them in small ranges so that threads share no cache line per entry; a
 * forked child goes on above everything its parent had handed out.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_IDS_H
#define MEMTRACE_PRELOAD_IDS_H

#include <stdint.h>

#include "core/thread.h"

enum mt_id_space { MT_ID_NODE, MT_ID_FRAME, MT_ID_MODULE, MT_ID_PYNODE, MT_ID_CODE, MT_ID_STRING };
#define MT_ID_SPACES 6

extern uint32_t mt_ids_next[MT_ID_SPACES]; /* atomic; first number not handed out, from 1 */

/* A fresh number of that space. Wraps after 2^32: callers stop far earlier by table size. */
static inline uint32_t mt_id_new(struct mt_thread *t, enum mt_id_space space)
{
	uint32_t range = space == MT_ID_NODE ? 64 : 1;

	if (t->ids[space].next == t->ids[space].end) {
		t->ids[space].next = __atomic_fetch_add(&mt_ids_next[space], range,
							__ATOMIC_RELAXED);
		t->ids[space].end = t->ids[space].next + range;
	}
	return t->ids[space].next++;
}

#endif
