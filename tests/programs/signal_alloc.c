/*
 * A signal handler that maps and unmaps memory, at any moment, also while its thread is inside
 * malloc; and that allocates when it interrupted code of ours. Arguments: rounds.
 * Prints "signals N maps M" and, for what malloc was asked for, the line of truth.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <signal.h>
#include <sys/mman.h>
#include <sys/time.h>

#include "truth.h"

static volatile sig_atomic_t in_malloc, is_open;
static long signals, maps;

static void handler(int number)
{
	void *p;

	(void)number;
	signals++;
	if (!is_open)
		return;
	p = mmap(NULL, 12288, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p != MAP_FAILED) {
		maps++;
		munmap(p, 12288);
	}
	if (!in_malloc)
		truth_free(truth_malloc(555), 555);
}

int main(int argc, char **argv)
{
	long rounds = truth_argument(argc, argv, 1, 300000);
	struct itimerval often = { { 0, 300 }, { 0, 300 } }, never = { { 0, 0 }, { 0, 0 } };
	struct sigaction action;
	uint32_t seed = 5;

	memset(&action, 0, sizeof(action));
	action.sa_handler = handler;
	action.sa_flags = SA_RESTART;
	sigaction(SIGALRM, &action, NULL);
	truth_begin();
	is_open = 1;
	setitimer(ITIMER_REAL, &often, NULL);
	for (long i = 0; i < rounds; i++) {
		size_t size = truth_random(&seed) % 1000;
		void *p;

		in_malloc = 1;
		p = truth_malloc(size);
		in_malloc = 0;
		for (volatile int spin = 0; spin < 30; spin++)
			;
		in_malloc = 1;
		truth_free(p, size);
		in_malloc = 0;
	}
	setitimer(ITIMER_REAL, &never, NULL);
	is_open = 0;
	truth_end();
	printf("signals %ld maps %ld\n", signals, maps);
	return 0;
}
