/*
 * A running process as `memtrace` reaches it: through its control page (memtrace/control.h).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_CONTROL_TARGET_H
#define MEMTRACE_CONTROL_TARGET_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "memtrace/control.h"

struct target {
	pid_t pid; /* as we see it */
	uint64_t start; /* process_start() of it: a pid may be used again */
	int fd; /* of the page; -1: not open */
	struct mt_control *page;
	uint32_t number; /* of the request under way; 0: none */
};

enum reach {
	REACHED,
	NO_PROCESS,
	NOT_ALLOWED, /* another user's */
	NO_SHIM, /* started without it */
	NO_PAGE, /* has the shim, and no page yet, or lost its descriptor */
};

/* Opens the process's own page. `why` gets one clause when it can't be had. */
enum reach target_open(struct target *t, pid_t pid, char *why, size_t size);
void target_close(struct target *t);

/* Does the process still have this page open? */
int target_has_page(const struct target *t);

/*
 * Asks: takes the page's lock and puts the request there. 0, or -1: another `memtrace` has the lock
 * for longer than a second. before, older, text: NULL, or as control.h has them.
 */
int target_ask(struct target *t, enum mt_control_command command, uint32_t flags, uint64_t until_ns,
	       const struct mt_control_before *before, const char *older, const char *text,
	       size_t text_bytes);

/* Has the process ended? */
int target_is_gone(const struct target *t);

/* Has it answered? 1: yes, *result is what came of it; 0: not yet; -1: the process is gone. Calls
 * again each time. */
int target_answered(struct target *t, int *result);

/* The request is over: answered, or taken back. */
void target_done(struct target *t);

/* All of it, waiting at most `ms`; 1, 0 or -1 as target_answered. */
int target_call(struct target *t, enum mt_control_command command, uint32_t flags, const char *text,
		size_t text_bytes, int ms, int *result);

/* Path of the trace that the process writes; empty: none. At most `size` - 1 bytes. */
void target_trace(const struct target *t, char *out, size_t size);

/* status.c: the errno that ended recording in some process, as the trace has it; 0: none. */
int trace_error(pid_t pid, const char *path);

/*
 * reach.c: opens the page of a process; one that was started without the shim gets it first. wait_s:
 * how long to look for a safe moment. 0, or -1 after a line that says why not.
 */
int reach(struct target *t, pid_t pid, double wait_s);

/* With MEMTRACE_LOG=info: how long the last request held up the thread that answered. */
void say_took(const struct target *t, const char *what);

/* pid and all its descendants, parents first; *list is allocated. How many. */
size_t process_tree(pid_t pid, pid_t **list);

/* Field 22 of /proc/PID/stat; 0: no such process. */
uint64_t process_start(pid_t pid);
pid_t process_parent(pid_t pid);
int process_is_gone(pid_t pid); /* or has ended and is not waited for yet */

/* A number after "key:" in /proc/PID/FILE, in kB there; -1: not there. */
int64_t process_field(pid_t pid, const char *file, const char *key);

/* older.c: what the process holds at this moment; `older` gets the parts of it as text. */
void process_measure(pid_t pid, struct mt_control_before *before, char older[MT_CONTROL_OLDER]);

uint64_t now_ns(void); /* CLOCK_MONOTONIC */
void sleep_ms(int ms);

#endif
