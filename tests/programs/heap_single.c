/*
 * One thread, every heap call of the C library with a known answer. Arguments: rounds.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <malloc.h>
#include <sys/mman.h>

#include "truth.h"

#define HUGE_SIZE ((size_t)1 << 62) /* no allocator can serve it */

static void plain(void)
{
	void *kept = truth_malloc(100), *p;

	truth_free(truth_malloc(0), 0);
	truth_free(truth_malloc(1), 1);
	truth_free(truth_malloc(1 << 20), 1 << 20); /* by mmap inside the allocator */
	truth_free(NULL, 0);
	p = truth_keep(calloc(7, 13));
	truth_allocated(7 * 13);
	truth_free(p, 7 * 13);
	p = truth_keep(calloc(0, 13));
	truth_allocated(0);
	truth_free(p, 0);
	truth_free(kept, 100);
	(void)truth_malloc(33); /* stays */
}

static void failing(void)
{
	volatile size_t huge = HUGE_SIZE;
	void *p = truth_malloc(50), *unaligned;

	if (truth_malloc(huge) || truth_keep(calloc(huge, 4)) || truth_realloc(p, 50, huge) ||
	    truth_keep(reallocarray(truth_keep(p), huge, 8)) || truth_keep(calloc(huge, 1)) ||
	    truth_keep(aligned_alloc(64, huge)) || truth_keep(memalign(64, huge)) ||
	    !posix_memalign(&unaligned, 3, 100) || truth_keep(reallocarray(NULL, huge, 16)))
		abort();
	truth_free(p, 50);
}

static void chains(void)
{
	void *p = truth_realloc(NULL, 0, 10), *q;

	for (size_t size = 10; size < 5000; size += 97)
		p = truth_realloc(p, size == 10 ? 10 : size - 97, size);
	p = truth_realloc(p, 10 + 97 * ((4999 - 10) / 97), 300000); /* grows into a mapping */
	p = truth_realloc(p, 300000, 600000);
	p = truth_realloc(p, 600000, 16);
	if (truth_realloc(p, 16, 0)) /* glibc frees */
		abort();
	q = truth_realloc(NULL, 0, 0);
	truth_free(q, 0);
	q = truth_keep(reallocarray(NULL, 3, 5));
	truth_allocated(15);
	q = truth_keep(reallocarray(q, 30, 5));
	truth_freed(15);
	truth_allocated(150);
	truth_free(q, 150);
}

static void aligned(void)
{
	static const size_t alignments[] = { 16, 32, 64, 256, 4096, 65536 };
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	for (size_t i = 0; i < sizeof(alignments) / sizeof(alignments[0]); i++) {
		size_t a = alignments[i];
		void *p[5] = { NULL };
		size_t sizes[5] = { a + 24, 2 * a, a / 2 + 1, a, a + 1 };

		if (posix_memalign(&p[0], a, sizes[0]))
			abort();
		p[1] = aligned_alloc(a, sizes[1]);
		p[2] = memalign(a, sizes[2]);
		p[3] = valloc(sizes[3]);
		p[4] = pvalloc(sizes[4]);
		for (int j = 0; j < 5; j++) {
			size_t want = j < 3 ? a : page;

			if (!truth_keep(p[j]) || (uintptr_t)p[j] % want)
				abort();
			truth_allocated(sizes[j]);
			memset(p[j], 1, sizes[j]);
		}
		for (int j = 0; j < 5; j++)
			truth_free(p[j], sizes[j]);
	}
}

static FILE *one_line; /* opened before anything is counted */

static void open_line(void)
{
	static char buffer[4096];

	one_line = fdopen(memfd_create("line", 0), "r+");
	if (!one_line || setvbuf(one_line, buffer, _IOFBF, sizeof(buffer)) ||
	    fputs("a line that is longer than the buffer it is read to\n", one_line) < 0)
		abort();
}

/* getline() resizes once, and says to how much. */
static void read_line(void)
{
	size_t size = 16;
	char *p = truth_malloc(size);

	rewind(one_line);
	if (getline(&p, &size, one_line) < 50 || size <= 16)
		abort();
	truth_freed(16);
	truth_allocated(size);
	truth_free(p, size);
}

/* Calls that end in malloc inside the C library; sizes are what POSIX lets one conclude. */
static void indirect(void)
{
	static const char text[] = "seventeen letters";
	char *p = strdup(text);

	truth_allocated(sizeof(text));
	truth_free(p, sizeof(text));
	p = strndup(text, 9);
	truth_allocated(10);
	truth_free(p, 10);
	p = (char *)truth_malloc(40);
	if (malloc_usable_size(p) < 40)
		abort();
	truth_free(p, 40);
}

int main(int argc, char **argv)
{
	long rounds = truth_argument(argc, argv, 1, 20);

	open_line();
	truth_begin();
	for (long i = 0; i < rounds; i++) {
		plain();
		failing();
		chains();
		aligned();
		indirect();
		read_line();
	}
	truth_end();
	return 0;
}
