/*
 * See index.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "util/index.h"

#include <stdlib.h>
#include <string.h>

#include "util/alloc.h"

static void index_put(struct index *ix, struct index_slot slot)
{
	size_t at = slot.tag & ix->mask;

	while (ix->slots[at].item)
		at = (at + 1) & ix->mask;
	ix->slots[at] = slot;
}

static void index_grow(struct index *ix)
{
	struct index_slot *old = ix->slots;
	size_t slots = old ? ix->mask + 1 : 0;

	ix->mask = slots ? slots * 2 - 1 : 255;
	ix->slots = xcalloc(ix->mask + 1, sizeof(*ix->slots));
	for (size_t i = 0; i < slots; i++)
		if (old[i].item)
			index_put(ix, old[i]);
	free(old);
}

void index_add(struct index *ix, uint64_t hash, uint32_t item)
{
	if (!ix->slots || ix->count * 2 > ix->mask)
		index_grow(ix);
	index_put(ix, (struct index_slot){ index_tag(hash), item + 1 });
	ix->count++;
}

void index_release(struct index *ix)
{
	free(ix->slots);
	memset(ix, 0, sizeof(*ix));
}
