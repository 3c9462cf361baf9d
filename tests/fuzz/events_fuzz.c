/*
 * Any bytes as the payload of a chunk, through the record decoders. What they accept is encoded
 * again and read once more: it must be the same record, in no more bytes than its room says. Built
 * and run by scripts/fuzz, or with replay.c on files.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "memtrace/events.h"

#define BASE_TIME 1000
#define BIGGEST ((size_t)1 << 20) /* a framed record's length has 21 bits */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int ok)
{
	if (!ok)
		abort();
}

/* ---- records from the table: same, room, put --------------------------------------------------- */

#define SAME_U(a, b) ((a) == (b))
#define SAME_S SAME_U
#define SAME_T SAME_U
#define SAME_A SAME_U
#define SAME_N SAME_U
#define SAME_P SAME_U
#define SAME_D SAME_U
#define SAME_R SAME_U
#define SAME_C SAME_U
#define SAME_STR(a, b) ((a).len == (b).len && !((a).len && memcmp((a).data, (b).data, (a).len)))

#define MT_FIELD(type, name, text) && SAME_##type(x->name, y->name)
#define MT_OPTIONAL(type, name, bit, text) MT_FIELD(type, name, text)
#define MT_EVENT(NAME, name, class, tag, text)                                                     \
	static int same_##name(const struct mt_ev_##name *x, const struct mt_ev_##name *y)         \
	{                                                                                          \
		return 1
#define MT_END(NAME, name)                                                                         \
	;                                                                                          \
	}
#include "memtrace/events.def"
#undef MT_EVENT
#undef MT_FIELD
#undef MT_OPTIONAL
#undef MT_END

#define MT_FIELD(type, name, text)
#define MT_OPTIONAL(type, name, bit, text)
#define MT_END(NAME, name)

static int same(const struct mt_record *x, const struct mt_record *y)
{
	switch (x->id) {
#define MT_EVENT(NAME, name, class, tag, text)                                                     \
	case tag:                                                                                  \
		return x->id == y->id && same_##name(&x->u.name, &y->u.name);
#include "memtrace/events.def"
#undef MT_EVENT
	}
	return 0;
}

/* 0: a record of the future, which has no encoder. */
static size_t room(const struct mt_record *r)
{
	switch (r->id) {
#define MT_EVENT(NAME, name, class, tag, text)                                                     \
	case tag:                                                                                  \
		return mt_##name##_room(&r->u.name);
#include "memtrace/events.def"
#undef MT_EVENT
	}
	return 0;
}

static uint8_t *put(uint8_t *p, struct mt_codec *c, const struct mt_record *r)
{
	switch (r->id) {
#define MT_EVENT(NAME, name, class, tag, text)                                                     \
	case tag:                                                                                  \
		return mt_put_##name(p, c, &r->u.name);
#include "memtrace/events.def"
#undef MT_EVENT
	}
	return NULL;
}

#undef MT_FIELD
#undef MT_OPTIONAL
#undef MT_END

/* ---- the property ------------------------------------------------------------------------------ */

static int near(uint64_t addr, uint64_t last)
{
	return addr - last + (UINT64_C(1) << 61) < UINT64_C(1) << 62;
}

/* Encoders promise to carry times that go on and addresses less than 2^61 apart, no others. */
static int within_the_promise(const struct mt_record *r, const struct mt_codec *before)
{
	if (!(r->id & 0x80))
		return 1;
	if (r->id == MT_EV_NODE)
		return 1;
	if (r->u.alloc.time < before->time)
		return 0;
	if (r->id == MT_EV_REALLOC)
		return near(r->u.realloc.old_addr, before->addr) &&
		       near(r->u.realloc.addr, r->u.realloc.old_addr);
	return near(r->id == MT_EV_ALLOC ? r->u.alloc.addr : r->u.free.addr, before->addr);
}

static void check(const struct mt_record *r, const struct mt_codec *before,
		  const struct mt_codec *after)
{
	size_t most = room(r);
	struct mt_codec writer = *before, reader = *before;
	struct mt_record again;
	uint8_t *bytes, *end;

	if (!most || !within_the_promise(r, before))
		return;
	bytes = malloc(most);
	require(bytes != NULL);
	end = put(bytes, &writer, r);
	require((size_t)(end - bytes) <= most);
	require(mt_get_record(bytes, end, &reader, &again) == end);
	require(same(r, &again));
	require(!memcmp(&writer, &reader, sizeof(writer)));
	require(!memcmp(&reader, after, sizeof(reader)));
	free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *p = data, *end = data + size;
	struct mt_codec codec, before;
	struct mt_record r;

	if (size > BIGGEST)
		return 0;
	mt_codec_start(&codec, BASE_TIME);
	for (;;) {
		const uint8_t *next;

		before = codec;
		next = mt_get_record(p, end, &codec, &r);
		if (!next)
			return 0;
		require(next > p && next <= end);
		check(&r, &before, &codec);
		p = next;
	}
}
