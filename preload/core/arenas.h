/*
 * Where CPython's small-object allocator has had arenas: what a walk over the pages looks at.
 * Addresses are never taken out; whoever reads finds out whether an arena is still there.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_ARENAS_H
#define MEMTRACE_PRELOAD_ARENAS_H

#include <stddef.h>
#include <stdint.h>

#define MT_ARENA_SMALL ((size_t)256 << 10) /* up to CPython 3.9: pools of 4 KiB */
#define MT_ARENA_LARGE ((size_t)1 << 20) /* pools of 16 KiB */

/* One was mapped. 0: by its size it is no arena of a kind we know. */
int mt_arenas_add(uintptr_t address, size_t size);

/* How many there are; the i-th. */
size_t mt_arenas_count(void);
uintptr_t mt_arenas_get(size_t i, size_t *size);

/* Recording has ended: what is mapped from now on is not seen, and may be in their places. */
void mt_arenas_forget(void);

#endif
