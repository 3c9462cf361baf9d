/*
 * A tree of forked processes: each allocates, frees some blocks it inherited, forks, and leaves by
 * _exit with blocks alive. Arguments: levels below the root (3), children of each (2), blocks (50).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <sys/wait.h>

#include "truth.h"

#define MAX_LEVELS 8
#define MAX_BLOCKS 1000

static void *blocks[MAX_LEVELS][MAX_BLOCKS]; /* by the level of the process that made them */
static long levels, children, count;

static size_t size_of(long level, long i)
{
	return (size_t)(level * 1000 + i * 3 + 1);
}

/* Its own allocations, and some frees of what its ancestors left. */
static void work(long level)
{
	truth_begin();
	for (long i = 0; i < count; i++)
		blocks[level][i] = truth_malloc(size_of(level, i));
	for (long i = 0; i < count; i += 4) { /* every fourth dies before any child is made */
		truth_free(blocks[level][i], size_of(level, i));
		blocks[level][i] = NULL;
	}
	for (long up = 0; up < level; up++)
		for (long i = level; i < count; i += 5) {
			if (blocks[up][i])
				truth_free_inherited(blocks[up][i], size_of(up, i));
			blocks[up][i] = NULL;
		}
}

/* What a process does after its children have gone: addresses they had freed are in use here. */
static void more_work(long level)
{
	for (long i = 1; i < count; i += 4) {
		if (blocks[level][i])
			truth_free(blocks[level][i], size_of(level, i));
		blocks[level][i] = truth_malloc(size_of(level, i));
	}
}

static void live(long level)
{
	int status, bad = 0;
	pid_t pids[16];

	work(level);
	for (long c = 0; level < levels && c < children; c++) {
		pids[c] = fork();
		if (pids[c] < 0)
			_exit(9);
		if (pids[c] == 0) {
			live(level + 1);
			_exit(40 + (int)level);
		}
	}
	more_work(level);
	for (long c = 0; level < levels && c < children; c++)
		bad |= waitpid(pids[c], &status, 0) != pids[c] ||
		       WEXITSTATUS(status) != 40 + level;
	truth_end();
	if (bad)
		_exit(8);
}

int main(int argc, char **argv)
{
	levels = truth_argument(argc, argv, 1, 3);
	children = truth_argument(argc, argv, 2, 2);
	count = truth_argument(argc, argv, 3, 50);
	if (levels >= MAX_LEVELS || children > 16 || count > MAX_BLOCKS)
		return 2;
	live(0);
	_exit(7);
}
