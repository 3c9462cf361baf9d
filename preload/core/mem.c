/*
 * The shim's own memory. See mem.h. A bump allocator over 256 KiB pieces: tables are few, large and
 * for ever, so nothing is ever reused. Pieces are named for /proc/PID/maps where the kernel can.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core/mem.h"

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "sys/sys.h"

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

#define PIECE_BYTES ((size_t)256 << 10)

/* One word so that two threads, or a fork in between, can't tear it: the piece's next free byte.
 * Pieces are aligned to their size, so the word tells the end of the piece as well. */
static uintptr_t piece_at;
static uint64_t used;

/* A slot is taken by a swap of its start from 0, and counts while start is below end. */
static struct own {
	uintptr_t start, end; /* atomic */
} own[MT_MEM_LISTED];
static uint32_t own_count; /* atomic; slots from here on were never taken */

static void own_add(uintptr_t start, uintptr_t end)
{
	uint32_t count = __atomic_load_n(&own_count, __ATOMIC_RELAXED), i;

	for (i = 0; i < MT_MEM_LISTED; i++) {
		uintptr_t none = 0;

		if (!__atomic_compare_exchange_n(&own[i].start, &none, start, 0, __ATOMIC_RELAXED,
						 __ATOMIC_RELAXED))
			continue;
		__atomic_store_n(&own[i].end, end, __ATOMIC_RELEASE);
		if (i >= count)
			__atomic_fetch_add(&own_count, 1, __ATOMIC_RELAXED);
		return;
	}
}

/* [start, end) is a mapping, or the beginning or the end of one. */
static void own_remove(uintptr_t start, uintptr_t end)
{
	for (size_t i = 0; i < mt_mem_listed(); i++) {
		struct own *o = &own[i];

		if (start < o->start || end > o->end)
			continue;
		if (start == o->start && end == o->end) {
			__atomic_store_n(&o->end, 0, __ATOMIC_RELAXED);
			__atomic_store_n(&o->start, 0, __ATOMIC_RELEASE);
		} else if (start == o->start) {
			__atomic_store_n(&o->start, end, __ATOMIC_RELAXED);
		} else {
			__atomic_store_n(&o->end, start, __ATOMIC_RELAXED);
		}
		return;
	}
}

size_t mt_mem_listed(void)
{
	uint32_t count = __atomic_load_n(&own_count, __ATOMIC_RELAXED);

	return count < MT_MEM_LISTED ? count : MT_MEM_LISTED;
}

uintptr_t mt_mem_get(size_t i, uintptr_t *end)
{
	uintptr_t start = __atomic_load_n(&own[i].start, __ATOMIC_ACQUIRE);

	*end = __atomic_load_n(&own[i].end, __ATOMIC_RELAXED);
	return start < *end ? start : 0;
}

void *mt_mem_map(size_t size)
{
	void *p = mt_sys_mmap(size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (!p)
		return NULL;
	mt_sys_call(SYS_prctl, PR_SET_VMA, PR_SET_VMA_ANON_NAME, (long)p, (long)size,
		    (long)"memtrace", 0);
	__atomic_fetch_add(&used, size, __ATOMIC_RELAXED);
	own_add((uintptr_t)p, (uintptr_t)p + size);
	return p;
}

void mt_mem_unmap(void *p, size_t size)
{
	if (!p)
		return;
	own_remove((uintptr_t)p, (uintptr_t)p + size);
	if (mt_sys_munmap(p, size) == 0)
		__atomic_fetch_sub(&used, size, __ATOMIC_RELAXED);
}

/* A mapping of PIECE_BYTES aligned to PIECE_BYTES: the surplus of a double one is cut off. */
static uintptr_t piece_new(void)
{
	uintptr_t raw = (uintptr_t)mt_mem_map(2 * PIECE_BYTES);
	uintptr_t piece = (raw + PIECE_BYTES - 1) & ~(PIECE_BYTES - 1);

	if (!raw)
		return 0;
	if (piece > raw)
		mt_mem_unmap((void *)raw, piece - raw);
	if (raw + PIECE_BYTES > piece)
		mt_mem_unmap((void *)(piece + PIECE_BYTES), raw + PIECE_BYTES - piece);
	return piece;
}

void *mt_mem_alloc(size_t size)
{
	uintptr_t at, offset, fresh;

	size = (size + 63) & ~(size_t)63;
	if (size > PIECE_BYTES / 4)
		return mt_mem_map((size + 4095) & ~(size_t)4095);
	for (;;) {
		at = __atomic_load_n(&piece_at, __ATOMIC_RELAXED);
		offset = at & (PIECE_BYTES - 1);
		/* Offset 0 is "no piece yet", so a piece's first and last line stay unused. */
		if (offset && offset + size < PIECE_BYTES) {
			if (__atomic_compare_exchange_n(&piece_at, &at, at + size, 0,
							__ATOMIC_RELAXED, __ATOMIC_RELAXED))
				return (void *)at;
			continue;
		}
		fresh = piece_new();
		if (!fresh)
			return NULL;
		if (__atomic_compare_exchange_n(&piece_at, &at, fresh + 64 + size, 0,
						__ATOMIC_RELAXED, __ATOMIC_RELAXED))
			return (void *)(fresh + 64);
		mt_mem_unmap((void *)fresh, PIECE_BYTES);
	}
}

uint64_t mt_mem_used(void)
{
	return __atomic_load_n(&used, __ATOMIC_RELAXED);
}
