/*
 * Opens descriptors of many sorts and prints their numbers, as main program, as forked child and
 * as program that was executed, with a limit of descriptors too; what it prints must not depend on
 * being traced. With an argument it writes there, for it may be started without descriptors 0-2.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dirent.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "truth.h"

static char text[4000];
static size_t length;

static void say(const char *what, int number)
{
	length += (size_t)snprintf(text + length, sizeof(text) - length, "%s=%d\n", what, number);
}

static void open_some(const char *who)
{
	int two[2];
	DIR *dir;
	FILE *f;

	say(who, 0);
	say("open", open("/dev/null", O_RDONLY));
	say("dup", dup(0));
	say("pipe", pipe(two) ? -1 : two[0] * 100 + two[1]);
	say("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, two) ? -1 : two[0] * 100 + two[1]);
	say("epoll", epoll_create1(0));
	say("dupfd", fcntl(0, F_DUPFD, 50));
	f = fopen("/dev/null", "r");
	say("fopen", f ? fileno(f) : -1);
	dir = opendir("/");
	say("opendir", dir ? dirfd(dir) : -1);
	for (int i = 0; i < 200; i++)
		free(truth_keep(malloc((size_t)i)));
	say("open-again", open("/dev/null", O_RDONLY));
}

/* Descriptors that a program executed from here would find, without our own high ones' help. */
static void count_inherited(void)
{
	int open_ones = 0;

	for (int fd = 0; fd < 4096; fd++)
		if (fcntl(fd, F_GETFD) >= 0 && !(fcntl(fd, F_GETFD) & FD_CLOEXEC))
			open_ones++;
	say("inherited-by-exec", open_ones);
}

static void flush_to(const char *path)
{
	int fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND, 0600) : 1;

	if (fd < 0 || write(fd, text, length) != (ssize_t)length)
		_exit(9);
	if (path)
		close(fd);
	length = 0;
}

static void use_all(void)
{
	struct rlimit low = { 64, 64 };
	int n = 0;

	if (setrlimit(RLIMIT_NOFILE, &low))
		_exit(8);
	for (int fd; (fd = open("/dev/null", O_RDONLY)) >= 0; n++)
		say("low-limit", fd);
	say("opened", n);
	for (int i = 0; i < 20000; i++)
		free(truth_keep(malloc((size_t)i)));
}

int main(int argc, char **argv)
{
	const char *path = argc > 1 && *argv[1] ? argv[1] : NULL;
	char self[4096];
	int status;
	ssize_t n;
	pid_t pid;

	if (argc > 2) {
		open_some("executed");
		count_inherited();
		use_all();
		flush_to(NULL);
		return 31;
	}
	open_some("root");
	flush_to(path);
	pid = fork();
	if (pid == 0) {
		open_some("forked");
		count_inherited();
		flush_to(path);
		_exit(30);
	}
	if (waitpid(pid, &status, 0) != pid || WEXITSTATUS(status) != 30)
		return 5;
	n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (path || n <= 0)
		return 32;
	self[n] = '\0';
	execl(self, self, "", "executed", (char *)NULL);
	return 6;
}
