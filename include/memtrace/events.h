/*
 * Records as C: structs, encoders and bounds-checked decoders, expanded from events.def.
 *
 * Writing: reserve mt_<record>_room() bytes, then p = mt_put_<record>(p, &codec, &ev).
 * Reading: p = mt_get_record(p, end, &codec, &record): NULL when the bytes end inside a record or
 * make no sense; the codec is then unusable for the rest of the chunk. Strings point into the
 * bytes that were read. A codec belongs to one chunk at a time: mt_codec_start() at each.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_EVENTS_H
#define MEMTRACE_EVENTS_H

#include <string.h>

#include "format.h"
#include "varint.h"

/* What delta-coded fields refer to. Starts afresh in every chunk. */
struct mt_codec {
	uint64_t time; /* units of 2^time_shift ticks */
	uint64_t addr;
	uint64_t native, python; /* stacks of the last allocation */
	uint64_t node, frame; /* of the last NODE */
};

static inline void mt_codec_start(struct mt_codec *c, uint64_t base_time)
{
	memset(c, 0, sizeof(*c));
	c->time = base_time;
}

struct mt_str {
	const char *data; /* not terminated */
	uint32_t len;
};

/* ---- structs --------------------------------------------------------------------------------- */

typedef uint64_t mt_type_U;
typedef uint64_t mt_type_A;
typedef uint64_t mt_type_T;
typedef uint64_t mt_type_B;
typedef uint64_t mt_type_N;
typedef uint64_t mt_type_P;
typedef uint64_t mt_type_D;
typedef uint64_t mt_type_R;
typedef uint64_t mt_type_C;
typedef int64_t mt_type_S;
typedef struct mt_str mt_type_STR;

#define MT_EVENT(NAME, name, class, tag, text) struct mt_ev_##name {
#define MT_FIELD(type, name, text) mt_type_##type name;
#define MT_OPTIONAL(type, name, bit, text) mt_type_##type name;
#define MT_END(NAME, name)                                                                         \
	}                                                                                          \
	;
#include "events.def"
#undef MT_EVENT
#undef MT_FIELD
#undef MT_OPTIONAL
#undef MT_END

enum mt_event_id {
#define MT_EVENT(NAME, name, class, tag, text) MT_EV_##NAME = tag,
#define MT_FIELD(type, name, text)
#define MT_OPTIONAL(type, name, bit, text)
#define MT_END(NAME, name)
#include "events.def"
#undef MT_EVENT
#undef MT_FIELD
#undef MT_OPTIONAL
#undef MT_END
};

struct mt_record {
	unsigned int
		id; /* enum mt_event_id; a framed tag outside it is one this reader can't know */
	union {
		struct mt_str unknown; /* payload of an unknown framed record */
#define MT_EVENT(NAME, name, class, tag, text) struct mt_ev_##name name;
#define MT_FIELD(type, name, text)
#define MT_OPTIONAL(type, name, bit, text)
#define MT_END(NAME, name)
#include "events.def"
#undef MT_EVENT
#undef MT_FIELD
#undef MT_OPTIONAL
#undef MT_END
	} u;
};

/* ---- field codecs: put and get, HOT changes the state, FRAMED does not ------------------------ */

/* Addresses differ by less than 2^61: user space has at most 57 bits. */
static inline uint64_t mt_addr_code(uint64_t addr, uint64_t last)
{
	uint64_t d = addr - last;

	if (d % 16 == 0)
		return mt_zigzag((int64_t)d / 16) << 1;
	return mt_zigzag((int64_t)d) << 1 | 1;
}

static inline uint64_t mt_addr_decode(uint64_t code, uint64_t last)
{
	int64_t d = mt_unzigzag(code >> 1);

	return last + (uint64_t)(code & 1 ? d : (int64_t)((uint64_t)d * 16));
}

#define MT_DELTA_CODEC(type, member)                                                               \
	static inline uint8_t *mt_put_HOT_##type(uint8_t *p, struct mt_codec *c, uint64_t v)       \
	{                                                                                          \
		p = mt_put_varint(p, mt_zigzag((int64_t)(v - c->member)));                         \
		c->member = v;                                                                     \
		return p;                                                                          \
	}                                                                                          \
	static inline const uint8_t *mt_get_HOT_##type(const uint8_t *p, const uint8_t *end,       \
						       struct mt_codec *c, uint64_t *v)            \
	{                                                                                          \
		uint64_t raw;                                                                      \
                                                                                                   \
		p = mt_get_varint(p, end, &raw);                                                   \
		if (p)                                                                             \
			*v = c->member += (uint64_t)mt_unzigzag(raw);                              \
		return p;                                                                          \
	}                                                                                          \
	static inline uint8_t *mt_put_FRAMED_##type(uint8_t *p, struct mt_codec *c, uint64_t v)    \
	{                                                                                          \
		return mt_put_varint(p, mt_zigzag((int64_t)(v - c->member)));                      \
	}                                                                                          \
	static inline const uint8_t *mt_get_FRAMED_##type(const uint8_t *p, const uint8_t *end,    \
							  struct mt_codec *c, uint64_t *v)         \
	{                                                                                          \
		uint64_t raw;                                                                      \
                                                                                                   \
		p = mt_get_varint(p, end, &raw);                                                   \
		if (p)                                                                             \
			*v = c->member + (uint64_t)mt_unzigzag(raw);                               \
		return p;                                                                          \
	}

MT_DELTA_CODEC(N, native)
MT_DELTA_CODEC(P, python)
MT_DELTA_CODEC(C, frame)

static inline uint8_t *mt_put_HOT_T(uint8_t *p, struct mt_codec *c, uint64_t v)
{
	uint64_t dt = v > c->time ? v - c->time
				  : 0; /* a clock that steps back costs order, not data */

	c->time += dt;
	return mt_put_varint(p, dt);
}

static inline const uint8_t *mt_get_HOT_T(const uint8_t *p, const uint8_t *end, struct mt_codec *c,
					  uint64_t *v)
{
	uint64_t dt;

	p = mt_get_varint(p, end, &dt);
	if (p)
		*v = c->time += dt;
	return p;
}

static inline uint8_t *mt_put_FRAMED_T(uint8_t *p, struct mt_codec *c, uint64_t v)
{
	return mt_put_varint(p, mt_zigzag((int64_t)(v - c->time)));
}

static inline const uint8_t *mt_get_FRAMED_T(const uint8_t *p, const uint8_t *end,
					     struct mt_codec *c, uint64_t *v)
{
	uint64_t raw;

	p = mt_get_varint(p, end, &raw);
	if (p)
		*v = c->time + (uint64_t)mt_unzigzag(raw);
	return p;
}

/* A birth: earlier than what was written before it, so it leaves the state alone. */
#define mt_put_HOT_B mt_put_FRAMED_T
#define mt_get_HOT_B mt_get_FRAMED_T

static inline uint8_t *mt_put_HOT_A(uint8_t *p, struct mt_codec *c, uint64_t v)
{
	p = mt_put_varint(p, mt_addr_code(v, c->addr));
	c->addr = v;
	return p;
}

static inline const uint8_t *mt_get_HOT_A(const uint8_t *p, const uint8_t *end, struct mt_codec *c,
					  uint64_t *v)
{
	uint64_t code;

	p = mt_get_varint(p, end, &code);
	if (p)
		*v = c->addr = mt_addr_decode(code, c->addr);
	return p;
}

static inline uint8_t *mt_put_HOT_U(uint8_t *p, struct mt_codec *c, uint64_t v)
{
	(void)c;
	return mt_put_varint(p, v);
}

static inline const uint8_t *mt_get_HOT_U(const uint8_t *p, const uint8_t *end, struct mt_codec *c,
					  uint64_t *v)
{
	(void)c;
	return mt_get_varint(p, end, v);
}

#define mt_put_FRAMED_U mt_put_HOT_U
#define mt_get_FRAMED_U mt_get_HOT_U

/* NODE: its id as a delta to the next one in order, its parent as a delta to the one before. */
static inline uint8_t *mt_put_HOT_D(uint8_t *p, struct mt_codec *c, uint64_t v)
{
	p = mt_put_varint(p, mt_zigzag((int64_t)(v - (c->node + 1))));
	c->node = v;
	return p;
}

static inline const uint8_t *mt_get_HOT_D(const uint8_t *p, const uint8_t *end, struct mt_codec *c,
					  uint64_t *v)
{
	uint64_t raw;

	p = mt_get_varint(p, end, &raw);
	if (p)
		*v = c->node += 1 + (uint64_t)mt_unzigzag(raw);
	return p;
}

static inline uint8_t *mt_put_HOT_R(uint8_t *p, struct mt_codec *c, uint64_t v)
{
	return mt_put_varint(p, mt_zigzag((int64_t)(c->node - 1 - v)));
}

static inline const uint8_t *mt_get_HOT_R(const uint8_t *p, const uint8_t *end, struct mt_codec *c,
					  uint64_t *v)
{
	uint64_t raw;

	p = mt_get_varint(p, end, &raw);
	if (p)
		*v = c->node - 1 - (uint64_t)mt_unzigzag(raw);
	return p;
}

static inline uint8_t *mt_put_FRAMED_STR(uint8_t *p, struct mt_codec *c, struct mt_str v)
{
	(void)c;
	p = mt_put_varint(p, v.len);
	if (v.len)
		memcpy(p, v.data, v.len);
	return p + v.len;
}

static inline const uint8_t *mt_get_FRAMED_STR(const uint8_t *p, const uint8_t *end,
					       struct mt_codec *c, struct mt_str *v)
{
	uint64_t len;

	(void)c;
	p = mt_get_varint(p, end, &len);
	if (!p || len > (uint64_t)(end - p))
		return NULL;
	v->data = (const char *)p;
	v->len = (uint32_t)len;
	return p + len;
}

/* Is an optional field worth its bytes, and what does its absence mean? */
#define mt_has_N(c, v) ((v) != (c)->native)
#define mt_has_P(c, v) ((v) != (c)->python)
#define mt_has_U(c, v) ((v) != 0)
#define mt_has_D(c, v) ((v) != (c)->node + 1)
#define mt_has_R(c, v) ((v) != (c)->node - 1)
#define mt_absent_N(c) ((c)->native)
#define mt_absent_P(c) ((c)->python)
#define mt_absent_U(c) 0
#define mt_absent_D(c) (++(c)->node)
#define mt_absent_R(c) ((c)->node - 1)

/* ---- room: an upper bound of a record's bytes -------------------------------------------------- */

#define mt_room_U(v) MT_VARINT_MAX
#define mt_room_S(v) MT_VARINT_MAX
#define mt_room_T(v) MT_VARINT_MAX
#define mt_room_B(v) MT_VARINT_MAX
#define mt_room_A(v) MT_VARINT_MAX
#define mt_room_N(v) MT_VARINT_MAX
#define mt_room_P(v) MT_VARINT_MAX
#define mt_room_D(v) MT_VARINT_MAX
#define mt_room_R(v) MT_VARINT_MAX
#define mt_room_C(v) MT_VARINT_MAX
#define mt_room_STR(v) (MT_VARINT_MAX + (size_t)(v).len)

#define MT_EVENT(NAME, name, class, tag, text)                                                     \
	static inline size_t mt_##name##_room(const struct mt_ev_##name *e)                        \
	{                                                                                          \
		(void)e;                                                                           \
		return 1 + MT_LENGTH_BYTES
#define MT_FIELD(type, name, text) +mt_room_##type(e->name)
#define MT_OPTIONAL(type, name, bit, text) +mt_room_##type(e->name)
#define MT_END(NAME, name)                                                                         \
	;                                                                                          \
	}
#include "events.def"
#undef MT_EVENT
#undef MT_FIELD
#undef MT_OPTIONAL
#undef MT_END

/* ---- encoders ---------------------------------------------------------------------------------- */

/* The class picks a field's codec: EVENT leaves it in a constant that the compiler folds away. */
#define mt_put_FRAMED_A mt_put_HOT_A
#define mt_put_FRAMED_B mt_put_FRAMED_T /* named by the expansion, never used */
#define mt_get_FRAMED_B mt_get_FRAMED_T
#define mt_get_FRAMED_A mt_get_HOT_A
#define mt_put_HOT_STR mt_put_FRAMED_STR
#define mt_get_HOT_STR mt_get_FRAMED_STR
#define mt_put_FRAMED_D mt_put_HOT_D
#define mt_get_FRAMED_D mt_get_HOT_D
#define mt_put_FRAMED_R mt_put_HOT_R
#define mt_get_FRAMED_R mt_get_HOT_R
#define mt_class_HOT 0
#define mt_class_FRAMED 1
#define MT_PUT(type, v) (framed ? mt_put_FRAMED_##type(p, c, v) : mt_put_HOT_##type(p, c, v))
#define MT_GET(type, v)                                                                            \
	(framed ? mt_get_FRAMED_##type(p, end, c, v) : mt_get_HOT_##type(p, end, c, v))

#define MT_EVENT(NAME, name, class, tag, text)                                                     \
	static inline uint8_t *mt_put_##name(uint8_t *p, struct mt_codec *c,                       \
					     const struct mt_ev_##name *e)                         \
	{                                                                                          \
		const int framed = mt_class_##class;                                               \
		uint8_t *const head = p;                                                           \
		uint8_t bits = (uint8_t)(tag);                                                     \
                                                                                                   \
		p += framed ? 1 + MT_LENGTH_BYTES : 1;
#define MT_FIELD(type, name, text) p = MT_PUT(type, e->name);
#define MT_OPTIONAL(type, name, bit, text)                                                         \
	if (mt_has_##type(c, e->name)) {                                                           \
		bits |= (uint8_t)(1u << (bit));                                                    \
		p = MT_PUT(type, e->name);                                                         \
	} else {                                                                                   \
		(void)mt_absent_##type(c);                                                         \
	}
#define MT_END(NAME, name)                                                                         \
	*head = bits;                                                                              \
	if (framed)                                                                                \
		mt_put_length(head + 1, (uint32_t)(p - head - 1 - MT_LENGTH_BYTES));               \
	return p;                                                                                  \
	}
#include "events.def"
#undef MT_EVENT
#undef MT_FIELD
#undef MT_OPTIONAL
#undef MT_END

/* ---- decoders: from the byte after the tag (HOT) or after the length (FRAMED) ------------------- */

/* A framed record may end early: fields added by a later version are 0 in an older trace. */
#define MT_EVENT(NAME, name, class, tag, text)                                                     \
	static inline const uint8_t *mt_get_##name(const uint8_t *p, const uint8_t *end,           \
						   struct mt_codec *c, uint8_t bits,               \
						   struct mt_ev_##name *e)                         \
	{                                                                                          \
		const int framed = mt_class_##class;                                               \
                                                                                                   \
		(void)bits;                                                                        \
		memset(e, 0, sizeof(*e));
#define MT_FIELD(type, name, text)                                                                 \
	if (framed && p == end)                                                                    \
		return p;                                                                          \
	p = MT_GET(type, &e->name);                                                                \
	if (!p)                                                                                    \
		return NULL;
#define MT_OPTIONAL(type, name, bit, text)                                                         \
	if (bits & (1u << (bit))) {                                                                \
		p = MT_GET(type, &e->name);                                                        \
		if (!p)                                                                            \
			return NULL;                                                               \
	} else {                                                                                   \
		e->name = mt_absent_##type(c);                                                     \
	}
#define MT_END(NAME, name)                                                                         \
	return p;                                                                                  \
	}
#include "events.def"
#undef MT_EVENT
#undef MT_FIELD
#undef MT_OPTIONAL
#undef MT_END
#undef MT_PUT
#undef MT_GET

/* The payload of a framed record; the caller goes on at `end` whatever it holds. */
static inline int mt_get_framed(const uint8_t *p, const uint8_t *end, struct mt_codec *c,
				struct mt_record *r)
{
#define mt_case_HOT(NAME, name)
#define mt_case_FRAMED(NAME, name)                                                                 \
	case MT_EV_##NAME:                                                                         \
		return mt_get_##name(p, end, c, 0, &r->u.name) ? 0 : -1;
#define MT_EVENT(NAME, name, class, tag, text) mt_case_##class(NAME, name)
#define MT_FIELD(type, name, text)
#define MT_OPTIONAL(type, name, bit, text)
#define MT_END(NAME, name)
	switch (r->id) {
#include "events.def"
	default:
		r->u.unknown.data = (const char *)p;
		r->u.unknown.len = (uint32_t)(end - p);
		return 0;
	}
#undef MT_EVENT
#undef MT_FIELD
#undef MT_OPTIONAL
#undef MT_END
#undef mt_case_HOT
#undef mt_case_FRAMED
}

/*
 * Reads one record and returns the byte after it. NULL: the bytes end inside the record, or they
 * are not one. A framed record with a tag that events.def does not have is skipped over and
 * returned with that tag as its id.
 */
static inline const uint8_t *mt_get_record(const uint8_t *p, const uint8_t *end, struct mt_codec *c,
					   struct mt_record *r)
{
	uint8_t tag;
	uint64_t length;

	if (p >= end)
		return NULL;
	tag = *p++;
	if (tag & 0x80) {
		r->id = tag & 0xf0u;
		switch (r->id) {
		case MT_EV_ALLOC:
			return mt_get_alloc(p, end, c, tag, &r->u.alloc);
		case MT_EV_FREE:
			return mt_get_free(p, end, c, tag, &r->u.free);
		case MT_EV_REALLOC:
			return mt_get_realloc(p, end, c, tag, &r->u.realloc);
		case MT_EV_NODE:
			return mt_get_node(p, end, c, tag, &r->u.node);
		case MT_EV_SURVIVOR:
			return mt_get_survivor(p, end, c, tag, &r->u.survivor);
		default:
			return NULL;
		}
	}
	r->id = tag;
	p = mt_get_varint(p, end, &length);
	if (!p || !tag || length > (uint64_t)(end - p))
		return NULL;
	if (mt_get_framed(p, p + length, c, r) < 0)
		return NULL;
	return p + length;
}

#endif
