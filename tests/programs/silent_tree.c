/*
 * A family that makes no event: children read what they inherited, and have some memory of their own,
 * until they are killed.
 *
 *	silent_tree INHERITED_MIB CHILDREN OWN_MIB SECONDS awake|silent
 *
 * The parent either allocates all the time, or sleeps as well. Prints "member pid=N" of each process,
 * "ready" when all is as it stays, and lives SECONDS from then on.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void rest(void)
{
	struct timespec t = { .tv_nsec = 20000000 };

	nanosleep(&t, NULL);
}

static char *filled(size_t mib)
{
	char *p = malloc(mib << 20);

	if (!p)
		abort();
	memset(p, 1, mib << 20);
	return p;
}

static void child(const char *inherited, size_t bytes, size_t own, int *ready)
{
	volatile char *p = filled(own);
	unsigned int sum = 0;

	__atomic_fetch_add(ready, 1, __ATOMIC_RELEASE);
	for (;;) {
		for (size_t i = 0; i < bytes; i += 4096)
			sum += (unsigned char)inherited[i];
		p[0] = (char)sum;
		rest();
	}
}

int main(int argc, char **argv)
{
	int *ready = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	size_t inherited = argc > 5 ? (size_t)atol(argv[1]) : 0, count = 0;
	pid_t pids[64];
	char *data;

	if (!inherited || ready == MAP_FAILED || atoi(argv[2]) > 64)
		return 2;
	count = (size_t)atoi(argv[2]);
	data = filled(inherited);
	dprintf(1, "member pid=%d\n", (int)getpid());
	for (size_t i = 0; i < count; i++) {
		pids[i] = fork();
		if (!pids[i])
			child(data, inherited << 20, (size_t)atol(argv[3]), ready);
		dprintf(1, "member pid=%d\n", (int)pids[i]);
	}
	while (__atomic_load_n(ready, __ATOMIC_ACQUIRE) < (int)count)
		rest();
	dprintf(1, "ready now=1\n");
	for (int i = 0; i < atoi(argv[4]) * 50; i++) {
		if (!strcmp(argv[5], "awake")) {
			void *volatile p = malloc(100000); /* an event, that is not left out */

			free(p);
		}
		rest();
	}
	for (size_t i = 0; i < count; i++)
		kill(pids[i], SIGKILL);
	while (wait(NULL) > 0)
		;
	return data[0] - 1;
}
