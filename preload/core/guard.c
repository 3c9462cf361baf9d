/*
 * Entering the shim: the uncommon cases. See guard.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core/guard.h"

#include "core/control.h"

#include "memtrace/format.h"

__thread struct mt_tls mt_tls __attribute__((tls_model("initial-exec")));

void (*mt_on_silent_fork)(void);

void mt_count_lost(void)
{
	struct mt_thread *t = mt_tls.thread;

	if (!t)
		return;
	if (t->chunk)
		__atomic_fetch_add(&t->chunk->lost, 1, __ATOMIC_RELAXED);
	else
		t->lost++;
}

/* Busy is set before the gate is looked at, as in mt_enter; a wait that ran out goes on anyway. */
static void pass_gate(struct mt_thread *t)
{
	for (int tries = 0; tries < 2; tries++) {
		__atomic_store_n(&t->busy, 1, __ATOMIC_SEQ_CST);
		if (!(__atomic_load_n(&mt_state, __ATOMIC_SEQ_CST) & MT_STATE_GATE))
			return;
		__atomic_store_n(&t->busy, 0, __ATOMIC_RELEASE);
		mt_gate_wait();
	}
	__atomic_store_n(&t->busy, 1, __ATOMIC_SEQ_CST);
}

struct mt_thread *mt_enter_slow(void)
{
	struct mt_thread *t;

	if (mt_tls.guard) {
		/* Inside the real allocator: a signal handler's call, most likely. Inside the shim:
		 * a libc function that it uses itself. */
		if (mt_tls.guard == MT_GUARD_REAL)
			mt_count_lost();
		else if (mt_tls.guard == MT_GUARD_PROBE)
			mt_tls.guard = MT_GUARD_SELF;
		return NULL;
	}
	if (__atomic_load_n(&mt_state, __ATOMIC_ACQUIRE) == MT_STATE_NEW && &mt_on_first_call)
		mt_on_first_call();
	if (!*mt_generation)
		mt_on_silent_fork();
	if ((__atomic_load_n(&mt_state, __ATOMIC_ACQUIRE) & ~(uint32_t)MT_STATE_GATE) !=
	    MT_STATE_RUNNING) {
		if (!mt_control_calls())
			return NULL;
		mt_control_attend();
		if (__atomic_load_n(&mt_state, __ATOMIC_ACQUIRE) != MT_STATE_RUNNING)
			return NULL;
	}
	mt_tls.guard = MT_GUARD_SELF;
	t = mt_tls.thread ? mt_tls.thread : mt_thread_adopt();
	if (!t) {
		mt_tls.guard = MT_GUARD_NONE;
		return NULL;
	}
	pass_gate(t);
	/* Recording may have ended while we waited. */
	if (mt_unlikely((__atomic_load_n(&mt_state, __ATOMIC_SEQ_CST) & ~(uint32_t)MT_STATE_GATE) !=
			MT_STATE_RUNNING)) {
		__atomic_store_n(&t->busy, 0, __ATOMIC_RELEASE);
		mt_tls.guard = MT_GUARD_NONE;
		return NULL;
	}
	mt_tls.guard = MT_GUARD_REAL;
	return t;
}

/* mt_enter found the gate closed, the shim off, or itself in a new process. */
struct mt_thread *mt_enter_closed(struct mt_thread *t)
{
	__atomic_store_n(&t->busy, 0, __ATOMIC_RELEASE);
	mt_tls.guard = MT_GUARD_NONE;
	return mt_enter_slow();
}
