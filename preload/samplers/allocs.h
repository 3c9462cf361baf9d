/*
 * What allocators say of themselves in memory, written down during a walk over all pages: heaps of
 * glibc's further arenas with their topmost chunk, stacks of threads, and the pools of CPython's
 * arenas (ARENA, STACK, POOLS of docs/FORMAT.md 3.9). Everything is read through the kernel, which
 * answers for addresses that are gone; pages that were never touched are left so.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_ALLOCS_H
#define MEMTRACE_PRELOAD_ALLOCS_H

#include <stdint.h>

#include "core/thread.h"

/* Of one walk; zeroed at its begin. */
struct mt_allocs {
	uint64_t scan; /* its id */
	int memory; /* descriptor; negative: nothing can be read */
	uint64_t guard_start, guard_end; /* the mapping before, if it can't be accessed */
	uint64_t stack_bytes; /* of a thread that wants no other size; 0: not asked yet */
};

/* Around all that follows. */
void mt_allocs_open(struct mt_allocs *a);
void mt_allocs_close(struct mt_allocs *a);

/* The next private anonymous mapping without a name, in order of address. */
void mt_allocs_mapping(struct mt_thread *t, struct mt_allocs *a, uint64_t start, uint64_t end,
		       uint32_t prot);

/* The shim's own memory, as far as its mappings have no name to tell them by. */
void mt_allocs_tool(struct mt_thread *t, uint64_t scan);

/* All of Python's arenas. */
void mt_allocs_pools(struct mt_thread *t, const struct mt_allocs *a);

#endif
