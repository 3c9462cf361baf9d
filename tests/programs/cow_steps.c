/*
 * A forked child that copies in steps, makes events all the time, and kills itself with SIGKILL. It
 * is walked meanwhile, and prints what is true just before its end: how much of the inherited
 * region is its own, as the kernel says. Arguments: MiB, "few" or "forks", seconds of each rest.
 *
 * few: it writes to the first quarter, rests until that has been walked, writes to a few pages all
 * over the rest, and rests again. forks: it writes to all, rests, forks a child of its own that does
 * nothing but live on, and rests: then its pages are shared again.
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

#define PAGE ((size_t)4096)
#define REST_NS 5000000

static void *volatile kept;

static void rest(double seconds)
{
	struct timespec t = { 0, REST_NS };

	for (double done = 0; done < seconds; done += REST_NS / 1e9) {
		free(kept);
		kept = malloc(100);
		nanosleep(&t, NULL);
	}
}

static size_t own_pages(const char *region, size_t pages)
{
	FILE *f = fopen("/proc/self/pagemap", "r");
	size_t own = 0;
	uint64_t entry;

	for (size_t i = 0; i < pages && f; i++)
		own += fseek(f, (long)(((uintptr_t)region / PAGE + i) * 8), SEEK_SET) == 0 &&
		       fread(&entry, sizeof(entry), 1, f) == 1 && entry >> 63 & entry >> 56 & 1;
	if (f)
		fclose(f);
	return own;
}

static void be_child(char *region, size_t pages, const char *what, double seconds)
{
	int forks = !strcmp(what, "forks");
	pid_t child = 0;

	kept = malloc(10); /* its baseline is taken */
	for (size_t i = 0; i < (forks ? pages : pages / 4); i++)
		region[i * PAGE]++;
	rest(seconds);
	/* No 2 MiB with more than a few. */
	for (size_t i = 0; i < pages / 128 && !forks; i++)
		region[(pages / 4 + i * 96) * PAGE]++;
	if (forks && (child = fork()) == 0) {
		kept = malloc(10);
		for (;;)
			pause();
	}
	rest(seconds);
	printf("steps own=%zu\n", own_pages(region, pages) * PAGE);
	if (child > 0) {
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
	}
	fflush(stdout);
	kill(getpid(), SIGKILL);
}

int main(int argc, char **argv)
{
	size_t pages = (size_t)(argc > 3 ? atoi(argv[1]) : 0) * 256;
	char *region = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			    -1, 0);
	pid_t child;

	if (!pages || region == MAP_FAILED)
		return 2;
	madvise(region, pages * PAGE, MADV_NOHUGEPAGE);
	memset(region, 1, pages * PAGE);
	child = fork();
	if (child == 0)
		be_child(region, pages, argv[2], atof(argv[3]));
	return waitpid(child, NULL, 0) != child;
}
