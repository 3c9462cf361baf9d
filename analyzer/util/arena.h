/*
 * Many small things that live and die together. Start with a zeroed struct arena (ARENA_INIT).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_ARENA_H
#define MEMTRACE_ANALYZER_ARENA_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct arena {
	struct arena_block *blocks; /* newest first */
	char *at, *end; /* free part of the newest */
};

#define ARENA_INIT                                                                                 \
	{                                                                                          \
		NULL, NULL, NULL                                                                   \
	}

void *arena_alloc(struct arena *a, size_t size); /* zeroed, aligned to 16; never NULL */
char *arena_strdup(struct arena *a, const char *s);
char *arena_strndup(struct arena *a, const char *s, size_t len); /* copies exactly len bytes */
__attribute__((format(printf, 2, 3))) char *arena_printf(struct arena *a, const char *fmt, ...);
void arena_release(struct arena *a); /* frees everything; the arena is empty and usable again */

#ifdef __cplusplus
}
#endif

#endif
