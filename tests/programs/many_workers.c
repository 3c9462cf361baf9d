/*
 * many_workers RANKS WORKERS: a launcher starts so many ranks (each an image of its own, with RANK
 * and WORLD_SIZE in its environment), and each forks so many workers, which all live at the same
 * time. Worker w of rank r keeps w + 1 blocks of 1000 + r bytes and ends by _exit.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void *volatile kept;

static void work(int rank, int worker, int ready, int go)
{
	char byte = 0;

	for (int i = 0; i <= worker; i++) {
		kept = malloc((size_t)(1000 + rank));
		if (!kept)
			_exit(1);
	}
	/* All are there before one may go. */
	if (write(ready, &byte, 1) != 1 || read(go, &byte, 1) != 0)
		_exit(1);
	_exit(0);
}

static int reap(int count)
{
	int failed = 0, status;

	while (count--)
		failed |= wait(&status) < 0 || status != 0;
	return failed;
}

static int be_rank(int rank, int workers)
{
	int ready[2], go[2];
	char byte;

	if (pipe(ready) < 0 || pipe(go) < 0)
		return 1;
	for (int w = 0; w < workers; w++) {
		pid_t pid = fork();

		if (pid < 0)
			return 1;
		if (pid == 0) {
			close(go[1]);
			work(rank, w, ready[1], go[0]);
		}
	}
	for (int w = 0; w < workers; w++)
		if (read(ready[0], &byte, 1) != 1)
			return 1;
	close(go[1]);
	return reap(workers);
}

int main(int argc, char **argv)
{
	int ranks = argc > 2 ? atoi(argv[1]) : 0;
	char text[16];

	if (argc > 3)
		return be_rank(atoi(argv[3]), atoi(argv[2]));
	if (ranks < 1)
		return 2;
	snprintf(text, sizeof(text), "%d", ranks);
	setenv("WORLD_SIZE", text, 1);
	for (int r = 0; r < ranks; r++) {
		snprintf(text, sizeof(text), "%d", r);
		setenv("RANK", text, 1);
		if (fork() == 0) {
			execl("/proc/self/exe", argv[0], argv[1], argv[2], text, (char *)NULL);
			_exit(127);
		}
	}
	return reap(ranks);
}
