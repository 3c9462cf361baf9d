/*
 * What looking at a forked child's pages for copy-on-write costs, by what the child does.
 *
 *	looks MIB SECONDS scattered|contiguous
 *
 * The parent fills MIB of memory, of pages of 4 KiB as they come, or got as huge pages and then
 * split, so that neighbours are neighbours in physical memory, too. The child makes events, and for
 * SECONDS each copies a few pages all over (few), very many all over (many); then it has copied all,
 * and maps, touches and unmaps memory of its own (new), and at last, twice as long, does nothing (none). The
 * costs are in the trace (SCAN_END); `faults`, its minor faults at the end of each phase, tell which
 * phase a look was in. Before and after, the child reads its own pagemap and does nothing with it:
 * that is the kernel's part. One JSON line, times in ns of CPU time.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bare.h"

#define HUGE_BYTES ((size_t)2 << 20)
#define REST_NS 5000000
#define SPREAD 7919 /* prime: page after page, all over */

/* Huge pages stay in one piece when they are mapped by page: a change of protection does that. */
static void split(char *data, size_t bytes)
{
	for (size_t at = 0; at < bytes; at += HUGE_BYTES) {
		mprotect(data + at, PAGE, PROT_READ);
		mprotect(data + at, PAGE, PROT_READ | PROT_WRITE);
	}
}

static void use_new(size_t bytes)
{
	char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return;
	for (size_t at = 0; at < bytes; at += PAGE)
		p[at] = 1;
	munmap(p, bytes);
}

static long faults(void)
{
	struct rusage use;

	return getrusage(RUSAGE_SELF, &use) == 0 ? use.ru_minflt : 0;
}

static void *volatile kept;

/* Makes an event every few ms, and `copies` pages of its own each time. Its faults at the end. */
static long phase(char *data, size_t pages, size_t *done, double seconds, size_t copies,
		  size_t fresh)
{
	uint64_t end = clock_ns(CLOCK_MONOTONIC) + (uint64_t)(seconds * 1e9);
	struct timespec rest = { 0, REST_NS };

	while (clock_ns(CLOCK_MONOTONIC) < end) {
		for (size_t i = 0; i < copies && *done < pages; i++)
			data[(*done)++ * SPREAD % pages * PAGE]++;
		if (fresh)
			use_new(fresh);
		free(kept);
		kept = malloc(100);
		nanosleep(&rest, NULL);
	}
	return faults();
}

static void be_child(char *data, size_t bytes, double seconds)
{
	size_t pages = bytes / PAGE, done = 0;
	size_t many = pages / (size_t)(seconds * 1e9 / REST_NS * 1.2);
	uint64_t first = bare_read(data, bytes);
	long at[4];

	kept = malloc(100); /* its baseline is taken */
	at[0] = phase(data, pages, &done, seconds, 1, 0);
	at[1] = phase(data, pages, &done, seconds, many, 0);
	while (done < pages)
		data[done++ * SPREAD % pages * PAGE]++;
	at[2] = phase(data, pages, &done, seconds, 0, (size_t)1 << 20);
	at[3] = phase(data, pages, &done, 2 * seconds, 0, 0);
	printf("{\"bytes\": %zu, \"faults\": [%ld, %ld, %ld, %ld], \"bare_first\": %llu, "
	       "\"bare_last\": %llu}\n",
	       bytes, at[0], at[1], at[2], at[3], (unsigned long long)first,
	       (unsigned long long)bare_read(data, bytes));
	exit(0);
}

int main(int argc, char **argv)
{
	size_t bytes = (size_t)(argc > 3 ? atol(argv[1]) : 0) << 20;
	int contiguous = bytes && !strcmp(argv[3], "contiguous"), status = 0;
	char *raw = mmap(NULL, bytes + HUGE_BYTES, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *data = (char *)(((uintptr_t)raw + HUGE_BYTES - 1) & ~(HUGE_BYTES - 1));

	if (!bytes || raw == MAP_FAILED) {
		fprintf(stderr, "looks MIB SECONDS scattered|contiguous\n");
		return 2;
	}
	madvise(raw, bytes + HUGE_BYTES, contiguous ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	memset(data, 1, bytes);
	if (contiguous)
		split(data, bytes);
	if (fork() == 0)
		be_child(data, bytes, atof(argv[2]));
	return wait(&status) < 0 || status != 0;
}
