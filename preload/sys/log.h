/*
 * What the shim says to the user: one line at a time on a copy of standard error that was made at
 * start and lies high in the descriptor table, because programs close 1 and 2 before destructors
 * run. Only the root process of a trace speaks; in all others these do nothing.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_LOG_H
#define MEMTRACE_PRELOAD_LOG_H

enum mt_log_level { MT_LOG_QUIET, MT_LOG_WARN, MT_LOG_INFO, MT_LOG_DEBUG };

/* The root, at start. level: nothing less important is printed. */
void mt_log_init(int level);

/* In a forked child: the copy is closed, or it would keep a pipe's reader waiting. */
void mt_log_close(void);

/* "memtrace: " text newline, cut at 1 KiB. */
void mt_log(enum mt_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
