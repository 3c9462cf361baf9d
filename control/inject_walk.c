/*
 * Is this moment of this thread a safe one to call dlopen in its place? Its whole stack says so: it
 * must not be inside an allocator, the loader, an unwinder, a signal handler, or a part of libc that
 * holds locks; and if it waits in a system call, that call must be one that can be made anew.
 *
 * The one file that knows libunwind-ptrace. It is loaded when it is needed, so that nothing else of
 * memtrace depends on it; its opaque structs get far more room than they ask for.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#if defined(__x86_64__)
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "inject_parts.h"

#ifndef PTRACE_GET_RSEQ_CONFIGURATION
#define PTRACE_GET_RSEQ_CONFIGURATION 0x420f
#endif

enum { REGISTER_IP = 16, FRAMES_MAX = 4096, CURSOR_BYTES = 8192 };

static struct {
	void *(*create)(pid_t tid);
	void (*destroy)(void *remote);
	void *accessors;
	void *(*space_create)(void *accessors, int order);
	void (*space_destroy)(void *space);
	int (*init)(void *cursor, void *space, void *remote);
	int (*step)(void *cursor);
	int (*get_register)(void *cursor, int which, uint64_t *value);
	int (*is_signal_frame)(void *cursor);
} lib;

int walk_open(char *why, size_t size)
{
	static const struct {
		const char *name;
		void *to;
	} names[] = {
		{ "_UPT_create", &lib.create },
		{ "_UPT_destroy", &lib.destroy },
		{ "_UPT_accessors", &lib.accessors },
		{ "_Ux86_64_create_addr_space", &lib.space_create },
		{ "_Ux86_64_destroy_addr_space", &lib.space_destroy },
		{ "_Ux86_64_init_remote", &lib.init },
		{ "_Ux86_64_step", &lib.step },
		{ "_Ux86_64_get_reg", &lib.get_register },
		{ "_Ux86_64_is_signal_frame", &lib.is_signal_frame },
	};
	/* The second needs the first and does not say so. */
	void *base = dlopen("libunwind-x86_64.so.8", RTLD_NOW | RTLD_GLOBAL);
	void *handle = base ? dlopen("libunwind-ptrace.so.0", RTLD_NOW | RTLD_LOCAL) : NULL;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		void *found = handle ? dlsym(handle, names[i].name) : NULL;

		if (handle && !found)
			found = dlsym(base, names[i].name);
		if (!found) {
			snprintf(why, size,
				 "finding a safe moment needs libunwind-ptrace; install "
				 "libunwind8 (Debian, Ubuntu) or libunwind");
			return -1;
		}
		*(void **)names[i].to = found;
	}
	return 0;
}

/* ---- system calls ---------------------------------------------------------------------------- */

long walk_waits_in(pid_t pid, pid_t tid)
{
	char path[64], text[256];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/syscall", pid, tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1; /* not told: its stack will show */
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	if (n <= 0 || !strncmp(text, "running", 7))
		return -1;
	return strtol(text, NULL, 10) < 0 ? -2 : strtol(text, NULL, 10);
}

/* Those that the kernel makes anew after a stop, exactly as they were. */
static int can_be_made_anew(long number)
{
	static const short calls[] = {
		SYS_read,    SYS_write,		  SYS_readv,	       SYS_writev,
		SYS_poll,    SYS_ppoll,		  SYS_select,	       SYS_pselect6,
		SYS_pause,   SYS_nanosleep,	  SYS_clock_nanosleep, SYS_accept,
		SYS_accept4, SYS_recvfrom,	  SYS_recvmsg,	       SYS_sendto,
		SYS_sendmsg, SYS_wait4,		  SYS_waitid,	       SYS_flock,
		SYS_futex,   SYS_restart_syscall, SYS_sched_yield,
	};

	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		if (calls[i] == number)
			return 1;
	return 0;
}

int walk_may_interrupt(long number)
{
	return number == -1 || can_be_made_anew(number);
}

/* ---- frames ---------------------------------------------------------------------------------- */

static int is_one_of(const char *name, const char *const *list)
{
	for (; *list; list++)
		if (!strcmp(name, *list))
			return 1;
	return 0;
}

/* Anywhere on the stack: these hold locks that dlopen or the shim's start take, or are about to. */
static const char *const forbidden[] = { "malloc",
					 "free",
					 "calloc",
					 "realloc",
					 "reallocarray",
					 "memalign",
					 "aligned_alloc",
					 "posix_memalign",
					 "valloc",
					 "pvalloc",
					 "cfree",
					 "malloc_trim",
					 "mallinfo",
					 "mallinfo2",
					 "malloc_info",
					 "malloc_stats",
					 "mallopt",
					 "malloc_usable_size",
					 "__libc_malloc",
					 "__libc_free",
					 "__libc_calloc",
					 "__libc_realloc",
					 "__libc_memalign",
					 "dl_iterate_phdr",
					 "dladdr",
					 "dladdr1",
					 "dlopen",
					 "dlmopen",
					 "dlsym",
					 "dlvsym",
					 "dlclose",
					 "dlerror",
					 "dlinfo",
					 "__libc_dlopen_mode",
					 "__libc_dlsym",
					 "fork",
					 "_Fork",
					 "vfork",
					 "__libc_fork",
					 "posix_spawn",
					 "posix_spawnp",
					 "exit",
					 "_exit",
					 "quick_exit",
					 "abort",
					 "on_exit",
					 "__cxa_atexit",
					 "__cxa_finalize",
					 "atexit",
					 "__register_atfork",
					 "pthread_atfork",
					 "pthread_create",
					 "pthread_exit",
					 "pthread_getattr_np",
					 "__nptl_deallocate_tsd",
					 "__libc_freeres",
					 "__cxa_thread_atexit_impl",
					 "gconv",
					 "iconv_open",
					 "setlocale",
					 NULL };

static int is_forbidden(const char *name)
{
	return is_one_of(name, forbidden);
}

/* libc's functions that merely wait: what called them is the program. */
static const char *const waiting[] = { "read",
				       "__read",
				       "write",
				       "__write",
				       "readv",
				       "writev",
				       "poll",
				       "__poll",
				       "ppoll",
				       "select",
				       "__select",
				       "pselect",
				       "pause",
				       "nanosleep",
				       "__nanosleep",
				       "clock_nanosleep",
				       "__clock_nanosleep",
				       "usleep",
				       "sleep",
				       "thrd_sleep",
				       "accept",
				       "accept4",
				       "recv",
				       "recvfrom",
				       "recvmsg",
				       "__recv",
				       "send",
				       "__send",
				       "sendto",
				       "sendmsg",
				       "wait",
				       "__wait",
				       "waitpid",
				       "__waitpid",
				       "wait3",
				       "wait4",
				       "__wait4",
				       "waitid",
				       "flock",
				       "syscall",
				       "sched_yield",
				       "__sched_yield",
				       "pthread_cond_wait",
				       "pthread_cond_timedwait",
				       "pthread_cond_clockwait",
				       "cnd_wait",
				       "cnd_timedwait",
				       "pthread_mutex_lock",
				       "__pthread_mutex_lock",
				       "pthread_mutex_timedlock",
				       "pthread_mutex_clocklock",
				       "pthread_rwlock_rdlock",
				       "__pthread_rwlock_rdlock",
				       "pthread_rwlock_wrlock",
				       "__pthread_rwlock_wrlock",
				       "pthread_join",
				       "pthread_timedjoin_np",
				       "pthread_clockjoin_np",
				       "pthread_barrier_wait",
				       "sem_wait",
				       "sem_timedwait",
				       "sem_clockwait",
				       "__libc_read",
				       "__libc_write",
				       "__libc_poll",
				       NULL };

static int merely_waits(const char *name)
{
	return is_one_of(name, waiting);
}

struct walk {
	const struct tracee *target;
	int in_leaf; /* only frames of libc so far */
	int leaf_named; /* one of them is exported */
	int waits; /* its outermost merely waits, by its name */
	char *why;
	size_t size;
};

#define UNSAFE(...) (snprintf(w->why, w->size, __VA_ARGS__), 0)

/* The outermost frames of libc before the program's own: what did the program call? */
static int leave_leaf(struct walk *w, const struct stopped *s)
{
	int calls = (long)s->regs.orig_rax >= 0;

	w->in_leaf = 0;
	/* Internal functions without a name are the slow paths of semaphores and conditions. */
	if (w->leaf_named < 0 || (calls && (w->waits || !w->leaf_named)))
		return 1;
	return UNSAFE("it is at work inside libc");
}

static int frame_is_safe(struct walk *w, const struct stopped *s, uint64_t ip, int first)
{
	const struct module *m = tracee_module_at(w->target, first ? ip : ip - 1);
	enum module_kind kind = m ? m->kind : MODULE_OTHER;
	const char *name;

	switch (kind) {
	case MODULE_LOADER:
		return UNSAFE("it is inside the loader");
	case MODULE_UNWINDER:
		return UNSAFE("it is throwing an exception or walking its stack");
	case MODULE_ALLOCATOR:
		return UNSAFE("it is inside an allocator");
	case MODULE_SHIM:
		return UNSAFE("it is inside the shim");
	case MODULE_KERNEL:
		return UNSAFE("it is asking for the time");
	case MODULE_LIBC:
		name = tracee_function_at(w->target, first ? ip : ip - 1);
		if (name && is_forbidden(name))
			return UNSAFE("it is inside %s", name);
		if (first)
			w->leaf_named = 0;
		if (w->in_leaf && name) {
			w->leaf_named = 1;
			w->waits = merely_waits(name);
		}
		return 1;
	default:
		return w->in_leaf ? leave_leaf(w, s) : 1;
	}
}

/* Restartable sequences: code that must begin anew when it is interrupted, and would not notice. */
static int in_restartable_sequence(const struct stopped *s)
{
	struct {
		uint64_t area;
		uint32_t size, signature, flags, pad;
	} rseq = { 0 };
	struct {
		uint32_t version, flags;
		uint64_t start, length, abort;
	} section;
	uint64_t at = 0;

	if (ptrace(PTRACE_GET_RSEQ_CONFIGURATION, s->tid, (void *)sizeof(rseq), &rseq) <= 0 ||
	    !rseq.area || tracee_read(s->tid, rseq.area + 8, &at, sizeof(at)) < 0 || !at ||
	    tracee_read(s->tid, at, &section, sizeof(section)) < 0)
		return 0;
	return s->regs.rip - section.start < section.length;
}

static int frames_are_safe(struct walk *w, const struct stopped *s, void *cursor)
{
	uint64_t ip = 0;

	for (unsigned int n = 0; n < FRAMES_MAX; n++) {
		int stepped;

		if (lib.get_register(cursor, REGISTER_IP, &ip) < 0)
			return UNSAFE("its stack can't be walked");
		if (!ip)
			return 1;
		if (lib.is_signal_frame(cursor) > 0)
			return UNSAFE("it is in a signal handler");
		if (!frame_is_safe(w, s, ip, !n))
			return 0;
		stepped = lib.step(cursor);
		if (stepped < 0)
			return UNSAFE("its stack can't be walked to the end");
		if (!stepped)
			return w->in_leaf ? UNSAFE("it is at work inside libc") : 1;
	}
	return UNSAFE("its stack is too deep");
}

int walk_is_safe(const struct tracee *t, const struct stopped *s, char *why, size_t size)
{
	struct walk walk = {
		.target = t, .in_leaf = 1, .leaf_named = -1, .why = why, .size = size
	};
	struct walk *w = &walk;
	void *space, *remote, *cursor;
	int safe = 0;

	if ((long)s->regs.orig_rax >= 0 && !can_be_made_anew((long)s->regs.orig_rax))
		return UNSAFE("it is in a system call that can't be made anew");
	if (s->regs.cs != 0x33)
		return UNSAFE("it runs 32-bit code");
	if (in_restartable_sequence(s))
		return UNSAFE("it is in a restartable sequence");
	space = lib.space_create(lib.accessors, 0);
	remote = space ? lib.create(s->tid) : NULL;
	cursor = calloc(1, CURSOR_BYTES);
	if (remote && cursor && lib.init(cursor, space, remote) == 0)
		safe = frames_are_safe(w, s, cursor);
	else
		snprintf(why, size, "its stack can't be read");
	free(cursor);
	if (remote)
		lib.destroy(remote);
	if (space)
		lib.space_destroy(space);
	return safe;
}

#else
typedef int inject_walk_is_for_x86_64;
#endif
