/*
 * Functions, inlined calls and lines of one file's DWARF. Indexed unit by unit as they are needed.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_DWARF_H
#define MEMTRACE_ANALYZER_DWARF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <elfutils/libdw.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DWARF_DEPTH 64 /* inlined calls within each other that are shown */

struct dwarf_frame {
	const char *name; /* linkage name where there is one, else the plain one; NULL unknown */
	bool is_plain; /* the name has neither scope nor parameters */
	const char *file; /* NULL unknown */
	const char *dir; /* what a relative file is relative to; NULL unknown */
	uint32_t line; /* 0 unknown */
};

struct dwarf_index;

struct dwarf_index *dwarf_index_new(Dwarf *dw); /* dw is borrowed */
void dwarf_index_free(struct dwarf_index *d); /* accepts NULL */

/*
 * The functions at an address, innermost first: those inlined there, then the real one. Each with
 * the line it is at; returns how many, 0: the address is not covered. Strings are the Dwarf's.
 */
size_t dwarf_find(struct dwarf_index *d, uint64_t address, struct dwarf_frame frames[DWARF_DEPTH]);

#ifdef __cplusplus
}
#endif

#endif
