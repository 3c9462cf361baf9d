/*
 * A program that starts others by system() and popen(), which the C library does by itself.
 *
 *	shells COMMAND [threads]
 *
 * Waits for the file "go", allocating; runs COMMAND by both, prints their output, and what of its own
 * environment has changed by that. threads: another one is there. Leaves with 7.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void *wait_for_ever(void *unused)
{
	for (;;)
		pause();
	return unused;
}

int main(int argc, char **argv)
{
	char **own = environ, line[4096];
	void *volatile block;
	pthread_t thread;
	FILE *f;

	if (argc > 2)
		pthread_create(&thread, NULL, wait_for_ever, NULL);
	printf("ready\n");
	fflush(stdout);
	while (access("go", F_OK) < 0) {
		block = malloc(3000);
		free(block);
		usleep(1000);
	}
	printf("status %d\n", system(argv[1]));
	fflush(stdout);
	f = popen(argv[1], "r");
	while (f && fgets(line, sizeof(line), f))
		fputs(line, stdout);
	printf("status %d\n", f ? pclose(f) : -1);
	printf("environ %s, LD_PRELOAD %s\n", environ == own ? "same" : "changed",
	       getenv("LD_PRELOAD") ? "set" : "not set");
	return 7;
}
