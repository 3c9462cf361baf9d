/*
 * Readable names of C++ and Rust functions.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_DEMANGLE_H
#define MEMTRACE_ANALYZER_DEMANGLE_H

#ifdef __cplusplus
extern "C" {
#endif

/* The name as its source has it, or NULL: it is not a mangled one. The caller's to free(). */
char *demangle(const char *name);

/* The same for Rust's second scheme ("_R..."), see rust_v0.c. */
char *demangle_rust_v0(const char *name);

#ifdef __cplusplus
}
#endif

#endif
