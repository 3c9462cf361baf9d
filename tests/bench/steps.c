/*
 * Counts the instructions that another program executes from a line it reads to the line it answers, by
 * letting it do one at a time: for machines whose counters of instructions can't be used. Its first
 * thread only; a repeated string instruction counts once for each time.
 *
 *	steps PID LINE     standard output is what PID reads from, standard input what it writes to;
 *	                   the count goes to standard error
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

static int stopped(pid_t pid)
{
	int status;

	return waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status);
}

/* Both on one processor: a step is then a switch between two threads, and wakes no other processor. */
static void share_processor(pid_t pid)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	sched_setaffinity(0, sizeof(one), &one);
	sched_setaffinity(pid, sizeof(one), &one);
}

static int fail(const char *what)
{
	perror(what);
	return 1;
}

int main(int argc, char **argv)
{
	struct pollfd answer = { .fd = STDIN_FILENO, .events = POLLIN };
	pid_t pid = argc == 3 ? (pid_t)atol(argv[1]) : 0;
	char text[4096];
	cpu_set_t allowed;
	long count = 0;

	if (pid <= 0) {
		fprintf(stderr, "usage: steps PID LINE\n");
		return 2;
	}
	/* Stopped while it waits for a line, in a system call that it begins anew. */
	if (ptrace(PTRACE_SEIZE, pid, NULL, NULL) < 0 ||
	    ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) < 0 || !stopped(pid))
		return fail("steps: seize");
	sched_getaffinity(pid, sizeof(allowed), &allowed);
	share_processor(pid);
	if (write(STDOUT_FILENO, argv[2], strlen(argv[2])) < 0 ||
	    write(STDOUT_FILENO, "\n", 1) != 1)
		return fail("steps: write");
	for (; poll(&answer, 1, 0) == 0; count++)
		if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) < 0 || !stopped(pid))
			return fail("steps: step");
	sched_setaffinity(pid, sizeof(allowed), &allowed);
	if (ptrace(PTRACE_DETACH, pid, NULL, NULL) < 0)
		return fail("steps: detach");
	if (read(STDIN_FILENO, text, sizeof(text)) <= 0)
		return fail("steps: read");
	fprintf(stderr, "%ld\n", count);
	return 0;
}
