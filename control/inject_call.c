/*
 * The call that a stopped thread makes for us: dlopen of the shim and then its entry, on a stack of its
 * own and with its signals held back.
 *
 * The code below lies where a module's code ends and its last page does not. The thread's registers are
 * written below its stack; its system calls are its own. It puts everything back by itself: from the
 * moment it is diverted it needs nobody, so if memtrace is killed the target does not notice. It waits
 * for us twice, and not for long: for what it is to load, and until we have read what came of it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#if defined(__x86_64__)
#include <elf.h>
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

#define TEXT_BYTES 512
#define STACK_BYTES ((size_t)256 << 10)
#define RED_ZONE 128
#define CALL_PATIENCE_MS 10000.0

enum phase { MAPPED = 1, CALLING = 2, RETURNED = 3 };
enum go { GO_CALL = 1, GO_GONE = 2, GO_LEAVE = 3 }; /* GONE: set by the code */

/* On the thread's stack, below what it uses. The code knows the numbers. */
struct frame {
	uint64_t phase, go; /* 0 8: what it has done, what it may do */
	int64_t result; /* 16: of the entry; -1: the text in the area says why */
	uint64_t area, bytes; /* 24 32 */
	uint64_t held, mask; /* 40 48: signals */
	uint64_t nap[2]; /* 56 */
	uint64_t dlopen, dlsym, dlerror, errno_location, mode; /* 72 80 88 96 104 */
	uint64_t errno_at, errno_was; /* 112 120 */
	uint64_t last_rsp; /* 128: of flags, below */
	uint64_t rax, rcx, rdx, rsi, rdi, rbp; /* 136 ... 176 */
	uint64_t r8, r9, r10, r11, r12, r13, r14, r15; /* 184 ... 240 */
	uint64_t flags, rbx, rip; /* 248 256 264: popped at the very end */
};

/* Mapped by the code; its stack is at the end. */
struct area {
	char text[TEXT_BYTES]; /* of dlerror */
	char entry[64]; /* 512 */
	char library[4096]; /* 576 */
	uint8_t xstate[]; /* 4672 */
};

_Static_assert(sizeof(struct frame) == 272 && offsetof(struct frame, errno_location) == 96 &&
		       offsetof(struct frame, last_rsp) == 128 &&
		       offsetof(struct frame, flags) == 248 &&
		       offsetof(struct area, xstate) == 4672 &&
		       offsetof(struct area, xstate) % 64 == 0,
	       "the code knows these");

/* pselect6(0, NULL, NULL, NULL, &nap, NULL): unlike nanosleep and futex it leaves alone what the kernel
 * keeps of a sleep that the thread was in, also if it is interrupted (memtrace is killed). */
#define NAP                                                                                        \
	"	mov	$270, %eax\n"                                                                        \
	"	xor	%edi, %edi\n"                                                                        \
	"	xor	%esi, %esi\n"                                                                        \
	"	xor	%edx, %edx\n"                                                                        \
	"	xor	%r10d, %r10d\n"                                                                      \
	"	lea	56(%rbx), %r8\n"                                                                     \
	"	movq	$200000, 64(%rbx)\n"                                                                \
	"	xor	%r9d, %r9d\n"                                                                        \
	"	syscall\n"

/* rbx: the frame. r12: the area. r13 counts naps. */
__asm__(".pushsection .rodata\n"
	"inject_code:\n"
	"	mov	$14, %eax\n" /* rt_sigprocmask(SIG_SETMASK, &held, &mask, 8) */
	"	mov	$2, %edi\n"
	"	lea	40(%rbx), %rsi\n"
	"	lea	48(%rbx), %rdx\n"
	"	mov	$8, %r10d\n"
	"	syscall\n"
	"	xor	%r12d, %r12d\n"
	"	mov	$9, %eax\n" /* mmap(NULL, bytes, READ|WRITE, PRIVATE|ANONYMOUS, -1, 0) */
	"	xor	%edi, %edi\n"
	"	mov	32(%rbx), %rsi\n"
	"	mov	$3, %edx\n"
	"	mov	$0x22, %r10d\n"
	"	mov	$-1, %r8\n"
	"	xor	%r9d, %r9d\n"
	"	syscall\n"
	"	cmp	$-4096, %rax\n"
	"	ja	7f\n"
	"	mov	%rax, %r12\n"
	"	mov	%rax, 24(%rbx)\n"
	"	movq	$1, (%rbx)\n" /* MAPPED: is there something to call? */
	"	mov	$10000, %r13d\n"
	"1:	cmpq	$1, 8(%rbx)\n"
	"	je	2f\n" NAP "	dec	%r13d\n"
	"	jnz	1b\n"
	"	xor	%eax, %eax\n" /* nobody is there any more */
	"	mov	$2, %ecx\n"
	"	lock cmpxchgq %rcx, 8(%rbx)\n"
	"	jne	2f\n"
	"	jmp	9f\n"
	"2:	mov	32(%rbx), %rax\n"
	"	lea	-64(%r12, %rax), %rsp\n"
	"	call	*96(%rbx)\n" /* errno is the program's */
	"	mov	%rax, 112(%rbx)\n"
	"	mov	(%rax), %ecx\n"
	"	mov	%rcx, 120(%rbx)\n"
	"	movq	$2, (%rbx)\n"
	"	lea	576(%r12), %rdi\n"
	"	mov	104(%rbx), %rsi\n"
	"	call	*72(%rbx)\n" /* dlopen(library, mode) */
	"	test	%rax, %rax\n"
	"	jz	3f\n"
	"	mov	%rax, %rdi\n"
	"	lea	512(%r12), %rsi\n"
	"	call	*80(%rbx)\n" /* dlsym(handle, entry) */
	"	test	%rax, %rax\n"
	"	jz	3f\n"
	"	xor	%edi, %edi\n"
	"	call	*%rax\n"
	"	movslq	%eax, %rax\n"
	"	mov	%rax, 16(%rbx)\n"
	"	jmp	5f\n"
	"3:	movq	$-1, 16(%rbx)\n"
	"	mov	88(%rbx), %rax\n"
	"	test	%rax, %rax\n"
	"	jz	5f\n"
	"	call	*%rax\n" /* dlerror() */
	"	test	%rax, %rax\n"
	"	jz	5f\n"
	"	mov	%r12, %rdi\n"
	"	mov	$511, %ecx\n"
	"4:	mov	(%rax), %dl\n"
	"	mov	%dl, (%rdi)\n"
	"	inc	%rax\n"
	"	inc	%rdi\n"
	"	test	%dl, %dl\n"
	"	jz	5f\n"
	"	dec	%ecx\n"
	"	jnz	4b\n"
	"5:	mov	112(%rbx), %rax\n"
	"	mov	120(%rbx), %rcx\n"
	"	mov	%ecx, (%rax)\n"
	"	mov	$-1, %eax\n"
	"	mov	$-1, %edx\n"
	"	lea	4672(%r12), %rcx\n"
	"	xrstor64 (%rcx)\n"
	"	jmp	8f\n"
	"7:	mov	%rax, 16(%rbx)\n"
	"8:	mov	%rbx, %rsp\n"
	"	movq	$3, (%rbx)\n" /* RETURNED: has it been read? */
	"	mov	$5000, %r13d\n"
	"6:	cmpq	$3, 8(%rbx)\n"
	"	je	9f\n" NAP "	dec	%r13d\n"
	"	jnz	6b\n"
	"9:	mov	$11, %eax\n" /* munmap(area, bytes) */
	"	mov	%r12, %rdi\n"
	"	mov	32(%rbx), %rsi\n"
	"	test	%rdi, %rdi\n"
	"	jz	10f\n"
	"	syscall\n"
	"10:	mov	$14, %eax\n" /* rt_sigprocmask(SIG_SETMASK, &mask, NULL, 8) */
	"	mov	$2, %edi\n"
	"	lea	48(%rbx), %rsi\n"
	"	xor	%edx, %edx\n"
	"	mov	$8, %r10d\n"
	"	syscall\n"
	"	mov	136(%rbx), %rax; mov	144(%rbx), %rcx\n"
	"	mov	152(%rbx), %rdx; mov	160(%rbx), %rsi\n"
	"	mov	168(%rbx), %rdi; mov	176(%rbx), %rbp\n"
	"	mov	184(%rbx), %r8; mov	192(%rbx), %r9\n"
	"	mov	200(%rbx), %r10; mov	208(%rbx), %r11\n"
	"	mov	216(%rbx), %r12; mov	224(%rbx), %r13\n"
	"	mov	232(%rbx), %r14; mov	240(%rbx), %r15\n"
	/* What is still needed lies above rsp: a signal may come at any moment. */
	"	mov	128(%rbx), %rsp\n"
	"	popfq\n"
	"	pop	%rbx\n"
	"	ret	$128\n"
	"inject_code_end:\n"
	".popsection\n");

extern const uint8_t inject_code[], inject_code_end[];

struct call {
	const struct tracee *target;
	struct stopped *s;
	uint64_t code; /* where it is in the target */
	uint64_t at; /* of the frame */
	uint64_t area;
	struct frame frame;
	char *why;
	size_t size;
};

#define SAY(...) snprintf(c->why, c->size, __VA_ARGS__)
#define FAIL(...) (SAY(__VA_ARGS__), -1)

/* ---- the code ----------------------------------------------------------------------------------- */

/* The end of the module's code in its last page, if there is room that nothing has used. */
static uint64_t room_in(pid_t pid, const struct module *m)
{
	size_t length = (size_t)(inject_code_end - inject_code);
	uint8_t have[1024];
	Elf64_Ehdr e;
	Elf64_Phdr p;

	if (tracee_read(pid, m->start, &e, sizeof(e)) < 0 || memcmp(e.e_ident, ELFMAG, SELFMAG) ||
	    length > sizeof(have))
		return 0;
	for (unsigned int i = 0; i < e.e_phnum; i++) {
		uint64_t at, room;

		if (tracee_read(pid, m->start + e.e_phoff + i * sizeof(p), &p, sizeof(p)) < 0)
			return 0;
		if (p.p_type != PT_LOAD || !(p.p_flags & PF_X))
			continue;
		at = (m->code - (p.p_vaddr & ~UINT64_C(4095)) + p.p_vaddr + p.p_filesz + 15) &
		     ~UINT64_C(15);
		room = (4096 - at % 4096) % 4096;
		if (p.p_filesz != p.p_memsz || room < length || at + length > m->code_end ||
		    tracee_read(pid, at, have, length) < 0)
			return 0;
		for (size_t k = 0; k < length; k++)
			if (have[k] && have[k] != inject_code[k])
				return 0;
		return at;
	}
	return 0;
}

/* Written once: it is the same for all threads, and stays. */
static int place_code(struct call *c)
{
	size_t length = (size_t)(inject_code_end - inject_code);
	uint64_t word;

	for (size_t i = 0; i < c->target->count && !c->code; i++)
		if (c->target->modules[i].code && c->target->modules[i].path[0] == '/')
			c->code = room_in(c->target->pid, &c->target->modules[i]);
	if (!c->code)
		return FAIL("there is no room for code in any of its modules");
	for (size_t i = 0; i < length; i += sizeof(word)) {
		size_t part = length - i < sizeof(word) ? length - i : sizeof(word);

		word = 0;
		memcpy(&word, inject_code + i, part);
		if (ptrace(PTRACE_POKEDATA, c->s->tid, (void *)(c->code + i), (void *)word) < 0)
			return FAIL("its code can't be written: %s", strerror(errno));
	}
	return 0;
}

/* ---- setting up --------------------------------------------------------------------------------- */

#define RTLD_NOW_LOCAL 2u
#define DLOPEN_MODE_INTERNAL 0x80000000u /* __libc_dlopen_mode wants to be told that it is dlopen */

/* glibc before 2.34 keeps dlopen in libdl, which may not be there; libc has its own all the same. */
static int find_functions(struct call *c)
{
	const struct tracee *t = c->target;
	struct frame *f = &c->frame;

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

/* Signals that the code itself may cause stay open: then we see them. */
static uint64_t held_back(void)
{
	static const int open[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS };
	uint64_t mask = UINT64_MAX;

	for (size_t i = 0; i < sizeof(open) / sizeof(open[0]); i++)
		mask &= ~(UINT64_C(1) << (open[i] - 1));
	return mask;
}

static void fill_frame(struct call *c)
{
	struct user_regs_struct r = c->s->regs;
	struct frame *f = &c->frame;

	thread_restart_by_hand(&r);
	c->at = r.rsp - RED_ZONE - sizeof(*f);
	f->last_rsp = c->at + offsetof(struct frame, flags);
	f->bytes = (sizeof(struct area) + c->s->xstate_bytes + STACK_BYTES + 4095) &
		   ~UINT64_C(4095);
	f->held = held_back();
#define COPY(name) f->name = r.name
	COPY(rax), COPY(rbx), COPY(rcx), COPY(rdx), COPY(rsi), COPY(rdi), COPY(rbp), COPY(r8);
	COPY(r9), COPY(r10), COPY(r11), COPY(r12), COPY(r13), COPY(r14), COPY(r15), COPY(rip);
#undef COPY
	f->flags = r.eflags;
}

static int divert(struct call *c)
{
	struct user_regs_struct regs = c->s->regs;

	if (tracee_write(c->target->pid, c->at, &c->frame, sizeof(c->frame)) < 0)
		return FAIL("the stack of thread %d can't be written", c->s->tid);
	regs.rip = c->code;
	regs.rbx = c->at;
	regs.rsp = c->at;
	regs.orig_rax = (uint64_t)-1;
	regs.eflags &= ~UINT64_C(0x500); /* trap, direction */
	if (thread_set_regs(c->s->tid, &regs) < 0 || ptrace(PTRACE_CONT, c->s->tid, NULL, NULL) < 0)
		return FAIL("it has ended");
	return 0;
}

/* What the code has waited for. */
static int say_go(struct call *c, const char *shim)
{
	size_t bytes = sizeof(struct area) + c->s->xstate_bytes;
	struct area *a = calloc(1, bytes);
	uint64_t go = GO_CALL;
	int result = -1;

	if (a && strlen(shim) < sizeof(a->library)) {
		strcpy(a->entry, INJECT_ENTRY);
		strcpy(a->library, shim);
		memcpy(a->xstate, c->s->xstate, c->s->xstate_bytes);
		if (tracee_write(c->target->pid, c->area, a, bytes) == 0 &&
		    tracee_write(c->target->pid, c->at + offsetof(struct frame, go), &go,
				 sizeof(go)) == 0)
			result = 0;
	}
	free(a);
	return result;
}

/* ---- waiting ------------------------------------------------------------------------------------ */

enum news { NEWS_NONE, NEWS_ENDED, NEWS_CRASHED };

/* Stops meanwhile: what the program is sent reaches it, a fault of the call itself does not. */
static enum news take_news(const struct call *c, int *signal)
{
	int status;
	pid_t got = waitpid(c->s->tid, &status, __WALL | WNOHANG);

	if (got < 0 || (got == c->s->tid && !WIFSTOPPED(status)))
		return NEWS_ENDED;
	if (got != c->s->tid)
		return NEWS_NONE;
	*signal = status >> 16 ? 0 : WSTOPSIG(status);
	if (*signal && !(held_back() >> (*signal - 1) & 1))
		return NEWS_CRASHED;
	ptrace(PTRACE_CONT, c->s->tid, NULL, (void *)(long)*signal);
	return NEWS_NONE;
}

/* The thread gets back what it had, by our hand. What it had mapped for us is left. */
static void take_back(const struct call *c)
{
	thread_restore(c->s);
	ptrace(PTRACE_DETACH, c->s->tid, NULL, NULL);
}

/*
 * It takes too long. Where it waits for the loader's first lock it holds nothing, and can be taken
 * back; so too if it has not run at all. Else it must go on, and will: the code needs nobody.
 */
static enum call_result give_up(const struct call *c, uint64_t phase)
{
	struct stopped now = { .tid = c->s->tid };
	const struct user_regs_struct *r = &now.regs;
	uint32_t owner = 0;
	int waits;

	if (thread_interrupt(&now) != STOP_DONE) {
		SAY("it does not answer; it will go on by itself as soon as it can");
		return CALL_RUNS_ON;
	}
	/* The locks lie in a row, the first is the one that comes first. */
	waits = phase == CALLING && (long)r->orig_rax == SYS_futex &&
		r->rdi >= c->target->loader_state && r->rdi < c->target->loader_state_end &&
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

/* The code waits until we have read; then it puts the rest back, and we let go when we end. */
static enum call_result finish(const struct call *c)
{
	char text[TEXT_BYTES] = "";
	uint64_t go = GO_LEAVE;

	if (c->area && c->frame.result == -1)
		tracee_read(c->target->pid, c->area, text, sizeof(text) - 1);
	tracee_write(c->target->pid, c->at + offsetof(struct frame, go), &go, sizeof(go));
	if (c->frame.result == 0)
		return CALL_DONE;
	if (c->frame.result == -EALREADY)
		return CALL_ALREADY;
	if (!c->area)
		SAY("it can't map %llu KiB more: %s", (unsigned long long)c->frame.bytes >> 10,
		    strerror((int)-c->frame.result));
	else if (c->frame.result == -1)
		SAY("its loader says: %s", *text ? text : "the shim can't be loaded");
	else
		SAY("the shim refuses: %s", strerror((int)-c->frame.result));
	return CALL_FAILED;
}

static enum call_result crashed(const struct call *c, int signal)
{
	take_back(c);
	SAY("loading the shim failed there (signal %d: %s); it runs on as before%s", signal,
	    strsignal(signal), signal == SIGSYS ? ", its seccomp filter does not allow it" : "");
	return CALL_FAILED;
}

static enum call_result wait_for_call(struct call *c, const char *shim, double *stopped_ms)
{
	double begun = clock_ms(), mapped = 0;
	struct frame *f = &c->frame;
	int signal = 0;

	for (;;) {
		enum news news = take_news(c, &signal);

		if (news == NEWS_CRASHED)
			return crashed(c, signal);
		if (news == NEWS_ENDED ||
		    tracee_read(c->target->pid, c->at, f, offsetof(struct frame, held)) < 0) {
			SAY("it has ended meanwhile");
			return CALL_FAILED;
		}
		if (f->phase == MAPPED && !mapped) {
			mapped = clock_ms();
			c->area = f->area;
			if (say_go(c, shim) < 0)
				f->phase = 0; /* it will leave by itself */
		}
		if (f->phase == RETURNED) {
			*stopped_ms = clock_ms() - c->s->since_ms;
			return finish(c);
		}
		if (clock_ms() - begun > CALL_PATIENCE_MS)
			return give_up(c, f->phase);
		nap_ms(0.1);
	}
}

enum call_result call_make(const struct tracee *t, struct stopped *s, const char *shim,
			   double *stopped_ms, char *why, size_t size)
{
	struct call call = { .target = t, .s = s, .why = why, .size = size }, *c = &call;

	if (find_functions(c) < 0 || place_code(c) < 0) {
		thread_set_regs(s->tid, &s->regs);
		ptrace(PTRACE_DETACH, s->tid, NULL, NULL);
		return CALL_FAILED;
	}
	fill_frame(c);
	if (divert(c) < 0) {
		take_back(c);
		return CALL_FAILED;
	}
	return wait_for_call(c, shim, stopped_ms);
}

#else
typedef int inject_call_is_for_x86_64;
#endif
