/*
 * See memo.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "stack/memo.h"

#include <string.h>

#include "stack/bounds.h"

#define MIX UINT64_C(0x9e3779b97f4a7c15)

MT_READS_STACKS static inline uint64_t site_key(uintptr_t slot)
{
	return ((*(const uintptr_t *)slot ^ slot << 20) * MIX) | 1;
}

static inline struct mt_memo_site *site_of(struct mt_memo *m, uint64_t key)
{
	return &m->sites[key >> (64 - MT_MEMO_SITES_BITS)];
}

/* Where the path that runs here now would stand. */
MT_READS_STACKS static inline struct mt_memo_path *path_of(struct mt_memo *m,
							   const struct mt_memo_site *s,
							   uintptr_t slot, uint64_t key)
{
	for (uint32_t i = 0; i < s->count; i++)
		key = (key ^ ((const uintptr_t *)slot)[s->at[i]]) * MIX + (key >> 32);
	return &m->paths[key * MIX >> (64 - MT_MEMO_PATHS_BITS)];
}

/* Values come first, outermost first; then the places they stand at, in words from the slot. */
MT_READS_STACKS static inline int path_holds(const uint64_t *value, uint32_t n, uintptr_t slot)
{
	const uint16_t *at = (const uint16_t *)(value + n);
	const uintptr_t *stack = (const uintptr_t *)slot;
	uintptr_t a = 0, b = 0;
	uint32_t i;

	for (i = 0; i + 4 <= n; i += 4) {
		a |= (stack[at[i]] ^ value[i]) | (stack[at[i + 1]] ^ value[i + 1]);
		b |= (stack[at[i + 2]] ^ value[i + 2]) | (stack[at[i + 3]] ^ value[i + 3]);
	}
	for (; i < n; i++)
		a |= stack[at[i]] ^ value[i];
	return !(a | b);
}

uint32_t mt_memo_find(struct mt_memo *m, uintptr_t slot, uintptr_t rbp)
{
	uint64_t key = site_key(slot);
	const struct mt_memo_site *s = site_of(m, key);
	const struct mt_memo_path *p;

	if (s->key != key)
		return 0;
	p = path_of(m, s, slot, key);
	if (!p->node || p->slot != slot || (p->need && p->rbp != rbp) ||
	    !path_holds(&m->arena[p->words], p->count, slot))
		return 0;
	return p->node;
}

/* The path that stands where the present one belongs is another one: the innermost word in which
 * they differ tells them apart from now on. */
MT_READS_STACKS static void tell_apart(struct mt_memo *m, struct mt_memo_site *s,
				       const struct mt_memo_path *p)
{
	const uint64_t *value = &m->arena[p->words];
	const uint16_t *at = (const uint16_t *)(value + p->count);
	const uintptr_t *stack = (const uintptr_t *)p->slot;
	uint32_t i = p->count;

	while (i && stack[at[i - 1]] == value[i - 1])
		i--;
	if (!i || s->count == MT_MEMO_KEYS)
		return;
	s->at[s->count++] = at[i - 1];
}

void mt_memo_clear(struct mt_memo *m)
{
	if (!m->used)
		return;
	memset(m->sites, 0, sizeof(m->sites));
	memset(m->paths, 0, sizeof(m->paths));
	m->used = 0;
}

void mt_memo_add(struct mt_memo *m, uintptr_t slot, uintptr_t rbp, int need,
		 const struct mt_check *checks, uint32_t count, uint32_t node)
{
	uint32_t units = count + (count * (uint32_t)sizeof(uint16_t) + 7) / 8;
	uint64_t key = site_key(slot);
	struct mt_memo_site *s = site_of(m, key);
	struct mt_memo_path *p;
	uint16_t *at;

	if (count > MT_MEMO_WORDS_MAX || (checks[0].address - slot) / 8 > UINT16_MAX)
		return;
	if (m->used + units > sizeof(m->arena) / 8)
		mt_memo_clear(m);
	if (s->key != key) {
		s->key = key;
		s->count = 0;
	}
	p = path_of(m, s, slot, key);
	if (p->node && p->slot == slot) {
		tell_apart(m, s, p);
		p = path_of(m, s, slot, key);
	}
	at = (uint16_t *)(&m->arena[m->used] + count);
	for (uint32_t i = 0; i < count; i++) {
		m->arena[m->used + i] = checks[i].value;
		at[i] = (uint16_t)((checks[i].address - slot) / 8);
	}
	*p = (struct mt_memo_path){ .slot = slot,
				    .rbp = rbp,
				    .words = m->used,
				    .count = (uint16_t)count,
				    .need = need != 0,
				    .node = node };
	m->used += units;
}
