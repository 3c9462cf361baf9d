/*
 * Where a new trace goes: the name the user asked for, unless somebody is still writing there.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_PLACE_H
#define MEMTRACE_PRELOAD_PLACE_H

#include <stddef.h>

/* Expands %p %h %r %% of `pattern` and makes it absolute. 0 or -errno. */
int mt_place_expand(const char *pattern, const char *rank, char *out, size_t size);

/*
 * Creates the trace (mt_file_create) at `path`, or beside it as trace.PID.bin when `path` belongs
 * to somebody: a live trace, another user, a file that is no trace. A finished trace of ours is
 * renamed to path.old. *moved: it had to go beside. 0, or -errno: nothing could be created.
 */
int mt_place_create(const char *path, int *moved);

#endif
