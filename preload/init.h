/*
 * Steps of the shim's life that init.c orders.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_INIT_H
#define MEMTRACE_PRELOAD_INIT_H

/* Registers the fork handlers. 0 or -errno. */
int mt_fork_init(void);

/* environ with what children need to join: LD_PRELOAD's entry of ours made absolute, MEMTRACE_TRACE.
 * Called from the constructor: libc has set up `environ` by then. */
void mt_environ_install(void);

/* Decides, at the first call of any hook, whether C++ operators are recorded (hooks/cxx.c); if not,
 * they are taken out of our symbol table. recording: the shim is not off. */
void mt_cxx_decide(int recording);

/* Wraps CPython's allocators for MEM and OBJ, if this program has them. 1: done. */
int mt_pymem_install(void);

/* Has the program put other allocators in their place since (PYTHONMALLOC=debug, -X dev)? */
int mt_pymem_was_replaced(void);

#endif
