/*
 * The shim's state and the gate. See state.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core/state.h"

#include <errno.h>
#include <sys/mman.h>

#include "core/clock.h"
#include "core/mem.h"
#include "core/thread.h"
#include "sys/sys.h"

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

#define GATE_WAIT_NS                                                                               \
	20000000u /* a fork of 10 GiB takes 130 ms, but the gate is closed only for
				* the part of it that other threads could disturb */
#define GATE_POLL_NS 50000u

uint32_t mt_state;
static uint32_t generation_page[1024]
	__attribute__((aligned(4096))); /* of .bss: no file behind it */
static uint32_t always_one = 1;
volatile uint32_t *mt_generation = &always_one; /* until the page is there */
static int have_barrier;
static uint32_t closers; /* threads that fork at this moment */

int mt_gate_init(void)
{
	uint32_t *page;
	int err;

	if (mt_generation != &always_one)
		return have_barrier ? 0 : -ENOSYS; /* of an earlier recording */
	page = generation_page;
	if (mt_sys_madvise(page, 4096, MADV_WIPEONFORK) == 0) {
		*page = 1;
		mt_generation = page;
	}
	err = mt_sys_barrier_init();
	have_barrier = err == 0;
	return err;
}

static const struct mt_thread *busy_other(const void *self)
{
	for (struct mt_thread *t = __atomic_load_n(&mt_thread_all, __ATOMIC_ACQUIRE); t;
	     t = t->next_all)
		if (t != self && __atomic_load_n(&t->busy, __ATOMIC_ACQUIRE))
			return t;
	return NULL;
}

int mt_gate_close(const void *self)
{
	uint64_t start;

	__atomic_fetch_add(&closers, 1, __ATOMIC_SEQ_CST);
	__atomic_fetch_or(&mt_state, MT_STATE_GATE, __ATOMIC_SEQ_CST);
	if (!have_barrier || mt_sys_barrier() < 0)
		return !mt_thread_all || !mt_thread_all->next_all;
	if (!busy_other(self))
		return 1;
	start = mt_clock_monotonic_ns();
	do {
		uint32_t never = 0;

		mt_sys_futex_wait(&never, 0, GATE_POLL_NS);
		if (!busy_other(self))
			return 1;
	} while (mt_clock_monotonic_ns() - start < GATE_WAIT_NS);
	return 0;
}

int mt_state_leave(void)
{
	uint32_t running = MT_STATE_RUNNING;

	/* Not while a thread forks: its child is promised a clean cut. */
	return __atomic_compare_exchange_n(&mt_state, &running, MT_STATE_OFF, 0, __ATOMIC_SEQ_CST,
					   __ATOMIC_SEQ_CST);
}

/* The other half of Dekker's pattern: after the barrier, a thread either shows itself busy or sees
 * the state. */
int mt_state_quiet(const void *self)
{
	uint64_t start = mt_clock_monotonic_ns();

	if (!have_barrier || mt_sys_barrier() < 0)
		return 0;
	while (busy_other(self)) {
		uint32_t never = 0;

		if (mt_clock_monotonic_ns() - start >= GATE_WAIT_NS)
			return 0;
		mt_sys_futex_wait(&never, 0, GATE_POLL_NS);
	}
	return 1;
}

void mt_gate_reset(void)
{
	closers = 0;
	__atomic_fetch_and(&mt_state, ~(uint32_t)MT_STATE_GATE, __ATOMIC_SEQ_CST);
}

void mt_gate_open(void)
{
	if (__atomic_sub_fetch(&closers, 1, __ATOMIC_SEQ_CST) > 0)
		return;
	__atomic_fetch_and(&mt_state, ~(uint32_t)MT_STATE_GATE, __ATOMIC_SEQ_CST);
	mt_sys_futex_wake(&mt_state);
}

void mt_gate_wait(void)
{
	uint64_t start = mt_clock_monotonic_ns();
	uint32_t state;

	while ((state = __atomic_load_n(&mt_state, __ATOMIC_ACQUIRE)) & MT_STATE_GATE) {
		if (mt_clock_monotonic_ns() - start >= GATE_WAIT_NS)
			return;
		mt_sys_futex_wait(&mt_state, state, GATE_WAIT_NS);
	}
}
