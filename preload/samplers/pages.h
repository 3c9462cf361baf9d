/*
 * Walks over the pages of a process: SCAN, RANGE, SCAN_END of docs/FORMAT.md 3.9. Copy-on-write and
 * resident memory are both read off them. Unprivileged: the process itself, or one of the same
 * user. Called on the slow path of an event, with the guard at SELF.
 *
 *	mt_pages_walk(t, MT_SCAN_PEAK, MT_SCAN_ALL, 0);
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_PAGES_H
#define MEMTRACE_PRELOAD_PAGES_H

#include <stdint.h>

#include "core/thread.h"
#include "memtrace/format.h"

/*
 * Walks over process `pid`, 0: this one, and writes what it found into t's stream. Costs 3 to
 * 5 ms of CPU time per GiB that is resident, and 1 ms for 2,000 mappings; ranges that nobody touched
 * cost next to nothing. Of large processes a part of the pages is read (pagemap.h). In a process with threads it sleeps between pieces, so that their mmap never
 * waits long; a fork of another thread cuts it short. One walk at a time: a second one is refused.
 *
 * The time it took in ns, or -errno: nothing, or only an incomplete walk, was written.
 */
int64_t mt_pages_walk(struct mt_thread *t, enum mt_scan_reason reason, enum mt_scan_scope scope,
		      uint32_t pid);

/*
 * Writes down that the last walk of `pid` (0: this process) by this one still stands: scope
 * MT_SCAN_NONE. The caller knows that no page has been copied since.
 */
void mt_pages_same(struct mt_thread *t, uint32_t pid);

/* Page faults of a process until now, minor and major; 0: can't be read. */
uint64_t mt_pages_faults(uint32_t pid);

/* Set by init.c: called before a walk over this process, so that what lives now is listed. */
extern void (*mt_pages_before)(void);

/* Have all pages of this process been walked, whole, with reason EXIT? */
int mt_pages_ended(void);

/* In a forked child: no walk is under way. */
void mt_pages_child(void);

#endif
