/*
 * See nursery.h. A ring of entries in the order of allocation, so that the oldest is the next to be
 * overwritten, and a chained hash from address to entry in private memory. A block that is freed as
 * the newest gives its entry back at once: tight loops stay within a few cache lines.
 *
 * A stream opens its nursery late and small and lets it grow while survivors are many: short-lived
 * processes and quiet threads never have one.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "record/nursery.h"

#include <string.h>

#include "core/clock.h"
#include "core/guard.h"
#include "core/mem.h"
#include "memtrace/format.h"
#include "out/file.h"
#include "out/stream.h"
#include "record/cells.h"
#include "record/cut.h"
#include "record/notes.h"
#include "sys/sys.h"

#define OPEN_AFTER 1024 /* allocations of a stream that are listed before it gets a nursery */
#define FIRST_ENTRIES 1024u
#define MOST_ENTRIES 8192u /* larger ones push the program out of its caches */
#define CAP_SHARE 64 /* of a trace with a cap, a nursery takes no more */
#define SPAN_UNITS (1u << 26) /* about a second */

struct nursery {
	struct mt_nursery *head; /* in the file; NULL: not open */
	struct mt_young *ring;
	uint32_t entries; /* a power of two */
	uint32_t next; /* where the next block goes; only its low bits count */
	uint32_t tail; /* every entry before it is empty */
	uint32_t waiting; /* allocations until it opens */
	uint32_t aged, late; /* since the last look: blocks that the ring pushed out, and frees of
				blocks that are not in it */
	uint32_t window; /* of the cells, see cut.h */
	uint32_t seq; /* of chunks of this kind */
	uint32_t stream_seq; /* records chunk at the last look, see age() */
	uint64_t chunk_base; /* its base time */
	uint64_t bytes; /* alive in the ring */
	uint64_t newest; /* time of the last block taken in */
	uint64_t since; /* when the span began that `young_...` in the file is about */
	uint32_t *bucket, *chain, *note; /* by hash; by entry; by entry */
	size_t private_bytes;
	void *map;
	uint64_t map_bytes;
	struct mt_cells cells;
};

uint32_t mt_nursery_on;
uint32_t *mt_notes;

/* ---- small parts ------------------------------------------------------------------------------- */

static uint64_t key_of(uint64_t addr, uint32_t kind)
{
	return addr | (uint64_t)(kind & 0xff) << MT_YOUNG_KIND_SHIFT;
}

static int same_block(uint64_t have, uint64_t want)
{
	return !((have ^ want) & ~((uint64_t)MT_KIND_BACKING << MT_YOUNG_KIND_SHIFT));
}

static uint32_t *bucket_of(struct nursery *n, uint64_t key)
{
	return &n->bucket[mt_address_hash(key & MT_YOUNG_ADDR_MASK) & (n->entries - 1)];
}

/* The link in this bucket's chain that leads to the block's entry; NULL: it is not there. */
static inline uint32_t *find(struct nursery *n, uint32_t *link, uint64_t key)
{
	while (*link && !same_block(n->ring[*link - 1].addr, key))
		link = &n->chain[*link - 1];
	return *link ? link : NULL;
}

static uint32_t *link_of(struct nursery *n, uint32_t at)
{
	uint32_t *link = bucket_of(n, n->ring[at].addr);

	while (*link != at + 1)
		link = &n->chain[*link - 1];
	return link;
}

static uint64_t oldest(struct mt_thread *t)
{
	struct nursery *n = t->nursery;

	if (!n || !n->head)
		return UINT64_MAX;
	while (n->tail != n->next && !n->ring[n->tail & (n->entries - 1)].addr)
		n->tail++;
	return n->tail == n->next ? UINT64_MAX : n->ring[n->tail & (n->entries - 1)].time;
}

/* The entry is empty from here on. link: what leads to it. */
static inline void forget(struct nursery *n, uint32_t *link, uint32_t at)
{
	struct mt_young *e = &n->ring[at];

	*link = n->chain[at];
	n->bytes -= e->size;
	__atomic_store_n(&e->addr, 0, __ATOMIC_RELEASE);
	if (at == ((n->next - 1) & (n->entries - 1)))
		n->next--;
}

/* ---- the moment when most is young: per span of about a second --------------------------------------------------------------- */

/* Invalid while it changes: a kill in between loses the moment and invents none. */
static void most_is_now(struct nursery *n, uint64_t now)
{
	struct mt_nursery *h = n->head;

	__atomic_store_n(&h->young_most, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&h->young_time, now, __ATOMIC_RELEASE);
	__atomic_store_n(&h->young_since, now - n->since, __ATOMIC_RELEASE);
	__atomic_store_n(&h->young_bytes, n->bytes, __ATOMIC_RELEASE);
	__atomic_store_n(&h->young_most, n->bytes, __ATOMIC_RELEASE);
}

/* What was alive at the span's fullest moment and has been folded since. A block that is still
 * here may yet be listed, and would count twice. */
static uint64_t folded_of_most(const struct nursery *n)
{
	uint64_t bytes = n->head->young_bytes;

	for (uint32_t i = n->tail; i != n->next; i++) {
		const struct mt_young *e = &n->ring[i & (n->entries - 1)];

		if (e->addr && e->time <= n->head->young_time)
			bytes -= e->size;
	}
	return bytes;
}

static void write_most(struct mt_thread *t, struct nursery *n)
{
	struct mt_nursery *h = n->head;

	if (h->young_most)
		MT_EMIT(t, young, .time = h->young_time, .bytes = folded_of_most(n),
			.most = h->young_most, .since = h->young_since);
	__atomic_store_n(&h->young_most, 0, __ATOMIC_RELEASE);
}

/* A span ended: its fullest moment goes into the stream, and the present one begins. */
static void span_turn(struct mt_thread *t, struct nursery *n, uint64_t now)
{
	write_most(t, n);
	n->since = now;
	if (n->bytes)
		most_is_now(n, now);
	if (n->newest < now) /* the next block, of this very stamp, is none of that moment's */
		n->newest = now;
}

/* ---- listing and folding -------------------------------------------------------------------------- */

/* Writes the block as a survivor and empties the entry, in this order: a reader that finds both
 * knows them for one. */
static void list(struct mt_thread *t, struct nursery *n, uint32_t at)
{
	struct mt_young *e = &n->ring[at];
	struct mt_nursery *h = n->head;

	MT_EMIT(t, survivor, .time = e->time, .addr = e->addr & MT_YOUNG_ADDR_MASK, .size = e->size,
		.native = e->native, .python = e->python, .kind = e->addr >> MT_YOUNG_KIND_SHIFT);
	if (h->young_most && e->time <= h->young_time)
		__atomic_store_n(&h->young_bytes, h->young_bytes - e->size, __ATOMIC_RELAXED);
	forget(n, link_of(n, at), at);
}

/* Lists what is older than `time`. */
static void list_until(struct mt_thread *t, struct nursery *n, uint64_t time)
{
	while (oldest(t) < time)
		list(t, n, n->tail & (n->entries - 1));
}

/*
 * A reader must know a stream as far as the next chunk that says nothing older will follow. So that
 * it never has to read far ahead, a new chunk of records drives out what is older than the last one.
 */
static void age(struct mt_thread *t, struct nursery *n)
{
	uint64_t before = n->chunk_base;

	if (!t->chunk)
		return;
	n->stream_seq = t->seq;
	n->chunk_base = t->chunk->base_time;
	list_until(t, n, before);
}

static int may_fold(const struct nursery *n, uint32_t at)
{
	const struct mt_young *e = &n->ring[at];

	return mt_cut_is_before(e->time) &&
	       n->note[at] == mt_note_read(e->addr & MT_YOUNG_ADDR_MASK) && !mt_file.stopped;
}

/* Field by field: copies of sixteen bytes out of fields of eight that were just stored would wait
 * for the stores to leave the core, 5 to 10 ns a fold. */
#define CELL_FIELDS(DO)                                                                            \
	DO(native) DO(python) DO(kind) DO(count) DO(bytes) DO(brief) DO(largest) DO(first) DO(last)
#define COPY_FIELD(field) __atomic_store_n(&to->field, v->field, __ATOMIC_RELAXED);
#define READ_FIELD(field) v.field = __atomic_load_n(&cell->field, __ATOMIC_RELAXED);

static inline void cell_put(struct mt_cell *to, const struct mt_cell *v)
{
	CELL_FIELDS(COPY_FIELD)
}

/* The cell's values once this block is counted in it. */
static inline struct mt_cell cell_raised(const struct mt_cell *cell, const struct mt_young *e,
					 uint64_t now)
{
	struct mt_cell v;

	v.reserved = 0;
	CELL_FIELDS(READ_FIELD)
	if (!v.count++)
		v.first = e->time;
	v.bytes += e->size;
	v.brief += now - e->time < MT_BRIEF_UNITS;
	if (e->size > v.largest)
		v.largest = e->size;
	v.last = now;
	return v;
}

static inline void fold(struct nursery *n, const struct mt_cell_slot *slot, uint32_t *link,
			uint64_t now)
{
	uint32_t at = *link - 1;
	struct mt_nursery *h = n->head;
	struct mt_cell v = cell_raised(slot->cell, &n->ring[at], now);

	cell_put(&h->fold, &v);
	h->fold_cell = slot->offset;
	/* Release stores all along: after a kill, memory is as it was between two of them. From the
	 * first on the fold has happened; a reader finishes it (FORMAT.md 3.7). */
	__atomic_store_n(&h->fold_entry, at + 1, __ATOMIC_RELEASE);
	cell_put(slot->cell, &v);
	forget(n, link, at);
	__atomic_store_n(&h->fold_entry, 0, __ATOMIC_RELEASE);
}

/* What the cell held when its last window ended goes into the stream. */
static void cell_turn(struct mt_thread *t, struct nursery *n, struct mt_cell_front *front)
{
	const struct mt_cell *cell = front->slot.cell;

	if (cell->count)
		MT_EMIT(t, fold, .time = cell->last, .kind = cell->kind, .count = cell->count,
			.bytes = cell->bytes, .brief = cell->brief, .largest = cell->largest,
			.native = cell->native, .python = cell->python);
	front->slot.window = front->home->window = n->window;
}

/* ---- opening --------------------------------------------------------------------------------------- */

static void let_go(struct nursery *n)
{
	if (!n->head)
		return;
	mt_sys_munmap(n->map, n->map_bytes);
	mt_mem_unmap(n->bucket, n->private_bytes);
	n->head = NULL;
}

static int open_ring(struct mt_thread *t, struct nursery *n, uint32_t entries)
{
	size_t bytes = sizeof(struct mt_nursery) + entries * sizeof(struct mt_young);
	size_t units = (sizeof(struct mt_chunk) + bytes + MT_UNIT_BYTES - 1) / MT_UNIT_BYTES;
	size_t private_bytes = 3 * (size_t)entries * sizeof(uint32_t);
	struct mt_chunk *chunk;
	uint32_t *tables;
	uint64_t map_bytes;
	void *map;

	if (mt_file.max_bytes && bytes > mt_file.max_bytes / CAP_SHARE)
		return 0;
	tables = mt_mem_map(private_bytes);
	if (!tables)
		return 0;
	chunk = mt_stream_side_chunk(t, MT_CHUNK_NURSERY, n->seq, (uint32_t)units, &map,
				     &map_bytes);
	if (!chunk) {
		mt_mem_unmap(tables, private_bytes);
		return 0;
	}
	if (n->head) {
		list_until(t, n, UINT64_MAX);
		write_most(t, n);
		n->since = t->codec.time;
	}
	let_go(n);
	n->head = (struct mt_nursery *)(chunk + 1);
	n->ring = (struct mt_young *)(n->head + 1);
	n->head->entries = n->entries = entries;
	__atomic_store_n(&chunk->used, (uint32_t)bytes, __ATOMIC_RELEASE);
	n->map = map;
	n->map_bytes = map_bytes;
	n->private_bytes = private_bytes;
	n->bucket = tables;
	n->chain = tables + entries;
	n->note = tables + 2 * (size_t)entries;
	n->next = n->tail = 0;
	n->bytes = 0;
	n->seq++;
	return 1;
}

/* NULL: this stream has none, yet or for good. */
static struct nursery *nursery_slow(struct mt_thread *t, uint64_t now)
{
	struct nursery *n = t->nursery;

	if (!n) {
		n = t->nursery = mt_mem_alloc(sizeof(*n));
		if (!n)
			return NULL;
		n->waiting = OPEN_AFTER;
	}
	if (n->waiting && --n->waiting)
		return NULL;
	if (mt_file.stopped || !t->chunk || !open_ring(t, n, FIRST_ENTRIES)) {
		n->waiting = OPEN_AFTER;
		return NULL;
	}
	n->since = now;
	n->chunk_base = 0;
	age(t, n);
	return n;
}

/*
 * Once a round: a larger ring is worth its place in the cache if blocks are pushed out of this one
 * that are freed later on. Where they stay for good, as at the start of most programs, it is not.
 */
static void look(struct mt_thread *t, struct nursery *n)
{
	uint32_t enough = n->entries / 8;

	if (n->aged > enough && n->late > enough && n->entries < MOST_ENTRIES)
		open_ring(t, n, 2 * n->entries);
	n->aged = n->late = 0;
}

/* The next entry is wanted: whoever is there has survived. The tail passes it only when it is
 * listed: till then it is the oldest, which a chunk that is opened for it must know. */
static void make_room(struct mt_thread *t, struct nursery *n)
{
	uint32_t at = n->next & (n->entries - 1);
	int survived = n->ring[at].addr != 0;

	if (survived)
		list(t, n, at);
	if (n->next - n->tail == n->entries)
		n->tail++;
	n->aged += (uint32_t)survived;
	if (mt_unlikely(!at))
		look(t, n);
}

/* ---- the interface --------------------------------------------------------------------------------- */

int mt_nursery_add(struct mt_thread *t, const struct mt_block *block)
{
	struct nursery *n = t->nursery;
	uint64_t key = key_of(block->addr, block->kind), time = block->time;
	struct mt_young *e;
	uint32_t at, *bucket, *link;

	if (mt_unlikely(!n || !n->head)) {
		n = nursery_slow(t, time);
		if (!n)
			return 0;
	}
	if (mt_unlikely(mt_file.stopped))
		return 0;
	mt_window_look(time);
	n->window = mt_window_now();
	if (mt_unlikely(time - n->since >= SPAN_UNITS))
		span_turn(t, n, time);
	if (mt_unlikely(n->stream_seq != t->seq))
		age(t, n);
	link = find(n, bucket_of(n, key), key);
	if (mt_unlikely(link != NULL))
		list(t, n, *link - 1); /* freed since, by another thread or unseen */
	make_room(t, n); /* may put another ring in this one's place */
	at = n->next & (n->entries - 1);
	e = &n->ring[at];
	/* A survivor stands apart from its stream's other records: times must tell their order. */
	if (time <= t->codec.time)
		time = t->codec.time + 1;
	if (time <= n->newest)
		time = n->newest + 1;
	e->time = n->newest = time;
	e->size = block->size;
	e->native = block->native;
	e->python = block->python;
	n->note[at] = mt_note_read(block->addr);
	bucket = bucket_of(n, key);
	n->chain[at] = *bucket;
	*bucket = at + 1;
	/* Release: an entry with an address is whole. */
	__atomic_store_n(&e->addr, key, __ATOMIC_RELEASE);
	n->next++;
	n->bytes += block->size;
	if (n->bytes >= n->head->young_most) /* the latest of equals: what stays grows as well */
		most_is_now(n, e->time);
	return 1;
}

int mt_nursery_free(struct mt_thread *t, uint32_t kind, uint64_t addr, uint64_t *time)
{
	struct nursery *n = t->nursery;
	struct mt_cell_front *site;
	struct mt_young *e;
	uint64_t now;
	uint32_t *link;

	link = n && n->head ? find(n, bucket_of(n, addr), key_of(addr, kind)) : NULL;
	if (!link) {
		if (n && n->head) {
			n->late++;
			if (mt_unlikely(n->stream_seq != t->seq))
				age(t, n);
		}
		mt_note_free(addr);
		return 0;
	}
	e = &n->ring[*link - 1];
	if (mt_likely(may_fold(n, *link - 1))) {
		site = mt_cells_find(t, &n->cells, e->native, e->python,
				     (uint32_t)(e->addr >> MT_YOUNG_KIND_SHIFT));
		if (site) {
			if (mt_unlikely(site->slot.window != n->window))
				cell_turn(t, n, site);
			now = *time ? *time : mt_clock_rough();
			fold(n, &site->slot, link, now > e->time ? now : e->time + 1);
			return 1;
		}
	}
	if (*time <= e->time)
		*time = e->time + 1;
	if (!mt_file.stopped)
		list(t, n, *link - 1);
	mt_note_free(addr);
	return 0;
}

void mt_nursery_resizing(struct mt_thread *t, uint32_t kind, uint64_t addr)
{
	struct nursery *n = t->nursery;
	uint32_t *link = n && n->head ? find(n, bucket_of(n, addr), key_of(addr, kind)) : NULL;

	if (!link || n->note[*link - 1] != mt_note_read(addr))
		mt_note_free(addr);
}

void mt_nursery_child(void)
{
	for (struct mt_thread *t = mt_thread_all; t; t = t->next_all) {
		struct nursery *n = t->nursery;

		if (!n)
			continue;
		let_go(n);
		mt_cells_drop(&n->cells);
		n->seq = 0;
		n->waiting = OPEN_AFTER;
	}
}

void mt_nursery_forget(void)
{
	mt_nursery_child();
	mt_nursery_on = 0;
	mt_notes = NULL;
	mt_cut_forget();
}

void mt_nursery_init(void)
{
	mt_notes = mt_mem_map(MT_NOTES * sizeof(*mt_notes));
	mt_nursery_on = mt_notes != NULL;
	mt_stream_oldest = oldest;
}
