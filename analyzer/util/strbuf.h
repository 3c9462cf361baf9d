/*
 * A text that grows. Always terminated: buf is usable as a C string from strbuf_init() on, also
 * when nothing was added. May hold zero bytes; len counts them.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_STRBUF_H
#define MEMTRACE_ANALYZER_STRBUF_H

#include <stdarg.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct strbuf {
	size_t alloc; /* 0: buf is a shared empty string */
	size_t len;
	char *buf;
};

extern char strbuf_empty[1];

#define STRBUF_INIT                                                                                \
	{                                                                                          \
		0, 0, strbuf_empty                                                                 \
	}

void strbuf_init(struct strbuf *sb);
void strbuf_release(struct strbuf *sb); /* frees; the buffer is empty and usable again */
void strbuf_reset(struct strbuf *sb); /* empty, memory kept */
void strbuf_grow(struct strbuf *sb, size_t extra); /* room for extra bytes and the terminator */
void strbuf_add(struct strbuf *sb, const void *data, size_t len);
void strbuf_addstr(struct strbuf *sb, const char *s);
void strbuf_addch(struct strbuf *sb, char c);
void strbuf_addchars(struct strbuf *sb, char c, size_t count);
__attribute__((format(printf, 2, 3))) void strbuf_addf(struct strbuf *sb, const char *fmt, ...);
__attribute__((format(printf, 2, 0))) void strbuf_vaddf(struct strbuf *sb, const char *fmt,
							va_list ap);
/* The text, now the caller's to free(); the buffer is empty and usable again. */
char *strbuf_detach(struct strbuf *sb);

#ifdef __cplusplus
}
#endif

#endif
