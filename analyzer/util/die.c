/*
 * One line to standard error, written in one call so that lines of two programs don't mix.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "util/die.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void (*die_before_line)(void);

__attribute__((format(printf, 2, 0))) static void say(const char *kind, const char *fmt, va_list ap)
{
	char text[4096];

	if (die_before_line)
		die_before_line();
	vsnprintf(text, sizeof(text), fmt, ap);
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < ' ')
			*p = '?'; /* file names may hold anything; a terminal must not obey it */
	fflush(stdout);
	fprintf(stderr, "memtrace-report: %s%s\n", kind, text);
}

void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say("", fmt, ap);
	va_end(ap);
	exit(2);
}

void die_status(int status, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say("", fmt, ap);
	va_end(ap);
	exit(status);
}

int error(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say("", fmt, ap);
	va_end(ap);
	return -1;
}

void warning(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say("warning: ", fmt, ap);
	va_end(ap);
}
