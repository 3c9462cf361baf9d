/*
 * Running a command as if we were not there. The driver stays the parent only to be able to pass on
 * signals and the exit status; the recording does not depend on it, so killing the driver leaves
 * the command running and recorded.
 *
 * The command shares our process group: what the terminal sends (^C, ^Z) reaches it directly and is
 * not sent again. What another process sends to us alone is forwarded. When the command stops, we
 * stop, so that the shell's job control sees one job; when we are continued, so is the command.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control.h"

/* Starts argv; *error: errno of a failed exec, through a pipe that a successful one closes. */
static pid_t start(char *const argv[], const sigset_t *mask, int *error)
{
	int pipe_fds[2];
	ssize_t n;
	pid_t pid;

	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return -1;
	pid = fork();
	if (pid == 0) {
		sigprocmask(SIG_SETMASK, mask, NULL);
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

/* Did a process send it to us, rather than the terminal to the whole group? */
static int sent_to_us(const siginfo_t *info)
{
	return info->si_code == SI_USER || info->si_code == SI_QUEUE || info->si_code == SI_TKILL;
}

static int exit_status(int status)
{
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
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
			raise(SIGSTOP);
			/* Continued, by the shell's fg or by a signal: the command goes on too. */
			kill(command, SIGCONT);
			continue;
		}
		*status = news;
		return 1;
	}
	return 0;
}

int supervise(char *const argv[])
{
	sigset_t all, before;
	siginfo_t info;
	int error = 0, status = 0;
	pid_t command;

	/* Signals are taken one by one below; a default SIGCHLD, or children could not be waited for. */
	signal(SIGCHLD, SIG_DFL);
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &before);
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
		int signo = sigwaitinfo(&all, &info);

		if (signo < 0)
			continue;
		if (signo == SIGCHLD) {
			if (reap(command, &status))
				return exit_status(status);
		} else if (signo == SIGCONT || sent_to_us(&info)) {
			kill(command, signo);
		}
	}
}
