/*
 * Cost of one malloc/free pair at a given native depth, in a given number of threads.
 *
 *	pairs DEPTH THREADS PAIRS      prints "ns_per_pair cpu_ns_per_pair"
 *
 * ns_per_pair is wall time over the pairs of one thread: with perfect scaling it does not change
 * with the number of threads. Every thread keeps 64 blocks alive and replaces them at random.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { KEPT = 64 };

static long pairs;
static int depth;

static void churn(void)
{
	void *kept[KEPT] = { 0 };
	unsigned int seed = 12345;

	for (long i = 0; i < pairs; i++) {
		unsigned int slot;

		seed = seed * 1103515245 + 12345;
		slot = seed >> 16 & (KEPT - 1);
		free(kept[slot]);
		kept[slot] = malloc(16 + (seed >> 20) % 500);
	}
	for (int i = 0; i < KEPT; i++)
		free(kept[i]);
}

/* Not a tail call, and not inlined: each level is a frame of its own. */
__attribute__((noinline)) static int descend(int levels)
{
	int result;

	if (levels <= 0) {
		churn();
		return 0;
	}
	result = descend(levels - 1);
	__asm__ volatile("" ::: "memory");
	return result + 1;
}

static void *thread_main(void *unused)
{
	descend(depth - 3); /* churn, thread_main and its caller are frames as well */
	return unused;
}

static double now(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

int main(int argc, char **argv)
{
	pthread_t threads[64];
	int count;
	double wall, cpu;

	if (argc != 4) {
		fprintf(stderr, "usage: pairs DEPTH THREADS PAIRS\n");
		return 2;
	}
	depth = atoi(argv[1]);
	count = atoi(argv[2]);
	pairs = atol(argv[3]);
	if (count < 1 || count > 64 || pairs < 1)
		return 2;
	wall = now(CLOCK_MONOTONIC);
	cpu = now(CLOCK_PROCESS_CPUTIME_ID);
	for (int i = 0; i < count; i++)
		pthread_create(&threads[i], NULL, thread_main, NULL);
	for (int i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	wall = now(CLOCK_MONOTONIC) - wall;
	cpu = now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	printf("%.2f %.2f\n", wall / (double)pairs, cpu / (double)pairs / count);
	return 0;
}
