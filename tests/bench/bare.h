/*
 * What the kernel alone takes to tell of each page of some memory: the part that no walk can save.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_TESTS_BARE_H
#define MEMTRACE_TESTS_BARE_H

#include <fcntl.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

#define PAGE ((size_t)4096)
#define BARE_PIECE 8192 /* entries of pagemap in a read, as walks read them */
#define BARE_ROUNDS 3

static inline uint64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* CPU time of reading pagemap for all of the data, once, ns: the least of some; 0: can't be read. */
static inline uint64_t bare_read(const char *data, size_t bytes)
{
	static uint64_t entries[BARE_PIECE];
	int fd = open("/proc/self/pagemap", O_RDONLY);
	uint64_t least = UINT64_MAX;

	for (int r = 0; r < BARE_ROUNDS; r++) {
		uint64_t begin = clock_ns(CLOCK_THREAD_CPUTIME_ID), spent;

		for (size_t page = 0; page < bytes / PAGE; page += BARE_PIECE)
			if (pread(fd, entries, sizeof(entries),
				  (off_t)(((uintptr_t)data / PAGE + page) * 8)) <= 0)
				return 0;
		spent = clock_ns(CLOCK_THREAD_CPUTIME_ID) - begin;
		least = spent < least ? spent : least;
	}
	close(fd);
	return least;
}

#endif
