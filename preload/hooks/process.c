/*
 * Interposed process functions: fork, exec, spawn, exit, wait, thread names, dlclose. All observe
 * and pass through; arguments and results are never changed, and environments only where the shim was
 * loaded late and children are recorded (environ.c). The real call is made outside the guard, because it may block, run other code, or not return.
 *
 * A vfork child runs in its parent's memory: what it records goes to the parent's stream and says
 * the child's pid, and its _exit must not end the parent's recording.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <alloca.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/forked.h"
#include "core/guard.h"
#include "core/real.h"
#include "init.h"
#include "record/record.h"
#include "sys/sys.h"

MT_EXPORT pid_t fork(void)
{
	struct mt_fork_info info;
	struct mt_thread *t;
	pid_t pid;

	if (!mt_real.fork) {
		errno = ENOSYS;
		return -1;
	}
	pid = mt_real.fork(); /* our atfork handlers run inside, see fork.c */
	if (pid > 0 && mt_forked_take(&info)) {
		int saved = errno;

		t = mt_enter();
		if (t) {
			mt_record_fork(t, pid, info.time, info.inexact, MT_CALLER());
			mt_leave(t);
		}
		errno = saved;
	}
	return pid;
}

/* ---- exec -------------------------------------------------------------------------------------- */

/* The environment for a program that is about to be started; on the stack, for a vfork child may call. */
#define FOR_CHILD(with, envp)                                                                      \
	char *const *with = envp;                                                                  \
	size_t room_##with = mt_environ_child_room(with);                                          \
                                                                                                   \
	if (mt_unlikely(room_##with))                                                              \
	with = mt_environ_child(alloca(room_##with), with)

static void exec_begin(const char *path, char *const envp[])
{
	struct mt_thread *t = mt_enter();

	if (t) {
		mt_record_exec(t, path, envp);
		mt_leave(t);
	}
}

static int exec_failed(int result)
{
	int error = errno;
	struct mt_thread *t = mt_enter();

	if (t) {
		mt_record_exec_failed(t, error);
		mt_leave(t);
	}
	errno = error;
	return result;
}

MT_EXPORT int execve(const char *path, char *const argv[], char *const envp[])
{
	FOR_CHILD(with, envp);
	exec_begin(path, with);
	return exec_failed(mt_real.execve(path, argv, with));
}

MT_EXPORT int execv(const char *path, char *const argv[])
{
	FOR_CHILD(with, environ);
	exec_begin(path, with);
	return exec_failed(with == environ ? mt_real.execv(path, argv)
					   : mt_real.execve(path, argv, with));
}

MT_EXPORT int execvp(const char *file, char *const argv[])
{
	FOR_CHILD(with, environ);
	exec_begin(file, with);
	return exec_failed(with == environ ? mt_real.execvp(file, argv)
					   : mt_real.execvpe(file, argv, with));
}

MT_EXPORT int execvpe(const char *file, char *const argv[], char *const envp[])
{
	FOR_CHILD(with, envp);
	exec_begin(file, with);
	return exec_failed(mt_real.execvpe(file, argv, with));
}

MT_EXPORT int fexecve(int fd, char *const argv[], char *const envp[])
{
	FOR_CHILD(with, envp);
	exec_begin(argv[0], with);
	return exec_failed(mt_real.fexecve(fd, argv, with));
}

/* The argument list of execl and friends as an array; on the stack, for a vfork child may call. */
static size_t count_arguments(va_list args)
{
	size_t n = 1;

	while (va_arg(args, const char *))
		n++;
	return n;
}

static void fill_arguments(const char **argv, const char *first, va_list args)
{
	*argv++ = first;
	while (first && (*argv++ = va_arg(args, const char *)))
		;
}

#define COLLECT(argv, arg, args)                                                                   \
	const char **argv;                                                                         \
	va_list args;                                                                              \
                                                                                                   \
	va_start(args, arg);                                                                       \
	argv = alloca((count_arguments(args) + 1) * sizeof(*argv));                                \
	va_end(args);                                                                              \
	va_start(args, arg);                                                                       \
	fill_arguments(argv, arg, args)

MT_EXPORT int execl(const char *path, const char *arg, ...)
{
	COLLECT(argv, arg, args);
	va_end(args);
	return execv(path, (char *const *)argv);
}

MT_EXPORT int execlp(const char *file, const char *arg, ...)
{
	COLLECT(argv, arg, args);
	va_end(args);
	return execvp(file, (char *const *)argv);
}

MT_EXPORT int execle(const char *path, const char *arg, ...)
{
	char *const *envp;

	COLLECT(argv, arg, args);
	envp = va_arg(args, char *const *); /* after the terminating NULL */
	va_end(args);
	return execve(path, (char *const *)argv, envp);
}

static int spawned(int err, pid_t pid, const char *path, char *const envp[])
{
	int saved = errno;
	struct mt_thread *t = err ? NULL : mt_enter();

	if (t) {
		mt_record_spawn(t, pid, path, envp);
		mt_leave(t);
	}
	errno = saved;
	return err;
}

MT_EXPORT int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
			  const posix_spawnattr_t *attributes, char *const argv[],
			  char *const envp[])
{
	FOR_CHILD(with, envp);
	pid_t child = 0;
	int err = mt_real.posix_spawn(&child, path, actions, attributes, argv, with);

	if (pid && !err) /* glibc leaves it alone when it fails */
		*pid = child;
	return spawned(err, child, path, with);
}

MT_EXPORT int posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
			   const posix_spawnattr_t *attributes, char *const argv[],
			   char *const envp[])
{
	FOR_CHILD(with, envp);
	pid_t child = 0;
	int err = mt_real.posix_spawnp(&child, file, actions, attributes, argv, with);

	if (pid && !err) /* glibc leaves it alone when it fails */
		*pid = child;
	return spawned(err, child, file, with);
}

/* ---- exit and wait ------------------------------------------------------------------------------ */

static void exit_now(int status)
{
	struct mt_thread *t;

	if (mt_forked_is_vfork_child())
		return;
	t = mt_enter();
	if (t) {
		mt_forked_check_end(t);
		mt_record_exit(t, MT_EXIT_UNDERSCORE, status);
		mt_leave(t);
		mt_forked_say_end();
	}
}

MT_EXPORT __attribute__((noreturn)) void _exit(int status)
{
	exit_now(status);
	for (;;)
		mt_sys1(SYS_exit_group, status);
}

MT_EXPORT __attribute__((noreturn)) void _Exit(int status)
{
	exit_now(status);
	for (;;)
		mt_sys1(SYS_exit_group, status);
}

static pid_t waited(pid_t pid, int status)
{
	int saved = errno;
	struct mt_thread *t = pid > 0 ? mt_enter() : NULL;

	if (t) {
		mt_record_wait(t, pid, status);
		mt_leave(t);
	}
	errno = saved;
	return pid;
}

/* A caller that passes no status still lets us see it. */
#define WAIT_BODY(call)                                                                            \
	int own = 0;                                                                               \
	pid_t result;                                                                              \
                                                                                                   \
	if (!status)                                                                               \
		status = &own;                                                                     \
	result = call;                                                                             \
	return waited(result, *status);

MT_EXPORT pid_t wait(int *status)
{
	WAIT_BODY(mt_real.wait(status))
}

MT_EXPORT pid_t waitpid(pid_t pid, int *status, int options)
{
	WAIT_BODY(mt_real.waitpid(pid, status, options))
}

MT_EXPORT pid_t wait3(int *status, int options, struct rusage *usage)
{
	WAIT_BODY(mt_real.wait3(status, options, usage))
}

MT_EXPORT pid_t wait4(pid_t pid, int *status, int options, struct rusage *usage)
{
	WAIT_BODY(mt_real.wait4(pid, status, options, usage))
}

MT_EXPORT int waitid(idtype_t type, id_t id, siginfo_t *info, int options)
{
	int result = mt_real.waitid(type, id, info, options);

	if (result == 0 && info && info->si_pid > 0 && info->si_signo == SIGCHLD) {
		if (info->si_code == CLD_EXITED)
			waited(info->si_pid, (info->si_status & 0xff) << 8);
		else if (info->si_code == CLD_KILLED || info->si_code == CLD_DUMPED)
			waited(info->si_pid,
			       info->si_status | (info->si_code == CLD_DUMPED ? 0x80 : 0));
	}
	return result;
}

/* ---- names and modules --------------------------------------------------------------------------- */

static void renamed(void)
{
	struct mt_thread *t = mt_enter();

	if (t) {
		mt_record_thread_name(t);
		mt_leave(t);
	}
}

MT_EXPORT int prctl(int option, ...)
{
	unsigned long a, b, c, d;
	va_list args;
	int result;

	va_start(args, option); /* as glibc's own: takes four words, whatever the caller passed */
	a = va_arg(args, unsigned long);
	b = va_arg(args, unsigned long);
	c = va_arg(args, unsigned long);
	d = va_arg(args, unsigned long);
	va_end(args);
	if (option == PR_SET_SECCOMP) /* system calls of ours may be deadly from now on */
		mt_forked_seal();
	result = mt_real.prctl ? mt_real.prctl(option, a, b, c, d) : -1;
	if (option == PR_SET_NAME && result == 0)
		renamed();
	return result;
}

MT_EXPORT int pthread_setname_np(pthread_t thread, const char *name)
{
	int err = mt_real.pthread_setname_np ? mt_real.pthread_setname_np(thread, name) : ENOSYS;

	if (!err && pthread_equal(thread, pthread_self()))
		renamed();
	return err;
}

/* Python starts every process with one, by whatever method; it is the only thing that happens in
 * the process that asks a fork server for a child. */
MT_EXPORT int pipe2(int fds[2], int flags)
{
	int result = mt_real.pipe2 ? mt_real.pipe2(fds, flags)
				   : (int)mt_sys2(SYS_pipe2, fds, flags);
	int saved = errno;
	struct mt_thread *t;

	if (!mt_real.pipe2 && result < 0) {
		errno = -result;
		return -1;
	}
	t = result == 0 ? mt_enter() : NULL;
	if (t) {
		mt_record_launch(t);
		mt_leave(t);
	}
	errno = saved;
	return result;
}

MT_EXPORT int dlclose(void *handle)
{
	struct mt_thread *t;
	int result;

	if (!mt_real.dlclose)
		return -1;
	mt_stack_unload_begin();
	result = mt_real.dlclose(handle);
	t = mt_enter();
	if (t) {
		mt_stack_unload_end(t);
		mt_leave(t);
	}
	return result;
}
