/*
 * Records on their way into the file. A thread reserves room in its open chunk, encodes there and
 * commits; a full chunk is sealed and the next one claimed inside reserve. Never blocks, never
 * allocates from the heap; any failure drops the record and counts it.
 *
 *	uint8_t *p = mt_stream_reserve(t, mt_fact_room(&ev));
 *	if (p)
 *		mt_stream_commit(t, mt_put_fact(p, &t->codec, &ev));
 *
 * Callers hold the thread's guard (core/guard.h). MT_EMIT does the three lines above.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_STREAM_H
#define MEMTRACE_PRELOAD_STREAM_H

#include <stddef.h>
#include <stdint.h>

#include "core/thread.h"

/* Slow path of mt_stream_reserve: seals the chunk, claims one with room, or returns NULL. */
uint8_t *mt_stream_next(struct mt_thread *t, size_t room);

/* A chunk that is not made of records, for the stream of t: `units` of space, empty. NULL: none. */
struct mt_chunk *mt_stream_side_chunk(struct mt_thread *t, uint32_t kind, uint32_t seq,
				      uint32_t units, void **map, uint64_t *map_bytes);

/* Set by record/: time of the oldest block that t may still list, UINT64_MAX: none. */
extern uint64_t (*mt_stream_oldest)(struct mt_thread *t);

/* The process is about to end or to become another: gives the open chunk's unused tail back. */
void mt_stream_trim(struct mt_thread *t);

/* Room for `room` bytes at the returned address, or NULL: the record is lost and counted. */
static inline uint8_t *mt_stream_reserve(struct mt_thread *t, size_t room)
{
	if (__builtin_expect((size_t)(t->end - t->at) >= room, 1))
		return t->at;
	return mt_stream_next(t, room);
}

/* Makes everything up to p part of the trace: a reader, or SIGKILL, sees all of it or nothing. */
static inline void mt_stream_commit(struct mt_thread *t, uint8_t *p)
{
	t->at = p;
	/* Release: the bytes are in the shared page before the count that covers them. */
	__atomic_store_n(&t->chunk->used, (uint32_t)(p - (uint8_t *)(t->chunk + 1)),
			 __ATOMIC_RELEASE);
}

/* Encodes and commits one record; evaluates to 1, or 0 when it had to be dropped. */
#define MT_EMIT(t, name, ...)                                                                      \
	({                                                                                         \
		struct mt_ev_##name ev_ = { __VA_ARGS__ };                                         \
		uint8_t *p_ = mt_stream_reserve((t), mt_##name##_room(&ev_));                      \
		if (p_)                                                                            \
			mt_stream_commit((t), mt_put_##name(p_, &(t)->codec, &ev_));               \
		p_ != NULL;                                                                        \
	})

#endif
