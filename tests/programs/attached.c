/*
 * A program to attach to: holds memory from before, then two threads that allocate and free, one of
 * which loses blocks at one line. Every round is checked, so a block that was touched by anybody
 * else, or a free that went wrong, is found. Prints its own counts and leaves with 37.
 *
 *	attached MIB SECONDS|0 [fork]
 *
 * SECONDS 0: until a SIGTERM. fork: a child now and then, which allocates, needs the loader's lock and
 * leaves with 5.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BLOCKS 64
#define LOST_BYTES 1000

static volatile sig_atomic_t done;
static void *volatile lost;
static long rounds, errors, children, lost_count;

static void on_term(int signo)
{
	(void)signo;
	done = 1;
}

__attribute__((noinline)) static void lose(void)
{
	void **p = malloc(LOST_BYTES); /* LINE: lost */

	*p = lost; /* a chain: it stays reachable, and is never freed */
	lost = p;
	lost_count++;
}

static void round_of(unsigned char mark)
{
	unsigned char *p[BLOCKS];

	for (int i = 0; i < BLOCKS; i++) {
		p[i] = malloc((size_t)(16 + i * 24));
		memset(p[i], mark, (size_t)(16 + i * 24));
	}
	for (int i = 0; i < BLOCKS; i += 3)
		p[i] = realloc(p[i], (size_t)(16 + i * 40));
	for (int i = 0; i < BLOCKS; i++) {
		for (int k = 0; k < 16 + i * 24; k++)
			errors += p[i][k] != mark;
		free(p[i]);
	}
}

static void *work(void *unused)
{
	while (!done) {
		round_of(7);
		usleep(50);
	}
	return unused;
}

static int pass_by(struct dl_phdr_info *info, size_t size, void *unused)
{
	(void)info;
	(void)size;
	(void)unused;
	return 0;
}

static void have_child(void)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		alarm(20);
		dl_iterate_phdr(pass_by, NULL); /* as the next exception or dlopen would */
		for (int i = 0; i < 20; i++)
			round_of(9);
		_exit(errors ? 6 : 5);
	}
	errors += pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status) ||
		  WEXITSTATUS(status) != 5;
	children++;
}

int main(int argc, char **argv)
{
	size_t before = argc > 1 ? (size_t)atol(argv[1]) << 20 : 0;
	long seconds = argc > 2 ? atol(argv[2]) : 1;
	time_t end = time(NULL) + seconds;
	pthread_t thread;
	void **kept = NULL, **p;

	signal(SIGTERM, on_term);
	for (size_t i = 0; i < before / 1008; i++) {
		p = malloc(1000);
		memset(p, 1, 1000);
		*p = kept;
		kept = p;
	}
	if (pthread_create(&thread, NULL, work, NULL))
		return 1;
	printf("ready\n");
	fflush(stdout);
	while (!done && (!seconds || time(NULL) < end)) {
		lose();
		round_of(8);
		if (argc > 3 && rounds % 20 == 0)
			have_child();
		rounds++;
		usleep(500);
	}
	done = 1;
	pthread_join(thread, NULL);
	for (; kept; kept = p) {
		p = *kept;
		free(kept);
	}
	printf("counts rounds=%ld errors=%ld children=%ld lost=%ld\n", rounds, errors, children,
	       lost_count);
	return errors ? 1 : 37;
}
