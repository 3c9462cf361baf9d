/*
 * Line tables of CPython code objects: from a byte offset in the code to a line, without Python.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_PYTHON_LINES_H
#define MEMTRACE_ANALYZER_PYTHON_LINES_H

#include <stddef.h>
#include <stdint.h>

#include "memtrace/format.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The line of the instruction at byte `offset`; 0: it has none (the compiler made it up), there is
 * no table, or the table's bytes make no sense.
 */
uint32_t python_line(enum mt_line_kind kind, const uint8_t *table, size_t len, uint32_t first_line,
		     uint32_t offset);

#ifdef __cplusplus
}
#endif

#endif
