/*
 * The nursery: a thread's newest allocations, kept back until it is known whether they matter
 * (FORMAT.md 3.7). Most are freed by the thread that made them within its next few thousand
 * allocations; such a pair is folded into its site's cell (cells.h) and leaves no record, so that a
 * trace grows with the memory that stays and not with the traffic.
 *
 * Nursery and cells lie in the trace file: what a SIGKILL leaves behind is complete.
 *
 * Everything here belongs to the calling thread; what others do matters in two ways only. A free by
 * another thread is noted in a table by address, and an entry whose note changed since it was made
 * is not trusted. A cut (cut.h) is a time that no folded pair may span.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_NURSERY_H
#define MEMTRACE_PRELOAD_NURSERY_H

#include <stdint.h>

#include "core/thread.h"

struct mt_block {
	uint64_t addr;
	uint64_t time; /* after the real call */
	uint64_t size; /* requested bytes */
	uint32_t native, python; /* stacks */
	uint32_t kind; /* enum mt_kind and flags */
};

/* Once, at start. Without memory nothing is folded. */
void mt_nursery_init(void);

/* Is anything folded in this process? Constant while recording. */
extern uint32_t mt_nursery_on;

/* Takes a new block in: 1. 0: it is to be listed by the caller. */
int mt_nursery_add(struct mt_thread *t, const struct mt_block *block);

/*
 * A block is given back. 1: it was folded. 0: the free is to be listed by the caller, at *time or
 * later. *time: when, where the caller knows; else 0, because most frees never need to know exactly.
 */
int mt_nursery_free(struct mt_thread *t, uint32_t kind, uint64_t addr, uint64_t *time);

/* Ahead of a real realloc: by the time it returns, the block may be another thread's. */
void mt_nursery_resizing(struct mt_thread *t, uint32_t kind, uint64_t addr);

/* In a forked child: nurseries and cells are the parent's. */
void mt_nursery_child(void);

/* Recording has ended and no thread is inside a hook. */
void mt_nursery_forget(void);

#endif
