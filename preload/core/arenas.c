/*
 * See arenas.h. A table that only grows: arenas are mapped a megabyte at a time, so looking through
 * all of them for an address that came back is nothing beside filling one.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core/arenas.h"

#include "core/tick.h"

#define MOST 65536u /* 64 GiB of arenas; what comes after is not looked at */
#define IS_LARGE 1u
#define HURRY 8 /* so many arenas that were not there before are worth a look */

static uintptr_t arenas[MOST]; /* pages of it are touched as it fills */
static uint32_t count;

int mt_arenas_add(uintptr_t address, size_t size)
{
	uintptr_t entry = address | (size == MT_ARENA_LARGE ? IS_LARGE : 0);
	uint32_t n = (uint32_t)mt_arenas_count(), at;

	if (size != MT_ARENA_SMALL && size != MT_ARENA_LARGE)
		return 0;
	for (uint32_t i = 0; i < n; i++)
		if (__atomic_load_n(&arenas[i], __ATOMIC_RELAXED) == entry)
			return 1;
	if (n == MOST)
		return 1;
	at = __atomic_fetch_add(&count, 1, __ATOMIC_RELAXED);
	if (at < MOST)
		__atomic_store_n(&arenas[at], entry, __ATOMIC_RELAXED);
	if (at % HURRY == HURRY - 1)
		mt_tick_hurry(); /* objects may be gone before the next sample: it is a peak */
	return 1;
}

size_t mt_arenas_count(void)
{
	uint32_t n = __atomic_load_n(&count, __ATOMIC_RELAXED);

	return n < MOST ? n : MOST;
}

uintptr_t mt_arenas_get(size_t i, size_t *size)
{
	uintptr_t entry = __atomic_load_n(&arenas[i], __ATOMIC_RELAXED);

	*size = entry & IS_LARGE ? MT_ARENA_LARGE : MT_ARENA_SMALL;
	return entry & ~(uintptr_t)IS_LARGE;
}

void mt_arenas_forget(void)
{
	__atomic_store_n(&count, 0, __ATOMIC_RELAXED);
}
