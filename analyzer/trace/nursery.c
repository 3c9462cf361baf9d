/*
 * See nursery.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "trace/nursery.h"

#include <string.h>

#define MAX_BYTES (UINT64_C(1) << 56) /* more than any address space */
#define KNOWN_KIND_BITS (MT_KIND_MASK | MT_KIND_BACKING)

static bool kind_is_known(uint32_t kind)
{
	return !(kind & ~(uint32_t)KNOWN_KIND_BITS) && (kind & MT_KIND_MASK) < MT_KINDS;
}

static bool cell_is_true(const struct mt_cell *c)
{
	return kind_is_known(c->kind) && c->count && c->count <= MAX_BYTES &&
	       c->bytes <= MAX_BYTES && c->brief <= c->count && c->largest <= c->bytes &&
	       c->first <= c->last;
}

static bool young_is_true(const struct mt_young *y)
{
	return kind_is_known(young_kind(y)) && young_addr(y) && y->size <= MAX_BYTES;
}

/* `bytes` of the chunk's can't be what was written. */
static void note_bad(struct trace *t, const struct trace_chunk *chunk, uint64_t bytes)
{
	struct trace_problems *problems = trace_damage(t);

	if (!bytes)
		return;
	if (!chunk->cut)
		problems->bad_chunks++;
	problems->bad_bytes += bytes;
}

void nursery_read(struct trace *t, const struct trace_chunk *chunk, struct nursery *n)
{
	uint8_t *buf = NULL;
	size_t room = 0;
	uint32_t used, slack, there;
	const uint8_t *p = trace_payload(t, chunk, &buf, &room, &used, &slack);
	uint64_t bad = 0;

	memset(n, 0, sizeof(*n));
	if (used < sizeof(n->head)) {
		note_bad(t, chunk, used);
		free(buf);
		return;
	}
	memcpy(&n->head, p, sizeof(n->head));
	n->valid = true;
	there = (used - (uint32_t)sizeof(n->head)) / (uint32_t)sizeof(struct mt_young);
	if (n->head.entries > there)
		bad += sizeof(n->head.entries);
	else
		there = n->head.entries;
	n->fold_valid = n->head.fold_entry && n->head.fold_entry <= there &&
			cell_is_true(&n->head.fold);
	if (n->head.fold_entry && !n->fold_valid)
		bad += sizeof(n->head.fold);
	if (n->head.young_most > MAX_BYTES ||
	    (n->head.young_most && n->head.young_bytes > n->head.young_most)) {
		bad += sizeof(uint64_t) * 4;
		n->head.young_most = n->head.young_bytes = 0;
	}
	for (uint32_t i = 0; i < there; i++) {
		struct nursery_entry e = { .index = i };

		memcpy(&e.young, p + sizeof(n->head) + i * sizeof(e.young), sizeof(e.young));
		if (!e.young.addr)
			continue;
		if (young_is_true(&e.young))
			*vec_push(&n->entries) = e;
		else
			bad += sizeof(e.young);
	}
	note_bad(t, chunk, bad);
	free(buf);
}

void nursery_release(struct nursery *n)
{
	vec_release(&n->entries);
}

void cells_read(struct trace *t, const struct trace_chunk *chunk, cell_list *cells)
{
	uint8_t *buf = NULL;
	size_t room = 0;
	uint32_t used, slack;
	const uint8_t *p = trace_payload(t, chunk, &buf, &room, &used, &slack);
	uint64_t bad = used % sizeof(struct mt_cell);

	for (uint32_t i = 0; i < used / sizeof(struct mt_cell); i++) {
		struct mt_cell c;

		memcpy(&c, p + i * sizeof(c), sizeof(c));
		if (cell_is_true(&c))
			*vec_push(cells) = c;
		else if (c.count) /* 0: claimed, and the first count had not come yet */
			bad += sizeof(c);
	}
	note_bad(t, chunk, bad);
	free(buf);
}
