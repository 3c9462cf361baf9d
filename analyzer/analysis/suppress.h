/*
 * Findings that the user knows of and wants to hear no more (--suppress FILE). A line of the file is
 *
 *	KIND PATTERN        # a comment
 *
 * KIND is a kind of finding or *. PATTERN is a glob (* ? [...]) that is held against the function,
 * the file, file:line and the module of every frame of the finding's stack, file names in full and
 * without their folder; where a finding has no stack, against its title.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_SUPPRESS_H
#define MEMTRACE_ANALYZER_SUPPRESS_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct suppressions;
struct stack;

/* NULL: it can't be read or a line is no rule; *problem is then a sentence, the caller's to free. */
struct suppressions *suppressions_read(const char *path, char **problem);
void suppressions_free(struct suppressions *s); /* accepts NULL */
const char *suppressions_path(const struct suppressions *s);

/* st NULL: it has no stack. */
bool suppressions_match(const struct suppressions *s, const char *kind, const char *title,
			const struct stack *st);

#ifdef __cplusplus
}
#endif

#endif
