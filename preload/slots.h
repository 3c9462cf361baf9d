/*
 * The slots through which modules call other modules: where the shim was not preloaded, the loader
 * has bound them past it, so they are changed, and changed back when recording ends.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_SLOTS_H
#define MEMTRACE_PRELOAD_SLOTS_H

#include <stdint.h>

/* Was this library loaded by dlopen, and not at the program's start? Constructor only. */
int mt_slots_late(void);

/* The functions behind the hooks, as the program's own modules find them. 0 or -ENOSYS. */
int mt_slots_resolve(void);

/* Changes the slots of all modules, and from then on those of modules that are loaded. cxx: C++
 * operators, too. Takes ld.so's lock. 0 or -errno. */
int mt_slots_install(int cxx);

/* Changes them back; takes no lock. 1: done; 0: not now (somebody is loading or unloading). */
int mt_slots_remove(void);

/* shell.c: what stands in the slots of system and popen, and what is behind it. */
extern int (*mt_system_real)(const char *command);
extern void *(*mt_popen_real)(const char *command, const char *type);
int mt_system_late(const char *command);
void *mt_popen_late(const char *command, const char *type);

/* slots_lock.c. One thread at a time changes slots; nobody waits for it. One that a forked child finds
 * taken is nobody's: *was_left is set. The second waits until nobody forks, or returns 0. */
int mt_slots_lock(int *was_left);
int mt_slots_lock_between_forks(int *was_left);
void mt_slots_unlock(void);

/* A fork begins: waits until ld.so's lock is not held for us; and ends. */
void mt_slots_fork(void);
void mt_slots_forked(int child);

extern uint32_t mt_slots_count, mt_slots_modules; /* changed; modules that had any */

#endif
