/*
 * Bumps counters in a shared file right after each call returned, for ever: whoever kills it can
 * say which calls had returned by then. Arguments: file, processes, threads of each,
 * rounds of a thread between two rests of a millisecond (0: no rest).
 *
 * The file holds, per thread, { pid, allocations, frees }. Each thread uses a block size of its
 * own, KILL_SIZE + number, so that its records can be told apart. Prints "ready" when all run.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>

#include "truth.h"

#define KILL_SIZE 100000
#define ROOM 256

struct slot {
	long pid, allocations, frees, unused[5];
};

static volatile struct slot *slots;
static long processes, threads, process_number, rest_every;

static void *worker(void *arg)
{
	long number = process_number * threads + (long)arg;
	volatile struct slot *s = &slots[number];
	size_t size = KILL_SIZE + (size_t)number;
	void *held[7] = { NULL };

	s->pid = getpid();
	for (unsigned int i = 0;; i++) {
		unsigned int at = i % 7;

		if (held[at]) {
			free(held[at]);
			s->frees++;
		}
		held[at] = malloc(size);
		s->allocations++;
		if (i % 16 == 0) { /* small and resized ones run along, uncounted */
			void *p = realloc(truth_keep(malloc(i % 500)), 700);

			free(truth_keep(p));
		}
		if (rest_every && i % (unsigned long)rest_every == 0)
			usleep(1000);
	}
	return NULL;
}

static void wait_for_all(void)
{
	for (long i = 0; i < processes * threads; i++)
		while (!slots[i].frees)
			usleep(100);
	if (write(1, "ready\n", 6) != 6)
		_exit(4);
}

int main(int argc, char **argv)
{
	int fd = argc > 1 ? open(argv[1], O_RDWR | O_CREAT | O_TRUNC, 0600) : -1;
	pthread_t id;

	processes = truth_argument(argc, argv, 2, 2);
	threads = truth_argument(argc, argv, 3, 2);
	rest_every = truth_argument(argc, argv, 4, 0);
	if (fd < 0 || processes * threads > ROOM || ftruncate(fd, ROOM * sizeof(*slots)))
		return 2;
	slots = mmap(NULL, ROOM * sizeof(*slots), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (slots == MAP_FAILED)
		return 3;
	for (process_number = processes - 1; process_number > 0; process_number--)
		if (fork() == 0)
			break;
	for (long i = 1; i < threads; i++)
		if (pthread_create(&id, NULL, worker, (void *)i))
			_exit(5);
	if (process_number == 0 && threads > 0) {
		if (pthread_create(&id, NULL, worker, (void *)0))
			_exit(5);
		wait_for_all();
		for (;;)
			pause();
	}
	worker((void *)0);
	return 0;
}
