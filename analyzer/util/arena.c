/*
 * See arena.h. Blocks of growing size, so that both a tiny and a huge document cost few of them.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "util/arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/alloc.h"
#include "util/die.h"

#define FIRST_BYTES 4096
#define LARGEST_BYTES (1024 * 1024)

struct arena_block {
	struct arena_block *next;
	size_t bytes; /* of the data */
	_Alignas(16) char data[];
};

static void arena_grow(struct arena *a, size_t size)
{
	size_t bytes = a->blocks ? a->blocks->bytes * 2 : FIRST_BYTES;
	struct arena_block *block;

	if (bytes > LARGEST_BYTES)
		bytes = LARGEST_BYTES;
	if (bytes < size)
		bytes = size;
	block = xcalloc(1, sizeof(*block) + bytes);
	block->bytes = bytes;
	block->next = a->blocks;
	a->blocks = block;
	a->at = block->data;
	a->end = block->data + bytes;
}

void *arena_alloc(struct arena *a, size_t size)
{
	char *p;

	if (size > SIZE_MAX / 2)
		die("out of memory (%zu bytes wanted)", size);
	size = (size + 15) & ~(size_t)15;
	if ((size_t)(a->end - a->at) < size || !a->at)
		arena_grow(a, size);
	p = a->at;
	a->at += size;
	return p;
}

char *arena_strndup(struct arena *a, const char *s, size_t len)
{
	char *copy = arena_alloc(a, len + 1);

	if (len)
		memcpy(copy, s, len);
	return copy;
}

char *arena_strdup(struct arena *a, const char *s)
{
	return arena_strndup(a, s, strlen(s));
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
	va_list ap;
	char *text;
	int len;

	va_start(ap, fmt);
	len = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (len < 0)
		die("cannot format a text: bad wide character");
	text = arena_alloc(a, (size_t)len + 1);
	va_start(ap, fmt);
	vsnprintf(text, (size_t)len + 1, fmt, ap);
	va_end(ap);
	return text;
}

void arena_release(struct arena *a)
{
	while (a->blocks) {
		struct arena_block *next = a->blocks->next;

		free(a->blocks);
		a->blocks = next;
	}
	a->at = a->end = NULL;
}
