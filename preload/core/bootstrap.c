/*
 * Memory before the real allocator is known. See bootstrap.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core/bootstrap.h"

#include <errno.h>

char mt_bootstrap_arena[MT_BOOTSTRAP_BYTES] __attribute__((aligned(4096)));
static size_t used;

void *mt_bootstrap_alloc(size_t alignment, size_t size)
{
	size_t at, start;

	if (alignment < 16)
		alignment = 16;
	at = __atomic_load_n(&used, __ATOMIC_RELAXED);
	do {
		start = (at + alignment - 1) & ~(alignment - 1);
		if (start > MT_BOOTSTRAP_BYTES || size > MT_BOOTSTRAP_BYTES - start) {
			errno = ENOMEM;
			return NULL;
		}
	} while (!__atomic_compare_exchange_n(&used, &at, start + size, 0, __ATOMIC_RELAXED,
					      __ATOMIC_RELAXED));
	return mt_bootstrap_arena + start;
}
