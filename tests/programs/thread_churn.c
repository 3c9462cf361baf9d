/*
 * Many short threads, a few at a time: each allocates, frees half, ends. The half it leaves is
 * freed by a later thread. Arguments: threads, of which at a time.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <pthread.h>

#include "truth.h"

#define BLOCKS 16
#define MAX_AT_A_TIME 64

struct batch {
	void *left[BLOCKS / 2]; /* of the thread that had this place before */
};

static struct batch batches[MAX_AT_A_TIME];

static void *worker(void *arg)
{
	struct batch *b = arg;
	void *mine[BLOCKS];

	for (int i = 0; i < BLOCKS; i++)
		mine[i] = truth_malloc((size_t)i * 10 + 1);
	for (int i = 0; i < BLOCKS / 2; i++) {
		truth_free(b->left[i], (size_t)i * 10 + 1);
		b->left[i] = mine[i];
		truth_free(mine[i + BLOCKS / 2], (size_t)(i + BLOCKS / 2) * 10 + 1);
	}
	return NULL;
}

/*
 * pthread_create allocates too (272 or more bytes each, a table of thread-local storage). The
 * blocks counted here are smaller: whoever compares leaves out what is larger.
 */
int main(int argc, char **argv)
{
	long total = truth_argument(argc, argv, 1, 500);
	long at_a_time = truth_argument(argc, argv, 2, 8);
	pthread_t ids[MAX_AT_A_TIME];

	if (at_a_time > MAX_AT_A_TIME)
		return 2;
	truth_begin();
	for (long done = 0; done < total; done += at_a_time) {
		for (long i = 0; i < at_a_time; i++)
			if (pthread_create(&ids[i], NULL, worker, &batches[i]))
				return 3;
		for (long i = 0; i < at_a_time; i++)
			pthread_join(ids[i], NULL);
	}
	truth_end();
	return 0;
}
