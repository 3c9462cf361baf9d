/*
 * Running a command as if we were not there. The driver stays the parent only to be able to pass on
 * signals and the exit status; the recording does not depend on it, so killing the driver leaves
 * the command running and recorded.
 *
 * The command shares our process group: what the terminal sends (^C, ^Z) reaches it directly and is
 * not sent again; anything else that reaches us is passed on. A signal that another process sends
 * to the whole group can't be told from one sent to us alone: the command gets it twice.
 * When the command stops, we stop, so that the shell's job control sees one job; when we are
 * continued, so is the command.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "control.h"

/* What the command must not notice of us: how signals stood when we were started. */
struct before {
	sigset_t mask;
	struct sigaction child;
};

/* Starts argv; *error: errno of a failed exec, through a pipe that a successful one closes. */
static pid_t start(char *const argv[], const struct before *before, int *error)
{
	int pipe_fds[2];
	ssize_t n;
	pid_t pid;

	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return -1;
	pid = fork();
	if (pid == 0) {
		sigaction(SIGCHLD, &before->child, NULL);
		sigprocmask(SIG_SETMASK, &before->mask, NULL);
		execvp(argv[0], argv);
		*error = errno;
		n = write(pipe_fds[1], error, sizeof(*error));
		_exit(n < 0 ? 1 : 0);
	}
	close(pipe_fds[1]);
	if (pid > 0) {
		do
			n = read(pipe_fds[0], error, sizeof(*error));
		while (n < 0 && errno == EINTR);
		if (n != (ssize_t)sizeof(*error))
			*error = 0;
	}
	close(pipe_fds[0]);
	return pid;
}

/*
 * Did the terminal send it, to the whole group, the command included? A hangup is sent to the
 * leader of the session alone.
 */
static int command_has_it(const siginfo_t *info)
{
	switch (info->si_code > 0 ? info->si_signo : 0) {
	case SIGINT:
	case SIGQUIT:
	case SIGTSTP:
	case SIGTTIN:
	case SIGTTOU:
	case SIGWINCH:
		return 1;
	case SIGHUP:
	case SIGCONT:
		return getsid(0) != getpid();
	default:
		return 0;
	}
}

static void pass_on(pid_t command, const siginfo_t *info)
{
	if (command_has_it(info))
		return;
	if (info->si_code == SI_QUEUE)
		sigqueue(command, info->si_signo, info->si_value);
	else
		kill(command, info->si_signo);
}

static int exit_status(int status)
{
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* Are we the job that a shell runs in the foreground of a terminal? */
static int in_foreground(void)
{
	int fd = open("/dev/tty", O_RDONLY | O_NOCTTY | O_CLOEXEC);
	int yes = fd >= 0 && tcgetpgrp(fd) == getpgrp();

	if (fd >= 0)
		close(fd);
	return yes;
}

/*
 * Stops us by the same signal, so that the shell shows what it would show of the command alone. The
 * kernel ignores SIGTSTP and its like in a group that no shell watches over: then by SIGSTOP.
 */
static void stop_by(int signo)
{
	struct sigaction usual = { .sa_handler = SIG_DFL }, before;
	sigset_t one;

	if (signo == SIGTSTP || signo == SIGTTIN || signo == SIGTTOU) {
		sigemptyset(&one);
		sigaddset(&one, signo);
		sigaction(signo, &usual, &before);
		raise(signo);
		sigprocmask(SIG_UNBLOCK, &one, NULL); /* here we stop */
		sigprocmask(SIG_BLOCK, &one, NULL);
		sigaction(signo, &before, NULL);
		sigpending(&one);
		if (sigismember(&one, SIGCONT)) /* we did, and were continued */
			return;
	}
	raise(SIGSTOP);
}

/*
 * The command has stopped. A stop by job control is ours as well. SIGSTOP may also be a tool that
 * holds the command alone and will continue it alone: then nobody would ever continue us.
 */
static void follow_stop(pid_t command, int signo)
{
	static const struct timespec now;
	sigset_t cont;
	int news;

	if (signo == SIGSTOP && !in_foreground())
		return;
	stop_by(signo);
	/* Continued, by the shell's fg or by a signal, which the command may have got itself. */
	sigemptyset(&cont);
	sigaddset(&cont, SIGCONT);
	sigtimedwait(&cont, NULL, &now);
	if (waitpid(command, &news, WNOHANG | WCONTINUED) != command || !WIFCONTINUED(news))
		kill(command, SIGCONT);
}

/* Takes all news of children (orphans too, as pid 1). 1: the command has ended, *status is its. */
static int reap(pid_t command, int *status)
{
	pid_t pid;
	int news;

	while ((pid = waitpid(-1, &news, WNOHANG | WUNTRACED)) > 0) {
		if (pid != command)
			continue;
		if (WIFSTOPPED(news)) {
			follow_stop(command, WSTOPSIG(news));
			continue;
		}
		*status = news;
		return 1;
	}
	return 0;
}

/* Until something is to be looked at. */
static struct timespec next_look(const char *on_threshold)
{
	uint64_t ns = watch_ns();

	if (on_threshold && ns > 1000000000)
		ns = 1000000000;
	return (struct timespec){ .tv_sec = (time_t)(ns / 1000000000),
				  .tv_nsec = (long)(ns % 1000000000) };
}

int supervise(char *const argv[], const char *on_threshold)
{
	struct sigaction usual = { .sa_handler = SIG_DFL };
	struct before before;
	sigset_t all;
	siginfo_t info;
	int error = 0, status = 0;
	pid_t command;

	/* Signals are taken one by one below; a default SIGCHLD, or children could not be waited
	 * for. */
	sigaction(SIGCHLD, &usual, &before.child);
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &before.mask);
	command = start(argv, &before, &error);
	if (command < 0) {
		complain("cannot start %s: %s", argv[0], strerror(errno));
		return EXIT_OWN_FAILURE;
	}
	if (error) {
		waitpid(command, &status, 0);
		complain("%s: %s", argv[0], strerror(error));
		return error == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
	}
	for (;;) {
		struct timespec wait = next_look(on_threshold);
		int signo = sigtimedwait(&all, &info, &wait);

		if (on_threshold)
			pressure_look(on_threshold, command);
		if (signo < 0) {
			watch_look(command);
			continue;
		}
		if (signo == SIGCHLD) {
			if (reap(command, &status)) {
				watch_end(command, status);
				return exit_status(status);
			}
		} else {
			pass_on(command, &info);
		}
	}
}
