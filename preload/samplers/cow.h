/*
 * Whose pages are walked for copy-on-write, and when (MEMTRACE_COW_INTERVAL): a forked child with its
 * first event, then it and whoever forked every interval, and when they end. A process that makes
 * no event can't do it itself: any other of the tree that does, walks it in its stead.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_COW_H
#define MEMTRACE_PRELOAD_COW_H

#include <stdint.h>

#include "core/thread.h"

/* Once at start. */
void mt_cow_init(uint64_t interval_ns);

/* After the first walk of a forked child; set by fork.c. NULL: nobody wants to know. */
extern void (*mt_cow_began)(struct mt_thread *t);

/* This process has forked: in the parent; in the child. */
void mt_cow_forked(void);
void mt_cow_child(void);

/* Recording has ended. */
void mt_cow_forget(void);

/* What is due now; last: this process ends. Guard at SELF, one caller at a time. Returns in how many
 * ns it wants to be called again. */
uint64_t mt_cow_round(struct mt_thread *t, int last);

#endif
