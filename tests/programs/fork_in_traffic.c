/*
 * Forks while threads allocate and pass blocks to each other without a pause. A block says in its
 * first bytes how large it is, so that whoever takes it out of a slot can free it and count it; a
 * child takes out what stood in the slots at the fork: that is what it inherited, block by block.
 * Arguments: threads (4), children (20), rounds of a child (3000).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <pthread.h>
#include <sys/wait.h>

#include "truth.h"

#define SLOTS 512
#define THREADS_MAX 64

struct block {
	size_t size;
	char room[];
};

static struct block *slots[SLOTS];
static int stop;
static long child_rounds;

static struct block *block_new(uint32_t dice)
{
	size_t size = sizeof(struct block) + 8 + dice % 5 * 24;
	struct block *b = truth_malloc(size);

	b->size = size;
	return b;
}

/* Mostly young blocks that die at once; some go into a slot, and whoever was there dies. */
static void step(uint32_t *seed)
{
	uint32_t dice = truth_random(seed);
	struct block *b = block_new(dice >> 4), *old;
	size_t size;

	if (dice % 4) {
		truth_free(b, b->size);
		return;
	}
	if (dice % 32 == 0) {
		size = b->size + 40;
		b = truth_realloc(b, b->size, size);
		b->size = size;
	}
	old = __atomic_exchange_n(&slots[truth_random(seed) % SLOTS], b, __ATOMIC_ACQ_REL);
	if (old)
		truth_free(old, old->size);
}

static void *work(void *arg)
{
	uint32_t seed = (uint32_t)(uintptr_t)arg * 7919;

	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
		step(&seed);
	return NULL;
}

static void child(void)
{
	uint32_t seed = 77;

	truth_begin();
	for (int i = 0; i < SLOTS; i++) {
		if (slots[i])
			truth_free_inherited(slots[i], slots[i]->size);
		slots[i] = NULL;
	}
	for (long i = 0; i < child_rounds; i++)
		step(&seed);
	truth_end();
	_exit(0);
}

int main(int argc, char **argv)
{
	long threads = truth_argument(argc, argv, 1, 4);
	long children = truth_argument(argc, argv, 2, 20);
	pthread_t ids[THREADS_MAX];
	int status;
	pid_t pid;

	child_rounds = truth_argument(argc, argv, 3, 3000);
	truth_begin();
	for (long i = 0; i < threads && i < THREADS_MAX; i++)
		if (pthread_create(&ids[i], NULL, work, (void *)(i + 1)))
			return 9;
	for (long i = 0; i < children; i++) {
		usleep(3000);
		pid = fork();
		if (pid == 0)
			child();
		if (waitpid(pid, &status, 0) != pid || status)
			return 8;
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (long i = 0; i < threads && i < THREADS_MAX; i++)
		pthread_join(ids[i], NULL);
	truth_end();
	return 0;
}
