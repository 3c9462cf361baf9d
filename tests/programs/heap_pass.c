/*
 * Two threads that hand blocks to each other as fast as cores can: one allocates, the other frees at
 * the very moment it sees the block, and the allocator gives the address out again. The hardest case
 * for the order of records of different threads. Arguments: blocks.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <pthread.h>

#include "truth.h"

#define BOXES 4
#define SIZE 72

static void *volatile boxes[2][BOXES];
static pthread_barrier_t gate;
static long blocks;

/* Puts into its own boxes, and frees what lies in the other's. */
static void *worker(void *arg)
{
	long me = (long)arg, put = 0, taken = 0;

	pthread_barrier_wait(&gate); /* the window is open */
	pthread_barrier_wait(&gate);
	for (unsigned long spins = 0; put < blocks || taken < blocks; spins++) {
		void *volatile *own = &boxes[me][put % BOXES];
		void *volatile *other = &boxes[!me][taken % BOXES];
		void *p;

		if (put < blocks && !*own) {
			__atomic_store_n(own, truth_malloc(SIZE), __ATOMIC_RELEASE);
			put++;
		}
		p = taken < blocks ? __atomic_load_n(other, __ATOMIC_ACQUIRE) : NULL;
		if (p) {
			free(truth_keep(p)); /* at once: what is counted comes after */
			truth_freed(SIZE);
			*other = NULL;
			taken++;
		}
	}
	pthread_barrier_wait(&gate);
	pthread_barrier_wait(&gate); /* and closed */
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t ids[2];

	blocks = truth_argument(argc, argv, 1, 100000);
	pthread_barrier_init(&gate, NULL, 3);
	for (long i = 0; i < 2; i++)
		if (pthread_create(&ids[i], NULL, worker, (void *)i))
			return 3;
	pthread_barrier_wait(&gate);
	truth_begin();
	pthread_barrier_wait(&gate);
	pthread_barrier_wait(&gate);
	truth_end();
	pthread_barrier_wait(&gate);
	for (long i = 0; i < 2; i++)
		pthread_join(ids[i], NULL);
	return 0;
}
