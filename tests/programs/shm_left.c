/*
 * Names in /dev/shm: of three, one is taken away by who made it, two are left, one of them made by a
 * forked child. Prints "left name_pid=N" (the names are /memtrace-test-N-...). Argument: MiB of each.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static size_t bytes;

static void make(pid_t root, const char *which)
{
	char name[64];
	void *p;
	int fd;

	snprintf(name, sizeof(name), "/memtrace-test-%d-%s", (int)root, which);
	fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0)
		abort();
	p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		abort();
	memset(p, 1, bytes);
	munmap(p, bytes);
	close(fd);
	if (!strcmp(which, "gone"))
		shm_unlink(name);
}

int main(int argc, char **argv)
{
	pid_t root = getpid(), child;

	bytes = (size_t)(argc > 1 ? atol(argv[1]) : 1) << 20;
	printf("left name_pid=%d\n", (int)root);
	fflush(stdout);
	make(root, "gone");
	make(root, "mine");
	child = fork();
	if (!child) {
		make(root, "childs");
		_exit(0);
	}
	printf("made child=%d\n", (int)child);
	waitpid(child, NULL, 0);
	return 0;
}
