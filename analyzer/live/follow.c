/*
 * Reading a trace as it grows. See follow.h; the layout is in docs/FORMAT.md.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "live/follow.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "memtrace/format.h"
#include "util/alloc.h"

#define PATIENCE 8 /* looks that a piece of the file without a chunk is waited for */

static const struct mt_file_header *header(const struct follow *f)
{
	return (const struct mt_file_header *)f->base;
}

double follow_seconds(const struct follow *f, uint64_t time)
{
	return f->per_second > 0 ? (double)(int64_t)(time - f->start) / f->per_second : 0;
}

double follow_now(const struct follow *f)
{
	struct timespec t;

	if (!f->running)
		return follow_seconds(f, f->last);
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9 -
	       (double)header(f)->start_monotonic_ns / 1e9;
}

/* ---- opening --------------------------------------------------------------------------------------- */

static bool map(struct follow *f)
{
	struct stat st;

	if (fstat(f->fd, &st) < 0 || st.st_size < (off_t)MT_HEADER_BYTES)
		return false;
	if ((uint64_t)st.st_size == f->size)
		return true;
	if (f->base)
		munmap(f->base, f->size);
	f->size = (uint64_t)st.st_size;
	f->base = mmap(NULL, f->size, PROT_READ, MAP_SHARED, f->fd, 0);
	if (f->base == MAP_FAILED)
		f->base = NULL;
	return f->base != NULL;
}

struct follow *follow_open(const char *path, char **error)
{
	struct follow *f = xcalloc(1, sizeof(*f));
	const char *why = NULL;

	f->path = xstrdup(path);
	f->hole = MT_HEADER_BYTES;
	f->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (f->fd < 0)
		why = strerror(errno);
	else if (!map(f))
		why = "it is too short for a trace";
	else if (memcmp(header(f)->magic, MT_FILE_MAGIC, 8) != 0)
		why = "it is not a trace of memtrace";
	else if (header(f)->version > MT_FORMAT_VERSION ||
		 header(f)->header_bytes != MT_HEADER_BYTES || header(f)->time_shift > 32)
		why = "its version is not known here";
	if (why) {
		if (asprintf(error, "%s: %s", path, why) < 0)
			*error = NULL;
		follow_close(f);
		return NULL;
	}
	f->start = header(f)->start_ticks >> header(f)->time_shift;
	if (!(header(f)->flags & MT_FILE_TSC))
		f->per_second = 1e9 / (double)(UINT64_C(1) << header(f)->time_shift);
	return f;
}

void follow_close(struct follow *f)
{
	if (!f)
		return;
	for (size_t i = 0; i < f->procs.count; i++) {
		free(f->procs.items[i].command);
		copies_release(&f->procs.items[i]);
		vec_release(&f->procs.items[i].device);
		vec_release(&f->procs.items[i].seen);
		dict_release(&f->procs.items[i].dict);
		vec_release(&f->procs.items[i].modules);
	}
	for (size_t i = 0; i < f->notes.count; i++)
		free(f->notes.items[i].text);
	vec_release(&f->procs);
	vec_release(&f->sites);
	vec_release(&f->pieces);
	vec_release(&f->nurseries);
	vec_release(&f->notes);
	hashmap_release(&f->numbers);
	hashmap_release(&f->site_ids);
	hashmap_release(&f->chunks);
	arena_release(&f->texts);
	free(f->blocks);
	if (f->base)
		munmap(f->base, f->size);
	if (f->fd >= 0)
		close(f->fd);
	free(f->path);
	free(f);
}

/* ---- records --------------------------------------------------------------------------------------- */

static uint32_t proc_of(struct follow *f, uint32_t number)
{
	bool is_new;
	uint64_t *slot = hashmap_slot(&f->numbers, &number, sizeof(number), &is_new);
	struct follow_proc *p;

	if (is_new) {
		*slot = f->procs.count;
		p = vec_push(&f->procs);
		memset(p, 0, sizeof(*p));
		p->number = number;
		dict_init(&p->dict, NULL);
	}
	return (uint32_t)*slot;
}

/* ---- blocks ---------------------------------------------------------------------------------------- */

static void take(struct follow *f, const struct follow_piece *piece, uint32_t proc, uint64_t addr,
		 uint64_t time, uint64_t size, uint64_t native, uint64_t python, uint64_t kind)
{
	struct follow_block b = { .time = time, .size = size, .weight = 1 };
	double bytes = size ? (double)size : 1;

	if ((kind & MT_KIND_MASK) != MT_KIND_HEAP && (kind & MT_KIND_MASK) != MT_KIND_PYTHON)
		return;
	if (piece->mean > 0)
		b.weight = 1 / -expm1(-bytes / piece->mean);
	b.site = site_of(f, proc, (uint32_t)native, (uint32_t)python);
	blocks_take(f, proc, addr | (kind & MT_KIND_MASK) << MT_YOUNG_KIND_SHIFT, b);
}

static void event(struct follow *f, struct follow_piece *piece, uint32_t proc,
		  const struct mt_record *r)
{
	switch (r->id) {
	case MT_EV_ALLOC:
		take(f, piece, proc, r->u.alloc.addr, r->u.alloc.time, r->u.alloc.size,
		     r->u.alloc.native, r->u.alloc.python, r->u.alloc.kind);
		break;
	case MT_EV_SURVIVOR:
		take(f, &(struct follow_piece){ 0 }, proc, r->u.survivor.addr, r->u.survivor.time,
		     r->u.survivor.size, r->u.survivor.native, r->u.survivor.python,
		     r->u.survivor.kind);
		break;
	case MT_EV_FREE:
		blocks_give(f, proc, r->u.free.addr, (uint32_t)r->u.free.kind, r->u.free.time);
		break;
	case MT_EV_REALLOC:
		blocks_give(f, proc, r->u.realloc.old_addr, (uint32_t)r->u.realloc.kind,
			    r->u.realloc.time);
		take(f, piece, proc, r->u.realloc.addr, r->u.realloc.time + r->u.realloc.took,
		     r->u.realloc.size, r->u.realloc.native, r->u.realloc.python,
		     r->u.realloc.kind);
		break;
	case MT_EV_SAMPLING:
		piece->mean = (double)r->u.sampling.mean_bytes;
		break;
	default:
		follow_tell(f, proc, r);
	}
}

/* Of what the nursery holds, what is no record yet. */
static void young_count(struct follow *f, uint64_t offset)
{
	const struct mt_chunk *c = (const struct mt_chunk *)(f->base + offset);
	const struct mt_nursery *n = (const struct mt_nursery *)(c + 1);
	const struct mt_young *e = (const struct mt_young *)(n + 1);
	uint32_t proc = proc_of(f, c->proc), room, busy = n->fold_entry;

	if (c->used < sizeof(*n) || offset + sizeof(*c) + c->used > f->size)
		return;
	room = (c->used - (uint32_t)sizeof(*n)) / (uint32_t)sizeof(*e);
	for (uint32_t i = 0; i < room && i < n->entries; i++) {
		struct mt_young y = e[i];
		uint32_t kind = (uint32_t)(y.addr >> MT_YOUNG_KIND_SHIFT);
		const struct follow_block *b;
		struct follow_site *s;

		if (!y.addr || i + 1 == busy || e[i].addr != y.addr)
			continue;
		f->last = y.time > f->last ? y.time : f->last;
		b = blocks_find(f, proc, y.addr & MT_YOUNG_ADDR_MASK, kind);
		if (b && b->time >= y.time)
			continue; /* listed, or freed, in the meantime */
		s = &f->sites.items[site_of(f, proc, y.native, y.python)];
		s->young_bytes += (double)y.size;
		s->young_count++;
	}
}

/* ---- chunks ---------------------------------------------------------------------------------------- */

static void read_piece(struct follow *f, struct follow_piece *piece)
{
	const struct mt_chunk *c = (const struct mt_chunk *)(f->base + piece->offset);
	uint32_t used = __atomic_load_n(&c->used, __ATOMIC_ACQUIRE);
	const uint8_t *payload = (const uint8_t *)(c + 1), *p = payload + piece->done, *end;
	uint32_t proc = proc_of(f, piece->proc);
	struct mt_record r;

	if (piece->offset + sizeof(*c) + used > f->size || used < piece->done)
		return;
	end = payload + used;
	while (p < end) {
		const uint8_t *next = mt_get_record(p, end, &piece->codec, &r);

		if (!next) { /* no record: the rest of the chunk can't be read */
			p = end;
			break;
		}
		event(f, piece, proc, &r);
		p = next;
	}
	piece->done = (uint32_t)(p - payload);
	if (piece->codec.time > f->last)
		f->last = piece->codec.time;
}

static void close_older(struct follow *f, uint32_t proc, uint32_t stream)
{
	for (size_t i = f->pieces.count; i-- > 0;)
		if (f->pieces.items[i].proc == proc && f->pieces.items[i].stream == stream)
			f->pieces.items[i].closed = true;
}

static void meet(struct follow *f, uint64_t at, const struct mt_chunk *c)
{
	struct follow_piece *piece;
	bool is_new;

	hashmap_slot(&f->chunks, &at, sizeof(at), &is_new);
	if (!is_new)
		return;
	if (c->kind == MT_CHUNK_NURSERY)
		*(uint64_t *)vec_push(&f->nurseries) = at;
	if (c->kind != MT_CHUNK_RECORDS)
		return;
	close_older(f, c->proc, c->stream);
	piece = vec_push(&f->pieces);
	*piece = (struct follow_piece){
		.offset = at, .units = c->units, .proc = c->proc, .stream = c->stream
	};
	mt_codec_start(&piece->codec, c->base_time);
}

static bool is_chunk(const struct follow *f, uint64_t at)
{
	const struct mt_chunk *c = (const struct mt_chunk *)(f->base + at);

	return at + sizeof(*c) <= f->size &&
	       __atomic_load_n(&c->magic, __ATOMIC_ACQUIRE) == MT_CHUNK_MAGIC && c->self == at &&
	       c->proc && c->units && c->units <= MT_CHUNK_MAX_UNITS &&
	       mt_chunk_check(c) == c->check;
}

/* Goes on from the first place where no chunk was; what is claimed there may just not be written. */
static void find_chunks(struct follow *f)
{
	uint64_t at = f->hole, before = f->hole, next = header(f)->next, end;
	bool whole = true;

	end = MT_HEADER_BYTES + next * MT_UNIT_BYTES;
	end = next < f->size / MT_UNIT_BYTES && end < f->size ? end : f->size;
	while (at + sizeof(struct mt_chunk) <= end) {
		const struct mt_chunk *c = (const struct mt_chunk *)(f->base + at);

		if (is_chunk(f, at)) {
			meet(f, at, c);
			at += (uint64_t)c->units * MT_UNIT_BYTES;
		} else {
			whole = false;
			at += MT_UNIT_BYTES;
		}
		if (whole || f->stuck > PATIENCE)
			f->hole = at;
	}
	f->stuck = f->hole != before || whole ? 0 : f->stuck + 1;
}

/* A chunk that gave its tail back: others may lie there now. */
static void look_for_tails(struct follow *f)
{
	for (size_t i = 0; i < f->pieces.count; i++) {
		struct follow_piece *p = &f->pieces.items[i];
		const struct mt_chunk *c = (const struct mt_chunk *)(f->base + p->offset);
		uint32_t units = __atomic_load_n(&c->units, __ATOMIC_RELAXED);

		if (!units || units >= p->units)
			continue;
		p->units = units;
		if (p->offset + (uint64_t)units * MT_UNIT_BYTES < f->hole)
			f->hole = p->offset + (uint64_t)units * MT_UNIT_BYTES;
	}
}

bool follow_look(struct follow *f)
{
	size_t kept = 0;

	if (!map(f))
		return false;
	f->running = follow_is_running(f);
	look_for_tails(f);
	find_chunks(f);
	for (size_t i = 0; i < f->pieces.count; i++) {
		bool closed = f->pieces.items[i].closed; /* then nothing is added after this */

		read_piece(f, &f->pieces.items[i]);
		if (!closed)
			f->pieces.items[kept++] = f->pieces.items[i];
	}
	f->pieces.count = kept;
	for (size_t i = 0; i < f->sites.count; i++)
		f->sites.items[i].young_bytes = f->sites.items[i].young_count = 0;
	for (size_t i = 0; i < f->nurseries.count; i++)
		young_count(f, f->nurseries.items[i]);
	blocks_age(f);
	return true;
}
