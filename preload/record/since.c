/*
 * See since.h. A tree of three levels over 47 bits of address; what is above shares the last root.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "record/since.h"

#include <stddef.h>
#include <stdint.h>

#include "core/mem.h"

#define GRAIN_BITS 3
#define LEAF_BITS 21 /* address bits below a leaf: 32 KiB of bits for 2 MiB */
#define MIDDLE_BITS 13
#define ROOT_BITS 13

struct leaf {
	uint64_t bits[1 << (LEAF_BITS - GRAIN_BITS - 6)];
};

struct middle {
	struct leaf *leaves[1 << MIDDLE_BITS];
};

static struct middle *root[1 << ROOT_BITS];

/* Makes *at if it is not there and `add`; NULL: it is not. */
static void *part(void **at, size_t size, int add)
{
	void *p = __atomic_load_n(at, __ATOMIC_ACQUIRE), *fresh;

	if (p || !add)
		return p;
	fresh = mt_mem_map(size);
	/* Release: zeroed before it is seen. */
	if (fresh &&
	    __atomic_compare_exchange_n(at, &p, fresh, 0, __ATOMIC_RELEASE, __ATOMIC_ACQUIRE))
		return fresh;
	if (fresh)
		mt_mem_unmap(fresh, size);
	return p;
}

static uint64_t *word_of(uintptr_t a, int add)
{
	struct middle *m =
		part((void **)&root[a >> (LEAF_BITS + MIDDLE_BITS) & ((1 << ROOT_BITS) - 1)],
		     sizeof(*m), add);
	struct leaf *l = NULL;

	if (m)
		l = part((void **)&m->leaves[a >> LEAF_BITS & ((1 << MIDDLE_BITS) - 1)], sizeof(*l),
			 add);
	return l ? &l->bits[(a & ((1 << LEAF_BITS) - 1)) >> (GRAIN_BITS + 6)] : NULL;
}

static uint64_t bit_of(uintptr_t a)
{
	return UINT64_C(1) << (a >> GRAIN_BITS & 63);
}

void mt_since_add(const void *block)
{
	uintptr_t a = (uintptr_t)block;
	uint64_t *word = word_of(a, 1);

	if (word && !(__atomic_load_n(word, __ATOMIC_RELAXED) & bit_of(a)))
		__atomic_fetch_or(word, bit_of(a), __ATOMIC_RELAXED);
}

int mt_since_has(const void *block)
{
	uintptr_t a = (uintptr_t)block;
	const uint64_t *word = word_of(a, 0);

	return word && (__atomic_load_n(word, __ATOMIC_RELAXED) & bit_of(a));
}

void mt_since_reset(void)
{
	for (size_t i = 0; i < sizeof(root) / sizeof(root[0]); i++)
		root[i] = NULL;
}
