/*
 * Much allocation whose totals are known. Arguments: how, blocks kept, allocations.
 *   plain    keeps blocks, allocates and frees (and resizes) others, frees the kept ones but for a tenth
 *   threads  the same in 4 threads, each with a quarter; kept blocks are freed by the next thread
 *   fork     keeps blocks, forks: the child frees half of them and allocates, the parent waits
 *   maps     as plain, and as many mappings come and go before the kept blocks are freed
 * Prints "truth allocations= frees= bytes= live_blocks= live_bytes=" of its own process, in `fork`
 * also "child inherited_freed=".
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define RING 256

struct part {
	void **kept;
	long count, traffic, next_free;
	long allocations, frees, bytes, live_bytes;
	struct part *other;
};

static pthread_barrier_t gate;
static int with_maps;

static size_t size_of(long i)
{
	return 16 + (size_t)(i * 7919 % 1000) + (i % 500 == 0 ? 100000 : 0);
}

static void keep(struct part *p)
{
	for (long i = 0; i < p->count; i++) {
		p->kept[i] = malloc(size_of(i));
		p->allocations++;
		p->bytes += (long)size_of(i);
		p->live_bytes += (long)size_of(i);
	}
}

static void churn(struct part *p)
{
	void *ring[RING] = { 0 };
	size_t had[RING] = { 0 };

	for (long i = 0; i < p->traffic; i++) {
		long k = i % RING;
		size_t size = size_of(i);

		p->frees += ring[k] != NULL;
		if (i % 7 == 0) {
			ring[k] = realloc(ring[k], size);
		} else {
			free(ring[k]);
			ring[k] = i % 5 ? malloc(size) : calloc(1, size);
		}
		had[k] = size;
		p->allocations++;
		p->bytes += (long)size;
	}
	for (long k = 0; k < RING; k++) {
		p->frees += ring[k] != NULL && had[k];
		free(ring[k]);
	}
}

static void drop(struct part *p)
{
	for (long i = 0; i < p->count; i++)
		if (i % 10) {
			free(p->kept[i]);
			p->frees++;
			p->live_bytes -= (long)size_of(i);
		}
}

/* Mappings are always recorded: they can fill any trace. */
static void map_and_unmap(long count)
{
	for (long i = 0; i < count; i++)
		munmap(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 4096);
}

static void *work(void *arg)
{
	struct part *p = arg;

	keep(p);
	churn(p);
	if (with_maps)
		map_and_unmap(p->traffic);
	pthread_barrier_wait(&gate);
	drop(p->other);
	return NULL;
}

static void fork_and_free(struct part *p)
{
	pid_t pid;
	long freed = 0;

	keep(p);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		for (long i = 0; i < p->count; i += 2, freed++)
			free(p->kept[i]);
		churn(p);
		printf("child inherited_freed=%ld\n", freed);
		fflush(stdout);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
}

int main(int argc, char **argv)
{
	static struct part parts[4];
	struct part all = { 0 };
	int count = argc > 1 && !strcmp(argv[1], "threads") ? 4 : 1;
	pthread_t threads[4];

	if (argc < 4)
		return 2;
	with_maps = !strcmp(argv[1], "maps");
	pthread_barrier_init(&gate, NULL, (unsigned int)count);
	for (int i = 0; i < count; i++) {
		parts[i].count = atol(argv[2]) / count;
		parts[i].traffic = atol(argv[3]) / count;
		parts[i].kept = calloc((size_t)parts[i].count, sizeof(void *));
		parts[i].other = &parts[(i + 1) % count];
	}
	if (!strcmp(argv[1], "fork"))
		fork_and_free(&parts[0]);
	else
		for (int i = 0; i < count; i++)
			pthread_create(&threads[i], NULL, work, &parts[i]);
	for (int i = 0; i < count && strcmp(argv[1], "fork") != 0; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < count; i++) {
		all.allocations += parts[i].allocations;
		all.frees += parts[i].frees;
		all.bytes += parts[i].bytes;
		all.live_bytes += parts[i].live_bytes;
	}
	printf("truth allocations=%ld frees=%ld bytes=%ld live_blocks=%ld live_bytes=%ld\n",
	       all.allocations, all.frees, all.bytes, all.allocations - all.frees, all.live_bytes);
	return 0;
}
