/*
 * See live.h.
 *
 * An entry in an upper table hides the one of the same key below. GONE entries hide a block that
 * was freed. COVERS marks an entry that hides something: only then has its removal to leave a GONE
 * behind, so a free of a young block never has to look below.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "model/live.h"

#include <stdlib.h>
#include <string.h>

#include "util/alloc.h"

#define COVERS 0x80000000u /* in owner */
#define GONE 0x7fffffffu /* owner without COVERS */
#define FIRST_SLOTS 128

struct live_layer {
	uint32_t refs;
	uint32_t shift; /* 64 - log2(slots) */
	size_t mask; /* slots - 1 */
	size_t used; /* entries, GONE ones too */
	struct live_block *slots; /* key 0: free */
};

static struct live_layer *layer_new(size_t slots)
{
	struct live_layer *l = xmalloc(sizeof(*l));

	l->refs = 1;
	l->mask = slots - 1;
	l->shift = 64 - (uint32_t)__builtin_ctzll(slots);
	l->used = 0;
	l->slots = xcalloc(slots, sizeof(*l->slots));
	return l;
}

static void layer_unref(struct live_layer *l)
{
	if (l && !--l->refs) {
		free(l->slots);
		free(l);
	}
}

static inline size_t layer_home(const struct live_layer *l, uint64_t key)
{
	/* Addresses are multiples of 16; the product's high bits depend on all of them. */
	return (key * 0x9e3779b97f4a7c15u) >> l->shift;
}

/* Slot of the key, or the free one where it belongs. */
static inline struct live_block *layer_slot(const struct live_layer *l, uint64_t key)
{
	size_t at = layer_home(l, key);

	while (l->slots[at].key && l->slots[at].key != key)
		at = (at + 1) & l->mask;
	return &l->slots[at];
}

static bool is_gone(const struct live_block *b)
{
	return (b->owner & ~COVERS) == GONE;
}

static void layer_grow(struct live_layer *l)
{
	struct live_block *old = l->slots;
	size_t slots = l->mask + 1;

	l->slots = xcalloc(slots * 2, sizeof(*l->slots));
	l->mask = slots * 2 - 1;
	l->shift--;
	for (size_t i = 0; i < slots; i++)
		if (old[i].key)
			*layer_slot(l, old[i].key) = old[i];
	free(old);
}

/* Removes an entry and moves later ones of its run up, so that no run has a hole. */
static void layer_erase(struct live_layer *l, struct live_block *entry)
{
	size_t hole = (size_t)(entry - l->slots), at = hole;

	for (;;) {
		size_t home;

		at = (at + 1) & l->mask;
		if (!l->slots[at].key)
			break;
		home = layer_home(l, l->slots[at].key);
		if (((at - home) & l->mask) < ((at - hole) & l->mask))
			continue; /* it would come before its home */
		l->slots[hole] = l->slots[at];
		hole = at;
	}
	memset(&l->slots[hole], 0, sizeof(l->slots[hole]));
	l->used--;
}

/* The live block of the key in the frozen tables, or NULL. */
static inline const struct live_block *under_find(const struct live_set *set, uint64_t key)
{
	for (uint32_t i = set->depth; i-- > 0;) {
		const struct live_block *b = layer_slot(set->under[i], key);

		if (b->key)
			return is_gone(b) ? NULL : b;
	}
	return NULL;
}

/* A table that may be written to. */
static struct live_layer *set_top(struct live_set *set)
{
	if (set->top)
		return set->top;
	if (set->depth && set->under[set->depth - 1]->refs == 1) {
		set->top = set->under[--set->depth]; /* the child that shared it is done */
		if (set->own > set->depth)
			set->own = set->depth;
	} else {
		set->top = layer_new(FIRST_SLOTS);
	}
	return set->top;
}

static struct live_block block_of(const struct live_block *entry)
{
	struct live_block b = *entry;

	b.owner &= ~COVERS;
	return b;
}

bool live_add(struct live_set *set, const struct live_block *block, struct live_block *old)
{
	struct live_layer *top = set_top(set);
	struct live_block *entry = layer_slot(top, block->key);
	uint32_t covers = 0;
	bool was_live = false;

	if (entry->key) {
		covers = entry->owner & COVERS;
		was_live = !is_gone(entry);
		if (was_live)
			*old = block_of(entry);
	} else {
		const struct live_block *below = under_find(set, block->key);

		if (below) {
			was_live = true;
			*old = block_of(below);
			covers = COVERS;
		}
		if (++top->used * 2 > top->mask) {
			layer_grow(top);
			entry = layer_slot(top, block->key);
		}
	}
	*entry = *block;
	entry->owner |= covers;
	if (!was_live)
		set->count++;
	return was_live;
}

bool live_remove(struct live_set *set, uint64_t key, struct live_block *block)
{
	struct live_layer *top = set_top(set);
	struct live_block *entry = layer_slot(top, key);
	const struct live_block *below;

	if (entry->key) {
		if (is_gone(entry))
			return false;
		*block = block_of(entry);
		if (entry->owner & COVERS)
			entry->owner = GONE | COVERS;
		else
			layer_erase(top, entry);
		set->count--;
		return true;
	}
	below = under_find(set, key);
	if (!below)
		return false;
	*block = block_of(below);
	if (++top->used * 2 > top->mask) {
		layer_grow(top);
		entry = layer_slot(top, key);
	}
	entry->key = key;
	entry->owner = GONE | COVERS;
	set->count--;
	return true;
}

bool live_find(const struct live_set *set, uint64_t key, struct live_block *block)
{
	const struct live_block *b = set->top ? layer_slot(set->top, key) : NULL;

	if (!b || !b->key)
		b = under_find(set, key);
	if (!b || is_gone(b))
		return false;
	*block = block_of(b);
	return true;
}

/* Puts the frozen tables from `first` on into one. */
static void under_merge(struct live_set *set, uint32_t first)
{
	size_t entries = 0, slots = FIRST_SLOTS;
	struct live_layer *merged;

	for (uint32_t i = first; i < set->depth; i++)
		entries += set->under[i]->used;
	while (entries * 2 > slots)
		slots *= 2;
	merged = layer_new(slots);
	for (uint32_t i = first; i < set->depth; i++) {
		const struct live_layer *l = set->under[i];

		for (size_t k = 0; k <= l->mask; k++) {
			const struct live_block *b = &l->slots[k];
			struct live_block *entry;

			if (!b->key)
				continue;
			entry = layer_slot(merged, b->key);
			/* COVERS of the oldest is what still holds for the merged table. */
			if (!entry->key) {
				*entry = *b;
				merged->used++;
			} else {
				uint32_t covers = entry->owner & COVERS;

				*entry = *b;
				entry->owner = (b->owner & ~COVERS) | covers;
			}
			if (!first)
				entry->owner &= ~COVERS;
		}
	}
	for (uint32_t i = first; i < set->depth; i++)
		layer_unref(set->under[i]);
	set->under[first] = merged;
	set->depth = first + 1;
	if (set->own > first)
		set->own = first;
	/* What is gone and hides nothing below is of no use. */
	for (size_t k = 0; k <= merged->mask;) {
		if (merged->slots[k].key && merged->slots[k].owner == GONE)
			layer_erase(merged, &merged->slots[k]); /* another one may have come to k */
		else
			k++;
	}
}

/* Merges the youngest tables as long as that does not mean copying much bigger ones. */
static void under_compact(struct live_set *set)
{
	uint32_t first = set->depth - 2;
	size_t total = set->under[first]->used + set->under[first + 1]->used;

	while (first > 0 && set->under[first - 1]->used <= 2 * total)
		total += set->under[--first]->used;
	under_merge(set, first);
}

void live_fork(struct live_set *parent, struct live_set *child)
{
	if (parent->top && parent->top->used) {
		parent->under[parent->depth++] = parent->top;
	} else {
		layer_unref(parent->top);
	}
	parent->top = NULL;
	if (parent->depth > LIVE_LAYERS)
		under_compact(parent);
	*child = *parent;
	child->own = child->depth;
	for (uint32_t i = 0; i < child->depth; i++)
		child->under[i]->refs++;
}

void live_release(struct live_set *set)
{
	layer_unref(set->top);
	for (uint32_t i = 0; i < set->depth; i++)
		layer_unref(set->under[i]);
	memset(set, 0, sizeof(*set));
}

static bool hidden_above(const struct live_set *set, uint32_t layer, uint64_t key)
{
	if (layer == set->depth)
		return false;
	for (uint32_t i = layer + 1; i < set->depth; i++)
		if (layer_slot(set->under[i], key)->key)
			return true;
	return set->top && layer_slot(set->top, key)->key;
}

static void each_from(const struct live_set *set, uint32_t first,
		      void (*fn)(void *arg, const struct live_block *block), void *arg)
{
	for (uint32_t i = first; i <= set->depth; i++) {
		const struct live_layer *l = i < set->depth ? set->under[i] : set->top;

		for (size_t k = 0; l && k <= l->mask; k++) {
			struct live_block b = block_of(&l->slots[k]);

			if (b.key && b.owner != GONE && !hidden_above(set, i, b.key))
				fn(arg, &b);
		}
	}
}

void live_each(const struct live_set *set, void (*fn)(void *arg, const struct live_block *block),
	       void *arg)
{
	each_from(set, 0, fn, arg);
}

void live_each_own(const struct live_set *set,
		   void (*fn)(void *arg, const struct live_block *block), void *arg)
{
	each_from(set, set->own < set->depth ? set->own : set->depth, fn, arg);
}

size_t live_memory(const struct live_set *set)
{
	size_t bytes = 0;

	for (uint32_t i = 0; i <= set->depth; i++) {
		const struct live_layer *l = i < set->depth ? set->under[i] : set->top;

		if (l)
			bytes += sizeof(*l) + (l->mask + 1) * sizeof(*l->slots);
	}
	return bytes;
}

static void count_one(void *arg, const struct live_block *block)
{
	(void)block;
	++*(size_t *)arg;
}

bool live_is_valid(const struct live_set *set)
{
	size_t live = 0;

	for (uint32_t i = 0; i <= set->depth; i++) {
		const struct live_layer *l = i < set->depth ? set->under[i] : set->top;
		size_t used = 0;

		if (!l)
			continue;
		for (size_t k = 0; k <= l->mask; k++) {
			if (!l->slots[k].key)
				continue;
			used++;
			if (layer_slot(l, l->slots[k].key) != &l->slots[k])
				return false; /* a hole in its run */
			if (is_gone(&l->slots[k]) && !(l->slots[k].owner & COVERS))
				return false;
		}
		if (used != l->used || used > l->mask || !l->refs)
			return false;
	}
	live_each(set, count_one, &live);
	return live == set->count && set->depth <= LIVE_LAYERS;
}
