/*
 * What fork.c and init.c have to tell the process hooks.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_FORKED_H
#define MEMTRACE_PRELOAD_FORKED_H

#include <stdint.h>

struct mt_fork_info {
	uint64_t time; /* units: the child inherits what was live then */
	uint32_t inexact;
};

/* The fork this thread has just made; 0: our handlers did not run (not recording). */
int mt_forked_take(struct mt_fork_info *info);

/* Is the caller a vfork child, running in the memory of the process that is recorded? */
int mt_forked_is_vfork_child(void);

/* Only what is mapped already is used from now on: a seccomp filter is being installed. */
void mt_forked_seal(void);

struct mt_thread;

/* Before the EXIT record: what the trace should say about the run as a whole. */
void mt_forked_check_end(struct mt_thread *t);

/* After the EXIT record: the root tells the user where the trace is. */
void mt_forked_say_end(void);

#endif
