/*
 * Memory for calls that arrive before the real allocator is known: a static arena, handed out once
 * and never reused. Whatever frees such a block later is told apart by its address.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_BOOTSTRAP_H
#define MEMTRACE_PRELOAD_BOOTSTRAP_H

#include <stddef.h>
#include <stdint.h>

#define MT_BOOTSTRAP_BYTES 65536

extern char mt_bootstrap_arena[MT_BOOTSTRAP_BYTES];

/* Zeroed; NULL (errno ENOMEM) when the arena is used up. alignment: a power of two. */
void *mt_bootstrap_alloc(size_t alignment, size_t size);

/* Bytes that lie in the arena from the block on: at least the block's own size. */
static inline size_t mt_bootstrap_room(const void *block)
{
	return (size_t)(mt_bootstrap_arena + MT_BOOTSTRAP_BYTES - (const char *)block);
}

static inline int mt_bootstrap_owns(const void *block)
{
	return (uintptr_t)block - (uintptr_t)mt_bootstrap_arena < MT_BOOTSTRAP_BYTES;
}

#endif
