/*
 * Memory that is there, or the program ends with one line (die.h).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_ALLOC_H
#define MEMTRACE_ANALYZER_ALLOC_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

void *xmalloc(size_t size);
void *xcalloc(size_t count, size_t size); /* zeroed */
void *xrealloc(void *block, size_t count, size_t size); /* checked for overflow */
char *xstrdup(const char *s);
char *xstrndup(const char *s, size_t len); /* a terminated copy of exactly len bytes */

#ifdef __cplusplus
}
#endif

#endif
