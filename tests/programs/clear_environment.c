/*
 * Runs another program (argument) with an empty environment, twice: after fork, and by spawn. The
 * children can't be seen by a preloaded tool; their parent can say so. Then allocates a little.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <spawn.h>
#include <sys/wait.h>

#include "truth.h"

int main(int argc, char **argv)
{
	char *const none[] = { NULL };
	char *child[] = { argc > 1 ? argv[1] : (char *)"/bin/true", NULL };
	int first, second;
	pid_t pid = fork();

	if (pid == 0) {
		execve(child[0], child, none);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &first, 0) != pid)
		return 2;
	if (posix_spawn(&pid, child[0], NULL, NULL, child, none) ||
	    waitpid(pid, &second, 0) != pid)
		return 3;
	truth_begin();
	(void)truth_malloc(1000);
	truth_end();
	return first || second;
}
