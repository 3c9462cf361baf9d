/*
 * Bursts of short-lived blocks on top of memory that stays and slowly grows: peaks that are made of
 * blocks no record lists. Counts its own peak and prints "peak bytes=N". Arguments: bursts (200),
 * blocks of a burst (300), threads that do the same (1).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <pthread.h>

#include "truth.h"

#define MOST 4096

static long bursts, blocks, now_bytes, peak_bytes;

/* Threads take turns: the sum is exact, and so is its peak. */
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

static void count(long bytes)
{
	now_bytes += bytes;
	if (now_bytes > peak_bytes)
		peak_bytes = now_bytes;
}

static void burst(long number)
{
	void *held[MOST];

	for (long i = 0; i < blocks; i++) {
		held[i] = truth_keep(malloc((size_t)(1000 + number)));
		count(1000 + number);
	}
	for (long i = 0; i < blocks; i++) {
		free(held[(i * 7) % blocks]);
		count(-(1000 + number));
	}
}

static void *work(void *unused)
{
	(void)unused;
	for (long i = 0; i < bursts; i++) {
		pthread_mutex_lock(&turn);
		burst(i % 50);
		truth_keep(malloc(2000)); /* stays */
		count(2000);
		pthread_mutex_unlock(&turn);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	long threads;
	pthread_t ids[16];
	char line[64];

	bursts = truth_argument(argc, argv, 1, 200);
	blocks = truth_argument(argc, argv, 2, 300); /* not a multiple of 7 */
	threads = truth_argument(argc, argv, 3, 1);
	for (long i = 1; i < threads && i < 16; i++)
		if (pthread_create(&ids[i], NULL, work, NULL))
			return 9;
	work(NULL);
	for (long i = 1; i < threads && i < 16; i++)
		pthread_join(ids[i], NULL);
	return write(1, line, (size_t)snprintf(line, sizeof(line), "peak bytes=%ld\n",
					       peak_bytes)) < 0;
}
