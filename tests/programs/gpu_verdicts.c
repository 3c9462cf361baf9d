/*
 * What a program does with device and pinned memory over many steps, by the driver of
 * tests/support/cuda: four call sites, two that lose a block in every step and two caches of SLOTS
 * blocks, full after SLOTS steps, of which each step then replaces any one.
 *
 *   gpu_verdicts STEPS
 *
 * Prints what each holds in the end.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <memtrace/memtrace.h>
#include <stdlib.h>
#include <time.h>

#include "../support/cuda/driver.h"

#define SLOTS 64
#define LOST ((size_t)256 << 10)
#define CACHED ((size_t)512 << 10)

static void *driver;
static int bad;

#define CALL(name, types, arguments)                                                               \
	(bad |= ((int(*) types)(uintptr_t)dlsym(driver, #name))arguments != 0)

__attribute__((noinline)) static void lose_device(void)
{
	CUptr at;

	CALL(cuMemAlloc_v2, (CUptr *, size_t), (&at, LOST));
	__asm__ volatile("");
}

__attribute__((noinline)) static void lose_pinned(void)
{
	void *at;

	CALL(cuMemHostAlloc, (void **, size_t, unsigned int), (&at, LOST, 0));
	__asm__ volatile("");
}

__attribute__((noinline)) static void cache_device(int slot)
{
	static CUptr held[SLOTS];

	if (held[slot])
		CALL(cuMemFree_v2, (CUptr), (held[slot]));
	CALL(cuMemAlloc_v2, (CUptr *, size_t), (&held[slot], CACHED));
	__asm__ volatile("");
}

__attribute__((noinline)) static void cache_pinned(int slot)
{
	static void *held[SLOTS];

	if (held[slot])
		CALL(cuMemFreeHost, (void *), (held[slot]));
	CALL(cuMemHostAlloc, (void **, size_t, unsigned int), (&held[slot], CACHED, 0));
	__asm__ volatile("");
}

int main(int argc, char **argv)
{
	int steps = argc > 1 ? atoi(argv[1]) : 200;
	unsigned int number = 1;

	driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
	if (!driver) {
		printf("bad %s\n", dlerror());
		return 2;
	}
	CALL(cuInit, (unsigned int), (0));
	for (int i = 0; i < steps; i++) {
		int slot = i;

		if (memtrace_step)
			memtrace_step((uint64_t)i);
		number = number * 1664525 + 1013904223;
		if (i >= SLOTS)
			slot = (int)((number >> 16) % SLOTS);
		lose_device();
		lose_pinned();
		cache_device(slot);
		cache_pinned(slot);
		nanosleep(&(struct timespec){ 0, 8000000 }, NULL);
	}
	printf("truth lost=%zu cached=%zu\n", (size_t)steps * LOST, SLOTS * CACHED);
	return bad;
}
