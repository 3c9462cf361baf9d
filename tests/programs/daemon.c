/*
 * Does what daemons do: forks twice, leaves its session, closes every descriptor, and goes on
 * allocating. Arguments: how to close (loop, range, from), file for the lines of truth.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <fcntl.h>
#include <pthread.h>
#include <sys/wait.h>

#include "truth.h"

static void close_all(const char *how)
{
	if (!strcmp(how, "loop"))
		for (int fd = 0; fd < 70000; fd++)
			close(fd);
	else if (!strcmp(how, "range"))
		close_range(0, ~0U, 0);
	else
		closefrom(0);
}

static void *half(void *arg)
{
	uint32_t seed = (uint32_t)(uintptr_t)arg;
	void *held[16] = { NULL };
	size_t sizes[16];

	for (int i = 0; i < 40000; i++) { /* enough to need new pieces of the file */
		uint32_t at = truth_random(&seed) % 16;

		if (held[at])
			truth_free(held[at], sizes[at]);
		sizes[at] = truth_random(&seed) % 2000;
		held[at] = truth_malloc(sizes[at]);
	}
	return NULL;
}

static void work(void)
{
	truth_begin();
	half((void *)1);
	truth_end();
}

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "loop", *result = argc > 2 ? argv[2] : "/dev/null";
	pthread_t id;
	int status;
	pid_t pid;

	close_all(how); /* the root itself: descriptors 0 and up are free for the program now */
	if (open("/dev/null", O_RDWR) != 0)
		_exit(2);
	truth_fd = open(result, O_WRONLY | O_CREAT | O_APPEND, 0600);
	if (truth_fd != 1)
		_exit(3);
	work();
	pid = fork();
	if (pid == 0) {
		setsid();
		close_all(how);
		if (open("/dev/null", O_RDWR) != 0)
			_exit(4);
		truth_fd = open(result, O_WRONLY | O_CREAT | O_APPEND, 0600);
		if (truth_fd != 1 || pthread_create(&id, NULL, half, (void *)2))
			_exit(5);
		pthread_join(id, NULL); /* a new thread needs new pieces as well */
		work();
		_exit(21);
	}
	if (waitpid(pid, &status, 0) != pid || WEXITSTATUS(status) != 21)
		_exit(7);
	_exit(20);
}
