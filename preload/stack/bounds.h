/*
 * Which memory is a stack: the running thread's own one, whose frames may be remembered and read
 * without asking, and others (signal stacks, coroutines), where every page is asked for first.
 * Never calls pthread_getattr_np: a thread may allocate inside that very function, with its lock
 * held.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_BOUNDS_H
#define MEMTRACE_PRELOAD_BOUNDS_H

#include <stdint.h>

#include "core/thread.h"

/* Functions that read words of other functions' frames, and what may be code, which sanitizers guard. */
#define MT_READS_STACKS __attribute__((no_sanitize("address", "thread")))

struct mt_bounds {
	uintptr_t owner; /* thread pointer these belong to */
	uintptr_t low, high; /* own stack as far as it is known to be mapped: [low, high) */
	uintptr_t floor; /* nothing below belongs to it */
	uintptr_t page; /* of another stack: the last one found readable, in this walk */
};

/* A thread's identity: constant while it lives, different from every other live thread's. */
static inline uintptr_t mt_bounds_thread(void)
{
#if defined(__x86_64__)
	return (uintptr_t)__builtin_thread_pointer();
#else
	extern unsigned long pthread_self(void);

	return pthread_self();
#endif
}

/* In the first thread of the process; elsewhere the main stack's range is never used. */
void mt_bounds_init(void);

/* The shim was loaded when there were threads: the main thread is told by its pid when it comes by. */
void mt_bounds_late(uint32_t pid);

/* Takes the bounds over for the running thread. */
void mt_bounds_reset(struct mt_bounds *b);

/* Is the address on the running thread's own stack? May extend it downwards. */
int mt_bounds_extend(struct mt_bounds *b, uintptr_t address);

static inline int mt_bounds_own(struct mt_bounds *b, uintptr_t address)
{
	return (address >= b->low && address < b->high) || mt_bounds_extend(b, address);
}

/* A word of any stack. 0, or -1: the address is not mapped or not aligned. */
int mt_bounds_load(struct mt_bounds *b, uintptr_t address, uintptr_t *word);

/* Can [address, address + size) be read? Asks the kernel, page by page. */
int mt_bounds_readable(uintptr_t address, uintptr_t size);

#endif
