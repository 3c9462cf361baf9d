/*
 * A process and forked children that share a region and write to parts of it, the parent too. Then
 * all children stand still, and the parent makes events, so that it walks its own pages and theirs.
 * As root it prints what is true: how much physical memory they hold more than once in the mappings
 * they share, counted by page frames. Arguments: children, MiB.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE ((size_t)4096)
#define MAX_CHILDREN 16

static unsigned int seed = 12345;
static void *volatile kept;

static int chance(unsigned int percent)
{
	seed = seed * 1103515245u + 12345u;
	return (seed >> 16) % 100 < percent;
}

static void rest(long ms)
{
	struct timespec t = { ms / 1000, ms % 1000 * 1000000 };

	nanosleep(&t, NULL);
}

/* The frames of the region's pages as a process maps them; 0: none, or we may not know. */
static void frames(pid_t pid, const char *region, size_t pages, uint64_t *out)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)pid);
	fd = open(path, O_RDONLY);
	if (fd < 0 || pread(fd, out, pages * 8, (off_t)((uintptr_t)region / PAGE * 8)) !=
			      (ssize_t)(pages * 8))
		memset(out, 0, pages * 8);
	for (size_t i = 0; i < pages; i++)
		out[i] = out[i] >> 63 ? out[i] & ((UINT64_C(1) << 55) - 1) : 0;
	if (fd >= 0)
		close(fd);
}

static int by_value(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

int main(int argc, char **argv)
{
	int children = argc > 1 ? atoi(argv[1]) : 2;
	size_t pages = (size_t)(argc > 2 ? atoi(argv[2]) : 16) * 256, extra = 0;
	char *region = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			    -1, 0);
	uint64_t *of[MAX_CHILDREN + 1];
	pid_t pids[MAX_CHILDREN + 1];
	int done[2]; /* a byte by each child that has written */
	char byte = 0;

	if (pipe(done) < 0 || children > MAX_CHILDREN || region == MAP_FAILED)
		return 2;
	madvise(region, pages * PAGE, MADV_NOHUGEPAGE);
	memset(region, 1, pages * PAGE);
	for (int c = 0; c < children; c++) {
		pids[c] = fork();
		if (pids[c] == 0) {
			kept = malloc(10); /* known to the trace from here on */
			seed = (unsigned int)c * 77 + 1;
			for (size_t i = 0; i < pages; i++)
				if (chance(30))
					region[i * PAGE]++;
			if (write(done[1], &byte, 1) != 1)
				_exit(1);
			for (;;)
				pause();
		}
	}
	for (size_t i = 0; i < pages; i++)
		if (chance(20))
			region[i * PAGE]++;
	pids[children] = getpid();
	for (int c = 0; c < children; c++)
		read(done[0], &byte, 1) == 1 ? (void)0 : abort();
	for (int i = 0; i < 60; i++) {
		kept = malloc(1 << 20);
		free(kept);
		rest(20);
	}
	for (int c = 0; c <= children; c++) {
		of[c] = malloc(pages * 8);
		frames(pids[c], region, pages, of[c]);
	}
	for (size_t i = 0; i < pages; i++) {
		uint64_t one[MAX_CHILDREN + 1];

		for (int c = 0; c <= children; c++)
			one[c] = of[c][i];
		qsort(one, (size_t)children + 1, sizeof(*one), by_value);
		for (int c = 1; c <= children; c++)
			extra += one[c] != one[c - 1];
	}
	printf("family children=%d extra=%zu known=%d\n", children, extra * PAGE, of[0][0] != 0);
	for (int c = 0; c < children; c++) {
		kill(pids[c], SIGKILL);
		waitpid(pids[c], NULL, 0);
	}
	return 0;
}
