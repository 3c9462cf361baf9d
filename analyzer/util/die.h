/*
 * Words to the user, one clear line each on standard error, prefixed with the program's name.
 *
 *   die(...)      the user's fault or no memory: says so and ends with status 2
 *   die_status()  the same with another exit status
 *   error(...)    something could not be done; returns -1 so that a caller can `return error(...)`
 *   warning(...)  worth knowing, the work goes on
 *
 * Bad bytes in a trace are never a reason to die: they are counted (see pipeline/run.h).
 * No format ends in a newline. Hidden: glibc has a function called error, too.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_DIE_H
#define MEMTRACE_ANALYZER_DIE_H

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(hidden)

__attribute__((noreturn, format(printf, 1, 2))) void die(const char *fmt, ...);
__attribute__((noreturn, format(printf, 2, 3))) void die_status(int status, const char *fmt, ...);
__attribute__((format(printf, 1, 2))) int error(const char *fmt, ...);
__attribute__((format(printf, 1, 2))) void warning(const char *fmt, ...);

/* Called before each line, to wipe a progress bar from it; NULL: none. */
extern void (*die_before_line)(void);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
