/*
 * Text that is what it claims to be: file names and command lines may hold any bytes, a report may
 * not.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_UTF8_H
#define MEMTRACE_ANALYZER_UTF8_H

#include <stdbool.h>
#include <stddef.h>

#include "util/strbuf.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes of the well-formed character at s (1 to 4), or 0: it is none, or cut off by len. */
size_t utf8_length(const char *s, size_t len);

bool utf8_is_valid(const char *s, size_t len);

/* Adds s to sb, with U+FFFD for every byte that belongs to no character. */
void utf8_repair(struct strbuf *sb, const char *s, size_t len);

#ifdef __cplusplus
}
#endif

#endif
