/*
 * This process's identity in the trace. A forked child gets its number, its slot and its first
 * chunk only when it has something to record, so that a child which merely execs costs nothing.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_PROCESS_H
#define MEMTRACE_PRELOAD_PROCESS_H

#include <stdint.h>

#include "core/ids.h"
#include "core/thread.h"

struct mt_process {
	uint32_t number; /* in the trace; 0: nothing recorded yet */
	uint32_t pid;
	uint32_t reason; /* enum mt_process_reason */
	uint32_t parent; /* number of the parent, 0 none known */
	uint64_t fork_time; /* units; FORK only */
	uint32_t bases[MT_ID_SPACES]; /* dictionary ids below are the parent's */
	uint32_t inexact; /* the fork did not get all threads quiet */
};

extern struct mt_process mt_process;

/* For mt_stream_next: the number, taken at the first record. 0 when there is no trace. */
uint32_t mt_process_number(void);

/* The records a stream begins with: PROCESS, CLOCK, and THREAD when it is the thread's first. */
void mt_process_introduce(struct mt_thread *t);

/* A CLOCK record: again and again, so that ticks can be told in seconds however short the run. */
void mt_process_clock(struct mt_thread *t);

/* A THREAD record with the thread's present name. */
void mt_process_thread(struct mt_thread *t);

/* In a forked child: number 0 again; parent, fork time and bases as of now. An unnumbered parent
 * had nothing of its own, so its child inherits from where that parent did. */
void mt_process_child(uint64_t fork_time, uint32_t inexact);

/* Recording has ended: this process is nobody again. */
void mt_process_forget(void);

/* Told when a process has just got its number; set by init.c to renew the children's token. */
extern void (*mt_process_on_number)(uint32_t number);

#endif
