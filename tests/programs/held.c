/*
 * Leaves its heap in a state, asks a forked child what malloc_trim() gives back of it, and ends.
 *
 *	held loose      many blocks freed, a few kept here and there: whole pages are free
 *	held pinned     a small block kept after every fourth: something lives on each page
 *	held top        large blocks from the heap freed, one small block above them
 *	held threads    threads that freed all they had, with arenas of their own
 *	held arenas     the same as pinned, in threads that still live
 *
 * Prints "trim before=BYTES after=BYTES live=BYTES": resident before and after (smaps_rollup, both
 * in the child), and what the program knows to be alive of its own.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static long live;

static void *keep(size_t size)
{
	void *p = malloc(size);

	memset(p, 1, size);
	__atomic_fetch_add(&live, (long)size, __ATOMIC_RELAXED);
	return p;
}

static void *passing(size_t size)
{
	return memset(malloc(size), 2, size);
}

static void **kept;
static size_t kept_count;

static void note(void *p)
{
	kept[__atomic_fetch_add(&kept_count, 1, __ATOMIC_RELAXED)] = p;
}

static void loose(long count)
{
	void **all = calloc((size_t)count, sizeof(*all));

	for (long i = 0; i < count; i++)
		all[i] = i % 50 ? passing(2000) : keep(2000);
	for (long i = 0; i < count; i++)
		if (i % 50)
			free(all[i]);
		else
			note(all[i]);
	free(all);
}

static void *pin_small(void)
{
	return keep(64);
}

static void pinned(long count)
{
	void **all = calloc((size_t)count, sizeof(*all));

	for (long i = 0; i < count; i++) {
		all[i] = passing(1000);
		if (i % 4 == 3)
			note(pin_small());
	}
	for (long i = 0; i < count; i++)
		free(all[i]);
	free(all);
}

static void *last_on_top(void)
{
	return keep(300);
}

static void top(long count)
{
	void *large[64];

	free(passing(20 << 20)); /* from now on blocks up to this size come from the heap */
	if (count > 64)
		count = 64;
	for (long i = 0; i < count; i++)
		large[i] = passing(4 << 20);
	note(last_on_top());
	for (long i = 0; i < count; i++)
		free(large[i]);
}

static void *freeing_thread(void *arg)
{
	long count = *(long *)arg;
	void **all = calloc((size_t)count, sizeof(*all));

	for (long i = 0; i < count; i++)
		all[i] = passing(3000);
	for (long i = 0; i < count; i += 2)
		free(all[i]);
	for (long i = 1; i < count; i += 2)
		free(all[i]);
	free(all);
	return NULL;
}

static pthread_barrier_t stay, leave;

static void *staying_thread(void *arg)
{
	pinned(*(long *)arg);
	pthread_barrier_wait(&stay);
	pthread_barrier_wait(&leave);
	return NULL;
}

static void in_threads(long count, void *(*body)(void *), int stays)
{
	pthread_t threads[4];

	pthread_barrier_init(&stay, NULL, 5);
	pthread_barrier_init(&leave, NULL, 5);
	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, body, &count);
	if (stays)
		pthread_barrier_wait(&stay);
	else
		for (int i = 0; i < 4; i++)
			pthread_join(threads[i], NULL);
}

static long resident(void)
{
	char line[256];
	long kib = -1;
	FILE *f = fopen("/proc/self/smaps_rollup", "r");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "Rss: %ld", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return kib * 1024;
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "loose";
	long count = argc > 2 ? atol(argv[2]) : 20000, before, after;
	int status;

	kept = calloc((size_t)count * 4 + 16, sizeof(*kept));
	if (!strcmp(mode, "loose"))
		loose(count);
	else if (!strcmp(mode, "pinned"))
		pinned(count);
	else if (!strcmp(mode, "top"))
		top(count);
	else if (!strcmp(mode, "threads"))
		in_threads(count, freeing_thread, 0);
	else
		in_threads(count, staying_thread, 1);
	printf("%s", ""); /* its buffer is there before the child looks */
	fflush(stdout);
	before = resident();
	if (fork() == 0) {
		resident(); /* what being looked at costs is paid before */
		free(malloc(10));
		before = resident();
		malloc_trim(0);
		after = resident();
		printf("trim before=%ld after=%ld live=%ld\n", before, after, live);
		fflush(stdout);
		_exit(0);
	}
	wait(&status);
	return before < 0;
}
