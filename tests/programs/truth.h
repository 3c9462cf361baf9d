/*
 * For test programs that carry their own truth: counts what the program asks for between
 * truth_begin() and truth_end(), puts a mark at both, and prints one line per process:
 *
 *   expect pid=1 allocations=2 frees=1 bytes=30 live_blocks=1 live_bytes=10
 *          inherited_frees=0 inherited_bytes=0                        (all on one line)
 *
 * Both marks must be set while no other thread of the process allocates. Counters are atomic, so
 * threads may use the truth_ functions freely in between. In C and C++.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_TESTS_TRUTH_H
#define MEMTRACE_TESTS_TRUTH_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "memtrace/memtrace.h"

#ifdef __cplusplus
extern "C"
#endif
void counting_mark(const char *label) __attribute__((weak)); /* of the counting preload */

struct truth {
	long allocations, frees, bytes, live_blocks, live_bytes;
	long inherited_frees, inherited_bytes; /* part of frees; blocks made before a fork */
};

static struct truth truth_now;
static int truth_fd = 1;

/* What a program does with a block the compiler must believe in. */
static inline void *truth_keep(void *p)
{
	__asm__ volatile("" : "+r"(p) : : "memory");
	return p;
}

static inline void truth_add(long *counter, long n)
{
	__atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

static inline void truth_allocated(size_t size)
{
	truth_add(&truth_now.allocations, 1);
	truth_add(&truth_now.bytes, (long)size);
	truth_add(&truth_now.live_blocks, 1);
	truth_add(&truth_now.live_bytes, (long)size);
}

static inline void truth_freed(size_t size)
{
	truth_add(&truth_now.frees, 1);
	truth_add(&truth_now.live_blocks, -1);
	truth_add(&truth_now.live_bytes, -(long)size);
}

static inline void *truth_malloc(size_t size)
{
	void *p = truth_keep(malloc(size));

	if (p)
		truth_allocated(size);
	return p;
}

static inline void truth_free(void *p, size_t size)
{
	if (p)
		truth_freed(size);
	free(truth_keep(p));
}

/* A block that an ancestor made before the fork. */
static inline void truth_free_inherited(void *p, size_t size)
{
	truth_add(&truth_now.frees, 1);
	truth_add(&truth_now.inherited_frees, 1);
	truth_add(&truth_now.inherited_bytes, (long)size);
	free(truth_keep(p));
}

static inline void *truth_realloc(void *p, size_t old_size, size_t size)
{
	void *q = truth_keep(realloc(truth_keep(p), size));

	if (q && p)
		truth_freed(old_size);
	if (q)
		truth_allocated(size);
	else if (p && !size) /* glibc gives the block back */
		truth_freed(old_size);
	return q;
}

static inline void truth_mark(const char *which)
{
	char label[64];

	snprintf(label, sizeof(label), "%s-%d", which, (int)getpid());
	memtrace_mark(label);
	if (counting_mark)
		counting_mark(label);
}

static inline void truth_begin(void)
{
	memset(&truth_now, 0, sizeof(truth_now));
	truth_mark("begin");
}

/* Ends the window and prints the line with one write, so that lines of processes never mix. */
static inline void truth_end(void)
{
	char line[400];
	int n;

	truth_mark("end");
	n = snprintf(line, sizeof(line),
		     "expect pid=%d allocations=%ld frees=%ld bytes=%ld live_blocks=%ld "
		     "live_bytes=%ld inherited_frees=%ld inherited_bytes=%ld\n",
		     (int)getpid(), truth_now.allocations, truth_now.frees, truth_now.bytes,
		     truth_now.live_blocks, truth_now.live_bytes, truth_now.inherited_frees,
		     truth_now.inherited_bytes);
	if (write(truth_fd, line, (size_t)n) != n)
		abort();
}

/* A small generator of its own: rand() differs between C libraries and takes a lock. */
static inline uint32_t truth_random(uint32_t *seed)
{
	*seed = *seed * 1664525u + 1013904223u;
	return *seed >> 8;
}

static inline long truth_argument(int argc, char **argv, int index, long fallback)
{
	return argc > index ? strtol(argv[index], NULL, 10) : fallback;
}

#endif
