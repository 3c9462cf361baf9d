/*
 * Blocks of one site and size: many that are freed at once, and one that is held while a child is
 * reaped. Arguments: "reap", or "keep" to leave the child alone until the block is freed.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE 123457
#define TIMES 100000

static void *volatile block;

static __attribute__((noinline)) void take(void)
{
	block = malloc(SIZE);
}

int main(int argc, char **argv)
{
	int reaps = argc > 1 && !strcmp(argv[1], "reap"), go[2];
	char byte;
	pid_t child;

	if (pipe(go) != 0 || (child = fork()) < 0)
		return 2;
	if (child == 0) {
		close(go[1]);
		_exit(read(go[0], &byte, 1) != 0);
	}
	for (int i = 0; i <= TIMES; i++) {
		take();
		if (i == TIMES && reaps) {
			close(go[1]);
			waitpid(child, NULL, 0);
		}
		free(block);
	}
	if (!reaps) {
		close(go[1]);
		waitpid(child, NULL, 0);
	}
	puts("reaped");
	return 0;
}
