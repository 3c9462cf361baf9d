/*
 * Live blocks and sites of a trace that is followed. See follow.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "live/follow.h"

#include <stdlib.h>

#include "util/alloc.h"

#define WAITS UINT32_MAX
#define KIND_SHIFT 56

static size_t home(const struct follow *f, uint32_t proc, uint64_t key)
{
	uint64_t h = (key ^ (uint64_t)proc << 48) * UINT64_C(0x9e3779b97f4a7c15);

	return (size_t)(h >> 20) & f->block_mask;
}

static struct follow_block *slot_of(const struct follow *f, uint32_t proc, uint64_t key)
{
	size_t at = home(f, proc, key);

	while (f->blocks[at].addr && (f->blocks[at].addr != key || f->blocks[at].proc != proc))
		at = (at + 1) & f->block_mask;
	return &f->blocks[at];
}

static void grow(struct follow *f)
{
	struct follow_block *old = f->blocks;
	size_t room = f->block_mask + 1;

	if (old && f->block_count < room / 8 * 5)
		return;
	f->block_mask = old ? 2 * room - 1 : 4095;
	f->blocks = xcalloc(f->block_mask + 1, sizeof(*f->blocks));
	for (size_t i = 0; old && i < room; i++)
		if (old[i].addr)
			*slot_of(f, old[i].proc, old[i].addr) = old[i];
	free(old);
}

/* Those behind it that could not stand where they belong move up. */
static void drop(struct follow *f, struct follow_block *b)
{
	size_t at = (size_t)(b - f->blocks), next = at;

	for (;;) {
		size_t want;

		next = (next + 1) & f->block_mask;
		if (!f->blocks[next].addr)
			break;
		want = home(f, f->blocks[next].proc, f->blocks[next].addr);
		if (((next - want) & f->block_mask) < ((next - at) & f->block_mask))
			continue;
		f->blocks[at] = f->blocks[next];
		at = next;
	}
	f->blocks[at].addr = 0;
	f->block_count--;
}

static void count(struct follow *f, const struct follow_block *b, uint64_t time, double sign)
{
	struct follow_site *s = &f->sites.items[b->site];
	double bytes = sign * b->weight * (double)b->size, at = follow_seconds(f, time);
	uint32_t second = at > 0 ? (uint32_t)at + 1 : 1, i = second % FOLLOW_BUCKETS;

	s->bytes += bytes;
	s->count += sign * b->weight;
	f->procs.items[b->proc].live_bytes += bytes;
	if (second > s->second[i]) {
		s->second[i] = second;
		s->net[i] = 0;
	}
	if (second == s->second[i])
		s->net[i] += bytes;
}

static uint64_t key_of(uint64_t addr, uint32_t kind)
{
	return addr | (uint64_t)(kind & MT_KIND_MASK) << KIND_SHIFT;
}

void blocks_take(struct follow *f, uint32_t proc, uint64_t addr, struct follow_block block)
{
	struct follow_block *b;

	grow(f);
	b = slot_of(f, proc, addr);
	if (b->addr && b->site == WAITS && b->time > block.time) {
		/* Given back already; in the window both count, which comes to nothing. */
		f->waiting--;
		drop(f, b);
		return;
	}
	if (b->addr && b->site != WAITS && b->time > block.time)
		return; /* of an older life of this address */
	if (b->addr && b->site != WAITS)
		count(f, b, block.time, -1);
	else if (b->addr)
		f->waiting--;
	f->block_count += !b->addr;
	*b = block;
	b->addr = addr;
	b->proc = proc;
	count(f, b, block.time, 1);
}

void blocks_give(struct follow *f, uint32_t proc, uint64_t addr, uint32_t kind, uint64_t time)
{
	uint64_t key = key_of(addr, kind);
	struct follow_block *b;

	grow(f);
	b = slot_of(f, proc, key);
	if (b->addr && b->site != WAITS) {
		if (b->time > time)
			return;
		count(f, b, time, -1);
		drop(f, b);
		return;
	}
	f->block_count += !b->addr;
	f->waiting += !b->addr;
	*b = (struct follow_block){ .addr = key, .proc = proc, .site = WAITS, .time = time };
}

const struct follow_block *blocks_find(const struct follow *f, uint32_t proc, uint64_t addr,
				       uint32_t kind)
{
	const struct follow_block *b = f->blocks ? slot_of(f, proc, key_of(addr, kind)) : NULL;

	return b && b->addr ? b : NULL;
}

void blocks_age(struct follow *f)
{
	double now = follow_seconds(f, f->last);

	if (f->waiting < 10000 && f->waiting < f->block_count / 8)
		return;
	for (size_t i = 0; i <= f->block_mask;) {
		struct follow_block *b = &f->blocks[i];

		if (b->addr && b->site == WAITS && follow_seconds(f, b->time) < now - 30) {
			f->waiting--;
			drop(f, b); /* another may stand here now */
		} else {
			i++;
		}
	}
}

uint32_t site_of(struct follow *f, uint32_t proc, uint32_t native, uint32_t python)
{
	uint32_t key[3] = { proc, native, python };
	struct follow_site *s;
	bool is_new;
	uint64_t *slot = hashmap_slot(&f->site_ids, key, sizeof(key), &is_new);

	if (is_new) {
		*slot = f->sites.count;
		s = vec_push(&f->sites);
		*s = (struct follow_site){ .proc = proc, .native = native, .python = python };
	}
	return (uint32_t)*slot;
}
