/*
 * The shim's own memory: zeroed, page-backed, never from malloc, and given back all at once or
 * not at all, because the tables made of it live as long as a recording, which mostly means as long
 * as the process. Everything is accounted so that the report can tell the tool's share. Thread-safe, usable in a forked child.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_MEM_H
#define MEMTRACE_PRELOAD_MEM_H

#include <stddef.h>
#include <stdint.h>

/* Zeroed memory, 64-byte aligned; NULL when the address space is exhausted (ulimit -v). */
void *mt_mem_alloc(size_t size);

/* A mapping of its own, page aligned, zeroed; freed with mt_mem_unmap. NULL on failure. */
void *mt_mem_map(size_t size);
void mt_mem_unmap(void *p, size_t size);

/* As these, but not given back by mt_mem_forget. */
void *mt_mem_keep(size_t size);
void *mt_mem_map_kept(size_t size);

/* Recording has ended and no thread is inside a hook: everything but what is kept is unmapped. */
void mt_mem_forget(void);

/* Bytes taken from the kernel so far by this process and its ancestors. */
uint64_t mt_mem_used(void);

#endif
