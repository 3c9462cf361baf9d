/*
 * The call that a stopped thread makes for us, dlopen of the shim and then its entry, on a stack of its
 * own and with its signals held back.
 *
 * The code below is copied into the target together with the thread's registers and vector state, and
 * puts them back by itself when it is done. So from the moment the thread continues it needs nobody:
 * if memtrace is killed in the middle, the target does not notice.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#if defined(__x86_64__)
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "inject_parts.h"

#define CODE_BYTES 4096
#define TEXT_BYTES 512
#define STACK_BYTES ((size_t)256 << 10)
#define CALL_PATIENCE_MS 10000.0

enum { BEGUN = 1, DONE = 2 };

/* What follows the code. The code knows the numbers below. */
struct frame {
	uint64_t phase; /* 0 */
	int64_t result; /* 8: of the entry; -1: text says why */
	uint64_t dlopen, dlsym, dlerror; /* 16 24 32 */
	uint64_t path, mode, entry, argument; /* 40 48 56 64 */
	uint64_t mask; /* 72 */
	uint64_t errno_location, errno_at, errno_was; /* 80 88 96 */
	uint64_t rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp; /* 104 ... 160 */
	uint64_t r8, r9, r10, r11, r12, r13, r14, r15; /* 168 ... 224 */
	uint64_t rip, flags; /* 232 240 */
	char text[TEXT_BYTES]; /* 248 */
	char name[64], library[4096];
	uint8_t xstate[] __attribute__((aligned(64)));
};

#define STRING_(x) #x
#define STRING(x) STRING_(x)

__asm__(".pushsection .rodata\n"
	"inject_code:\n"
	"	cld\n"
	"	lea	inject_code+" STRING(
		CODE_BYTES) "(%rip), %rbx\n"
			    "	movq	$1, (%rbx)\n"
			    "	call	*80(%rbx)\n" /* errno is the program's */
			    "	mov	%rax, 88(%rbx)\n"
			    "	mov	(%rax), %ecx\n"
			    "	mov	%rcx, 96(%rbx)\n"
			    "	mov	40(%rbx), %rdi\n"
			    "	mov	48(%rbx), %rsi\n"
			    "	call	*16(%rbx)\n"
			    "	test	%rax, %rax\n"
			    "	jz	1f\n"
			    "	mov	%rax, %rdi\n"
			    "	mov	56(%rbx), %rsi\n"
			    "	call	*24(%rbx)\n"
			    "	test	%rax, %rax\n"
			    "	jz	1f\n"
			    "	mov	64(%rbx), %rdi\n"
			    "	call	*%rax\n"
			    "	movslq	%eax, %rax\n"
			    "	mov	%rax, 8(%rbx)\n"
			    "	jmp	3f\n"
			    "1:	movq	$-1, 8(%rbx)\n"
			    "	mov	32(%rbx), %rax\n"
			    "	test	%rax, %rax\n"
			    "	jz	3f\n"
			    "	call	*%rax\n"
			    "	test	%rax, %rax\n"
			    "	jz	3f\n"
			    "	lea	248(%rbx), %rdi\n"
			    "	mov	$511, %ecx\n"
			    "2:	mov	(%rax), %dl\n"
			    "	mov	%dl, (%rdi)\n"
			    "	inc	%rax\n"
			    "	inc	%rdi\n"
			    "	test	%dl, %dl\n"
			    "	jz	3f\n"
			    "	dec	%ecx\n"
			    "	jnz	2b\n"
			    "3:	mov	88(%rbx), %rax\n"
			    "	mov	96(%rbx), %rcx\n"
			    "	mov	%ecx, (%rax)\n"
			    "	mov	$14, %eax\n" /* rt_sigprocmask(SIG_SETMASK, &mask, NULL, 8) */
			    "	mov	$2, %edi\n"
			    "	lea	72(%rbx), %rsi\n"
			    "	xor	%edx, %edx\n"
			    "	mov	$8, %r10d\n"
			    "	syscall\n"
			    "	mov	$-1, %eax\n"
			    "	mov	$-1, %edx\n"
			    "	lea	4928(%rbx), %rcx\n"
			    "	xrstor64 (%rcx)\n"
			    "	movq	$2, (%rbx)\n"
			    "	pushq	240(%rbx)\n"
			    "	popfq\n"
			    "	mov	104(%rbx), %rax\n"
			    "	mov	120(%rbx), %rcx\n"
			    "	mov	128(%rbx), %rdx\n"
			    "	mov	136(%rbx), %rsi\n"
			    "	mov	144(%rbx), %rdi\n"
			    "	mov	152(%rbx), %rbp\n"
			    "	mov	160(%rbx), %rsp\n"
			    "	mov	168(%rbx), %r8\n"
			    "	mov	176(%rbx), %r9\n"
			    "	mov	184(%rbx), %r10\n"
			    "	mov	192(%rbx), %r11\n"
			    "	mov	200(%rbx), %r12\n"
			    "	mov	208(%rbx), %r13\n"
			    "	mov	216(%rbx), %r14\n"
			    "	mov	224(%rbx), %r15\n"
			    "	mov	112(%rbx), %rbx\n"
			    "	jmp	*inject_code+" STRING(CODE_BYTES) "+232(%rip)\n"
									  "inject_code_end:\n"
									  ".popsection\n");

extern const uint8_t inject_code[], inject_code_end[];

_Static_assert(offsetof(struct frame, text) == 248 && offsetof(struct frame, rip) == 232 &&
		       offsetof(struct frame, xstate) == 4928,
	       "the code above knows these");

struct call {
	const struct tracee *target;
	struct stopped *s;
	uint64_t syscall_at; /* a `syscall` instruction */
	uint64_t area; /* in the target: code, frame, stack */
	size_t frame_bytes, bytes;
	char *why;
	size_t size;
};

#define SAY(...) snprintf(c->why, c->size, __VA_ARGS__)
#define FAIL(...) (SAY(__VA_ARGS__), -1)

/* ---- single system calls ------------------------------------------------------------------------ */

/* Two bytes 0f 05 anywhere in libc's code: only that one instruction is stepped over. */
static uint64_t find_syscall(const struct tracee *t)
{
	static uint8_t page[65536];

	for (size_t i = 0; i < t->count; i++) {
		const struct module *m = &t->modules[i];

		for (uint64_t at = m->code;
		     m->kind == MODULE_LIBC && at && at + sizeof(page) <= m->code_end;
		     at += sizeof(page)) {
			if (tracee_read(t->pid, at, page, sizeof(page)) < 0)
				break;
			for (size_t k = 0; k + 1 < sizeof(page); k++)
				if (page[k] == 0x0f && page[k + 1] == 0x05)
					return at + k;
		}
	}
	return 0;
}

/* Steps the thread over one instruction. 0 or -1. */
static int step(pid_t tid)
{
	double until = clock_ms() + 2000;
	int status;
	pid_t got;

	if (ptrace(PTRACE_SINGLESTEP, tid, NULL, NULL) < 0)
		return -1;
	for (;;) {
		got = waitpid(tid, &status, __WALL | WNOHANG);
		if (got < 0 || (got == tid && !WIFSTOPPED(status)) || clock_ms() > until)
			return -1;
		if (got != tid)
			nap_ms(0.01);
		else if (WSTOPSIG(status) == SIGTRAP && status >> 16 == 0)
			return 0;
		else if (status >> 16 != PTRACE_EVENT_STOP)
			return -1;
		else if (ptrace(PTRACE_SINGLESTEP, tid, NULL, NULL) < 0)
			return -1;
	}
}

/* A system call of the stopped thread; its registers are then not its own. -errno of it. */
static long remote_call(const struct call *c, long number, const uint64_t *arguments)
{
	struct stopped after = { .tid = c->s->tid };
	struct user_regs_struct regs = c->s->regs;
	long result = -EIO;

	regs.rip = c->syscall_at;
	regs.rax = (uint64_t)number;
	regs.orig_rax = (uint64_t)-1;
	regs.rdi = arguments[0];
	regs.rsi = arguments[1];
	regs.rdx = arguments[2];
	regs.r10 = arguments[3];
	regs.r8 = arguments[4];
	regs.r9 = arguments[5];
	if (thread_set_regs(after.tid, &regs) == 0 && step(after.tid) == 0 &&
	    thread_get(&after) == 0)
		result = (long)after.regs.rax;
	thread_free(&after);
	return result;
}

static long map_area(const struct call *c)
{
	const uint64_t arguments[6] = {
		0, c->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, (uint64_t)-1, 0
	};

	return remote_call(c, SYS_mmap, arguments);
}

static void unmap_area(const struct call *c)
{
	const uint64_t arguments[6] = { c->area, c->bytes };

	remote_call(c, SYS_munmap, arguments);
}

static long protect_code(const struct call *c)
{
	const uint64_t arguments[6] = { c->area, CODE_BYTES, PROT_READ | PROT_EXEC };

	return remote_call(c, SYS_mprotect, arguments);
}

/* ---- setting up --------------------------------------------------------------------------------- */

#define RTLD_NOW_LOCAL 2u
#define DLOPEN_MODE_INTERNAL 0x80000000u /* __libc_dlopen_mode wants to be told that it is dlopen */

/* glibc before 2.34 keeps dlopen in libdl, which may not be there; libc has its own all the same. */
static int find_functions(const struct call *c, struct frame *f)
{
	const struct tracee *t = c->target;

	f->mode = RTLD_NOW_LOCAL;
	f->dlopen = tracee_find(t, "dlopen");
	f->dlsym = tracee_find(t, "dlsym");
	f->dlerror = tracee_find(t, "dlerror");
	f->errno_location = tracee_find(t, "__errno_location");
	if (!f->dlopen) {
		f->mode |= DLOPEN_MODE_INTERNAL;
		f->dlopen = tracee_find(t, "__libc_dlopen_mode");
		f->dlsym = tracee_find(t, "__libc_dlsym");
		f->dlerror = 0;
	}
	return f->dlopen && f->dlsym && f->errno_location
		       ? 0
		       : FAIL("its C library has no dlopen; start the program with memtrace run");
}

static void fill_registers(struct frame *f, const struct stopped *s)
{
	struct user_regs_struct r = s->regs;

	thread_restart_by_hand(&r);
	f->rax = r.rax;
	f->rbx = r.rbx;
	f->rcx = r.rcx;
	f->rdx = r.rdx;
	f->rsi = r.rsi;
	f->rdi = r.rdi;
	f->rbp = r.rbp;
	f->rsp = r.rsp;
	f->r8 = r.r8;
	f->r9 = r.r9;
	f->r10 = r.r10;
	f->r11 = r.r11;
	f->r12 = r.r12;
	f->r13 = r.r13;
	f->r14 = r.r14;
	f->r15 = r.r15;
	f->rip = r.rip;
	f->flags = r.eflags;
	f->mask = s->mask;
	memcpy(f->xstate, s->xstate, s->xstate_bytes);
}

static int write_area(struct call *c, const char *shim)
{
	uint64_t at = c->area + CODE_BYTES;
	struct frame *f = calloc(1, c->frame_bytes);
	int result = -1;

	if (!f || strlen(shim) >= sizeof(f->library)) {
		free(f);
		return FAIL("the path of the shim is too long");
	}
	fill_registers(f, c->s);
	strcpy(f->library, shim);
	strcpy(f->name, INJECT_ENTRY);
	f->path = at + offsetof(struct frame, library);
	f->entry = at + offsetof(struct frame, name);
	if (find_functions(c, f) < 0)
		;
	else if (tracee_write(c->target->pid, c->area, inject_code,
			      (size_t)(inject_code_end - inject_code)) < 0 ||
		 tracee_write(c->target->pid, at, f, c->frame_bytes) < 0)
		SAY("its memory can't be written: %s", strerror(errno));
	else if (protect_code(c) < 0)
		SAY("it may not make memory executable (SELinux); start it with memtrace run");
	else
		result = 0;
	free(f);
	return result;
}

/* Signals that the code itself may cause stay open: then we see them. */
static uint64_t held_back(void)
{
	static const int open[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS };
	uint64_t mask = UINT64_MAX;

	for (size_t i = 0; i < sizeof(open) / sizeof(open[0]); i++)
		mask &= ~(UINT64_C(1) << (open[i] - 1));
	return mask;
}

static int divert(const struct call *c)
{
	struct user_regs_struct regs = c->s->regs;

	regs.rip = c->area;
	regs.rsp = c->area + c->bytes - 64;
	regs.orig_rax = (uint64_t)-1;
	regs.eflags &= ~UINT64_C(0x500); /* trap, direction */
	return thread_set_mask(c->s->tid, held_back()) == 0 &&
			       thread_set_regs(c->s->tid, &regs) == 0 &&
			       ptrace(PTRACE_CONT, c->s->tid, NULL, NULL) == 0
		       ? 0
		       : -1;
}

/* ---- waiting ------------------------------------------------------------------------------------ */

static int inside_area(const struct call *c, const struct user_regs_struct *r)
{
	return r->rip - c->area < c->bytes || r->rsp - c->area < c->bytes;
}

enum news { NEWS_NONE, NEWS_ENDED, NEWS_CRASHED };

/* Stops meanwhile: what the program is sent reaches it, a fault of the call itself does not. */
static enum news take_news(const struct call *c, int *signal)
{
	uint64_t phase = 0;
	int status;
	pid_t got = waitpid(c->s->tid, &status, __WALL | WNOHANG);

	if (got < 0 || (got == c->s->tid && !WIFSTOPPED(status)))
		return NEWS_ENDED;
	if (got != c->s->tid)
		return NEWS_NONE;
	*signal = status >> 16 ? 0 : WSTOPSIG(status);
	tracee_read(c->target->pid, c->area + CODE_BYTES, &phase, sizeof(phase));
	if (*signal && phase < DONE && !(held_back() >> (*signal - 1) & 1))
		return NEWS_CRASHED;
	ptrace(PTRACE_CONT, c->s->tid, NULL, (void *)(long)*signal);
	return NEWS_NONE;
}

/* The thread gets back what it had, by our hand, and the area goes. */
static void take_back(const struct call *c)
{
	unmap_area(c);
	thread_restore(c->s);
	ptrace(PTRACE_DETACH, c->s->tid, NULL, NULL);
}

/*
 * It takes too long. Where it waits for the loader's first lock it holds nothing, and can be taken
 * back; so too if it has not run at all. Else it must go on, and will: the code needs nobody.
 */
static enum call_result give_up(const struct call *c)
{
	struct stopped now = { .tid = c->s->tid };
	const struct user_regs_struct *r = &now.regs;
	uint64_t phase = BEGUN;
	uint32_t owner = 0;
	int waits;

	if (thread_interrupt(&now) != STOP_DONE) {
		SAY("it does not answer; it will go on by itself as soon as it can");
		return CALL_RUNS_ON;
	}
	tracee_read(c->target->pid, c->area + CODE_BYTES, &phase, sizeof(phase));
	/* The locks lie in a row, the first is the one that comes first. */
	waits = (long)r->orig_rax == SYS_futex && r->rdi >= c->target->loader_state &&
		r->rdi < c->target->loader_state_end &&
		tracee_read(c->target->pid, r->rdi - 40 + 8, &owner, sizeof(owner)) == 0 &&
		owner != (uint32_t)c->s->tid;
	if (phase == 0 || waits) {
		thread_free(&now);
		take_back(c);
		SAY("%s; nothing was changed, try again later",
		    waits ? "another thread of it is busy loading a library" : "it does not run");
		return CALL_TAKEN_BACK;
	}
	thread_release(&now);
	SAY("loading the shim takes longer than %.0f s there; it goes on by itself, attach again "
	    "later",
	    CALL_PATIENCE_MS / 1e3);
	return CALL_RUNS_ON;
}

/* The code has put everything back; when the thread has left it, the area goes. */
static enum call_result finish(const struct call *c)
{
	char text[TEXT_BYTES] = "";
	struct frame f = { 0 };
	struct call later = *c;
	struct stopped now = { .tid = c->s->tid };

	tracee_read(c->target->pid, c->area + CODE_BYTES, &f, offsetof(struct frame, text));
	tracee_read(c->target->pid, c->area + CODE_BYTES + offsetof(struct frame, text), text,
		    sizeof(text) - 1);
	for (int tries = 0; tries < 50; tries++) {
		if (thread_interrupt(&now) != STOP_DONE)
			break; /* a page is left, or the whole process is gone */
		later.s = &now;
		if (!inside_area(c, &now.regs)) {
			thread_set_mask(now.tid, held_back());
			unmap_area(&later);
			thread_restore(&now);
			ptrace(PTRACE_DETACH, now.tid, NULL, NULL);
			break;
		}
		thread_set_regs(now.tid, &now.regs);
		if (tries == 49) /* a signal handler that runs for long: the page is left */
			ptrace(PTRACE_DETACH, now.tid, NULL, NULL);
		else
			ptrace(PTRACE_CONT, now.tid, NULL, NULL);
		nap_ms(0.2);
	}
	thread_free(&now);
	if (f.result == 0)
		return CALL_DONE;
	if (f.result == -1)
		SAY("its loader says: %s", *text ? text : "the shim can't be loaded");
	else
		SAY("the shim refuses: %s", strerror((int)-f.result));
	return CALL_FAILED;
}

static enum call_result wait_for_call(const struct call *c, double *stopped_ms)
{
	double until = clock_ms() + CALL_PATIENCE_MS;
	uint64_t phase = 0;
	int signal = 0;

	for (;;) {
		switch (take_news(c, &signal)) {
		case NEWS_ENDED:
			SAY("it has ended meanwhile");
			return CALL_FAILED;
		case NEWS_CRASHED:
			take_back(c);
			SAY("loading the shim failed there (signal %d: %s); it runs on as before%s",
			    signal, strsignal(signal),
			    signal == SIGSYS ? ", its seccomp filter does not allow it" : "");
			return CALL_FAILED;
		default:
			break;
		}
		if (tracee_read(c->target->pid, c->area + CODE_BYTES, &phase, sizeof(phase)) == 0 &&
		    phase == DONE) {
			*stopped_ms = clock_ms() - c->s->since_ms;
			return finish(c);
		}
		if (clock_ms() > until)
			return give_up(c);
		nap_ms(0.1);
	}
}

enum call_result call_make(const struct tracee *t, struct stopped *s, const char *shim,
			   double *stopped_ms, char *why, size_t size)
{
	struct call call = { .target = t, .s = s, .why = why, .size = size }, *c = &call;
	long area;

	c->syscall_at = find_syscall(t);
	c->frame_bytes = (sizeof(struct frame) + s->xstate_bytes + 4095) & ~(size_t)4095;
	c->bytes = CODE_BYTES + c->frame_bytes + STACK_BYTES;
	thread_set_mask(s->tid, held_back());
	area = c->syscall_at ? map_area(c) : -ENOSYS;
	if (area <= 0 && area > -4096) {
		thread_restore(s);
		ptrace(PTRACE_DETACH, s->tid, NULL, NULL);
		SAY("it can't map %zu KiB more: %s", c->bytes >> 10, strerror((int)-area));
		return CALL_FAILED;
	}
	c->area = (uint64_t)area;
	if (write_area(c, shim) < 0 || divert(c) < 0) {
		take_back(c);
		return CALL_FAILED;
	}
	return wait_for_call(c, stopped_ms);
}

#else
typedef int inject_call_is_for_x86_64;
#endif
