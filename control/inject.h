/*
 * Putting the shim into a process that was started without it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_CONTROL_INJECT_H
#define MEMTRACE_CONTROL_INJECT_H

#include <sys/types.h>

struct inject_report {
	pid_t tid; /* of the thread that was diverted; 0: none, its Python did it */
	double stopped_ms; /* how long it did nothing of its own; all others ran on */
	unsigned int tries; /* threads that were looked at */
};

/*
 * Loads the shim into `pid` and leaves it dormant: the process then has a control page and is armed
 * as any other with the shim. wait_s: how long to look for a moment at which that is safe. report:
 * NULL, or filled on success. 0, or -1 after one line that says why not and what to do. Also 0 where
 * another thread of it was just at that, for a memtrace that was killed: the page may come or go.
 */
int inject_shim(pid_t pid, double wait_s, struct inject_report *report);

#endif
