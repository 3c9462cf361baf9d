/*
 * The shim's own memory. See mem.h. A bump allocator over 256 KiB pieces: tables are few, large
 * and last as long as a recording, so nothing is ever reused. Pieces are named for /proc/PID/maps
 * where the kernel can.
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
static uintptr_t piece_at[2]; /* of what goes with the recording, of what is kept */

/* Holds the first piece of what is kept, so that a recording's end leaves no mapping but the library;
 * pages that are not used are not there. */
static char first_kept[2 * PIECE_BYTES];
static uint64_t used;

/* ---- which mappings are ours ------------------------------------------------------------------- */

/* A slot is taken by a swap of its start from 0, and counts while start is below end. What cannot
 * be listed stays mapped for good and is taken for the program's. */
static struct own {
	uintptr_t start, end; /* atomic */
	uint32_t kept; /* not given back by mt_mem_forget */
} own[MT_MEM_LISTED];
static uint32_t own_count; /* atomic; slots from here on were never taken */
static uint32_t vacant; /* a hint: no slot below is free, as a rule */

static void own_add(uintptr_t start, uintptr_t end, uint32_t kept)
{
	uint32_t i = __atomic_load_n(&vacant, __ATOMIC_RELAXED), count;

	for (; i < MT_MEM_LISTED; i++) {
		uintptr_t none = 0;

		if (__atomic_load_n(&own[i].start, __ATOMIC_RELAXED) ||
		    !__atomic_compare_exchange_n(&own[i].start, &none, start, 0, __ATOMIC_ACQUIRE,
						 __ATOMIC_RELAXED))
			continue;
		own[i].kept = kept;
		__atomic_store_n(&own[i].end, end, __ATOMIC_RELEASE);
		__atomic_store_n(&vacant, i + 1, __ATOMIC_RELAXED);
		count = __atomic_load_n(&own_count, __ATOMIC_RELAXED);
		while (i >= count &&
		       !__atomic_compare_exchange_n(&own_count, &count, i + 1, 0, __ATOMIC_RELAXED,
						    __ATOMIC_RELAXED))
			;
		return;
	}
}

static void slot_empty(uint32_t i)
{
	__atomic_store_n(&own[i].end, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&own[i].start, 0, __ATOMIC_RELEASE);
	if (i < __atomic_load_n(&vacant, __ATOMIC_RELAXED))
		__atomic_store_n(&vacant, i, __ATOMIC_RELAXED);
}

/* [start, end) is a mapping, or the beginning or the end of one. */
static void own_remove(uintptr_t start, uintptr_t end)
{
	for (uint32_t i = 0; i < mt_mem_listed(); i++) {
		struct own *o = &own[i];
		uintptr_t first = __atomic_load_n(&o->start, __ATOMIC_ACQUIRE);
		uintptr_t last = __atomic_load_n(&o->end, __ATOMIC_ACQUIRE);

		/* Asked twice: another thread's mapping may be leaving the slot, and one more come. */
		if (start < first || end > last ||
		    first != __atomic_load_n(&o->start, __ATOMIC_RELAXED))
			continue;
		if (start == first && end == last)
			slot_empty(i);
		else if (start == first)
			__atomic_store_n(&o->start, end, __ATOMIC_RELAXED);
		else
			__atomic_store_n(&o->end, start, __ATOMIC_RELAXED);
		return;
	}
}

size_t mt_mem_listed(void)
{
	return __atomic_load_n(&own_count, __ATOMIC_RELAXED);
}

uintptr_t mt_mem_get(size_t i, uintptr_t *end)
{
	uintptr_t start = __atomic_load_n(&own[i].start, __ATOMIC_ACQUIRE);

	*end = __atomic_load_n(&own[i].end, __ATOMIC_ACQUIRE);
	return start < *end ? start : 0;
}

/* ---- mappings ---------------------------------------------------------------------------------- */

static void *map(size_t size, uint32_t kept)
{
	void *p = mt_sys_mmap(size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (!p)
		return NULL;
	mt_sys_call(SYS_prctl, PR_SET_VMA, PR_SET_VMA_ANON_NAME, (long)p, (long)size,
		    (long)"memtrace", 0);
	__atomic_fetch_add(&used, size, __ATOMIC_RELAXED);
	own_add((uintptr_t)p, (uintptr_t)p + size, kept);
	return p;
}

void *mt_mem_map(size_t size)
{
	return map(size, 0);
}

void *mt_mem_map_kept(size_t size)
{
	return map(size, 1);
}

void mt_mem_unmap(void *p, size_t size)
{
	if (!p)
		return;
	own_remove((uintptr_t)p, (uintptr_t)p + size); /* before another can be given the place */
	if (mt_sys_munmap(p, size) == 0)
		__atomic_fetch_sub(&used, size, __ATOMIC_RELAXED);
}

void mt_mem_forget(void)
{
	for (uint32_t i = 0; i < mt_mem_listed(); i++) {
		uintptr_t end, start = mt_mem_get(i, &end);

		if (start && !own[i].kept)
			mt_mem_unmap((void *)start, end - start);
	}
	piece_at[0] = 0;
}

/* ---- small pieces ------------------------------------------------------------------------------ */

/* A mapping of PIECE_BYTES aligned to PIECE_BYTES: the surplus of a double one is cut off. */
static uintptr_t piece_map(uint32_t kept)
{
	uintptr_t raw = (uintptr_t)map(2 * PIECE_BYTES, kept);
	uintptr_t piece = (raw + PIECE_BYTES - 1) & ~(PIECE_BYTES - 1);

	if (!raw)
		return 0;
	if (piece > raw)
		mt_mem_unmap((void *)raw, piece - raw);
	if (raw + PIECE_BYTES > piece)
		mt_mem_unmap((void *)(piece + PIECE_BYTES), raw + PIECE_BYTES - piece);
	return piece;
}

static uintptr_t piece_new(uint32_t kept)
{
	static uint32_t taken;

	if (kept && !__atomic_exchange_n(&taken, 1, __ATOMIC_RELAXED))
		return ((uintptr_t)first_kept + PIECE_BYTES - 1) & ~(PIECE_BYTES - 1);
	return piece_map(kept);
}

static void piece_drop(uintptr_t piece)
{
	if (piece - (uintptr_t)first_kept >= sizeof(first_kept))
		mt_mem_unmap((void *)piece, PIECE_BYTES);
}

static void *alloc(size_t size, uint32_t kept)
{
	uintptr_t *word = &piece_at[kept], at, offset, fresh;

	size = (size + 63) & ~(size_t)63;
	if (size > PIECE_BYTES / 4)
		return map((size + 4095) & ~(size_t)4095, kept);
	for (;;) {
		at = __atomic_load_n(word, __ATOMIC_RELAXED);
		offset = at & (PIECE_BYTES - 1);
		/* Offset 0 is "no piece yet", so a piece's first and last line stay unused. */
		if (offset && offset + size < PIECE_BYTES) {
			if (__atomic_compare_exchange_n(word, &at, at + size, 0, __ATOMIC_RELAXED,
							__ATOMIC_RELAXED))
				return (void *)at;
			continue;
		}
		fresh = piece_new(kept);
		if (!fresh)
			return NULL;
		if (__atomic_compare_exchange_n(word, &at, fresh + 64 + size, 0, __ATOMIC_RELAXED,
						__ATOMIC_RELAXED))
			return (void *)(fresh + 64);
		piece_drop(fresh);
	}
}

void *mt_mem_alloc(size_t size)
{
	return alloc(size, 0);
}

void *mt_mem_keep(size_t size)
{
	return alloc(size, 1);
}

uint64_t mt_mem_used(void)
{
	return __atomic_load_n(&used, __ATOMIC_RELAXED);
}
