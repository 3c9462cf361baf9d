/*
 * The parts of the injector, in the order in which they are used:
 *
 *   inject_verdict.c  what speaks against it, from /proc alone
 *   inject_python.c   a Python that does it by itself
 *   inject_tracee.c   memory, modules and symbols of the process
 *   inject_thread.c   stopping one thread, and letting it go as if nothing had been
 *   inject_walk.c     is this moment of this thread a safe one?
 *   inject_call.c     the call that the thread makes for us
 *
 * x86-64 only; elsewhere inject_shim() says so.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_CONTROL_INJECT_PARTS_H
#define MEMTRACE_CONTROL_INJECT_PARTS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The exported function of the shim that is called in the target; its result is 0 or -errno. */
#define INJECT_ENTRY "memtrace_injected"

/* ---- inject_verdict.c ------------------------------------------------------------------------ */

/* Writes one clause and what to do about it to `why` and returns -1; 0: nothing speaks against it. */
int inject_verdict(pid_t pid, const char *shim, char *why, size_t size);

/* Why the kernel refused PTRACE_SEIZE. proc: "/proc", or what a test has in its place. */
void inject_denied(const char *proc, pid_t pid, int error, char *why, size_t size);

/* The number behind "Name:" in /proc/PID/status, or `missing`. */
long inject_status(pid_t pid, const char *name, int base, long missing);

/* The letter of its state (R, S, D, T, t, Z ...); '\0': there is no such thread. */
char inject_state(pid_t tid);

/* Who traces the thread; 0: nobody. */
pid_t inject_tracer(pid_t pid, pid_t tid);

/* Does a thread with this /proc/PID/status have a shadow stack? Diverted code could not return there. */
int inject_has_shadow_stack(const char *status);
int inject_shadow_verdict(pid_t pid, char *why, size_t size);

/* ---- inject_python.c ------------------------------------------------------------------------- */

/* 1: the process's own interpreter has loaded the shim; 0: it can't, or has not in time. */
int inject_python(pid_t pid, const char *shim);

/* ---- inject_tracee.c ------------------------------------------------------------------------- */

enum module_kind {
	MODULE_OTHER,
	MODULE_LIBC, /* and its parts: libpthread, libdl */
	MODULE_LOADER,
	MODULE_UNWINDER, /* libgcc, libunwind: their locks and the loader's are taken together */
	MODULE_ALLOCATOR, /* has a malloc of its own */
	MODULE_SHIM,
	MODULE_KERNEL, /* vdso */
};

struct module {
	char *path;
	uint64_t start, end; /* of all its mappings */
	uint64_t code, code_end; /* the first that is executable */
	enum module_kind kind;
};

struct function {
	uint64_t start, end;
	const char *name;
};

struct tracee {
	pid_t pid;
	struct module *modules;
	size_t count;
	struct function *functions; /* exported by libc and its parts, by address */
	size_t function_count;
	uint64_t loader_state, loader_state_end; /* where ld.so keeps its locks */
};

/* 0, or -1 with a clause in `why`. */
int tracee_open(struct tracee *t, pid_t pid, char *why, size_t size);
void tracee_close(struct tracee *t);

int tracee_read(pid_t pid, uint64_t address, void *to, size_t size); /* 0 or -1 */
int tracee_write(pid_t pid, uint64_t address, const void *from, size_t size);

/* NULL: in none, as code that was made at run time. */
const struct module *tracee_module_at(const struct tracee *t, uint64_t address);

/* Name of libc's exported function around the address; NULL: an internal one. */
const char *tracee_function_at(const struct tracee *t, uint64_t address);

/* Address of a function that libc or one of its parts exports; 0: none does. */
uint64_t tracee_find(const struct tracee *t, const char *name);

/* ---- inject_thread.c ------------------------------------------------------------------------- */

#if defined(__x86_64__)
#include <sys/user.h>

struct stopped {
	pid_t tid;
	struct user_regs_struct regs;
	uint64_t mask; /* of signals */
	uint8_t *xstate; /* of any size */
	size_t xstate_bytes;
	double since_ms; /* when it was stopped */
};

enum stop_result {
	STOP_DONE,
	STOP_GONE, /* the thread has ended */
	STOP_STUCK, /* it waits in the kernel and can't be stopped */
	STOP_HELD, /* job control holds it */
	STOP_DENIED, /* errno says why */
};

double clock_ms(void);
void nap_ms(double ms);

/* Seizes the thread and stops it. */
enum stop_result thread_stop(pid_t tid, struct stopped *s);

/* Stops a thread that is seized already. */
enum stop_result thread_interrupt(struct stopped *s);

/* Puts back what thread_stop() found and lets it go. */
void thread_release(struct stopped *s);
int thread_restore(const struct stopped *s);
void thread_free(struct stopped *s);

/* As much as ptrace has: 0 or -1. */
int thread_get(struct stopped *s);
int thread_set_regs(pid_t tid, const struct user_regs_struct *regs);
int thread_set_mask(pid_t tid, uint64_t mask);

/* Has it a system call that the kernel would restart? Then `regs` are changed so that the thread
 * makes it anew when it continues there. */
void thread_restart_by_hand(struct user_regs_struct *regs);

/* ---- inject_walk.c --------------------------------------------------------------------------- */

/* 0, or -1 and one clause: libunwind-ptrace is not there. */
int walk_open(char *why, size_t size);

/* 1: the stopped thread may be diverted; 0: not now, because of `why`. */
int walk_is_safe(const struct tracee *t, const struct stopped *s, char *why, size_t size);

/* Is it worth stopping? What the kernel says of the thread without stopping it: the number of the
 * system call it waits in, -1: running, -2: it must be left alone. */
long walk_waits_in(pid_t pid, pid_t tid);
int walk_may_interrupt(long number);

/* ---- inject_call.c --------------------------------------------------------------------------- */

enum call_result {
	CALL_DONE,
	CALL_ALREADY, /* another thread is just doing it, or undoing it */
	CALL_FAILED, /* it returned; the thread is as it was */
	CALL_TAKEN_BACK, /* it had not begun; the thread is as it was */
	CALL_RUNS_ON, /* the thread will be as it was when it returns */
};

/* Diverts the stopped thread into dlopen(shim) and its entry. The thread is let go in any case. */
enum call_result call_make(const struct tracee *t, struct stopped *s, const char *shim,
			   double *stopped_ms, char *why, size_t size);
#endif

#endif
