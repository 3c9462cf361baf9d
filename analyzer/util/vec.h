/*
 * A typed array that grows.
 *
 *	VEC(struct sample) samples = VEC_INIT;
 *	*vec_push(&samples) = s;           a new zeroed item at the end
 *	for (size_t i = 0; i < samples.count; i++) use(&samples.items[i]);
 *	vec_release(&samples);
 *
 * Items move when it grows: keep indices, not pointers. items may be handed to an owner that
 * free()s it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_VEC_H
#define MEMTRACE_ANALYZER_VEC_H

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "util/alloc.h"

#define VEC(type)                                                                                  \
	struct {                                                                                   \
		type *items;                                                                       \
		size_t count, room;                                                                \
	}

#define VEC_INIT                                                                                   \
	{                                                                                          \
		NULL, 0, 0                                                                         \
	}

/* The items with room for `need`, zeroed from *room on. */
static inline void *vec_room(void *items, size_t *room, size_t need, size_t size)
{
	size_t want = *room ? *room : 8;

	if (need <= *room)
		return items;
	while (want < need)
		want += want / 2;
	items = xrealloc(items, want, size);
	memset((char *)items + *room * size, 0, (want - *room) * size);
	*room = want;
	return items;
}

#define vec_reserve(v, need)                                                                       \
	((v)->items = vec_room((v)->items, &(v)->room, (need), sizeof(*(v)->items)))

/* Pointer to a new item at the end; zeroed unless it was popped before. */
#define vec_push(v) (vec_reserve((v), (v)->count + 1), &(v)->items[(v)->count++])

#define vec_release(v)                                                                             \
	do {                                                                                       \
		free((v)->items);                                                                  \
		(v)->items = NULL;                                                                 \
		(v)->count = (v)->room = 0;                                                        \
	} while (0)

#endif
