/*
 * What a walk over the pages of a process costs it, and how long it makes an mmap of another thread
 * wait.
 *
 *	walks MIB SECONDS        prints one JSON line: mmap+munmap pairs, and their ns at p50 ... max
 *
 * One thread fills MIB of memory, forks a child that only waits (so that walks are made), and makes
 * events for the walks to happen on; the other one times mmap, touch and munmap of a page. The
 * trace tells how much CPU time each walk took (SCAN_END).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_TIMES 4000000
#define PAUSE_NS 100000

static uint32_t *times; /* ns */
static size_t count;
static volatile int over;

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void rest(long ns)
{
	struct timespec t = { 0, ns };

	nanosleep(&t, NULL);
}

static void *mapper(void *unused)
{
	(void)unused;
	while (!over && count < MAX_TIMES) {
		uint64_t begin = now();
		/* Not through libc: else it would be this thread that makes a walk. */
		long p = syscall(SYS_mmap, NULL, 4096, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (p == -1)
			break;
		*(char *)p = 1;
		syscall(SYS_munmap, p, 4096);
		times[count++] = (uint32_t)(now() - begin);
		rest(PAUSE_NS);
	}
	return NULL;
}

static int by_value(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static uint32_t at(double share)
{
	size_t i = (size_t)((double)count * share);

	return count ? times[i < count ? i : count - 1] : 0;
}

int main(int argc, char **argv)
{
	size_t bytes = (size_t)(argc > 1 ? atol(argv[1]) : 1024) << 20;
	uint64_t end = now() + (uint64_t)((argc > 2 ? atof(argv[2]) : 5) * 1e9);
	char *data = malloc(bytes);
	void *volatile kept;
	pthread_t thread;
	pid_t child;

	times = calloc(MAX_TIMES, sizeof(*times));
	if (!data || !times)
		return 1;
	madvise(data, bytes, MADV_NOHUGEPAGE);
	memset(data, 1, bytes);
	child = fork();
	if (child == 0)
		for (;;)
			pause();
	if (pthread_create(&thread, NULL, mapper, NULL))
		return 1;
	while (now() < end) {
		kept = malloc(100);
		free(kept);
		rest(1000000);
	}
	over = 1;
	pthread_join(thread, NULL);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	qsort(times, count, sizeof(*times), by_value);
	printf("{\"pairs\": %zu, \"p50\": %u, \"p99\": %u, \"p999\": %u, \"max\": %u}\n", count,
	       at(0.5), at(0.99), at(0.999), at(1));
	return 0;
}
