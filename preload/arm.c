/*
 * Answering the control page: recording begins and ends in the middle of the program.
 *
 * All of it runs in the first hook that any thread comes to after the page's word has changed, ahead
 * of the real call, so this thread holds no lock of the allocator; it may hold any of the program's,
 * so nothing here takes one of libc's. What needs such a lock (handlers, keys, look-ups) was done at
 * the program's start. It runs on a stack of its own, because the program's may be small.
 *
 * The end: the state says OFF; every thread that was inside a hook leaves it, which the fork gate's
 * barrier makes certain; then all that recording needed is let go of, and the process is as it was.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <string.h>
#include <sys/syscall.h>

#include "core/arenas.h"
#include "core/clock.h"
#include "core/config.h"
#include "core/control.h"
#include "core/forked.h"
#include "core/gpu.h"
#include "core/guard.h"
#include "core/mem.h"
#include "core/real.h"
#include "init.h"
#include "out/file.h"
#include "out/process.h"
#include "out/stream.h"
#include "record/gpu.h"
#include "record/record.h"
#include "record/touch.h"
#include "samplers/sampler.h"
#include "stack/stack.h"
#include "sys/fmt.h"
#include "sys/log.h"
#include "sys/sys.h"

#define STACK_BYTES ((size_t)128 << 10)
#define FORK_NAPS 200 /* of half a millisecond, that a fork waits */
#define PATIENCE 1000 /* calls that are left to a thread that can look at the allocator */

static uint32_t serving; /* atomic; a thread is in here */
static uint32_t postponed;
static char text[MT_CONTROL_TEXT + 1]; /* of the request; the configuration points into it */
static struct mallinfo2 (*heap_info)(void); /* NULL: the allocator behind us is not libc's */

/* ---- beginning ----------------------------------------------------------------------------------- */

/* In a signal handler the interrupted code may be inside the allocator and hold the locks that
 * mallinfo2 takes. While one runs, its signal is blocked. */
static int may_be_handler(void)
{
	uint64_t blocked = 0;

	return mt_sys4(SYS_rt_sigprocmask, 0, NULL, &blocked, sizeof(blocked)) < 0 || blocked;
}

static void say_older(struct mt_thread *t, const struct mt_control_before *b)
{
	static char copy[MT_CONTROL_OLDER]; /* the page may be changing */
	uint32_t bytes = b->older_bytes;

	if (!bytes || bytes > sizeof(copy))
		return;
	memcpy(copy, mt_control.older, bytes);
	if (mt_control_hash(copy, bytes) == b->older_check)
		MT_EMIT(t, older, .time = mt_clock_now(), .text = { copy, bytes });
}

static void say_before(struct mt_thread *t, const struct mt_control_before *b, uint64_t started)
{
	struct mallinfo2 heap = { 0 };
	uint64_t known = heap_info && !may_be_handler();

	if (known)
		heap = heap_info();
	MT_SELF_BEGIN();
	MT_EMIT(t, before, .time = mt_clock_now(), .took_ns = mt_clock_monotonic_ns() - started,
		.heap_used = known ? heap.uordblks + heap.hblkhd + 1 : 0,
		.heap_free = known ? heap.fordblks + 1 : 0,
		.heap_mapped = known ? heap.hblkhd + 1 : 0,
		.heap_arena = known ? heap.arena + 1 : 0, .anon = b->anon, .swap = b->swap,
		.file = b->file, .shmem = b->shmem, .brk = b->heap, .stacks = b->stacks,
		.libraries = b->libraries);
	say_older(t, b);
	MT_SELF_END();
}

static int configure(void)
{
	int result = 0;

	mt_config = mt_config_own; /* what the program was started with */
	mt_config.trace = "";
	for (const char *p = text; *p; p += strlen(p) + 1)
		if (mt_config_apply(p) < 0)
			result = -EINVAL;
	if (mt_config.mode == MT_MODE_DORMANT)
		mt_config.mode = MT_MODE_FULL;
	mt_config.quiet = 1; /* whoever attached is told by `memtrace` */
	return result;
}

void mt_recording_began(void)
{
	struct mt_control_self *s = &mt_control_own;

	s->state = MT_CONTROL_RECORDING;
	s->ended = MT_CONTROL_NOT_ENDED;
	s->recordings++;
	s->proc = mt_process.number;
	s->mode = (uint32_t)mt_config.mode;
	s->since_ns = mt_clock_realtime_ns();
	s->until_ns = 0;
	s->tree = 1;
	memcpy(s->trace_id, mt_file.header->trace_id, sizeof(s->trace_id));
	mt_file_token(mt_control.token, sizeof(mt_control.token), mt_process.number);
}

static int arm(const struct mt_control_request *r)
{
	uint64_t started = mt_clock_monotonic_ns();
	int err;

	if (mt_control_own.state != MT_CONTROL_DORMANT)
		return mt_control_own.state == MT_CONTROL_RECORDING ? -EALREADY : -EAGAIN;
	err = configure();
	if (!err)
		err = mt_recording_begin(1);
	if (err < 0) {
		mt_fmt(mt_control.why, sizeof(mt_control.why), "%s: %s", mt_config.out,
		       err == -EINVAL ? "not a valid option" : mt_file_why(-err));
		mt_arm_forget(0);
		return err;
	}
	mt_recording_began();
	mt_control_own.until_ns = r->until_ns;
	if (mt_process.reason == MT_PROCESS_ROOT)
		mt_file.header->until_ns = r->until_ns;
	mt_control_own.tree = !!(r->flags & MT_CONTROL_TREE);
	if (mt_tls.thread)
		say_before(mt_tls.thread, &r->before, started);
	mt_environ_renew((int)mt_control_own.tree);
	mt_process_on_number = mt_environ_number;
	/* Release: who sees RUNNING sees the trace. */
	__atomic_store_n(&mt_state, MT_STATE_RUNNING, __ATOMIC_RELEASE);
	mt_control_set_light(mt_config.mode == MT_MODE_SAMPLE ? MT_LIGHT_SAMPLE : MT_LIGHT_NONE);
	return 0;
}

/* ---- ending -------------------------------------------------------------------------------------- */

void mt_arm_forget(int child)
{
	if (child)
		mt_file_child(); /* the slot is the parent's, and so are the chunks */
	for (struct mt_thread *t = child ? NULL : mt_thread_all; t; t = t->next_all)
		mt_stream_trim(t);
	mt_environ_renew(0);
	mt_nursery_forget();
	mt_thread_forget();
	mt_sample_reset();
	mt_touch_forget();
	mt_sampler_forget();
	mt_arenas_forget();
	mt_gpu_forget();
	mt_record_gpu_forget();
	mt_stack_forget();
	mt_file_forget();
	mt_process_forget();
	mt_record_paused = 0;
	mt_log_close();
	mt_mem_forget();
	memset(mt_control_own.trace_id, 0, sizeof(mt_control_own.trace_id));
	mt_control_own.until_ns = 0;
	mt_control_own.proc = 0;
}

/* 1: done. 0: some thread is still inside; the next event tries again. */
static int drain(void)
{
	if (!mt_state_quiet(mt_tls.thread))
		return 0;
	if (mt_tls.thread)
		mt_record_exit(mt_tls.thread, MT_EXIT_DETACHED, (int)mt_control_own.ended);
	mt_arm_forget(0);
	mt_control_own.state = MT_CONTROL_DORMANT;
	return 1;
}

static int disarm(enum mt_control_ended why)
{
	if (mt_control_own.state != MT_CONTROL_RECORDING)
		return mt_control_own.state == MT_CONTROL_DORMANT ? -ESRCH : -EAGAIN;
	if (!mt_state_leave())
		return -EAGAIN;
	mt_control_own.state = MT_CONTROL_DRAINING;
	mt_control_own.ended = why;
	mt_light = MT_LIGHT_PASS; /* the word stays what it is: there is more to do */
	drain();
	return 0;
}

/* ---- requests ------------------------------------------------------------------------------------ */

static int mark(void)
{
	struct mt_thread *t;

	if (mt_control_own.state != MT_CONTROL_RECORDING)
		return -ESRCH;
	mt_tls.guard = MT_GUARD_NONE;
	t = mt_enter();
	if (t) {
		mt_record_mark(t, MT_MARK_MARK, 0, text);
		mt_leave(t);
	}
	mt_tls.guard = MT_GUARD_SELF;
	return t ? 0 : -EAGAIN;
}

static int perform(const struct mt_control_request *r)
{
	switch (r->command) {
	case MT_CONTROL_ARM:
		return arm(r);
	case MT_CONTROL_DISARM:
		return disarm(MT_CONTROL_ASKED);
	case MT_CONTROL_MARK:
		return mark();
	case MT_CONTROL_LOOK:
		return 0;
	default:
		return -ENOSYS;
	}
}

/* 1: there is one, and it is whole; 0: none; -1: what stands there is no request. */
static int request_read(struct mt_control_request *r)
{
	*r = mt_control.request;
	if (r->number == mt_control_own.answered)
		return 0;
	if (r->number != mt_control_own.answered + 1 || r->text_bytes > MT_CONTROL_TEXT)
		return -1;
	memcpy(text, mt_control.text, r->text_bytes);
	text[r->text_bytes] = '\0';
	return mt_control_check(r, text) == r->check ? 1 : -1;
}

static void serve(void)
{
	uint32_t word = __atomic_load_n(&mt_control.self.word, __ATOMIC_ACQUIRE);
	struct mt_control_request r;
	int asked;

	/* Another thread has answered since this one was called; the page may be in use again. */
	if (word == mt_light)
		return;
	if (mt_control_own.state == MT_CONTROL_DRAINING)
		drain();
	asked = request_read(&r);
	if (asked > 0 && r.command == MT_CONTROL_ARM && may_be_handler() && ++postponed < PATIENCE)
		return;
	postponed = 0;
	if (asked > 0) {
		uint64_t begun = mt_clock_monotonic_ns();

		mt_control.why[0] = '\0';
		mt_control_own.result = perform(&r);
		mt_control_own.took_ns = mt_clock_monotonic_ns() - begun;
		/* A fork is under way, or the last recording is not over: at the next event. */
		if (mt_control_own.result == -EAGAIN)
			return;
		mt_control_own.answered = r.number;
	} else if (asked < 0 || (word != MT_CONTROL_CALL && word != mt_light)) {
		disarm(MT_CONTROL_GARBAGE);
		mt_control.request.number = mt_control_own.answered;
	}
	if (mt_control_own.until_ns && mt_clock_monotonic_ns() >= mt_control_own.until_ns)
		disarm(MT_CONTROL_DEADLINE);
	if (mt_injected && mt_control_own.state == MT_CONTROL_DORMANT &&
	    (mt_control_own.recordings || mt_control_own.result < 0)) {
		mt_injected_leave(); /* and says so; if it can't now, the next event tries again */
		return;
	}
	mt_control_publish();
	if (mt_control_own.state != MT_CONTROL_DRAINING)
		mt_control_set_light(mt_light);
}

/*
 * A vfork child, which runs in its parent's memory, has nothing to say here. A child that no fork
 * handler announced becomes a process of its own first.
 */
static void attend(void)
{
	uint32_t free = 0, outer = mt_tls.guard;
	int saved = errno;
	void *stack;

	if ((uint32_t)mt_sys_getpid() != mt_control_own.pid) {
		if (!*mt_generation)
			mt_on_silent_fork();
		return;
	}
	if (!__atomic_compare_exchange_n(&serving, &free, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
		return;
	mt_tls.guard = MT_GUARD_SELF;
	stack = mt_mem_map_kept(STACK_BYTES);
	if (stack) {
		mt_sys_on_stack(serve, (char *)stack + STACK_BYTES);
		mt_mem_unmap(stack, STACK_BYTES);
	}
	mt_tls.guard = outer;
	__atomic_store_n(&serving, 0, __ATOMIC_RELEASE);
	errno = saved;
}

/* A child that is made in the middle of it could use nothing of what it finds. */
void mt_arm_wait(void)
{
	for (int i = 0;
	     i < FORK_NAPS && !mt_tls.guard && __atomic_load_n(&serving, __ATOMIC_ACQUIRE); i++)
		mt_sys_nap(500000);
}

void mt_arm_prepare(void)
{
	Dl_info of_malloc, of_info;
	void *symbol = dlsym(RTLD_DEFAULT, "mallinfo2");

	dlerror();
	if (symbol && dladdr(symbol, &of_info) &&
	    dladdr((void *)(uintptr_t)mt_real.malloc, &of_malloc) &&
	    of_info.dli_fbase == of_malloc.dli_fbase)
		*(void **)&heap_info = symbol;
	mt_on_control = attend;
}

/* ---- forked children ----------------------------------------------------------------------------- */

int mt_arm_child_records(void)
{
	return mt_control_own.tree && mt_control_own.state == MT_CONTROL_RECORDING;
}

void mt_arm_child(void)
{
	uint32_t pid = (uint32_t)mt_sys_getpid();

	mt_modules_dormant_child();
	/* Another thread was about to change everything: what it left is not to be used. */
	if (serving || mt_control_own.state == MT_CONTROL_DRAINING)
		mt_control_own.state = MT_CONTROL_OFF;
	if (mt_control_own.state == MT_CONTROL_RECORDING && !mt_arm_child_records()) {
		mt_arm_forget(1);
		mt_control_own.state = MT_CONTROL_DORMANT;
	}
	if (mt_control_own.state != MT_CONTROL_RECORDING) {
		mt_state = MT_STATE_OFF;
		mt_light = MT_LIGHT_PASS;
	}
	serving = 0;
	mt_control_own.proc = 0;
	if (!mt_late || mt_injected)
		mt_control_make(pid, 0, mt_control_children);
}
