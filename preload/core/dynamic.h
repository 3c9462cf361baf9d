/*
 * The tables of a loaded module that the loader itself works with: symbols and relocations. Read where
 * they are mapped; the caller sees to it that the module stays (dl_iterate_phdr's callback).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_DYNAMIC_H
#define MEMTRACE_PRELOAD_DYNAMIC_H

#include <link.h>
#include <stddef.h>
#include <stdint.h>

struct mt_relocations {
	const ElfW(Rela) * first, *end;
};

struct mt_dynamic {
	const ElfW(Dyn) * section; /* tells modules apart */
	uintptr_t base; /* what is added to the addresses in the file */
	uintptr_t start, end; /* of the module */
	uintptr_t relro, relro_end; /* pages that become read-only after relocation */
	const ElfW(Sym) * symbols;
	const char *strings;
	const uint32_t *hash; /* DT_GNU_HASH; NULL: it has none */
	const uint16_t *versions; /* DT_VERSYM; NULL: it has none */
	struct mt_relocations data, calls; /* without the relative ones */
};

/* 0, or -1: it has no such tables, or not of the kind that is known here. */
int mt_dynamic_read(struct mt_dynamic *d, const struct dl_phdr_info *info);

/* Is the address in one of the module's segments? */
int mt_dynamic_holds(const struct dl_phdr_info *info, uintptr_t address);

uint32_t mt_dynamic_hash(const char *name);

/* The function of this name that the module defines, in the version that a program would get which is
 * linked today; NULL: none. */
void *mt_dynamic_find(const struct mt_dynamic *d, const char *name);

/* Does it fill a slot with nothing but the address of a symbol? */
int mt_dynamic_is_slot(const ElfW(Rela) * r);

/* Of those, one that may wait for the first call? */
int mt_dynamic_is_lazy(const ElfW(Rela) * r);

/* The symbol's name. */
static inline const char *mt_dynamic_name(const struct mt_dynamic *d, const ElfW(Rela) * r)
{
	return d->strings + d->symbols[ELF64_R_SYM(r->r_info)].st_name;
}

#endif
