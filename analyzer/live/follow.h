/*
 * A trace as it grows: who is alive, what they hold, which sites grow. Made for `memtrace top`: each
 * look reads only what was written since the last one, so it costs what happened and not what the
 * trace holds; memory grows with live blocks and stacks.
 *
 * Streams are not merged by time. A block is known by its address, and each event by its time, so
 * order does not matter: a free that is read before its allocation waits for it, and an older free
 * does not touch a younger block. What a stream keeps back in its nursery is looked at anew each time.
 *
 * Here only blocks of kind heap and python are followed, and blocks inherited through a fork belong
 * to whoever allocated them. The report is exact, this is a live view: blocks whose frees were lost or
 * made by a process that did not allocate them are not sorted out as carefully as there.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_FOLLOW_H
#define MEMTRACE_ANALYZER_FOLLOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memtrace/events.h"
#include "model/dict.h"
#include "model/pages.h"
#include "util/arena.h"
#include "util/hashmap.h"
#include "util/vec.h"

#define FOLLOW_WINDOW 10 /* seconds that rates are over */
#define FOLLOW_BUCKETS 16 /* more than that, a power of two */

struct follow_device { /* what a process holds of a device */
	uint64_t device; /* ordinal plus one; 0: not known */
	uint64_t addr, size, time; /* of a range; addr 0: PyTorch's own total in `size` */
	bool given; /* a free that waits for its allocation, which was made before `time` */
};

struct follow_seen { /* what the driver says that a process uses of a device */
	bool by_program; /* asked by the program itself, which goes first; else by `memtrace run` */
	uint8_t key[16]; /* of the device: its uuid; by_program: its ordinal */
	uint64_t own;
};

struct follow_proc {
	uint32_t number;
	bool known; /* `ev` was read */
	struct mt_ev_process ev;
	struct mt_ev_sample sample; /* the latest of itself; all 0: none */
	double sample_s;
	char *command;
	uint64_t memory_total; /* of the machine; 0: not told */
	bool ended;
	bool late; /* recording began in mid-run */
	double live_bytes; /* estimates where sampled */
	VEC(struct follow_device) device;
	VEC(struct follow_seen) seen;
	bool has_device; /* it said so much as that it uses one */
	struct page_walk first; /* over its pages, when it began */
	struct page_walk walk; /* that is read now, of whoever it is */
	uint32_t walk_of; /* whose pages these are: index in procs, plus one; 0: none is read */
	bool has_first;
	uint64_t copied; /* bytes of what it shared at its fork, plus one; 0: not measured */
	struct dict dict;
	VEC(struct mt_str) modules; /* paths, by the dictionary's canon */
};

struct follow_site {
	uint32_t proc; /* index in procs */
	uint32_t native, python; /* the process's ids */
	double bytes, count; /* alive, without what is in nurseries */
	double young_bytes, young_count; /* of these, at the last look */
	uint32_t second[FOLLOW_BUCKETS]; /* since the trace's start, + 1 */
	double net[FOLLOW_BUCKETS]; /* bytes taken less bytes given back then */
};

struct follow_piece { /* a chunk of records that may still grow, or was not read to its end */
	uint64_t offset;
	uint32_t units, proc, stream, done;
	bool closed; /* its stream has a later one */
	double mean; /* bytes between samples; 0: all are listed */
	struct mt_codec codec;
};

struct follow_block {
	uint64_t addr; /* 0: empty */
	uint64_t time, size;
	uint32_t proc, site; /* site UINT32_MAX: a free that waits for its allocation */
	double weight; /* blocks that it stands for */
};

struct follow_note {
	double s;
	char *text;
};

struct follow {
	char *path;
	int fd;
	uint8_t *base;
	uint64_t size;
	uint64_t hole; /* all chunks below were met */
	bool running; /* a process of it was alive at the last look */
	uint32_t stuck; /* looks since the hole did not move */
	uint64_t start, last; /* units */
	double per_second; /* units */
	VEC(struct follow_proc) procs;
	VEC(struct follow_site) sites;
	VEC(struct follow_piece) pieces;
	VEC(uint64_t) nurseries; /* offsets */
	VEC(struct follow_note) notes; /* marks that speak of limits */
	struct hashmap numbers, site_ids, chunks;
	struct arena texts;
	struct follow_block *blocks;
	size_t block_mask, block_count, waiting;
};

/* NULL after *error was set to a sentence, the caller's to free. */
struct follow *follow_open(const char *path, char **error);
void follow_close(struct follow *f); /* accepts NULL */

/* Reads what was written since the last time. False: the file can't be read any more. */
bool follow_look(struct follow *f);

/* Seconds since the trace's start: until now, or where nobody writes it until its last event. */
double follow_now(const struct follow *f);

double follow_seconds(const struct follow *f, uint64_t time);

/* Is a process of it alive on this machine? */
bool follow_is_running(const struct follow *f);

/* tell.c, copies.c, devices.c: records that are no blocks. */
void follow_tell(struct follow *f, uint32_t proc, const struct mt_record *r);
void copies_record(struct follow *f, uint32_t proc, const struct mt_record *r);
void copies_release(struct follow_proc *p);
bool devices_record(struct follow_proc *p, const struct mt_record *r); /* false: it is no such */
uint64_t devices_bytes(const struct follow_proc *p); /* plus one; 0: it uses none */
void devices_seen(struct follow *f, const struct mt_ev_gpu_seen *e);
uint64_t devices_driver_bytes(const struct follow_proc *p); /* plus one; 0: not told */

/* blocks.c */
void blocks_take(struct follow *f, uint32_t proc, uint64_t addr, struct follow_block block);
void blocks_give(struct follow *f, uint32_t proc, uint64_t addr, uint32_t kind, uint64_t time);
const struct follow_block *blocks_find(const struct follow *f, uint32_t proc, uint64_t addr,
				       uint32_t kind);
void blocks_age(struct follow *f); /* frees that waited for long were of blocks never seen */
uint32_t site_of(struct follow *f, uint32_t proc, uint32_t native, uint32_t python);

/* names.c: "train.py:42 in train"; the caller's to free. */
struct symbolizer;
char *site_name(struct follow *f, struct symbolizer *symbols, const struct follow_site *site);

#endif
