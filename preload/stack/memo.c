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

/* Of two neighbours, the one that has the key, or an empty one, or the one to give up. */
static inline struct mt_memo_site *site_of(struct mt_memo *m, uint64_t key)
{
	struct mt_memo_site *s = &m->sites[key >> (64 - MT_MEMO_SITES_BITS)];

	if (__builtin_expect(s->key == key, 1) || !s->key)
		return s;
	return &m->sites[(key >> (64 - MT_MEMO_SITES_BITS)) ^ 1];
}

/* Of the path that runs here now. */
MT_READS_STACKS static inline uint64_t path_key(const struct mt_memo_site *s, uintptr_t slot)
{
	uint64_t key = s->key;

	for (uint32_t i = 0; i < s->count; i++)
		key = (key ^ ((const uintptr_t *)slot)[s->at[i]]) * MIX + (key >> 32);
	return key;
}

/* The first of the two places for it; the other one is its neighbour. */
static inline uint32_t path_at(uint64_t key)
{
	return (uint32_t)(key * MIX >> (64 - MT_MEMO_PATHS_BITS));
}

/* Values come first, outermost first; then the places they stand at, in words from the slot. */
MT_READS_STACKS static inline int words_hold(const uint64_t *value, uint32_t n, uintptr_t slot)
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
	key = path_key(s, slot);
	p = &m->paths[path_at(key)];
	if (__builtin_expect(p->key != key, 0))
		p = &m->paths[path_at(key) ^ 1];
	if (p->key != key || !p->node || p->slot != slot || (p->need && p->rbp != rbp) ||
	    !words_hold(&m->arena[p->words], p->count, slot))
		return 0;
	return p->node;
}

/* A path that has the present one's key is another one: the innermost word in which they differ
 * tells them apart from now on. */
MT_READS_STACKS static void tell_apart(const struct mt_memo *m, struct mt_memo_site *s,
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
	if (!m->filled)
		return;
	memset(m->sites, 0, sizeof(m->sites));
	memset(m->paths, 0, sizeof(m->paths));
	m->used = m->base;
	m->filled = 0;
}

void mt_memo_child(struct mt_memo *m)
{
	const uint32_t all = sizeof(m->arena) / 8, own = MT_MEMO_CHILD_BYTES / 8;
	uint32_t base = m->used < all - own ? m->used : all - own;

	m->base = base;
	m->end = base + own;
	if (base < m->used) /* paths that are in use would be written over */
		mt_memo_clear(m);
}

static struct mt_memo_site *site_take(struct mt_memo *m, uint64_t key)
{
	struct mt_memo_site *s = site_of(m, key);

	if (s->key == key)
		return s;
	if (s->key && m->turn++ % 2)
		s = &m->sites[key >> (64 - MT_MEMO_SITES_BITS)];
	*s = (struct mt_memo_site){ .key = key };
	return s;
}

/* The place for a path of the site: of one that has its key, else an empty one, else either. */
static struct mt_memo_path *place_for(struct mt_memo *m, struct mt_memo_site *s, uintptr_t slot)
{
	struct mt_memo_path *first, *second;
	uint64_t key = path_key(s, slot);

	for (int again = 0; again < 2; again++) {
		first = &m->paths[path_at(key)];
		second = &m->paths[path_at(key) ^ 1];
		if (second->key == key)
			first = second;
		if (first->key != key)
			break;
		if (again || !first->node || first->slot != slot)
			return first;
		tell_apart(m, s, first);
		key = path_key(s, slot);
	}
	return !first->node || (second->node && m->turn++ % 2) ? first : second;
}

void mt_memo_add(struct mt_memo *m, uintptr_t slot, uintptr_t rbp, int need,
		 const struct mt_check *checks, uint32_t count, uint32_t node)
{
	uint32_t units = count + (count * (uint32_t)sizeof(uint16_t) + 7) / 8;
	struct mt_memo_site *s;
	struct mt_memo_path *p;
	uint16_t *at;

	if (count > MT_MEMO_WORDS_MAX || (checks[0].address - slot) / 8 > UINT16_MAX)
		return;
	if (m->used + units > (m->end ? m->end : sizeof(m->arena) / 8))
		mt_memo_clear(m);
	m->filled = 1;
	s = site_take(m, site_key(slot));
	p = place_for(m, s, slot);
	at = (uint16_t *)(&m->arena[m->used] + count);
	for (uint32_t i = 0; i < count; i++) {
		m->arena[m->used + i] = checks[i].value;
		at[i] = (uint16_t)((checks[i].address - slot) / 8);
	}
	*p = (struct mt_memo_path){ .key = path_key(s, slot),
				    .slot = slot,
				    .rbp = rbp,
				    .words = m->used,
				    .count = (uint16_t)count,
				    .need = need != 0,
				    .node = node };
	m->used += units;
}
