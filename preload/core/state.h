/*
 * The shim's life in one word, read once per hook, and the gate that fork closes.
 *
 * Hooks of a thread are "busy" between mt_enter and mt_leave. Fork's prepare step closes the gate
 * and waits until no other thread is busy, so that the moment of the fork cuts every thread's
 * records cleanly; threads that come to a hook meanwhile wait at the gate. Both waits are bounded:
 * a thread may hold a lock that the other side needs (jemalloc's own fork handlers take all of its
 * locks before ours run). A wait that ran out makes the fork "inexact", and the trace says so.
 *
 * The pair (busy, gate) is Dekker's pattern. The hook's side has only compiler barriers; the fork
 * side pays with membarrier(2).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_STATE_H
#define MEMTRACE_PRELOAD_STATE_H

#include <stdint.h>

enum mt_state_bits {
	MT_STATE_NEW = 0, /* nothing has run yet */
	MT_STATE_RUNNING = 1,
	MT_STATE_STARTING = 2, /* one thread is inside mt_init */
	MT_STATE_OFF = 4, /* dormant, or for good: not to be recorded, or recording failed */
	MT_STATE_GATE = 8, /* closed */
};

extern uint32_t mt_state; /* atomic */

/* 1 in a page that the kernel empties in every forked child, however it was forked. */
extern volatile uint32_t *mt_generation;

/* 0, or -errno: then every fork is taken as inexact. */
int mt_gate_init(void);

/* Closes the gate and waits for other busy threads; 1: all were quiet, 0: the wait ran out. */
int mt_gate_close(const void *self);
void mt_gate_open(void);

/* RUNNING to OFF: no thread begins a record from here on. 0: not now, a thread is forking. */
int mt_state_leave(void);

/* Has every other thread left its hook? 1: yes, and none will enter one until RUNNING; 0: not within
 * GATE_WAIT_NS, or it can't be told. */
int mt_state_quiet(const void *self);

/* In a forked child: open, whoever had closed it in the parent. */
void mt_gate_reset(void);

/* A hook's wait at a closed gate; returns when it opens or after GATE_WAIT_NS. */
void mt_gate_wait(void);

#endif
