/*
 * Text without stdio. See fmt.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sys/fmt.h"

#include <string.h>

struct out {
	char *at, *end;
};

static void put(struct out *o, char c)
{
	if (o->at < o->end)
		*o->at++ = c;
}

static void put_number(struct out *o, uint64_t v, unsigned int base)
{
	char digits[20];
	int n = 0;

	do {
		digits[n++] = "0123456789abcdef"[v % base];
		v /= base;
	} while (v);
	while (n)
		put(o, digits[--n]);
}

static void put_text(struct out *o, const char *text)
{
	for (text = text ? text : "?"; *text; text++)
		put(o, *text);
}

size_t mt_vfmt(char *buf, size_t size, const char *format, va_list args)
{
	struct out o = { buf, buf + size - 1 };

	for (; *format; format++) {
		if (*format != '%') {
			put(&o, *format);
			continue;
		}
		switch (*++format) {
		case 's':
			put_text(&o, va_arg(args, const char *));
			break;
		case 'u':
			put_number(&o, va_arg(args, unsigned int), 10);
			break;
		case 'd': {
			int v = va_arg(args, int);

			if (v < 0)
				put(&o, '-');
			put_number(&o, v < 0 ? 0 - (uint64_t)v : (uint64_t)v, 10);
			break;
		}
		case 'l':
			put_number(&o, va_arg(args, unsigned long), *++format == 'x' ? 16 : 10);
			break;
		default:
			put(&o, *format);
		}
	}
	*o.at = '\0';
	return (size_t)(o.at - buf);
}

size_t mt_fmt(char *buf, size_t size, const char *format, ...)
{
	va_list args;
	size_t n;

	va_start(args, format);
	n = mt_vfmt(buf, size, format, args);
	va_end(args);
	return n;
}

static unsigned int digit_value(char c)
{
	if (c >= '0' && c <= '9')
		return (unsigned int)(c - '0');
	if (c >= 'a' && c <= 'f')
		return (unsigned int)(c - 'a' + 10);
	return 99;
}

uint64_t mt_parse_number(const char **text, unsigned int base)
{
	const char *p = *text;
	uint64_t v = 0;

	for (; digit_value(*p) < base; p++) {
		uint64_t next;

		if (__builtin_mul_overflow(v, (uint64_t)base, &next) ||
		    __builtin_add_overflow(next, (uint64_t)digit_value(*p), &next))
			next = UINT64_MAX;
		v = v == UINT64_MAX ? v : next;
	}
	*text = p;
	return v;
}

int64_t mt_find_field(const char *text, const char *key)
{
	size_t len = strlen(key);

	while (text && *text) {
		if (!strncmp(text, key, len)) {
			text += len;
			while (*text == ' ' || *text == '\t' || *text == ':')
				text++;
			if (*text < '0' || *text > '9')
				return -1;
			return (int64_t)mt_parse_number(&text, 10);
		}
		text = strchr(text, '\n');
		text = text ? text + 1 : NULL;
	}
	return -1;
}

int mt_same(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}
