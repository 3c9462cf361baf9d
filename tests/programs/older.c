/*
 * A program that holds much before anybody attaches to it, in every way that libc's allocator has:
 * the heap that brk moves, arenas of threads, blocks with mappings of their own, one that was never
 * touched; free blocks between those that are in use; and mappings of its own. Prints how much.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define MIB ((size_t)1 << 20)
#define THREADS 3

static size_t held;
static void *volatile kept;
static volatile sig_atomic_t done;

static void on_term(int signo)
{
	(void)signo;
	done = 1;
}

static void keep(void *block, size_t bytes)
{
	memset(block, 1, bytes);
	*(void **)block = kept;
	kept = block;
	__atomic_fetch_add(&held, bytes, __ATOMIC_RELAXED);
}

/* Half of what it takes is given back, every second block. */
static void *hold(void *bytes)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	size_t n = (size_t)bytes / 2000;
	void **all = calloc(2 * n, sizeof(*all));

	for (size_t i = 0; i < 2 * n; i++)
		memset(all[i] = malloc(2000), 1, 2000);
	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < 2 * n; i++)
		if (i % 2)
			keep(all[i], 2000);
		else
			free(all[i]);
	pthread_mutex_unlock(&lock);
	free(all);
	return NULL;
}

static void *hold_and_stay(void *bytes)
{
	hold(bytes);
	while (!done)
		nanosleep(&(struct timespec){ 0, 50000000 }, NULL);
	return NULL;
}

int main(void)
{
	pthread_t threads[THREADS];
	void *untouched;

	signal(SIGTERM, on_term);
	hold((void *)(24 * MIB));
	for (int i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, hold_and_stay, (void *)(12 * MIB)))
			return 1;
	for (int i = 0; i < 12; i++)
		keep(malloc(2 * MIB), 2 * MIB);
	untouched = calloc(1, 40 * MIB);
	while (__atomic_load_n(&held, __ATOMIC_RELAXED) < 83 * MIB)
		nanosleep(&(struct timespec){ 0, 10000000 }, NULL);
	held += 40 * MIB;
	for (int i = 0; i < 4; i++)
		keep(mmap(NULL, 8 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			  0),
		     8 * MIB);
	printf("held bytes=%zu own=%zu\nready\n", held, 32 * MIB);
	fflush(stdout);
	while (!done) {
		free(malloc(100));
		nanosleep(&(struct timespec){ 0, 5000000 }, NULL);
	}
	free(untouched);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	return 37;
}
