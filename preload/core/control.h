/*
 * This process's control page (include/memtrace/control.h): making it, and what hooks read of it.
 *
 * The page is mapped over a variable of this library, so a hook reads its word by one load from a
 * fixed place, as it would read any variable; where the page can't be shared, the variable is
 * private memory and nobody can call. The hot path's only question is whether the word is 0.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_CONTROL_H
#define MEMTRACE_PRELOAD_CONTROL_H

#include <stdint.h>

#include "core/guard.h"
#include "core/sampling.h"
#include "memtrace/control.h"

extern struct mt_control mt_control;

/* What the process says of itself: the page's copy is never read. */
extern struct mt_control_self mt_control_own;

/* Makes the page, in the first process and in every forked child (whose page is its parent's until
 * then). Raw system calls only. reachable: a descriptor is kept, through which others find the page;
 * without one, or on failure, the process can't be called. */
void mt_control_make(uint32_t pid, uint64_t start, int reachable);

/* Forked children are reachable too: the process was not recorded from its start. */
extern int mt_control_children;

/* Takes the page away again; whoever has it mapped still reads what it said last. */
void mt_control_unmake(void);

/* Copies mt_control_own into the page, `answered` last, but not the word. */
void mt_control_publish(void);

/* How much is recorded from here on, for hooks: enum mt_light. */
void mt_control_set_light(uint32_t light);

/* Somebody calls, or wrote into the page; set by init.c. Guard not held. */
extern void (*mt_on_control)(void);

/* Is there something to look at? Hooks ask only when the word is not 0. */
static inline int mt_control_calls(void)
{
	return __atomic_load_n(&mt_control.self.word, __ATOMIC_RELAXED) != mt_light;
}

static inline uint32_t mt_control_word(void)
{
	return __atomic_load_n(&mt_control.self.word, __ATOMIC_RELAXED);
}

/* At the start of a hook, ahead of everything else. */
MT_COLD void mt_control_attend(void);

#define MT_ATTEND()                                                                                \
	do {                                                                                       \
		if (mt_unlikely(mt_control_word()) && mt_unlikely(mt_control_calls()))             \
			mt_control_attend();                                                       \
	} while (0)

#endif
