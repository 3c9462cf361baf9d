/*
 * Text without stdio: formatting into a caller's buffer and reading numbers. Async-signal-safe.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_FMT_H
#define MEMTRACE_PRELOAD_FMT_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

/* %s (NULL: "?"), %d int, %u unsigned, %lu uint64_t, %lx uint64_t, %%; always terminates. Returns
 * the length written, which is what fitted. */
size_t mt_fmt(char *buf, size_t size, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
size_t mt_vfmt(char *buf, size_t size, const char *format, va_list args)
	__attribute__((format(printf, 3, 0)));

/* Digits of the base at *text, which moves past them; saturates. No digits: 0, *text unmoved. */
uint64_t mt_parse_number(const char **text, unsigned int base);

/* The number after "key" at the start of a line of `text` ("VmSwap:   12 kB" -> 12), or -1. */
int64_t mt_find_field(const char *text, const char *key);

/* Byte order of two strings; strcmp for code that must not meet an ifunc before relocation. */
int mt_same(const char *a, const char *b);

#endif
