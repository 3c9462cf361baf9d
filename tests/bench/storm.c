/*
 * A great many short threads, a few at a time: does memory stay flat, and what does one cost?
 *
 *	storm THREADS      prints one JSON line: RSS in KiB after a tenth of them and after all,
 *	                   wall and CPU nanoseconds per thread
 *
 * Every thread allocates 16 blocks and frees them.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { AT_A_TIME = 8, BLOCKS = 16 };

static void *short_life(void *unused)
{
	void *blocks[BLOCKS];

	for (int i = 0; i < BLOCKS; i++)
		blocks[i] = malloc((size_t)i * 24 + 8);
	for (int i = 0; i < BLOCKS; i++)
		free(blocks[i]);
	return unused;
}

static double now(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static long rss_kib(void)
{
	FILE *f = fopen("/proc/self/statm", "r");
	long size, resident = 0;

	if (!f || fscanf(f, "%ld %ld", &size, &resident) != 2)
		resident = 0;
	if (f)
		fclose(f);
	return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

int main(int argc, char **argv)
{
	long total = argc == 2 ? atol(argv[1]) : 0, early = 0;
	double wall = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
	pthread_t ids[AT_A_TIME];

	if (total < 10 * AT_A_TIME) {
		fprintf(stderr, "usage: storm THREADS (at least %d)\n", 10 * AT_A_TIME);
		return 2;
	}
	for (long done = 0; done < total; done += AT_A_TIME) {
		for (int i = 0; i < AT_A_TIME; i++)
			if (pthread_create(&ids[i], NULL, short_life, NULL))
				return 3;
		for (int i = 0; i < AT_A_TIME; i++)
			pthread_join(ids[i], NULL);
		if (!early && done >= total / 10)
			early = rss_kib();
	}
	printf("{\"early\": %ld, \"late\": %ld, \"wall\": %.0f, \"cpu\": %.0f}\n", early, rss_kib(),
	       (now(CLOCK_MONOTONIC) - wall) / (double)total,
	       (now(CLOCK_PROCESS_CPUTIME_ID) - cpu) / (double)total);
	return 0;
}
