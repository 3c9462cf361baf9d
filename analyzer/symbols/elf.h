/*
 * A module's file: found, checked by its build-id, its function symbols sorted for look-ups.
 * The only users of libdwfl are this file and what it hands to dwarf.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_ELF_H
#define MEMTRACE_ANALYZER_ELF_H

#include <stddef.h>
#include <stdint.h>

#include <elfutils/libdwfl.h>

#ifdef __cplusplus
extern "C" {
#endif

enum elf_state {
	ELF_OK,
	ELF_MISSING, /* no file, or not an ELF file */
	ELF_OTHER, /* a file is there, its build-id is another */
};

struct elf_file;

/*
 * Looks for the file under sysroot (NULL: none) and at its own path, then for its debug file alone
 * under the build-id. *out is NULL unless ELF_OK; then it is the caller's to elf_close().
 */
enum elf_state elf_open(const char *path, const uint8_t *build_id, size_t build_id_len,
			const char *sysroot, struct elf_file **out);
void elf_close(struct elf_file *f); /* accepts NULL */

/* Name of the function symbol that covers an ELF virtual address, or NULL. */
const char *elf_symbol(struct elf_file *f, uint64_t address);

/* Its DWARF, in its own file or a separate one; NULL: none. *bias: DWARF's addresses are lower. */
Dwarf *elf_dwarf(struct elf_file *f, uint64_t *bias);

#ifdef __cplusplus
}
#endif

#endif
