/*
 * How long single allocations take while the disk is busy.
 *
 *	stalls RATE SECONDS      prints one JSON line: samples, and nanoseconds at p50 ... max
 *
 * Makes RATE malloc/free pairs a second (0: as many as it can) until SECONDS have passed or its
 * standard input ends, times each malloc by the time-stamp counter and keeps a histogram whose
 * buckets are an eighth of a power of two wide. What is printed is a bucket's upper end; `max` is
 * exact. scripts/bench lets another process write and fsync meanwhile.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <x86intrin.h>

enum { KEPT = 256, BATCH = 500, BUCKETS = 64 * 8 };

static uint64_t histogram[BUCKETS], samples, longest;

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int bucket_of(uint64_t ticks)
{
	int power;

	if (ticks < 8)
		return (int)ticks;
	power = 63 - __builtin_clzll(ticks);
	return (power - 2) * 8 + (int)(ticks >> (power - 3) & 7);
}

static uint64_t bucket_end(int bucket)
{
	if (bucket < 8)
		return (uint64_t)bucket + 1;
	return (uint64_t)(8 + bucket % 8 + 1) << (bucket / 8 - 1);
}

static void allocate(void **slot, size_t size)
{
	unsigned int unused;
	uint64_t from, took;
	void *p;

	free(*slot);
	from = __rdtscp(&unused);
	p = malloc(size);
	took = __rdtscp(&unused) - from;
	*slot = p;
	histogram[bucket_of(took)]++;
	samples++;
	if (took > longest)
		longest = took;
}

static double at_share(double share, double ns_per_tick)
{
	uint64_t left = (uint64_t)((1 - share) * (double)samples), above = 0;

	for (int i = BUCKETS - 1; i >= 0; i--) {
		above += histogram[i];
		if (above > left)
			return (double)bucket_end(i) * ns_per_tick;
	}
	return 0;
}

static int input_ended(void)
{
	struct pollfd in = { .fd = 0, .events = POLLIN };

	return poll(&in, 1, 0) > 0;
}

int main(int argc, char **argv)
{
	static void *kept[KEPT];
	double rate, seconds, began, ended, due, ns;
	unsigned int unused, seed = 1;
	uint64_t ticks;

	if (argc != 3) {
		fprintf(stderr, "usage: stalls RATE SECONDS\n");
		return 2;
	}
	rate = atof(argv[1]);
	seconds = atof(argv[2]);
	ticks = __rdtscp(&unused);
	due = began = ended = now();
	while (ended - began < seconds && !input_ended()) {
		for (int i = 0; i < BATCH; i++) {
			seed = seed * 1103515245 + 12345;
			allocate(&kept[seed >> 16 & (KEPT - 1)], 16 + (seed >> 20) % 500);
		}
		ended = now();
		due += rate > 0 ? BATCH / rate : 0;
		if (due < ended - 0.01)
			due = ended; /* what was missed is not made up for */
		if (due > ended)
			nanosleep(&(struct timespec){ .tv_nsec = (long)((due - ended) * 1e9) }, NULL);
	}
	ns = (ended - began) * 1e9 / (double)(__rdtscp(&unused) - ticks);
	printf("{\"samples\": %llu, \"p50\": %.0f, \"p99\": %.0f, \"p9999\": %.0f, \"max\": %.0f}\n",
	       (unsigned long long)samples, at_share(0.5, ns), at_share(0.99, ns),
	       at_share(0.9999, ns), (double)longest * ns);
	return 0;
}
