/*
 * Notes by address: how often blocks that hash to it were freed by a thread whose nursery did not
 * have them. A nursery's entry remembers the count; if it has moved on, the entry may be about a
 * block that is gone, and is not trusted. Two addresses with one counter cost a fold, not truth.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_NOTES_H
#define MEMTRACE_PRELOAD_NOTES_H

#include <stdint.h>

#include "core/thread.h"

#define MT_NOTES 65536u

extern uint32_t *mt_notes; /* atomic each */

static inline uint32_t mt_address_hash(uint64_t addr)
{
	return (uint32_t)((addr >> 4) * UINT64_C(0x9e3779b97f4a7c15) >> 40);
}

/* Before the block goes back: whoever gets it next comes after this. */
static inline void mt_note_free(uint64_t addr)
{
	if (mt_thread_shared)
		__atomic_fetch_add(&mt_notes[mt_address_hash(addr) & (MT_NOTES - 1)], 1,
				   __ATOMIC_RELAXED);
}

/* As long as there was one thread only, all are 0. */
static inline uint32_t mt_note_read(uint64_t addr)
{
	return mt_thread_shared ? __atomic_load_n(&mt_notes[mt_address_hash(addr) & (MT_NOTES - 1)],
						  __ATOMIC_RELAXED)
				: 0;
}

#endif
