/*
 * This process's identity in the trace. See process.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "out/process.h"

#include <string.h>
#include <sys/syscall.h>

#include "core/clock.h"
#include "out/file.h"
#include "out/stream.h"
#include "sys/fmt.h"
#include "sys/sys.h"

struct mt_process mt_process;
void (*mt_process_on_number)(uint32_t number);

static uint64_t own_start;

uint32_t mt_process_number(void)
{
	uint32_t none = 0, fresh;

	if (mt_process.number || !mt_file.header)
		return mt_process.number;
	fresh = __atomic_fetch_add(&mt_file.header->next_proc, 1, __ATOMIC_RELAXED);
	/* Two threads may come here at once; the loser's number stays unused. */
	if (!__atomic_compare_exchange_n(&mt_process.number, &none, fresh, 0, __ATOMIC_RELAXED,
					 __ATOMIC_RELAXED))
		return none;
	own_start = mt_process_start(mt_process.pid);
	mt_file_slot_drop();
	mt_file_slot_take(fresh, mt_process.pid, own_start);
	if (mt_process_on_number)
		mt_process_on_number(fresh);
	return fresh;
}

void mt_process_thread(struct mt_thread *t)
{
	char path[64], name[32];
	ssize_t n;

	mt_fmt(path, sizeof(path), "/proc/self/task/%u/comm", t->tid);
	n = mt_sys_slurp(path, name, sizeof(name));
	if (n > 0 && name[n - 1] == '\n')
		n--;
	MT_EMIT(t, thread, .time = mt_clock_now(), .tid = t->tid,
		.name = { name, n > 0 ? (uint32_t)n : 0 });
}

/* Ticks read between two readings of the system's clock, of which the mean is taken. */
void mt_process_clock(struct mt_thread *t)
{
	uint64_t before = mt_clock_monotonic_ns();
	uint64_t ticks = mt_clock_now() << MT_TIME_SHIFT;
	uint64_t after = mt_clock_monotonic_ns();

	MT_EMIT(t, clock, .ticks = ticks, .monotonic_ns = before + (after - before) / 2,
		.realtime_ns = mt_clock_realtime_ns());
}

void mt_process_introduce(struct mt_thread *t)
{
	const uint32_t *bases = mt_process.bases;

	if (!own_start)
		own_start = mt_process_start(mt_process.pid);
	MT_EMIT(t, process, .time = mt_clock_now(), .pid = mt_process.pid,
		.ppid = (uint64_t)mt_sys0(SYS_getppid), .start = own_start,
		.reason = mt_process.reason, .parent = mt_process.parent,
		.fork_time = mt_process.fork_time, .node_base = bases[MT_ID_NODE],
		.frame_base = bases[MT_ID_FRAME], .module_base = bases[MT_ID_MODULE],
		.pynode_base = bases[MT_ID_PYNODE], .code_base = bases[MT_ID_CODE],
		.string_base = bases[MT_ID_STRING], .flags = mt_process.inexact);
	mt_process_clock(t);
}

void mt_process_child(uint64_t fork_time, uint32_t inexact)
{
	if (mt_process.number || mt_process.reason != MT_PROCESS_FORK) {
		mt_process.parent = mt_process.number;
		mt_process.fork_time = fork_time;
		mt_process.inexact = inexact;
		memcpy(mt_process.bases, mt_ids_next, sizeof(mt_process.bases));
	}
	mt_process.reason = MT_PROCESS_FORK;
	mt_process.number = 0;
	mt_process.pid = (uint32_t)mt_sys_getpid();
	own_start = 0;
	mt_file_child();
	if (mt_file.header)
		mt_file_slot_take(0, mt_process.pid, 0);
}

void mt_process_forget(void)
{
	memset(&mt_process, 0, sizeof(mt_process));
	own_start = 0;
	for (int i = 0; i < MT_ID_SPACES; i++)
		mt_ids_next[i] = 1;
}
