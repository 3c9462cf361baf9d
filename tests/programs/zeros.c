/*
 * Memory that is mostly only read: it shows the kernel's pages of zeros, and takes none.
 *
 *	zeros pages|huge MIB WRITTEN
 *
 * Of each 2 MiB the last WRITTEN pages of 4 KiB are written to, the others read.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE ((size_t)4096)
#define GROUP ((size_t)512) /* pages of 2 MiB */

int main(int argc, char **argv)
{
	size_t pages = (size_t)(argc > 3 ? atoi(argv[2]) : 0) * 256, written = 0;
	char *raw = mmap(NULL, (pages + GROUP) * PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	volatile char *data =
		(char *)(((uintptr_t)raw + GROUP * PAGE - 1) & ~(GROUP * PAGE - 1));
	volatile char sum = 0;

	if (!pages || raw == MAP_FAILED)
		return 2;
	madvise(raw, (pages + GROUP) * PAGE,
		strcmp(argv[1], "huge") ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
	for (size_t i = 0; i < pages; i++)
		sum = (char)(sum + data[i * PAGE]);
	for (size_t i = 0; i < pages; i++)
		if (i % GROUP >= GROUP - (size_t)atoi(argv[3])) {
			data[i * PAGE] = 1;
			written++;
		}
	free(malloc(100));
	printf("zeros written=%zu\n", written * PAGE);
	return sum;
}
