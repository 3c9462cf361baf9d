/*
 * A forked child that writes to memory it shares, and what it does with SIGTRAP. First argument: how;
 * second: MiB that are shared. Prints "touch pid=..." with what it saw, by the child.
 *
 *   write    write_first() writes to the first quarter, write_second() to the rest
 *   threads  four threads each write a quarter, in write_in_thread()
 *   exec     after writing, the child runs true; then a child of its own writes, too
 *   own      the program has a handler before it forks, and sends itself the signal
 *   later    the child looks at the signal, sets a handler, writes and sends itself the signal
 *   ignored  the child ignores the signal and writes
 *   default  the child sets the default and writes
 *   blocked  the child blocks the signal, writes, and lets it through again
 *   closed   the child closes all descriptors, and writes
 *   raised   the child writes and sends itself the signal, for which it has no handler
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE ((size_t)4096)
#define NOINLINE __attribute__((noinline))

static char *memory;
static size_t bytes;
static volatile int caught, found_default = -1;
static void *volatile kept;

static void catch (int number)
{
	caught += number == SIGTRAP;
}

static NOINLINE void write_first(void)
{
	for (size_t at = 0; at < bytes / 4; at += PAGE)
		memory[at] = 1; /* first */
}

static NOINLINE void write_second(void)
{
	for (size_t at = bytes / 4; at < bytes; at += PAGE)
		memory[at] = 1; /* second */
}

static NOINLINE void *write_in_thread(void *arg)
{
	char *from = memory + bytes / 4 * (size_t)(uintptr_t)arg;

	kept = malloc(64);
	for (size_t at = 0; at < bytes / 4; at += PAGE)
		from[at] = 1; /* thread */
	return NULL;
}

static void write_threads(void)
{
	pthread_t threads[4];

	for (uintptr_t i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, write_in_thread, (void *)i);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
}

static void write_all(void)
{
	write_first();
	write_second();
}

/* Bit of the signal in SigCgt of /proc/self/status: no call that could be noticed. */
static int is_caught(void)
{
	FILE *f = fopen("/proc/self/status", "r");
	char line[256];
	unsigned long long mask = 0;

	while (f && fgets(line, sizeof(line), f))
		sscanf(line, "SigCgt: %llx", &mask);
	if (f)
		fclose(f);
	return (int)(mask >> (SIGTRAP - 1) & 1);
}

static int perf_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	struct dirent *e;
	char target[128];
	int n = 0;

	while (d && (e = readdir(d))) {
		ssize_t length = readlinkat(dirfd(d), e->d_name, target, sizeof(target) - 1);

		target[length < 0 ? 0 : length] = '\0';
		n += strstr(target, "perf_event") != NULL;
	}
	if (d)
		closedir(d);
	return n;
}

static void set(void (*handler)(int))
{
	found_default = signal(SIGTRAP, handler) == SIG_DFL;
}

static void run_true(void)
{
	pid_t pid = fork();
	int status = -1;

	if (!pid) {
		execlp("true", "true", (char *)NULL);
		_exit(9);
	}
	waitpid(pid, &status, 0);
	if (status)
		_exit(8);
	pid = fork();
	if (!pid) {
		kept = malloc(100);
		write_all();
		_exit(0);
	}
	waitpid(pid, &status, 0);
	if (status)
		_exit(7);
}

static void child(const char *how)
{
	sigset_t set_of;

	kept = malloc(100);
	sigemptyset(&set_of);
	sigaddset(&set_of, SIGTRAP);
	printf("touch pid=%d handler=%d perf=%d\n", (int)getpid(), is_caught(), perf_descriptors());
	fflush(stdout);
	if (!strcmp(how, "threads"))
		write_threads();
	else if (!strcmp(how, "later"))
		write_first(), set(catch), write_second(), raise(SIGTRAP);
	else if (!strcmp(how, "ignored"))
		write_first(), set(SIG_IGN), write_second();
	else if (!strcmp(how, "default"))
		write_first(), set(SIG_DFL), write_second();
	else if (!strcmp(how, "blocked"))
		sigprocmask(SIG_BLOCK, &set_of, NULL), write_all(),
			sigprocmask(SIG_UNBLOCK, &set_of, NULL);
	else if (!strcmp(how, "closed"))
		write_first(), close_range(3, ~0u, 0), write_second();
	else
		write_all();
	if (!strcmp(how, "exec"))
		run_true();
	if (!strcmp(how, "own") || !strcmp(how, "raised"))
		raise(SIGTRAP);
	printf("end caught=%d default=%d\n", caught, found_default);
	fflush(stdout);
	_exit(0);
}

int main(int argc, char **argv)
{
	int status = -1;
	pid_t pid;

	if (argc != 3)
		return 2;
	bytes = (size_t)atoi(argv[2]) << 20;
	memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return 2;
	madvise(memory, bytes, MADV_NOHUGEPAGE);
	memset(memory, 1, bytes);
	if (!strcmp(argv[1], "own"))
		signal(SIGTRAP, catch);
	pid = fork();
	if (!pid)
		child(argv[1]);
	waitpid(pid, &status, 0);
	printf("status signal=%d code=%d\n", WIFSIGNALED(status) ? WTERMSIG(status) : 0,
	       WIFEXITED(status) ? WEXITSTATUS(status) : -1);
	return 0;
}
