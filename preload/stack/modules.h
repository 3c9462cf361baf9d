/*
 * Mapped ELF files. They are found by address when a stack first touches them, or all at once by a
 * scan; each gets a MODULE record. Nothing is ever removed from the table: what dlclose unmapped is
 * marked gone, and tables that stand on it (rules.c, native.c) look at that mark and at the epoch.
 * A file that comes back to the same place gets its old id, and its MODULE record once more.
 * Lock-free; lookups are async-signal-safe where the C library has _dl_find_object (glibc 2.35).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_MODULES_H
#define MEMTRACE_PRELOAD_MODULES_H

#include <stdint.h>

#include "core/thread.h"
#include "stack/elf.h"

struct mt_module {
	struct mt_elf elf;
	const void *map; /* ld.so's link_map; NULL where it can't be told */
	uint64_t name_hash; /* of the name ld.so knows it by */
	uint32_t id; /* of its MODULE record */
	uint32_t gone; /* atomic; 1: unmapped */
	uint32_t running; /* atomic; 1: code of it has been seen on a stack, so it is relocated */
	uint32_t self; /* 1: this is the shim */
};

/* Moves on whenever a module vanishes; caches without a look at `gone` are flushed then. */
extern uint32_t mt_modules_epoch; /* atomic */

/* Threads inside dlclose. While there are any, a module may be replaced by another at the same
 * address at any moment: caches are passed by, and mt_module_holds is asked about each address. */
extern uint32_t mt_modules_unloading; /* atomic */

/* Counts modules that began to run: new ones may hold what the caller is looking for. */
extern uint32_t mt_modules_running; /* atomic */

/* 1, for tests: behave as on a C library without _dl_find_object. Before mt_modules_init. */
extern int mt_modules_force_scan;

void mt_modules_init(void);

/* Index of the module with this code address, from 1; 0: in none. Adds it when it is new. */
uint32_t mt_module_at(struct mt_thread *t, uintptr_t address);

/* Never NULL for an index handed out. */
struct mt_module *mt_module_get(uint32_t index);

/* First index not handed out. */
uint32_t mt_modules_end(void);

/* Does the address still belong to this very module, by ld.so's own account? */
int mt_module_holds(uint32_t index, uintptr_t address);

/* Code of the module is on a stack. */
void mt_module_mark_running(struct mt_module *m);

/* In a forked child. */
void mt_modules_child(void);

/* The table is empty again. */
void mt_modules_forget(void);

/* Are modules found by a scan only, and may it be made here? */
int mt_modules_need_scan(void);

#endif
