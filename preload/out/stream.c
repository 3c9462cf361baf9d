/*
 * Records on their way into the file: the slow path. See stream.h.
 *
 * Chunks double from one unit to CHUNK_MAX per stream, so that a short-lived process costs a page
 * and a busy thread rarely comes here. A chunk's deltas start at the time of the stream's last
 * event and not at the time of the claim: the record that found the old chunk full carries a stamp
 * from before it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "out/stream.h"

#include "core/clock.h"
#include "out/file.h"
#include "out/process.h"
#include "sys/sys.h"

#define CHUNK_FIRST_FORK 2 /* units: a forked child that only execs or exits */
#define CHUNK_FIRST 8 /* a new image has modules and facts to tell */
#define CHUNK_MAX 1024 /* 256 KiB: nothing is gained above, see the write path measurements */

static uint8_t *drop(struct mt_thread *t)
{
	if (t->chunk)
		__atomic_fetch_add(&t->chunk->lost, 1, __ATOMIC_RELAXED);
	else
		t->lost++;
	return NULL;
}

uint64_t (*mt_stream_oldest)(struct mt_thread *t);

/* Space from the file, not a chunk yet. */
static struct mt_chunk *chunk_claim(uint32_t units, void **map, uint64_t *map_bytes)
{
	uint64_t offset;
	struct mt_chunk *chunk = mt_file_claim(units, &offset, map, map_bytes);

	if (chunk) {
		chunk->self = offset;
		chunk->units = units;
	}
	return chunk;
}

static void chunk_header(struct mt_thread *t, struct mt_chunk *chunk, uint32_t kind, uint32_t seq,
			 uint64_t base)
{
	uint64_t oldest = mt_stream_oldest ? mt_stream_oldest(t) : UINT64_MAX;

	chunk->proc = mt_process.number;
	chunk->stream = t->stream;
	chunk->seq = seq;
	chunk->kind = kind;
	chunk->base_time = base;
	chunk->low_water = oldest < base ? oldest : base;
	chunk->check = mt_chunk_check(chunk);
	chunk->used = 0;
	chunk->lost = t->lost;
	t->lost = 0;
	/* Release: whoever sees the magic sees a whole header. */
	__atomic_store_n(&chunk->magic, MT_CHUNK_MAGIC, __ATOMIC_RELEASE);
}

static void chunk_start(struct mt_thread *t, struct mt_chunk *chunk, uint32_t units)
{
	uint64_t base = t->codec.time ? t->codec.time : mt_clock_now();

	chunk_header(t, chunk, MT_CHUNK_RECORDS, t->seq++, base);
	mt_codec_start(&t->codec, base);
	t->chunk = chunk;
	t->at = (uint8_t *)(chunk + 1);
	t->end = (uint8_t *)chunk + (size_t)units * MT_UNIT_BYTES;
}

/* Under a cap no stream may hold a large part of it: recording is thinned out from chunk to chunk. */
static uint32_t chunk_max(void)
{
	uint64_t share = mt_file.max_bytes / MT_UNIT_BYTES / 64;

	return mt_file.max_bytes && share < CHUNK_MAX ? (uint32_t)share : CHUNK_MAX;
}

static uint32_t units_for(struct mt_thread *t, size_t room)
{
	size_t need = (room + sizeof(struct mt_chunk) + MT_UNIT_BYTES - 1) / MT_UNIT_BYTES;

	if (!t->next_units)
		t->next_units = mt_process.reason == MT_PROCESS_FORK ? CHUNK_FIRST_FORK
								     : CHUNK_FIRST;
	if (need < t->next_units)
		need = t->next_units;
	if (t->next_units < chunk_max())
		t->next_units *= 2;
	return (uint32_t)need;
}

uint8_t *mt_stream_next(struct mt_thread *t, size_t room)
{
	void *old_map = t->map, *map;
	uint64_t old_bytes = t->map_bytes, map_bytes;
	struct mt_chunk *chunk;
	uint32_t units;
	int first = t->seq == 0;

	if (mt_file.stopped || !mt_process_number() || room > (size_t)1 << 20)
		return drop(t);
	units = units_for(t, first ? room + 528 : room + 80);
	chunk = chunk_claim(units, &map, &map_bytes);
	if (!chunk)
		return drop(t);
	chunk_start(t, chunk, units);
	t->map = map;
	t->map_bytes = map_bytes;
	if (old_map)
		mt_sys_munmap(old_map, old_bytes);
	if (first)
		mt_process_introduce(t);
	if (!t->named) {
		t->named = 1;
		mt_process_thread(t);
	}
	/* Repeated, so that a chunk can be read without those before it. */
	if (t->sample_mean)
		MT_EMIT(t, sampling, .time = t->codec.time, .mean_bytes = t->sample_mean);
	if ((size_t)(t->end - t->at) < room)
		return drop(t);
	return t->at;
}

struct mt_chunk *mt_stream_side_chunk(struct mt_thread *t, uint32_t kind, uint32_t seq,
				      uint32_t units, void **map, uint64_t *map_bytes)
{
	struct mt_chunk *chunk;

	if (mt_file.stopped || !mt_process_number())
		return NULL;
	chunk = chunk_claim(units, map, map_bytes);
	if (chunk)
		chunk_header(t, chunk, kind, seq, t->codec.time);
	return chunk;
}

void mt_stream_trim(struct mt_thread *t)
{
	struct mt_chunk *chunk = t->chunk;
	uint32_t units, keep;

	if (!chunk)
		return;
	units = chunk->units;
	keep = (uint32_t)((size_t)(t->at - (uint8_t *)chunk + MT_UNIT_BYTES - 1) / MT_UNIT_BYTES);
	t->end = t->at; /* later records, if any, go to a small chunk of their own */
	t->next_units = 1;
	if (keep >= units)
		return;
	/* First the chunk lets go, then the file takes back; the other order would let another
	 * process claim units that a reader still counts as ours. */
	__atomic_store_n(&chunk->units, keep, __ATOMIC_RELEASE);
	mt_file_trim(chunk->self + (uint64_t)units * MT_UNIT_BYTES,
		     chunk->self + (uint64_t)keep * MT_UNIT_BYTES);
}
