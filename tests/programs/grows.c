/*
 * A program that grows at one line until it is killed, or holds as much as it was told to.
 *
 *	grows MIB MS      a MiB in four blocks every MS; then it goes on without growing
 *
 * Prints how many MiB it holds, line by line, which is what a test compares a trace with.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BLOCK ((size_t)256 << 10)

static void *volatile chain;

static void rest(long ms)
{
	struct timespec t = { ms / 1000, ms % 1000 * 1000000 };

	nanosleep(&t, NULL);
}

__attribute__((noinline)) static void grow(void)
{
	void **p = malloc(BLOCK); /* LINE: grown */

	if (!p)
		exit(3);
	memset(p, 1, BLOCK);
	*p = chain;
	chain = p;
}

int main(int argc, char **argv)
{
	long most = argc > 1 ? atol(argv[1]) : 1, ms = argc > 2 ? atol(argv[2]) : 1;

	for (long mib = 1; mib <= most; mib++) {
		for (int i = 0; i < 4; i++)
			grow();
		printf("holds mib=%ld\n", mib);
		fflush(stdout);
		rest(ms);
	}
	for (;;) {
		free(malloc(100));
		rest(10);
	}
}
