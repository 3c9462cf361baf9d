/*
 * Fork, in one place: what happens before, in the parent and in the child, in this order.
 *
 * The handlers are registered from the constructor, before any of the program's: so `prepare` runs
 * after all others and the two afterwards run before all others, as close to the clone as can be.
 * In the child only the forking thread exists, and nothing here may wait for another: no lock is
 * taken, no dl_iterate_phdr called, nothing of the parent's written.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <pthread.h>
#include <stddef.h>

#include "core/clock.h"
#include "core/forked.h"
#include "core/gpu.h"
#include "core/guard.h"
#include "core/tick.h"
#include "init.h"
#include "out/file.h"
#include "out/process.h"
#include "record/record.h"
#include "record/touch.h"
#include "samplers/cow.h"
#include "samplers/sampler.h"
#include "slots.h"
#include "stack/stack.h"
#include "sys/log.h"
#include "sys/sys.h"

/* Of the fork this thread is making. Thread-local: several threads may fork at once. */
static __thread struct mt_fork_info pending __attribute__((tls_model("initial-exec")));
static __thread int made __attribute__((tls_model("initial-exec")));
static __thread int waited
	__attribute__((tls_model("initial-exec"))); /* handlers may come in between */

static int recording(void)
{
	return (mt_state & ~(uint32_t)MT_STATE_GATE) == MT_STATE_RUNNING;
}

static void fork_prepare(void)
{
	made = 0;
	waited = mt_late;
	if (waited)
		mt_slots_fork();
	mt_arm_wait();
	if (!recording() || mt_tls.guard)
		return;
	pending.inexact = !mt_gate_close(mt_tls.thread);
	pending.time = mt_clock_now();
	mt_record_fork_cut(pending.time);
	made = 1;
}

static void fork_parent(void)
{
	if (waited)
		mt_slots_forked(0);
	waited = 0;
	if (!made)
		return;
	mt_gate_open();
	mt_cow_forked();
}

/* A child that is not to record, because its parent does not, or not with its children. */
static void child_dormant(void)
{
	mt_tls.guard = MT_GUARD_SELF;
	*mt_generation = 1;
	mt_thread_child(mt_tls.thread);
	mt_gate_reset();
	if (mt_tls.thread)
		mt_tls.thread->busy = 0;
	mt_arm_child();
	mt_tls.guard = MT_GUARD_NONE;
}

static void child_reset(uint64_t time, uint32_t inexact)
{
	struct mt_thread *t = mt_tls.thread;

	mt_touch_child();
	if (!recording() || !mt_arm_child_records()) {
		child_dormant();
		return;
	}
	mt_tls.guard = MT_GUARD_SELF;
	mt_log_close();
	if (mt_generation)
		*mt_generation = 1;
	mt_record_child();
	mt_thread_child(t);
	mt_process_child(time, inexact);
	if (t)
		t->codec.time = mt_process.fork_time;
	mt_stack_child(t);
	mt_sampler_child();
	mt_gpu_child();
	mt_gate_reset();
	if (t)
		t->busy = 0;
	mt_arm_child();
	mt_tls.guard = MT_GUARD_NONE;
}

static void fork_child(void)
{
	int was_made = made;

	mt_slots_forked(1);
	made = 0;
	if (was_made)
		child_reset(pending.time, pending.inexact);
	else if (!mt_tls.guard && !*mt_generation)
		child_reset(mt_clock_now(), 1); /* recording began while the fork was made */
}

/* _Fork or a raw clone: no handler ran, the wiped generation page gave it away. When it happened
 * is not known; now is the nearest that can be said. */
static void silent_fork(void)
{
	int was_made = made;

	/* Where the shim was loaded late, handlers of the program run ahead of ours, and allocate. */
	made = 0;
	child_reset(was_made ? pending.time : mt_clock_now(), was_made ? pending.inexact : 1);
}

int mt_forked_take(struct mt_fork_info *info)
{
	int had = made;

	*info = pending;
	made = 0;
	return had;
}

int mt_forked_is_vfork_child(void)
{
	return (uint32_t)mt_sys_getpid() != mt_process.pid && *mt_generation;
}

void mt_forked_seal(void)
{
	mt_file.stopped = EPERM;
	__atomic_store_n(&mt_tick_due, UINT64_MAX, __ATOMIC_RELAXED);
}

int mt_fork_init(void)
{
	mt_on_silent_fork = silent_fork;
	mt_cow_began = mt_touch_begin;
	return -pthread_atfork(fork_prepare, fork_parent, fork_child);
}
