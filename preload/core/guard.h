/*
 * Entering and leaving the shim. The guard is one word of static TLS: while it is set, calls that
 * come back to a hook in the same thread (from the real allocator, from a signal handler, from libc
 * functions that the shim itself uses) go straight through.
 *
 *	struct mt_thread *t = mt_enter();
 *	p = mt_real.malloc(size);
 *	if (t) { record ...; mt_leave(t); }
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_GUARD_H
#define MEMTRACE_PRELOAD_GUARD_H

#include <stddef.h>
#include <stdint.h>

#include "core/state.h"
#include "core/thread.h"

enum mt_guard {
	MT_GUARD_NONE = 0,
	MT_GUARD_REAL = 1, /* the real allocator runs: mappings made now are its backing store */
	MT_GUARD_SELF = 2, /* the shim itself runs */
	MT_GUARD_DOMAIN =
		3, /* an allocator above malloc runs (CPython's): what it takes from malloc
			      * or maps is its backing store, and its blocks are counted */
	MT_GUARD_PROBE = 4, /* as SELF; becomes SELF when a hook is reached (init.c) */
};

struct mt_tls {
	struct mt_thread *thread; /* NULL: not adopted yet, or given back */
	uint32_t guard; /* enum mt_guard */
	uint64_t countdown; /* bytes to the next sample; 0: not drawn yet (record/sample.h) */
};

extern __thread struct mt_tls mt_tls __attribute__((tls_model("initial-exec")));

#define mt_likely(x) __builtin_expect(!!(x), 1)
#define mt_unlikely(x) __builtin_expect(!!(x), 0)
#define MT_COLD __attribute__((cold, noinline))
#define MT_EXPORT __attribute__((visibility("default")))

/* Everything that is not the common case; see guard.c. */
struct mt_thread *mt_enter_slow(void);
struct mt_thread *mt_enter_closed(struct mt_thread *t);

/* One call of this thread could not be recorded. */
void mt_count_lost(void);

/* The thread's struct, with the guard at REAL; NULL: do not record this call. ~2 ns. */
static inline struct mt_thread *mt_enter(void)
{
	struct mt_thread *t = mt_tls.thread;

	if (mt_unlikely(mt_tls.guard || !t))
		return mt_enter_slow();
	mt_tls.guard = MT_GUARD_REAL;
	t->busy = 1;
	__atomic_signal_fence(
		__ATOMIC_SEQ_CST); /* busy before state: the gate's side has the fence */
	if (mt_unlikely(mt_state != MT_STATE_RUNNING || !*mt_generation))
		return mt_enter_closed(t);
	return t;
}

static inline void mt_leave(struct mt_thread *t)
{
	__atomic_store_n(&t->busy, 0, __ATOMIC_RELEASE);
	mt_tls.guard = MT_GUARD_NONE;
}

/* Around the making of a record: a signal handler must not start another one inside it. */
#define MT_SELF_BEGIN()                                                                            \
	uint32_t outer_guard_ = mt_tls.guard;                                                      \
	mt_tls.guard = MT_GUARD_SELF
#define MT_SELF_END() mt_tls.guard = outer_guard_

/* For mapping calls, which may come from inside the real allocator: as mt_enter, but a nested call
 * is let in. *backing says so; mt_leave_nested takes it back. The first call of all does not start
 * the shim: an allocator ahead of us makes it, holds its lock, and starting may allocate. */
static inline struct mt_thread *mt_enter_nested(int *backing)
{
	*backing = (mt_tls.guard == MT_GUARD_REAL || mt_tls.guard == MT_GUARD_DOMAIN) &&
		   mt_tls.thread;
	if (mt_unlikely(mt_tls.guard == MT_GUARD_SELF))
		mt_count_lost(); /* a signal handler's: the shim itself maps by raw system calls */
	if (mt_unlikely(mt_state == MT_STATE_NEW))
		return NULL;
	return *backing ? mt_tls.thread : mt_enter();
}

static inline void mt_leave_nested(struct mt_thread *t, int backing)
{
	if (!backing)
		mt_leave(t);
}

/* Set by init.c: starts the shim at the first call of any hook, and adapts it to being a child
 * that no fork handler announced. */
extern void (*mt_on_first_call)(void) __attribute__((weak)); /* absent in unit tests */
extern void (*mt_on_silent_fork)(void);

#endif
