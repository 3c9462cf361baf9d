/*
 * What a walk over the pages of a process costs it, and how long it makes an mmap of another thread
 * wait.
 *
 *	walks MIB SECONDS        prints one JSON line, times in ns
 *
 * One thread fills MIB of memory, forks a child that makes one event and waits (so that walks are made), writes to
 * a few of the pages (so that there is something to look for) and makes events for the walks to
 * happen on; the other one times mmap, touch and munmap of a page: all of them, and those beside an
 * event that took a walk's time. The trace tells how much CPU time each walk took (SCAN_END). At the
 * end the program reads its own pagemap and does nothing with it: less no walk can cost.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bare.h"

#define MAX_TIMES 4000000
#define MAX_EVENTS 200000
#define PAUSE_NS 20000
#define WALK_NS 1000000 /* an event that took longer had a walk in it, or was preempted */

struct timed {
	uint32_t ns;
	uint32_t event; /* that was under way; 0: none */
};

static struct timed *times;
static size_t count;
static volatile uint32_t event; /* the one under way; 0: none */
static uint32_t took[MAX_EVENTS]; /* ns */
static volatile int over;
static void *volatile event_of_child;

static uint64_t now(void)
{
	return clock_ns(CLOCK_MONOTONIC);
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
		uint32_t before = event;
		uint64_t begin = now();
		/* Not through libc: else it would be this thread that makes a walk. */
		long p = syscall(SYS_mmap, NULL, 4096, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (p == -1)
			break;
		*(char *)p = 1;
		syscall(SYS_munmap, p, 4096);
		times[count].ns = (uint32_t)(now() - begin);
		times[count++].event = before ? before : event;
		rest(PAUSE_NS);
	}
	return NULL;
}

static int by_value(const void *a, const void *b)
{
	const struct timed *x = a, *y = b;

	return x->ns < y->ns ? -1 : x->ns > y->ns;
}

static uint32_t at(size_t n, double share)
{
	size_t i = (size_t)((double)n * share);

	return n ? times[i < n ? i : n - 1].ns : 0;
}

static void print_times(const char *what, size_t n)
{
	qsort(times, n, sizeof(*times), by_value);
	printf("\"%s\": {\"n\": %zu, \"p50\": %u, \"p99\": %u, \"p999\": %u, \"max\": %u}", what, n,
	       at(n, 0.5), at(n, 0.99), at(n, 0.999), at(n, 1));
}

/* Those beside a walk come first. How many they are. */
static size_t sort_out(void)
{
	size_t n = 0;

	for (size_t i = 0; i < count; i++)
		if (times[i].event && took[times[i].event] > WALK_NS) {
			struct timed t = times[n];

			times[n++] = times[i];
			times[i] = t;
		}
	return n;
}

static void make_events(char *data, size_t bytes, uint64_t end)
{
	void *volatile kept;

	for (uint32_t i = 1; now() < end && i < MAX_EVENTS; i++) {
		uint64_t begin = now();

		event = i;
		kept = malloc(100);
		free(kept);
		event = 0;
		took[i] = (uint32_t)(now() - begin);
		data[i * 7 * 4096ul % bytes]++;
		rest(1000000);
	}
}

int main(int argc, char **argv)
{
	size_t bytes = (size_t)(argc > 1 ? atol(argv[1]) : 1024) << 20, beside;
	uint64_t end = now() + (uint64_t)((argc > 2 ? atof(argv[2]) : 5) * 1e9);
	char *data = malloc(bytes);
	struct sched_param first = { .sched_priority = 1 };
	pthread_t thread;
	pid_t child;
	int is_first;

	times = malloc(MAX_TIMES * sizeof(*times));
	if (!data || !times)
		return 1;
	madvise(data, bytes, MADV_NOHUGEPAGE);
	memset(data, 1, bytes);
	child = fork();
	if (child == 0) {
		event_of_child = malloc(100); /* for its baseline to be taken */
		for (;;)
			pause();
	}
	is_first = sched_setscheduler(0, SCHED_FIFO, &first) == 0;
	prctl(PR_SET_TIMERSLACK, 1);
	if (pthread_create(&thread, NULL, mapper, NULL))
		return 1;
	make_events(data, bytes, end);
	over = 1;
	pthread_join(thread, NULL);
	beside = sort_out();
	printf("{\"bytes\": %zu, \"ahead\": %d, \"bare_ns\": %llu, ", bytes, is_first,
	       (unsigned long long)bare_read(data, bytes));
	print_times("walks", beside);
	printf(", ");
	print_times("all", count);
	printf("}\n");
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	return 0;
}
