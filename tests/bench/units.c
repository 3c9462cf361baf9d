/*
 * A program that does so many units of work as the line it reads says, and prints the CPU time of each:
 * blocks of mixed sizes are taken and given back, some through functions that many libraries call.
 * There are so few that they stay in the nearest cache: what others do to the farther ones is no matter.
 *
 *	units PAIRS
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SLOTS 64

static long cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec * 1000000000 + t.tv_nsec;
}

static void unit(long pairs)
{
	static void *slot[SLOTS];
	unsigned int seed = 1;

	for (long i = 0; i < pairs; i++) {
		unsigned int at = (seed = seed * 1103515245u + 12345u) >> 20 & (SLOTS - 1);

		free(slot[at]);
		slot[at] = i % 16 ? malloc(16 + (seed >> 8) % 500) : strdup("a line of text");
	}
	for (int i = 0; i < SLOTS; i++) {
		free(slot[i]);
		slot[i] = NULL;
	}
}

/* Not by stdio: a thread that waits inside it holds a lock of libc, and is not attached to. */
static int read_number(long *number)
{
	char c;

	*number = 0;
	while (read(STDIN_FILENO, &c, 1) == 1) {
		if (c == '\n')
			return 1;
		*number = *number * 10 + (c - '0');
	}
	return 0;
}

int main(int argc, char **argv)
{
	long pairs = argc > 1 ? atol(argv[1]) : 10000;
	long left;

	printf("ready\n");
	fflush(stdout);
	while (read_number(&left)) {
		for (; left > 0; left--) {
			long begun = cpu_ns();

			unit(pairs);
			printf("%ld ", cpu_ns() - begun);
		}
		printf("\n");
		fflush(stdout);
	}
	return 0;
}
