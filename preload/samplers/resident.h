/*
 * When all pages of this process are walked, for what is resident and how allocators stand: when
 * notably more is resident than at any walk before, now and then, when its Python begins to shut
 * down, and when it ends.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_RESIDENT_H
#define MEMTRACE_PRELOAD_RESIDENT_H

#include <stdint.h>

#include "core/thread.h"

/* Behind every sample. rss: bytes, 0: not known. last: the process ends. Guard at SELF. */
void mt_resident_round(struct mt_thread *t, uint64_t rss, int last);

/* In a forked child. */
void mt_resident_child(void);

#endif
