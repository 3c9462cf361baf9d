/*
 * Which line touched what a forked process copied (MEMTRACE_COW_TOUCH): the kernel counts page faults
 * (perf_event_open) and sends the thread that made one a SIGTRAP, whose handler writes down the page
 * and the stack. Only in forked children, from their first walk on; see docs/INSIDE-THE-TARGET.md
 * for what it asks of the program.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_TOUCH_H
#define MEMTRACE_PRELOAD_TOUCH_H

#include "core/thread.h"

/* A forked child has been walked for the first time: what it faults on from here on is told, if that
 * is wanted. */
void mt_touch_begin(struct mt_thread *t);

/* In a forked child, whether it records or not: what it inherited is its parent's. */
void mt_touch_child(void);

/* The process ends. What had to be left out is said, where t is not NULL. */
void mt_touch_end(struct mt_thread *t);

/* The program asks for, or changes, what this signal does: before that. Where it is ours it goes back
 * to the default, and pages are told of no more. */
void mt_touch_yield(int signal_number);

/* Recording has ended; the process runs on. */
void mt_touch_forget(void);

#endif
