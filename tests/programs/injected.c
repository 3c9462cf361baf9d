/*
 * A program that memtrace attaches to although it was started without the shim.
 *
 *	injected run [MIB]       holds MIB from before; threads; checks itself; ends at SIGTERM with 37
 *	injected CONDITION       puts itself into a state in which it can't be attached to, or not yet
 *
 * run: SIGUSR1 begins to lose blocks at one line, and loads a library that allocates. Printed at the
 * end: what was lost, what went wrong.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { OLD = 1024, LOST_BYTES = 1000 };

static volatile sig_atomic_t done, losing;
static long errors, lost, rounds, children;
static void *volatile chain;

static void on_signal(int signo)
{
	if (signo == SIGTERM)
		done = 1;
	else
		losing = 1;
}

static void wrong(const char *what)
{
	__atomic_fetch_add(&errors, 1, __ATOMIC_RELAXED);
	fprintf(stderr, "wrong: %s\n", what);
}

/* Registers that no call saves: if anybody disturbs this thread, the sums differ. */
static void *keep_vectors(void *unused)
{
	double expected = 0, got[4];

	for (int i = 0; i < 2000000; i++)
		expected += 1.5;
	while (!done) {
#if defined(__x86_64__)
		static const double one[4] = { 1.5, 1.5, 1.5, 1.5 };
		long n = 2000000;

		__asm__ volatile("movupd %2, %%xmm5\n\t"
				 "xorpd %%xmm7, %%xmm7\n"
				 "1:	addpd %%xmm5, %%xmm7\n\t"
				 "dec %0\n\t"
				 "jnz 1b\n\t"
				 "movupd %%xmm7, %1"
				 : "+r"(n), "=m"(got)
				 : "m"(one)
				 : "xmm5", "xmm7", "cc");
		if (got[0] != expected || got[1] != expected)
			wrong("vector registers");
#endif
	}
	return unused;
}

/* A wait that a stop ends early: nobody may notice. */
static void *wait_for_events(void *unused)
{
	int fd = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event;

	while (!done)
		if (epoll_wait(fd, &event, 1, 20) != 0)
			wrong(strerror(errno));
	close(fd);
	return unused;
}

static void *nap(void *unused)
{
	while (!done) {
		struct timespec begin, end, time = { 0, 30000000 };

		clock_gettime(CLOCK_MONOTONIC, &begin);
		errno = 77;
		if (nanosleep(&time, NULL) || errno != 77)
			wrong("nanosleep");
		clock_gettime(CLOCK_MONOTONIC, &end);
		if ((end.tv_sec - begin.tv_sec) * 1000000000 + end.tv_nsec - begin.tv_nsec <
		    time.tv_nsec)
			wrong("nanosleep was too short");
	}
	return unused;
}

__attribute__((noinline)) static void lose(void)
{
	void **p = malloc(LOST_BYTES); /* LINE: lost */

	*p = chain; /* reachable, and never freed */
	chain = p;
	lost++;
}

static void have_child(void)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		char *p = malloc(5000);

		memset(p, 1, 5000);
		free(p);
		_exit(5);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status) ||
	    WEXITSTATUS(status) != 5)
		wrong("child");
	children++;
}

/* Old blocks are resized and freed: each has its number in all of its bytes. */
static void turn_over(unsigned char *old[OLD], size_t bytes)
{
	unsigned int i = (unsigned int)rounds % OLD;
	size_t fresh = rounds % 3 ? bytes : bytes / 2 + 1;

	for (size_t k = 0; k < bytes / 2; k += 61)
		if (old[i][k] != (unsigned char)i)
			wrong("a block's content");
	if (rounds % 2) {
		free(old[i]);
		old[i] = malloc(bytes);
	} else {
		old[i] = realloc(old[i], fresh);
		old[i] = realloc(old[i], bytes);
	}
	memset(old[i], (int)i, bytes);
}

static void load_plugin(const char *path)
{
	void *library = dlopen(path, RTLD_NOW);
	void *(*take)(size_t) = library ? (void *(*)(size_t))dlsym(library, "plugin_take") : NULL;

	if (!take)
		wrong("plugin");
	for (int i = 0; take && i < 100; i++)
		*(void *volatile *)take(3000) = NULL;
}

static int run(size_t mib, const char *plugin)
{
	static unsigned char *old[OLD];
	size_t bytes = (mib << 20) / OLD;
	pthread_t threads[3];
	int loaded = 0;

	for (int i = 0; i < OLD; i++)
		memset(old[i] = malloc(bytes), i, bytes);
	signal(SIGTERM, on_signal);
	signal(SIGUSR1, on_signal);
	pthread_create(&threads[0], NULL, keep_vectors, NULL);
	pthread_create(&threads[1], NULL, wait_for_events, NULL);
	pthread_create(&threads[2], NULL, nap, NULL);
	printf("ready\n");
	fflush(stdout);
	for (; !done; rounds++) {
		if (losing || rounds % 64 == 63)
			turn_over(old, bytes);
		if (losing && rounds % 4 == 0)
			lose();
		if (losing && !loaded++ && plugin)
			load_plugin(plugin);
		if (rounds % 200 == 199)
			have_child();
		usleep(200);
	}
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	printf("counts lost=%ld errors=%ld rounds=%ld children=%ld\n", lost, errors, rounds, children);
	return errors ? 1 : 37;
}

/* ---- conditions --------------------------------------------------------------------------------- */

static void handle(int signo)
{
	(void)signo;
	for (;;)
		pause();
}

static void filter(void)
{
	struct sock_filter all[] = { BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW) };
	struct sock_fprog program = { 1, all };

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "run";

	if (!strcmp(how, "run"))
		return run(argc > 2 ? (size_t)atoi(argv[2]) : 16, argc > 3 ? argv[3] : NULL);
	if (!strcmp(how, "seccomp"))
		filter();
	if (!strcmp(how, "private"))
		prctl(PR_SET_DUMPABLE, 0);
	if (!strcmp(how, "handler"))
		signal(SIGUSR1, handle);
	printf("ready\n");
	fflush(stdout);
	if (!strcmp(how, "handler"))
		raise(SIGUSR1);
	if (!strcmp(how, "vfork") && vfork() == 0) {
		pause();
		_exit(0);
	}
	for (;;)
		pause();
}
