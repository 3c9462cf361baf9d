/*
 * A program with a caching allocator like PyTorch's, over the fakes of tests/support/cuda.
 *
 *   gpu_cache stranded   10 segments of 20 MiB, each filled, then emptied but for one block of 512
 *                        bytes, made by long_lived()
 *   gpu_cache leak N     a tensor is kept from each of N steps
 *   gpu_cache churn N    tensors come and go
 *   gpu_cache oom        as stranded, then a request that can't be served
 *   gpu_cache pinned N   pinned blocks, none given back
 *   gpu_cache level N    as leak, but of N steps only the last 4 tensors are kept
 *   gpu_cache pool N     pinned blocks that are taken once and used again
 *   gpu_cache expandable a segment of mappings, a tensor over two of them, the last ones unmapped
 *   gpu_cache private    a segment whose tensors are freed, and that its graph keeps
 *   gpu_cache async      the backend cudaMallocAsync: 8 tensors of 4 MiB, 3 freed
 *   gpu_cache uncached   each tensor its own cudaMalloc: the same
 *
 *   gpu_cache lie        as stranded, but what it says of itself is wrong
 *
 * Prints what the allocator holds in the end, and says it in marks all along.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <memtrace/memtrace.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MIB ((size_t)1 << 20)
#define SEGMENTS 10

static void *(*segment)(size_t, int);
static void (*block)(void *, size_t, int, int), (*unblock)(void *, size_t, int, int);
static void (*oom)(size_t, int);
static char *(*space)(size_t);
static void (*map)(char *, size_t, int), (*unmap)(char *, size_t);
static size_t (*allocated)(void), (*reserved)(void);

__attribute__((noinline)) static void long_lived(char *at)
{
	block(at, 512, 0, 0);
	__asm__ volatile("");
}

__attribute__((noinline)) static void short_lived(char *at, size_t size, int old)
{
	block(at, size, 0, old);
	__asm__ volatile("");
}

/* What scripts/gpu_check.py compares with the trace up to here. */
static void truth(size_t too_much)
{
	char text[64];

	snprintf(text, sizeof(text), "truth %zu %zu", allocated() + too_much, reserved());
	if (memtrace_mark)
		memtrace_mark(text);
}

static void stranded(size_t too_much)
{
	for (int i = 0; i < SEGMENTS; i++) {
		char *s = segment(20 * MIB, 0);

		long_lived(s + 4 * MIB);
		for (int k = 0; k < 3; k++)
			short_lived(s + (5 + 5 * k) * MIB, 5 * MIB, k & 1);
		for (int k = 0; k < 3; k++)
			unblock(s + (5 + 5 * k) * MIB, 5 * MIB, 0, k & 1);
		truth(too_much);
	}
}

static void pause_ms(long ms)
{
	nanosleep(&(struct timespec){ ms / 1000, ms % 1000 * 1000000 }, NULL);
}

__attribute__((noinline)) static void leak(int n)
{
	for (int i = 0; i < n; i++) {
		char *s = i % 4 ? NULL : segment(4 * MIB, 0);
		static char *at;

		at = s ? s : at + MIB;
		block(at, MIB, 0, 0);
		pause_ms(20);
	}
}

/* A ring of four: what is kept does not grow. */
static void level(int n)
{
	char *s = segment(20 * MIB, 0);

	for (int i = 0; i < n; i++) {
		if (i >= 4)
			unblock(s + i % 4 * MIB, MIB, 0, 0);
		block(s + i % 4 * MIB, MIB, 0, 0);
		pause_ms(20);
	}
}

static void expandable(void)
{
	char *s = space(256 * MIB);

	for (size_t i = 0; i < 10; i++)
		map(s + i * 20 * MIB, 20 * MIB, 0);
	block(s, 30 * MIB, 0, 0);
	long_lived(s + 35 * MIB);
	for (size_t i = 5; i < 10; i++)
		unmap(s + i * 20 * MIB, 20 * MIB);
	truth(0);
}

static void private_pool(void)
{
	char *s = segment(20 * MIB, 0);

	for (size_t i = 0; i < 3; i++)
		short_lived(s + i * 5 * MIB, 5 * MIB, 0);
	for (size_t i = 0; i < 3; i++)
		unblock(s + i * 5 * MIB, 5 * MIB, 0, 0);
}

static void one_by_one(void *h, const char *take_name, const char *give_name)
{
	void *(*take)(size_t), *kept[8];
	void (*give)(void *);

	*(void **)&take = dlsym(h, take_name);
	*(void **)&give = dlsym(h, give_name);
	for (int i = 0; i < 8; i++)
		kept[i] = take(4 * MIB);
	for (int i = 0; i < 3; i++) {
		if (i == 2)
			pause_ms(150); /* a pool is looked at ten times a second */
		give(kept[i]);
	}
}

static void churn(int n)
{
	char *s = segment(20 * MIB, 0);

	for (int i = 0; i < n; i++) {
		short_lived(s + i % 19 * MIB, 4096, i & 1);
		unblock(s + i % 19 * MIB, 4096, 0, i & 1);
	}
}

/* once: eight blocks at the start, then only work with them. */
static void pinned(int n, int once)
{
	void *h = dlopen("libcudart.so.12", RTLD_NOW | RTLD_LOCAL), *p;
	int (*host)(void **, size_t, unsigned int);

	*(void **)&host = dlsym(h, "cudaHostAlloc");
	for (int i = 0; i < n; i++) {
		if ((!once || i < 8) && host(&p, 4 * MIB, 0) != 0)
			printf("bad host\n");
		free(malloc(100));
		pause_ms(20);
	}
}

int main(int argc, char **argv)
{
	void *h = dlopen("libc10_cuda.so", RTLD_NOW | RTLD_LOCAL), *c10 = NULL;
	int n = argc > 2 ? atoi(argv[2]) : 0;
	long (*reports)(void), (*ooms)(void);

	if (!h || argc < 2) {
		printf("bad %s\n", h ? "usage" : dlerror());
		return 2;
	}
	c10 = dlopen("libc10.so", RTLD_NOW | RTLD_NOLOAD);
	*(void **)&segment = dlsym(h, "cache_segment");
	*(void **)&block = dlsym(h, "cache_block");
	*(void **)&unblock = dlsym(h, "cache_free");
	*(void **)&oom = dlsym(h, "cache_oom");
	*(void **)&space = dlsym(h, "cache_space");
	*(void **)&map = dlsym(h, "cache_map");
	*(void **)&unmap = dlsym(h, "cache_unmap");
	*(void **)&allocated = dlsym(h, "cache_allocated");
	*(void **)&reserved = dlsym(h, "cache_reserved");
	*(void **)&reports = dlsym(c10, "fake_c10_reports");
	*(void **)&ooms = dlsym(c10, "fake_c10_ooms");
	if (!strcmp(argv[1], "stranded") || !strcmp(argv[1], "oom"))
		stranded(0);
	if (!strcmp(argv[1], "lie"))
		stranded(512);
	if (!strcmp(argv[1], "oom"))
		oom(64 * MIB, 0);
	if (!strcmp(argv[1], "leak"))
		leak(n);
	if (!strcmp(argv[1], "churn"))
		churn(n);
	if (!strcmp(argv[1], "pinned") || !strcmp(argv[1], "pool"))
		pinned(n, !strcmp(argv[1], "pool"));
	if (!strcmp(argv[1], "level"))
		level(n);
	if (!strcmp(argv[1], "expandable"))
		expandable();
	if (!strcmp(argv[1], "private"))
		private_pool();
	if (!strcmp(argv[1], "async"))
		one_by_one(h, "cache_async", "cache_async_free");
	if (!strcmp(argv[1], "uncached"))
		one_by_one(h, "cache_alone", "cache_alone_free");
	printf("cache allocated=%zu reserved=%zu reports=%ld ooms=%ld\n", allocated(), reserved(),
	       reports(), ooms());
	return 0;
}
