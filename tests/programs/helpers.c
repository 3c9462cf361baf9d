/*
 * Starts thousands of short-lived helpers. Arguments: how (fork, spawn), how many, program to spawn.
 * A forked helper allocates three blocks and frees one, as the program `tiny` does.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <spawn.h>
#include <sys/wait.h>

#include "truth.h"

int main(int argc, char **argv)
{
	long count = truth_argument(argc, argv, 2, 100);
	int is_fork = argc > 1 && !strcmp(argv[1], "fork"), status;
	char *child[] = { argc > 3 ? argv[3] : (char *)"/bin/true", NULL };

	for (long i = 0; i < count; i++) {
		pid_t pid = is_fork ? fork() : 0;

		if (is_fork && pid == 0) {
			void *p = truth_keep(malloc(1001));

			truth_keep(malloc(1002));
			truth_keep(malloc(1003));
			free(p);
			_exit(0);
		}
		if (!is_fork && posix_spawn(&pid, child[0], NULL, NULL, child, environ))
			return 3;
		if (waitpid(pid, &status, 0) != pid || status)
			return 4;
	}
	return 0;
}
