/*
 * Why a program file cannot be traced by preloading.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_PROGRAM_H
#define MEMTRACE_ANALYZER_PROGRAM_H

#ifdef __cplusplus
extern "C" {
#endif

enum program_kind {
	PROGRAM_UNKNOWN, /* not here, or nothing about it would stop the shim */
	PROGRAM_STATIC, /* no dynamic loader: it loads no library */
	PROGRAM_OTHER_ARCHITECTURE,
	PROGRAM_PRIVILEGED, /* set-user-id, set-group-id: the loader ignores LD_PRELOAD */
};

/* Judges the file as it is now; sysroot may be NULL. */
enum program_kind program_kind_of(const char *path, const char *sysroot);

#ifdef __cplusplus
}
#endif

#endif
