/*
 * Stopping one thread of another process, and letting it go as if nothing had been. Only that thread
 * is stopped; the others are not even seized.
 *
 * A thread that waits in a system call leaves it when it is stopped. Mostly the kernel makes the call
 * anew by itself when the thread goes on. A few calls it ends with EINTR instead; those are made
 * anew here, so that the program does not notice.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#if defined(__x86_64__)
#include <elf.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

#include "inject_parts.h"

#define STOP_PATIENCE_MS 150.0
#define CPU_PATIENCE_MS 3000.0 /* a thread that can run but gets no CPU stops when it gets one */

/* What a stopped thread's rax says of an interrupted system call; not in any header of user space. */
enum { RESTART_SYS = -512, RESTART_NOINTR = -513, RESTART_NOHAND = -514, RESTART_BLOCK = -516 };

double clock_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

void nap_ms(double ms)
{
	struct timespec nap = { (time_t)(ms / 1e3), (long)(ms * 1e6) % 1000000000 };

	nanosleep(&nap, NULL);
}

/* ---- registers ------------------------------------------------------------------------------- */

int thread_set_regs(pid_t tid, const struct user_regs_struct *regs)
{
	struct iovec part = { (void *)(uintptr_t)regs, sizeof(*regs) };

	return (int)ptrace(PTRACE_SETREGSET, tid, (void *)NT_PRSTATUS, &part);
}

int thread_set_mask(pid_t tid, uint64_t mask)
{
	return (int)ptrace(PTRACE_SETSIGMASK, tid, (void *)sizeof(mask), &mask);
}

/* The vector state is 576 bytes to more than 11 KiB (AMX), and the kernel takes it back only whole:
 * so the buffer grows until the kernel leaves room in it. */
static int xstate_get(struct stopped *s)
{
	struct iovec part;

	for (size_t room = 16384;; room *= 2) {
		uint8_t *grown = realloc(s->xstate, room);

		if (!grown)
			return -1;
		s->xstate = grown;
		part = (struct iovec){ grown, room };
		if (ptrace(PTRACE_GETREGSET, s->tid, (void *)NT_X86_XSTATE, &part) < 0)
			return -1;
		if (part.iov_len < room)
			break;
	}
	s->xstate_bytes = part.iov_len;
	return 0;
}

int thread_get(struct stopped *s)
{
	struct iovec part = { &s->regs, sizeof(s->regs) };

	if (ptrace(PTRACE_GETREGSET, s->tid, (void *)NT_PRSTATUS, &part) < 0 ||
	    part.iov_len != sizeof(s->regs) ||
	    ptrace(PTRACE_GETSIGMASK, s->tid, (void *)sizeof(s->mask), &s->mask) < 0)
		return -1;
	return xstate_get(s);
}

int thread_restore(const struct stopped *s)
{
	struct iovec part = { s->xstate, s->xstate_bytes };
	int bad = ptrace(PTRACE_SETREGSET, s->tid, (void *)NT_X86_XSTATE, &part) < 0;

	bad |= thread_set_regs(s->tid, &s->regs) < 0;
	bad |= thread_set_mask(s->tid, s->mask) < 0;
	return bad ? -1 : 0;
}

void thread_free(struct stopped *s)
{
	free(s->xstate);
	s->xstate = NULL;
}

/* ---- system calls ---------------------------------------------------------------------------- */

/* Ended with EINTR by a mere stop, with no signal that the program would see. */
static int ended_by_us(pid_t tid, const struct user_regs_struct *regs)
{
	if ((long)regs->orig_rax < 0 || (long)regs->rax != -EINTR)
		return 0;
	switch ((long)regs->orig_rax) {
	case SYS_epoll_wait:
	case SYS_epoll_pwait:
	case SYS_epoll_pwait2:
	case SYS_semop:
	case SYS_semtimedop:
	case SYS_rt_sigtimedwait:
	case SYS_io_getevents:
	case SYS_io_pgetevents:
	case SYS_io_uring_enter:
	case SYS_read: /* of an inotify descriptor */
		break;
	default:
		return 0;
	}
	return (inject_status(tid, "SigPnd", 16, 1) | inject_status(tid, "ShdPnd", 16, 1)) == 0;
}

static void make_anew(struct user_regs_struct *regs, uint64_t number)
{
	regs->rax = number;
	regs->rip -= 2; /* the length of `syscall` */
	regs->orig_rax = (uint64_t)-1;
}

void thread_restart_by_hand(struct user_regs_struct *regs)
{
	if ((long)regs->orig_rax < 0)
		return;
	switch ((long)regs->rax) {
	case RESTART_SYS:
	case RESTART_NOINTR:
	case RESTART_NOHAND:
		make_anew(regs, regs->orig_rax);
		break;
	case RESTART_BLOCK: /* the kernel keeps how much of the time is left */
		make_anew(regs, SYS_restart_syscall);
		break;
	default:
		regs->orig_rax = (uint64_t)-1;
	}
}

/* ---- stopping -------------------------------------------------------------------------------- */

static int is_group_stop(int status)
{
	int signal = WSTOPSIG(status);

	return signal == SIGSTOP || signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU;
}

/* Waits for the stop that was asked for; signals that come first reach the program. */
static enum stop_result wait_for_stop(pid_t tid)
{
	double began = clock_ms(), waited;
	int status;
	pid_t got;

	for (;;) {
		waited = clock_ms() - began;
		got = waitpid(tid, &status, __WALL | WNOHANG);
		if (got < 0 || (got == tid && !WIFSTOPPED(status)))
			return STOP_GONE;
		if (got == tid && status >> 16 == PTRACE_EVENT_STOP)
			return is_group_stop(status) ? STOP_HELD : STOP_DONE;
		if (got == tid)
			ptrace(PTRACE_CONT, tid, NULL, (void *)(long)WSTOPSIG(status));
		else if (waited > CPU_PATIENCE_MS ||
			 (waited > STOP_PATIENCE_MS && inject_state(tid) == 'D'))
			return STOP_STUCK;
		else
			nap_ms(0.02);
	}
}

enum stop_result thread_interrupt(struct stopped *s)
{
	enum stop_result result;

	if (ptrace(PTRACE_INTERRUPT, s->tid, NULL, NULL) < 0)
		return STOP_GONE;
	result = wait_for_stop(s->tid);
	if (result == STOP_HELD)
		ptrace(PTRACE_DETACH, s->tid, NULL, NULL);
	if (result != STOP_DONE)
		return result;
	if (thread_get(s) < 0) {
		ptrace(PTRACE_DETACH, s->tid, NULL, NULL);
		return STOP_GONE;
	}
	if (ended_by_us(s->tid, &s->regs))
		make_anew(&s->regs, s->regs.orig_rax);
	return STOP_DONE;
}

enum stop_result thread_stop(pid_t tid, struct stopped *s)
{
	*s = (struct stopped){ .tid = tid, .since_ms = clock_ms() };
	if (ptrace(PTRACE_SEIZE, tid, NULL, NULL) < 0)
		return errno == ESRCH ? STOP_GONE : STOP_DENIED;
	return thread_interrupt(s);
}

void thread_release(struct stopped *s)
{
	thread_set_regs(s->tid, &s->regs);
	ptrace(PTRACE_DETACH, s->tid, NULL, NULL);
	thread_free(s);
}

#else
typedef int inject_thread_is_for_x86_64;
#endif
