/*
 * Steps of the shim's life that init.c orders.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_INIT_H
#define MEMTRACE_PRELOAD_INIT_H

#include <stddef.h>
#include <stdint.h>

/* Recording begins: trace, dictionaries, first records. late: not at the program's start. 0 or
 * -errno. Guard held. */
int mt_recording_begin(int late);

/* In arm.c: the control page says so. */
void mt_recording_began(void);

/* From the constructor: what can't be looked up later. */
void mt_arm_prepare(void);

/* In a forked child, after everything else: a control page of its own. */
void mt_arm_child(void);

/* Before a fork: recording that is just beginning or ending in another thread gets to do so. */
void mt_arm_wait(void);

/* In a forked child: is it to record, as its parent does? */
int mt_arm_child_records(void);

/* Lets go of everything a recording needs; no thread is inside a hook. child: of a process that was
 * forked, whose parent goes on. */
void mt_arm_forget(int child);

/* Registers the fork handlers. 0 or -errno. */
int mt_fork_init(void);

/* environ with what children need to join: LD_PRELOAD's entry of ours made absolute, MEMTRACE_TRACE.
 * Called from the constructor: libc has set up `environ` by then. */
void mt_environ_install(void);

/* What children that are started from now on join; with: this trace, or none. In place: whoever has
 * a copy of the vector sees it. */
void mt_environ_renew(int with);
void mt_environ_number(uint32_t number);

/* Loaded late: programs that are started while children are recorded get our entries with their exec.
 * room: how many bytes of `room` that takes; 0: the environment stays as it is. */
void mt_environ_late(void);
size_t mt_environ_child_room(char *const envp[]);
char *const *mt_environ_child(void *room, char *const envp[]);

/* The same for what libc starts by itself, around the call: `environ` is another vector meanwhile. lend
 * gives the program's own, NULL: there is nothing to be put back. uncovered: what is started is to be
 * recorded and will not be, for other threads may be using `environ`. */
char **mt_environ_lend(int *uncovered);
void mt_environ_return(char **own, char *const *lent);

/* Decides, at the first call of any hook, whether C++ operators are recorded (hooks/cxx.c); if not,
 * they are taken out of our symbol table. recording: the shim records, or may later. */
void mt_cxx_decide(int recording);
int mt_cxx_records(void);

/* Loaded by dlopen, by the injector (injected.c). */
extern int mt_late; /* 1: it was; nothing begins by itself then */
extern int mt_injected; /* 1: slots are changed, and there is a control page */

/* In a process that was loaded late: dormant, and with a control page. first: never before. 0 or -errno. */
int mt_late_start(int first);

/* Recording has ended in a process that was injected: nothing but the library stays. */
void mt_injected_leave(void);

/* Wraps CPython's allocators for MEM and OBJ, if this program has them. 1: done. late: only says
 * whether that was done at the start. */
int mt_pymem_install(int late);

/* Has the program put other allocators in their place since (PYTHONMALLOC=debug, -X dev)? */
int mt_pymem_was_replaced(void);

#endif
