/*
 * Children made in every way a C program can: fork, vfork and exec, posix_spawn, system, popen,
 * exec of oneself. Each one that runs this program again as `leaf N` allocates a known amount.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <spawn.h>
#include <sys/wait.h>

#include "truth.h"

static char self[4096];

static int leaf(long n)
{
	truth_begin();
	for (long i = 0; i < n; i++) {
		void *p = truth_malloc((size_t)i + 1);

		if (i % 2)
			truth_free(p, (size_t)i + 1);
	}
	truth_end();
	return (int)(n % 100);
}

static void expect_status(pid_t pid, int want)
{
	int status;

	if (pid <= 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status) ||
	    WEXITSTATUS(status) != want) {
		fprintf(stderr, "child %d: want status %d, got %x\n", (int)pid, want, status);
		_exit(9);
	}
}

static void by_exec(void)
{
	char *const argv[] = { self, (char *)"leaf", (char *)"11", NULL };
	pid_t pid = fork();

	if (!pid) {
		execv(self, argv);
		_exit(127);
	}
	expect_status(pid, 11);
	pid = vfork();
	if (!pid) {
		execl(self, self, "leaf", "12", (char *)NULL);
		_exit(127);
	}
	expect_status(pid, 12);
	pid = vfork(); /* its exec fails, it leaves by _exit in our memory */
	if (!pid) {
		execl("/nonexistent/program", "program", (char *)NULL);
		_exit(77);
	}
	expect_status(pid, 77);
	pid = fork();
	if (!pid) {
		execle(self, self, "leaf", "13", (char *)NULL, environ);
		_exit(127);
	}
	expect_status(pid, 13);
}

static void by_spawn(void)
{
	char *const argv[] = { self, (char *)"leaf", (char *)"14", NULL };
	pid_t pid = 0;

	if (posix_spawn(&pid, self, NULL, NULL, argv, environ))
		_exit(8);
	expect_status(pid, 14);
	if (posix_spawnp(&pid, self, NULL, NULL, argv, environ))
		_exit(8);
	expect_status(pid, 14);
}

static void by_shell(void)
{
	char command[4200], line[512];
	FILE *pipe;
	int status;

	snprintf(command, sizeof(command), "'%s' leaf 15", self);
	status = system(command);
	if (WEXITSTATUS(status) != 15)
		_exit(7);
	snprintf(command, sizeof(command), "'%s' leaf 16", self);
	pipe = popen(command, "r");
	while (pipe && fgets(line, sizeof(line), pipe))
		if (write(1, line, strlen(line)) < 0)
			_exit(6);
	if (!pipe || WEXITSTATUS(pclose(pipe)) != 16)
		_exit(5);
}

int main(int argc, char **argv)
{
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (argc > 2 && !strcmp(argv[1], "leaf"))
		return leaf(truth_argument(argc, argv, 2, 1));
	if (n <= 0)
		return 3;
	by_exec();
	by_spawn();
	by_shell();
	execl(self, self, "leaf", "17", (char *)NULL);
	return 4;
}
