/*
 * An ELF file as it is mapped: where its unwind tables, build-id and dynamic symbols lie. Reads
 * only inside the ranges the program headers declare; takes no lock and calls nothing of ld.so.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_ELF_H
#define MEMTRACE_PRELOAD_ELF_H

#include <link.h>
#include <stddef.h>
#include <stdint.h>

#include "stack/cfi.h"

enum { MT_BUILD_ID_MAX = 64 };

struct mt_elf {
	uintptr_t bias, start, end; /* as in a MODULE record */
	struct mt_cfi cfi;
	const ElfW(Dyn) * dynamic; /* NULL: none */
	size_t dynamic_entries;
	uint32_t build_id_bytes;
	uint8_t build_id[MT_BUILD_ID_MAX];
};

/* From program headers; start and end come from the loaded segments. 0, or -1: nothing is loaded.
 */
int mt_elf_read(struct mt_elf *elf, uintptr_t bias, const ElfW(Phdr) * phdr, size_t count);

/* The program headers behind the ELF header at `start`, or NULL when there is none there. */
const ElfW(Phdr) * mt_elf_headers(uintptr_t start, uintptr_t end, size_t *count);

/* Address of a defined dynamic symbol, or 0. Needs DT_GNU_HASH. */
uintptr_t mt_elf_symbol(const struct mt_elf *elf, const char *name);

#endif
