/*
 * See cursor.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "trace/cursor.h"

#include <stdlib.h>

#define IS_TIME_T HAS_TIME
#define IS_TIME_B HAS_TIME
#define IS_TIME_U 0
#define IS_TIME_A 0
#define IS_TIME_N 0
#define IS_TIME_P 0
#define IS_TIME_D 0
#define IS_TIME_R 0
#define IS_TIME_C 0
#define IS_TIME_S 0
#define IS_TIME_STR 0

enum { KNOWN = 2, HAS_TIME = 1 };

/* A time is always a record's first field, so that u.alloc.time is the time of any of them. */
static const uint8_t kinds[256] = {
#define MT_EVENT(NAME, name, class, tag, text) [tag] = KNOWN
#define MT_FIELD(type, name, text) | IS_TIME_##type
#define MT_OPTIONAL(type, name, bit, text)
#define MT_END(NAME, name) ,
#include "memtrace/events.def"
#undef MT_EVENT
#undef MT_FIELD
#undef MT_OPTIONAL
#undef MT_END
};

#define TIME_IS_FIRST_T(name) MT_STATIC_ASSERT(offsetof(struct mt_ev_##name, time) == 0, #name)
TIME_IS_FIRST_T(alloc);
TIME_IS_FIRST_T(map);
TIME_IS_FIRST_T(fold);

bool record_has_time(unsigned int id)
{
	return id < 256 && (kinds[id] & HAS_TIME);
}

void cursor_init(struct cursor *c, struct trace *t, const struct trace_stream *stream)
{
	size_t count;
	const struct trace_chunk *chunks = trace_chunks(t, &count);

	memset(c, 0, sizeof(*c));
	c->trace = t;
	c->problems = trace_damage(t);
	c->next = chunks + stream->first;
	c->end = c->next + stream->count;
}

void cursor_init_chunk(struct cursor *c, struct trace *t, const struct trace_chunk *chunk)
{
	memset(c, 0, sizeof(*c));
	c->trace = t;
	c->problems = trace_damage(t);
	c->next = chunk;
	c->end = chunk + 1;
}

void cursor_release(struct cursor *c)
{
	free(c->buf);
	c->buf = NULL;
	c->room = 0;
	c->p = c->used = c->slack = NULL;
	c->next = c->end;
}

/* False: there is none. */
static bool cursor_load(struct cursor *c)
{
	uint32_t used, slack;

	if (c->next == c->end)
		return false;
	c->chunk = c->next++;
	c->p = trace_payload(c->trace, c->chunk, &c->buf, &c->room, &used, &slack);
	if (c->chunk->kind != MT_CHUNK_RECORDS)
		used = slack = 0;
	c->used = c->p + used;
	c->slack = c->used + slack;
	c->bytes += used;
	mt_codec_start(&c->codec, c->chunk->base_time);
	if (c->last_time < c->chunk->base_time)
		c->last_time = c->chunk->base_time;
	return true;
}

/*
 * A writer fills in bytes before it commits them, so one record behind the committed ones is how a
 * killed process looks. Two of them mean that the count is wrong: records would go missing unseen.
 */
static void cursor_look_behind(struct cursor *c)
{
	const uint8_t *p = c->used;
	struct mt_record ignored;

	if (p == c->slack || !*p)
		return;
	p = mt_get_record(p, c->slack, &c->codec, &ignored);
	if (p && p < c->slack && *p && !trace_chunk_grew(c->trace, c->chunk))
		c->problems->uncounted_chunks++;
}

static void cursor_bad(struct cursor *c)
{
	struct trace_problems *problems = c->problems;

	if (!c->chunk->cut)
		problems->bad_chunks++;
	problems->bad_bytes += (uint64_t)(c->used - c->p);
	c->p = c->used;
}

bool cursor_next(struct cursor *c)
{
	const uint8_t *next;
	uint8_t kind;

	for (;;) {
		while (c->p == c->used) {
			if (c->chunk && !c->chunk->cut && c->slack != c->used)
				cursor_look_behind(c);
			if (!cursor_load(c)) {
				c->slack = c->used;
				return false;
			}
		}
		next = mt_get_record(c->p, c->used, &c->codec, &c->record);
		if (__builtin_expect(next != NULL, 1))
			break;
		cursor_bad(c);
		c->slack = c->used; /* the codec is of no use any more */
	}
	c->problems->records++;
	c->problems->record_bytes += (uint64_t)(next - c->p);
	c->p = next;
	kind = kinds[c->record.id & 0xff];
	if (!(kind & KNOWN))
		c->problems->unknown_records++;
	c->has_time = kind & HAS_TIME;
	c->time = c->has_time ? c->record.u.alloc.time : c->last_time;
	if (c->time > c->last_time)
		c->last_time = c->time;
	return true;
}
