/*
 * The recorder, off the hot path: processes, threads, marks and facts. See record.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>
#include <sys/wait.h>

#include "core/control.h"
#include "core/guard.h"
#include "core/tick.h"
#include "out/file.h"
#include "out/process.h"
#include "out/stream.h"
#include "record/cut.h"
#include "record/nursery.h"
#include "record/record.h"
#include "record/touch.h"
#include "sys/fmt.h"
#include "sys/sys.h"

#define TEXT_MAX 4096

static struct mt_str text_of(const char *text)
{
	size_t length = text ? strnlen(text, TEXT_MAX) : 0;

	return (struct mt_str){ text, (uint32_t)length };
}

/* Is the program that is started with it to record? The entry is ours if it names a libmemtrace. */
static int is_traced(char *const envp[])
{
	for (; mt_control_own.tree && envp && *envp; envp++)
		if (!strncmp(*envp, "LD_PRELOAD=", 11))
			return strstr(*envp, "libmemtrace") != NULL;
	return 0;
}

void mt_record_fork(struct mt_thread *t, pid_t pid, uint64_t time, uint32_t inexact,
		    struct mt_caller caller)
{
	uint32_t native, python;

	MT_SELF_BEGIN();
	native = mt_stack_native(t, caller);
	python = mt_stack_python(t);
	MT_EMIT(t, fork, .time = time, .pid = (uint64_t)pid, .flags = inexact, .native = native,
		.python = python);
	MT_SELF_END();
}

/* In a vfork child this writes into the parent's stream, in the parent's memory: the pid tells.
 * An image about to be replaced gives its tail back; its successor starts a chunk of its own. */
void mt_record_exec(struct mt_thread *t, const char *path, char *const envp[])
{
	uint64_t pid = (uint64_t)mt_sys_getpid();

	MT_SELF_BEGIN();
	MT_EMIT(t, exec, .time = mt_clock_now(), .pid = pid, .traced = (uint64_t)is_traced(envp),
		.path = text_of(path));
	if (pid == mt_process.pid)
		mt_stream_trim(t);
	MT_SELF_END();
}

void mt_record_exec_failed(struct mt_thread *t, int error)
{
	MT_SELF_BEGIN();
	MT_EMIT(t, exec_failed, .time = mt_clock_now(), .pid = (uint64_t)mt_sys_getpid(),
		.error = (uint64_t)error);
	MT_SELF_END();
}

void mt_record_spawn(struct mt_thread *t, pid_t pid, const char *path, char *const envp[])
{
	MT_SELF_BEGIN();
	MT_EMIT(t, spawn, .time = mt_clock_now(), .pid = (uint64_t)pid,
		.traced = (uint64_t)is_traced(envp), .path = text_of(path));
	MT_SELF_END();
}

void mt_record_wait(struct mt_thread *t, pid_t pid, int status)
{
	MT_SELF_BEGIN();
	/* A phase may end with it (the workers of a loader), and what is held then is of interest. */
	if (mt_nursery_on)
		mt_cut_births();
	if (WIFEXITED(status))
		MT_EMIT(t, wait, .time = mt_clock_now(), .pid = (uint64_t)pid,
			.code = (uint64_t)WEXITSTATUS(status));
	else if (WIFSIGNALED(status))
		MT_EMIT(t, wait, .time = mt_clock_now(), .pid = (uint64_t)pid,
			.signal = (uint64_t)WTERMSIG(status), .code = WCOREDUMP(status) ? 1 : 0);
	MT_SELF_END();
}

void mt_record_launch(struct mt_thread *t)
{
	uint32_t python;

	MT_SELF_BEGIN();
	python = mt_stack_python(t);
	if (python)
		MT_EMIT(t, launch, .time = mt_clock_now(), .python = python);
	MT_SELF_END();
}

void mt_record_exit(struct mt_thread *t, enum mt_exit_kind kind, int code)
{
	uint64_t now = mt_clock_now();

	/* A child that recorded nothing stays out of the trace; its parent's records tell of it. */
	if (!mt_process.number) {
		mt_file_slot_drop();
		return;
	}
	MT_SELF_BEGIN();
	mt_touch_end(t);
	if (mt_tick_work && mt_tick_due != UINT64_MAX)
		mt_tick_work(t, UINT64_MAX); /* the last sample */
	MT_EMIT(t, exit, .time = now, .kind = kind, .code = (uint64_t)(code & 0xff));
	mt_stream_trim(t);
	mt_file_slot_drop();
	MT_SELF_END();
}

void mt_record_mark(struct mt_thread *t, enum mt_mark_kind kind, uint64_t value, const char *label)
{
	int cuts = mt_nursery_on && kind != MT_MARK_STEP; /* steps are many, and named by nobody */

	MT_SELF_BEGIN();
	MT_EMIT(t, mark, .time = cuts ? mt_cut() : mt_clock_now(), .kind = kind, .value = value,
		.label = text_of(label));
	MT_SELF_END();
}

void mt_record_thread_name(struct mt_thread *t)
{
	MT_SELF_BEGIN();
	if (t->chunk)
		mt_process_thread(t);
	MT_SELF_END();
}

void mt_record_fact(struct mt_thread *t, const char *key, const char *value, size_t length)
{
	MT_SELF_BEGIN();
	if (length > TEXT_MAX)
		length = TEXT_MAX;
	MT_EMIT(t, fact, .key = text_of(key), .value = { value, (uint32_t)length });
	MT_SELF_END();
}

void mt_record_note(struct mt_thread *t, const char *text)
{
	MT_SELF_BEGIN();
	MT_EMIT(t, note, .time = mt_clock_now(), .text = text_of(text));
	MT_SELF_END();
}

/* A thread took over the stream of one that ended. A fresh stream says it in its first chunk. */
static void thread_start(struct mt_thread *t)
{
	if (t->chunk) {
		t->named = 1;
		mt_process_thread(t);
	}
}

static void thread_end(struct mt_thread *t)
{
	if (t->chunk)
		MT_EMIT(t, thread_end, .time = mt_clock_now(), .tid = t->tid);
}

void mt_record_fork_cut(uint64_t time)
{
	if (mt_nursery_on)
		mt_cut_at(time);
}

void mt_record_looked(void)
{
	if (mt_nursery_on)
		mt_cut();
}

void mt_record_child(void)
{
	if (mt_nursery_on)
		mt_nursery_child();
}

int mt_record_is_folded(void)
{
	return mt_nursery_on != 0;
}

void mt_record_init(int fold)
{
	if (fold)
		mt_nursery_init();
	mt_thread_on_start = thread_start;
	mt_thread_on_end = thread_end;
}
