/*
 * From addresses to names: a native frame to functions with file and line (several where calls were
 * inlined), a Python frame to its line. Looks into a module's file only when a frame of it is asked
 * for, and remembers what it found by (module, address).
 *
 * A module's file counts only if its build-id is the one recorded: another file under the same
 * name would give plausible, wrong lines. What cannot be named stays "module+0xoffset".
 *
 * Everything returned belongs to the symbolizer and lives until symbolizer_free(). Not thread-safe.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_SYMBOLIZER_H
#define MEMTRACE_ANALYZER_SYMBOLIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memtrace/format.h"

#ifdef __cplusplus
extern "C" {
#endif

struct symbol_frame {
	const char *function; /* demangled; never NULL */
	const char *raw; /* as in the symbol table; NULL: no symbol */
	const char *file; /* NULL: not known */
	uint32_t line; /* 0: not known */
	const char *module; /* path; NULL: none, or Python */
	bool inlined; /* into the next frame of the list */
	bool is_python;
};

struct symbol_frames {
	const struct symbol_frame *frames; /* innermost first */
	size_t count; /* at least 1 */
};

struct symbolizer_options {
	bool off; /* look nothing up */
	const char *sysroot; /* where modules and debug files lie, in front of their paths; NULL */
};

/* A file that frames lie in, as the trace has it. */
struct symbol_module {
	const char *path; /* "" unknown */
	const uint8_t *build_id;
	uint32_t build_id_len; /* 0: none recorded: the file at path is trusted */
};

struct symbolizer;

struct symbolizer *symbolizer_new(const struct symbolizer_options *options);
void symbolizer_free(struct symbolizer *s); /* accepts NULL */

/*
 * A frame at an ELF virtual address of a module. A return address is looked up one byte before
 * itself, inside the call, unless the frame was interrupted there.
 */
struct symbol_frames symbolizer_native(struct symbolizer *s, const struct symbol_module *module,
				       uint64_t address, bool interrupted);

/* A frame outside all modules: enum mt_pseudo_frame, or an address (of generated code). */
struct symbol_frames symbolizer_pseudo(struct symbolizer *s, uint64_t address);

/* Sentences on modules whose file was missing or another, one each; NULL after the last. */
const char *symbolizer_note(const struct symbolizer *s, size_t index);

#ifdef __cplusplus
}
#endif

#endif
