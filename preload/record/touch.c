/*
 * Page faults as events. See touch.h.
 *
 * The signal is synchronous: it comes between the fault, which has copied the page, and the second
 * try of the instruction, so the stack is that of who touched it. Where the program has blocked the
 * signal the kernel delivers it later (since 6.1, that is why no older one will do): then it is
 * counted and not used. A fault while the shim itself runs is its own.
 *
 * What it may cost: the first FREE_FAULTS of a process are all looked at; from then on, where STRETCH
 * signals came within the time of which they take 2 %, one fault in four times as many is, and so it
 * is after each BUDGET signals. Threads that were there before keep their rate (the kernel changes
 * that of one thread only), so that is the end of it when they have sent FOREIGN_MOST.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "record/touch.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

#include "core/config.h"
#include "core/guard.h"
#include "core/real.h"
#include "out/file.h"
#include "out/process.h"
#include "out/stream.h"
#include "record/record.h"
#include "sys/fmt.h"
#include "sys/sys.h"

#define FREE_FAULTS 20000
#define STRETCH 1024 /* signals */
#define BUDGET 50000 /* and the same after each so many, however slow they come */
#define COST_NS 6000 /* of a signal: 3 to 4 us on a busy machine, and the stack */
#define COST_SHARE 50 /* a signal may take this part of the time */
#define PERIOD_MOST (1u << 16)
#define FOREIGN_MOST 65536
#define LATE_NAP_NS 1000000 /* in which a signal on its way to another thread arrives */

#define CODE_PERF 6 /* TRAP_PERF of siginfo.h */
#define FLAG_LATE 1 /* TRAP_PERF_FLAG_ASYNC */

/* As the kernel fills it in for TRAP_PERF; older headers do not know it. */
struct fault_info {
	int number, error, code, pad;
	uint64_t address, data;
	uint32_t type, flags;
};

static uint32_t active; /* pid of the process that is being told of; 0: none */
static uint32_t has_handler; /* the signal's action is ours */
static int event_fd = -1;
static uint64_t event_id; /* the descriptor's number may be the program's by now */
static uint32_t opener; /* tid: whose period can be changed */
static uint32_t period;
static uint64_t stretch_began; /* ns */
static struct { /* signals of this process; relaxed atomics */
	uint32_t seen, own, late, foreign;
} count;

static void say(struct mt_thread *t, const char *key, const char *value)
{
	mt_record_fact(t, key, value, strlen(value));
}

/* ---- the event ----------------------------------------------------------------------------------- */

static int is_ours(void)
{
	uint64_t id = 0;

	return event_fd >= 0 && mt_sys3(SYS_ioctl, event_fd, PERF_EVENT_IOC_ID, &id) == 0 &&
	       id == event_id;
}

static void event_close(void)
{
	if (is_ours()) {
		if (active == (uint32_t)mt_sys_getpid()) /* else it is of the parent's threads */
			mt_sys3(SYS_ioctl, event_fd, PERF_EVENT_IOC_DISABLE, 0);
		mt_sys_close(event_fd);
	}
	event_fd = -1;
}

/* Those of this thread, and of threads that come from it. 0 or -errno. */
static int event_open(void)
{
	struct perf_event_attr attr;
	int fd;

	memset(&attr, 0, sizeof(attr));
	attr.size = sizeof(attr);
	attr.type = PERF_TYPE_SOFTWARE;
	attr.config = PERF_COUNT_SW_PAGE_FAULTS_MIN;
	attr.sample_type = PERF_SAMPLE_ADDR;
	attr.sample_period = 1;
	attr.disabled = 1;
	attr.exclude_kernel = 1;
	attr.exclude_hv = 1;
	attr.inherit = 1;
	attr.inherit_thread = 1;
	attr.remove_on_exec = 1;
	attr.sigtrap = 1;
	fd = (int)mt_sys_call(SYS_perf_event_open, (long)&attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC, 0);
	if (fd < 0)
		return fd;
	event_fd = mt_sys_raise_fd(fd);
	event_id = 0;
	mt_sys3(SYS_ioctl, event_fd, PERF_EVENT_IOC_ID, &event_id);
	return 0;
}

/* No more signals; the handler stays, for one may be on its way. */
static void stop(void)
{
	uint32_t pid = (uint32_t)mt_sys_getpid();

	event_close();
	if (active == pid)
		__atomic_store_n(&active, 0, __ATOMIC_RELEASE);
}

static void thin_out(void)
{
	uint64_t next = (uint64_t)period * 4;

	if (next <= PERIOD_MOST && is_ours() &&
	    mt_sys3(SYS_ioctl, event_fd, PERF_EVENT_IOC_PERIOD, &next) == 0)
		period = (uint32_t)next;
}

/* Did the last stretch of signals take more than their share? */
static int is_fast(void)
{
	uint64_t now = mt_clock_monotonic_ns(), took = now - stretch_began;

	stretch_began = now;
	return took < (uint64_t)STRETCH * COST_NS * COST_SHARE;
}

/* Faults that the one at hand stands for. */
static uint32_t weigh(void)
{
	uint32_t seen = __atomic_add_fetch(&count.seen, 1, __ATOMIC_RELAXED), weight = period;

	if (period > 1 && (uint32_t)mt_sys_gettid() != opener) {
		weight = 1;
		if (__atomic_add_fetch(&count.foreign, 1, __ATOMIC_RELAXED) == FOREIGN_MOST)
			stop();
	}
	if (seen % BUDGET == 0 || (seen % STRETCH == 0 && is_fast() && seen >= FREE_FAULTS))
		thin_out();
	return weight;
}

/* ---- the signal ---------------------------------------------------------------------------------- */

static void default_action(int how)
{
	struct sigaction action;

	memset(&action, 0, sizeof(action));
	/* Being ignored for a moment throws away what is pending, which would end the program. */
	action.sa_handler = SIG_IGN;
	if (how)
		mt_real.sigaction(SIGTRAP, &action, NULL);
	action.sa_handler = SIG_DFL;
	mt_real.sigaction(SIGTRAP, &action, NULL);
}

/* A breakpoint, or a signal that somebody sent: what it would have done without us. */
static void not_ours(void)
{
	stop();
	default_action(0);
	has_handler = 0;
	mt_sys3(SYS_tgkill, mt_sys_getpid(), mt_sys_gettid(), SIGTRAP);
}

static void record(struct mt_thread *t, uint64_t address, const void *context)
{
	uint32_t weight, native, python = 0;

	MT_SELF_BEGIN();
	weight = weigh();
	native = mt_stack_interrupted(t, context);
	if (mt_stack_is_elsewhere(t, address))
		python = mt_stack_python(t);
	MT_EMIT(t, touch, .time = mt_clock_now(), .addr = address, .weight = weight,
		.native = native, .python = python);
	if (mt_file.stopped)
		stop();
	MT_SELF_END();
}

/* Of a thread inside a hook, which may have marked itself busy or, where nothing is sampled, not. */
static void record_inside(struct mt_thread *t, uint64_t address, const void *context)
{
	uint32_t was_busy = t->busy;

	t->busy = 1;
	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* busy before state, as in mt_enter */
	if (mt_state == MT_STATE_RUNNING)
		record(t, address, context);
	if (!was_busy)
		__atomic_store_n(&t->busy, 0, __ATOMIC_RELEASE);
}

/*
 * Inside the real allocator a record may be made, as that of a mapping is. Not while a fork has the
 * gate closed: the thread that forks would wait for itself.
 */
static void on_fault(int number, siginfo_t *info, void *context)
{
	const struct fault_info *fault = (const void *)info;
	struct mt_thread *t = mt_tls.thread;
	uint32_t outer = mt_tls.guard;
	int saved = errno;

	(void)number;
	if (info->si_code != CODE_PERF) {
		not_ours();
	} else if (fault->flags & FLAG_LATE) {
		__atomic_add_fetch(&count.late, 1, __ATOMIC_RELAXED);
	} else if (!t || outer == MT_GUARD_SELF || outer == MT_GUARD_PROBE ||
		   mt_state != MT_STATE_RUNNING || !*mt_generation ||
		   !__atomic_load_n(&active, __ATOMIC_ACQUIRE)) {
		__atomic_add_fetch(&count.own, 1, __ATOMIC_RELAXED);
	} else if (outer != MT_GUARD_NONE) {
		record_inside(t, fault->address, context);
	} else if (mt_enter()) {
		record(t, fault->address, context);
		mt_leave(t);
	}
	errno = saved;
}

/* NULL, or why not. */
static const char *handler_install(void)
{
	struct sigaction old, action;

	if (!mt_real.sigaction || mt_real.sigaction(SIGTRAP, NULL, &old) != 0)
		return "sigaction failed";
	if (has_handler && old.sa_sigaction == on_fault)
		return NULL;
	if (old.sa_handler != SIG_DFL)
		return "the program uses SIGTRAP itself";
	memset(&action, 0, sizeof(action));
	action.sa_sigaction = on_fault;
	/* On the stack of whoever faulted, as a hook is: alternative ones may be very small. */
	action.sa_flags = SA_SIGINFO | SA_RESTART;
	if (mt_real.sigaction(SIGTRAP, &action, NULL) != 0)
		return "sigaction failed";
	has_handler = 1;
	return NULL;
}

/* ---- begin and end ------------------------------------------------------------------------------- */

/* Before 6.1 a thread that blocks the signal would be killed by it. */
static int kernel_is_new(void)
{
	struct utsname name;
	const char *p = name.release;
	uint64_t major, minor;

	if (mt_sys1(SYS_uname, &name) < 0)
		return 0;
	major = mt_parse_number(&p, 10);
	if (*p == '.')
		p++;
	minor = mt_parse_number(&p, 10);
	return major > 6 || (major == 6 && minor >= 1);
}

static const char *error_name(int error)
{
	switch (error) {
	case EACCES:
		return "not permitted (EACCES: see /proc/sys/kernel/perf_event_paranoid)";
	case EPERM:
		return "not permitted (EPERM: perf_event_paranoid, or a container's seccomp "
		       "filter)";
	case ENOSYS:
		return "not in this kernel (ENOSYS)";
	case EMFILE:
	case ENFILE:
		return "too many open files";
	default:
		return "failed";
	}
}

void mt_touch_begin(struct mt_thread *t)
{
	const char *why;
	char text[160];
	int result;

	if (!mt_config.cow_touch || active)
		return;
	why = kernel_is_new() ? handler_install() : "the kernel is older than 6.1";
	if (!why && (result = event_open()) < 0) {
		mt_fmt(text, sizeof(text), "perf_event_open: %s", error_name(-result));
		why = text;
		default_action(0);
		has_handler = 0;
	}
	if (why) {
		say(t, "cow_touch", why);
		return;
	}
	memset(&count, 0, sizeof(count));
	opener = (uint32_t)mt_sys_gettid();
	period = 1;
	stretch_began = mt_clock_monotonic_ns();
	say(t, "cow_touch", "on");
	__atomic_store_n(&active, (uint32_t)mt_sys_getpid(), __ATOMIC_RELEASE);
	mt_sys3(SYS_ioctl, event_fd, PERF_EVENT_IOC_ENABLE, 0);
}

void mt_touch_child(void)
{
	/* The handler, if there is one, is inherited, and only the parent's threads are told of. */
	event_close();
	active = 0;
}

void mt_touch_end(struct mt_thread *t)
{
	char text[128];

	if (active != (uint32_t)mt_sys_getpid())
		return;
	stop();
	mt_fmt(text, sizeof(text), "%u %u %u %u", count.seen, count.own, count.late, period);
	if (t)
		say(t, "cow_touch_faults", text);
}

void mt_touch_yield(int signal_number)
{
	uint32_t outer = mt_tls.guard;

	if (mt_likely(signal_number != SIGTRAP || !has_handler))
		return;
	/* A vfork child has handlers of its own, but runs in this memory. */
	if (active && active != (uint32_t)mt_sys_getpid())
		return;
	mt_tls.guard = MT_GUARD_SELF;
	if (active) {
		stop();
		if (mt_thread_shared)
			mt_sys_nap(LATE_NAP_NS);
	}
	default_action(1);
	has_handler = 0;
	mt_tls.guard = outer;
}

void mt_touch_forget(void)
{
	if (active == (uint32_t)mt_sys_getpid())
		mt_touch_yield(SIGTRAP);
}
