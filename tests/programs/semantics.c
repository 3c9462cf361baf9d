/*
 * What the C library promises about its heap, printed: errno after each call, results of the odd
 * cases, alignment, zeroing. The output must be the same traced and untraced.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <malloc.h>
#include <sys/mman.h>

#include "truth.h"

static const volatile size_t huge = (size_t)1 << 62, half = (size_t)1 << 33;

static void show(const char *what, void *p)
{
	printf("%-28s %-8s errno %d\n", what, p ? "block" : "NULL", errno);
	errno = 1234; /* a value nobody sets: shows who left it alone */
}

static void heap(void)
{
	void *p = malloc(10), *q = NULL;
	int err;

	errno = 1234;
	show("malloc(10)", p);
	show("malloc(0)", truth_keep(malloc(0)));
	free(p);
	show("free", NULL);
	free(NULL);
	show("free(NULL)", NULL);
	show("malloc(huge)", truth_keep(malloc(huge)));
	show("calloc overflow", truth_keep(calloc(half, half)));
	show("calloc(0, 0)", truth_keep(calloc(0, 0)));
	show("reallocarray overflow", truth_keep(reallocarray(NULL, half, half)));
	p = truth_keep(malloc(20));
	memcpy(p, "still here", 11);
	show("realloc(p, huge)", truth_keep(realloc(truth_keep(p), huge)));
	printf("the block is %s\n", (char *)truth_keep(p));
	show("realloc(p, 0)", truth_keep(realloc(truth_keep(p), 0)));
	show("realloc(NULL, 0)", truth_keep(realloc(NULL, 0)));
	show("aligned_alloc(24, 100)", truth_keep(aligned_alloc(24, 100)));
	show("aligned_alloc(64, huge)", truth_keep(aligned_alloc(64, huge)));
	show("memalign(1000, 10)", truth_keep(memalign(1000, 10)));
	show("valloc(0)", truth_keep(valloc(0)));
	show("pvalloc(1)", p = truth_keep(pvalloc(1)));
	printf("pvalloc(1) holds a page: %d\n",
	       malloc_usable_size(p) >= (size_t)sysconf(_SC_PAGESIZE));
	err = posix_memalign(&q, 3, 10);
	printf("posix_memalign(3): %d errno %d %s\n", err, errno, q ? "set" : "untouched");
	err = posix_memalign(&q, 64, huge);
	printf("posix_memalign(huge): %d errno %d %s\n", err, errno, q ? "set" : "untouched");
	err = posix_memalign(&q, 64, 0);
	printf("posix_memalign(0): %d errno %d %d\n", err, errno, (int)((uintptr_t)q % 64));
	printf("usable(NULL): %zu\n", malloc_usable_size(NULL));
	p = truth_keep(malloc(24));
	printf("usable(24): %zu\n", malloc_usable_size(p));
}

static void zeroing(void)
{
	long bad = 0;

	for (int round = 0; round < 200; round++) {
		size_t size = (size_t)round * 37 + 1;
		char *p = truth_keep(malloc(size));

		memset(p, 0xa5, size);
		free(truth_keep(p));
		p = truth_keep(calloc(1, size));
		for (size_t i = 0; i < size; i++)
			bad += p[i] != 0;
		free(p);
	}
	printf("bytes not zeroed: %ld\n", bad);
}

static void system_calls(void)
{
	errno = 1234;
	show("mmap(0 bytes)", mmap(NULL, 0, 0, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED
				      ? NULL : (void *)heap);
	printf("munmap(bad): %d", munmap((void *)1, 4096));
	printf(" errno %d\n", errno);
	printf("mremap(bad): %d", mremap((void *)4096, 4096, 8192, 0) == MAP_FAILED);
	printf(" errno %d\n", errno);
	printf("brk(0 to now): %d\n", brk(sbrk(0)));
	errno = 1234;
	execl("/nonexistent/program", "program", (char *)NULL);
	printf("execl: errno %d\n", errno);
	errno = 1234;
	free(truth_keep(malloc(5)));
	printf("at the end: errno %d\n", errno);
}

int main(void)
{
	static char buffer[1 << 16];

	setvbuf(stdout, buffer, _IOFBF, sizeof(buffer));
	heap();
	zeroing();
	system_calls();
	return 0;
}
