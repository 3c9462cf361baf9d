/*
 * What the shim keeps of a thread. One pointer in static TLS leads here; the struct itself lies in
 * the shim's own pages, so that it outlives the thread until its stream is handed on. Only its
 * thread writes it, except `gate` below which fork's prepare step reads.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_THREAD_H
#define MEMTRACE_PRELOAD_THREAD_H

#include <stdint.h>

#include "memtrace/events.h"

struct mt_chunk;

struct mt_thread {
	/* The open chunk: records are written at `at`, up to `end`, and committed in chunk->used. */
	struct mt_codec codec;
	uint8_t *at, *end;
	struct mt_chunk *chunk; /* NULL: none claimed yet, or recording has stopped */
	uint64_t lost; /* events dropped while there is no chunk to count them in */
	const void *last_block; /* handed out by the last heap event; NULL: that was another one */

	/* Busy while a hook of ours runs in this thread: read by fork's prepare step. */
	volatile uint32_t busy;
	uint32_t stream; /* number within the process, from 0 */
	uint32_t seq; /* of the next chunk */
	uint32_t tid;

	/* Stack of this thread, [low, high); 0: not known yet, see stack/native.c. */
	uintptr_t stack_low, stack_high;
	void *native_cache; /* owned by stack/native.c; NULL until first use, kept across threads */
	void *python_cache; /* owned by stack/python.c; likewise */
	void *nursery; /* owned by record/nursery.c; kept across threads */
	struct { /* ranges of dictionary ids this stream may hand out: [next, end) */
		uint32_t next, end;
	} ids[6];

	/* Owned by record/sample.c. */
	uint64_t random; /* state of its random numbers */
	uint64_t sample_mean; /* with which the stream is sampled; 0: it lists all */
	uint32_t random_of; /* pid + 1 of the process they are of; 0: not seeded */
	uint32_t old_block; /* of the realloc under way */

	struct mt_thread *next_all; /* list of all, never shrinks */
	struct mt_thread *next_free; /* stack of those without a thread */
	void *map; /* the mapping that holds `chunk` */
	uint64_t map_bytes;
	uint32_t next_units; /* size of the next chunk: doubles up to a limit */
	uint32_t named; /* a THREAD record stands in the stream for the present thread */
};

extern struct mt_thread *mt_thread_all; /* atomic head; walk by next_all */

/* Has this process had two threads with structs at once? Never goes back. */
extern uint32_t mt_thread_shared;

/* The calling thread's struct, made or taken over from one that ended; NULL: no memory. Sets
 * mt_tls.thread; the struct comes back by itself when the thread ends. Guard held. */
struct mt_thread *mt_thread_adopt(void);

/* Once, before the first adopt. 0 or -errno. */
int mt_thread_init(void);

/* In a forked child: t is the only thread; the others' structs are free for reuse. */
void mt_thread_child(struct mt_thread *t);

/* Recording has ended and no thread is inside a hook: structs stay with their threads, and forget
 * the trace. */
void mt_thread_forget(void);

/* Called with guard held when a thread takes t over and when it ends; set by record/, which knows
 * what to write. */
extern void (*mt_thread_on_start)(struct mt_thread *t);
extern void (*mt_thread_on_end)(struct mt_thread *t);

#endif
