/*
 * Python source files by their path: the program's own, or of Python's library or an installed
 * package.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_UTIL_PYFILE_H
#define MEMTRACE_UTIL_PYFILE_H

#include <stdbool.h>

/* The part of the path that people know: behind site-packages/ or the library's folder, within
 * `file`. NULL: it lies in neither. */
const char *pyfile_inside(const char *file);

/* The program's own: in no package, not in Python's library, not frozen. NULL is nobody's. */
bool pyfile_is_users(const char *file);

#endif
