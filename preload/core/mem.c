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

void *mt_mem_map_kept(size_t size)
{
	void *p = mt_sys_mmap(size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (!p)
		return NULL;
	mt_sys_call(SYS_prctl, PR_SET_VMA, PR_SET_VMA_ANON_NAME, (long)p, (long)size,
		    (long)"memtrace", 0);
	__atomic_fetch_add(&used, size, __ATOMIC_RELAXED);
	return p;
}

static void unmap(void *p, size_t size)
{
	if (p && mt_sys_munmap(p, size) == 0)
		__atomic_fetch_sub(&used, size, __ATOMIC_RELAXED);
}

/* ---- what goes when recording ends ------------------------------------------------------------- */

#define LIST_ROOM 255

struct region {
	uintptr_t at; /* atomic; 0: empty, 1: being filled */
	size_t size;
};

struct list {
	struct region region[LIST_ROOM];
	struct list *next; /* atomic */
};

#define LIST_BYTES ((sizeof(struct list) + 4095) & ~(size_t)4095)

static struct list *regions; /* atomic */
static uint32_t vacant; /* a hint: where there may be room in the first list */

static int list_take(struct list *l, uint32_t from, uintptr_t at, size_t size)
{
	for (uint32_t i = from; i < LIST_ROOM; i++) {
		uintptr_t none = 0;

		if (__atomic_load_n(&l->region[i].at, __ATOMIC_RELAXED) ||
		    !__atomic_compare_exchange_n(&l->region[i].at, &none, 1, 0, __ATOMIC_ACQUIRE,
						 __ATOMIC_RELAXED))
			continue;
		l->region[i].size = size;
		__atomic_store_n(&l->region[i].at, at, __ATOMIC_RELEASE);
		if (l == regions)
			__atomic_store_n(&vacant, i + 1, __ATOMIC_RELAXED);
		return 1;
	}
	return 0;
}

/* What can't be listed stays mapped for good. */
static void region_add(uintptr_t at, size_t size)
{
	struct list **link = &regions, *l, *none;
	uint32_t hint = __atomic_load_n(&vacant, __ATOMIC_RELAXED);

	for (;;) {
		l = __atomic_load_n(link, __ATOMIC_ACQUIRE);
		if (!l) {
			l = mt_mem_map_kept(LIST_BYTES);
			none = NULL;
			if (!l)
				return;
			if (!__atomic_compare_exchange_n(link, &none, l, 0, __ATOMIC_ACQ_REL,
							 __ATOMIC_ACQUIRE)) {
				unmap(l, LIST_BYTES);
				l = none;
			}
		}
		if (list_take(l, link == &regions ? hint : 0, at, size) ||
		    (link == &regions && hint && list_take(l, 0, at, size)))
			return;
		link = &l->next;
	}
}

static void region_remove(uintptr_t at)
{
	for (struct list *l = __atomic_load_n(&regions, __ATOMIC_ACQUIRE); l;
	     l = __atomic_load_n(&l->next, __ATOMIC_ACQUIRE))
		for (uint32_t i = 0; i < LIST_ROOM; i++)
			if (__atomic_load_n(&l->region[i].at, __ATOMIC_RELAXED) == at) {
				__atomic_store_n(&l->region[i].at, 0, __ATOMIC_RELEASE);
				if (l == regions)
					__atomic_store_n(&vacant, i, __ATOMIC_RELAXED);
				return;
			}
}

void mt_mem_forget(void)
{
	struct list *l = regions, *next;

	for (; l; l = next) {
		next = l->next;
		for (uint32_t i = 0; i < LIST_ROOM; i++)
			if (l->region[i].at > 1)
				unmap((void *)l->region[i].at, l->region[i].size);
		unmap(l, LIST_BYTES);
	}
	regions = NULL;
	vacant = 0;
	piece_at[0] = 0;
}

/* ---- what others ask for ----------------------------------------------------------------------- */

void *mt_mem_map(size_t size)
{
	void *p = mt_mem_map_kept(size);

	if (p)
		region_add((uintptr_t)p, size);
	return p;
}

void mt_mem_unmap(void *p, size_t size)
{
	if (p)
		region_remove((uintptr_t)p); /* before another thread can be given the place */
	unmap(p, size);
}

/* A mapping of PIECE_BYTES aligned to PIECE_BYTES: the surplus of a double one is cut off. */
static uintptr_t piece_map(void)
{
	uintptr_t raw = (uintptr_t)mt_mem_map_kept(2 * PIECE_BYTES);
	uintptr_t piece = (raw + PIECE_BYTES - 1) & ~(PIECE_BYTES - 1);

	if (!raw)
		return 0;
	if (piece > raw)
		unmap((void *)raw, piece - raw);
	if (raw + PIECE_BYTES > piece)
		unmap((void *)(piece + PIECE_BYTES), raw + PIECE_BYTES - piece);
	return piece;
}

static uintptr_t piece_new(int kept)
{
	static uint32_t taken;

	if (kept && !__atomic_exchange_n(&taken, 1, __ATOMIC_RELAXED))
		return ((uintptr_t)first_kept + PIECE_BYTES - 1) & ~(PIECE_BYTES - 1);
	return piece_map();
}

static void piece_drop(uintptr_t piece)
{
	if (piece - (uintptr_t)first_kept >= sizeof(first_kept))
		unmap((void *)piece, PIECE_BYTES);
}

static void *alloc(size_t size, int kept)
{
	uintptr_t *word = &piece_at[kept], at, offset, fresh;

	size = (size + 63) & ~(size_t)63;
	if (size > PIECE_BYTES / 4)
		return kept ? mt_mem_map_kept((size + 4095) & ~(size_t)4095)
			    : mt_mem_map((size + 4095) & ~(size_t)4095);
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
						__ATOMIC_RELAXED)) {
			if (!kept)
				region_add(fresh, PIECE_BYTES);
			return (void *)(fresh + 64);
		}
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
