/*
 * Threads that allocate, resize and free. Arguments: how, threads, operations per thread.
 *   own      every thread frees its own blocks
 *   cross    blocks go through a common pool of slots: whoever meets one frees or resizes it; few
 *            sizes and few slots, so that addresses come back at once, in other threads
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <pthread.h>

#include "truth.h"

#define SLOTS 64

struct slot {
	void *block;
	size_t size;
};

static struct slot pool[SLOTS];
static pthread_mutex_t locks[SLOTS];
static pthread_barrier_t gate;
static long operations;
static int is_cross;

static void step(struct slot *s, uint32_t *seed)
{
	uint32_t dice = truth_random(seed);
	size_t size = is_cross ? 24 + 16 * (dice >> 8) % 64 : (dice >> 8) % 3000;

	if (!s->block) {
		s->block = truth_malloc(size);
		s->size = size;
	} else if (dice % 4 == 0) {
		size += !size; /* realloc(p, 0) would free */
		s->block = truth_realloc(s->block, s->size, size);
		s->size = size;
	} else {
		truth_free(s->block, s->size);
		s->block = NULL;
	}
}

/* A block leaves its slot before it is freed: the free itself runs beside everybody else. */
static void cross_step(uint32_t *seed)
{
	uint32_t i = truth_random(seed) % SLOTS;
	struct slot mine;

	pthread_mutex_lock(&locks[i]);
	mine = pool[i];
	pool[i].block = NULL;
	pthread_mutex_unlock(&locks[i]);
	step(&mine, seed);
	if (!mine.block)
		return;
	pthread_mutex_lock(&locks[i]);
	if (!pool[i].block) {
		pool[i] = mine;
		mine.block = NULL;
	}
	pthread_mutex_unlock(&locks[i]);
	truth_free(mine.block, mine.size);
}

static void *worker(void *arg)
{
	uint32_t seed = (uint32_t)(uintptr_t)arg * 7919 + 1;
	struct slot own[SLOTS];

	memset(own, 0, sizeof(own));
	pthread_barrier_wait(&gate); /* the window is open */
	pthread_barrier_wait(&gate);
	for (long i = 0; i < operations; i++) {
		if (is_cross)
			cross_step(&seed);
		else
			step(&own[truth_random(&seed) % SLOTS], &seed);
	}
	pthread_barrier_wait(&gate);
	pthread_barrier_wait(&gate); /* and closed */
	return NULL;
}

int main(int argc, char **argv)
{
	long threads = truth_argument(argc, argv, 2, 4);
	pthread_t ids[64];

	is_cross = argc > 1 && !strcmp(argv[1], "cross");
	operations = truth_argument(argc, argv, 3, 20000);
	if (threads > 64)
		return 2;
	for (int i = 0; i < SLOTS; i++)
		pthread_mutex_init(&locks[i], NULL);
	pthread_barrier_init(&gate, NULL, (unsigned int)threads + 1);
	for (long i = 0; i < threads; i++)
		if (pthread_create(&ids[i], NULL, worker, (void *)i))
			return 3;
	pthread_barrier_wait(&gate);
	truth_begin();
	pthread_barrier_wait(&gate);
	pthread_barrier_wait(&gate);
	truth_end();
	pthread_barrier_wait(&gate);
	for (long i = 0; i < threads; i++)
		pthread_join(ids[i], NULL);
	return 0;
}
