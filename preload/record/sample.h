/*
 * Poisson sampling by bytes: points are strewn over the bytes a thread allocates, at exponential
 * distances with mean mt_sample_mean, and a block is recorded if a point falls into it. So a block
 * of z bytes is in with probability 1 - exp(-z/mean), independently of all others, and the reader
 * weighs it by the inverse (docs/SAMPLING.md). A block of no bytes counts as one of 1.
 *
 * What is not picked costs a comparison and a subtraction; its free costs the look at one byte of a
 * filter. Addresses of sampled live blocks are in a table of 9 to 27 bytes each.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_SAMPLE_H
#define MEMTRACE_PRELOAD_SAMPLE_H

#include <stddef.h>
#include <stdint.h>

#include "core/guard.h"
#include "core/sampling.h"

#define MT_SAMPLE_FILTER_BITS 15

/* How many sampled live blocks have an address of that hash; 255 stays for good. */
extern uint8_t mt_sample_filter[1 << MT_SAMPLE_FILTER_BITS];

static inline uint64_t mt_sample_hash(const void *block)
{
	return (uint64_t)(uintptr_t)block * UINT64_C(0x9e3779b97f4a7c15);
}

/* For hooks, in MT_LIGHT_SAMPLE: certainly not a sampled block. */
static inline int mt_sample_is_unknown(const void *block)
{
	return !mt_sample_filter[mt_sample_hash(block) >> (64 - MT_SAMPLE_FILTER_BITS)];
}

/* For hooks, in MT_LIGHT_SAMPLE: true: no point falls into this allocation, and it is counted. */
static inline int mt_sample_skips(size_t size)
{
	size_t bytes = size + !size;

	if (mt_tls.guard || mt_tls.countdown <= bytes)
		return 0;
	mt_tls.countdown -= bytes;
	return 1;
}

/* For the recorder, when mt_sample_mean is not 0. */

/* A block was handed out: true: record it. It is then known until it is forgotten. */
int mt_sample_take(struct mt_thread *t, const void *block, size_t size);
/* A block goes: true: its free is to be recorded. */
int mt_sample_forget(const void *block);
/* Ahead of a real realloc: the same, kept in t until mt_sample_resized() asks; the block may be
 * somebody else's by the time the call returns. */
void mt_sample_resizing(struct mt_thread *t, const void *block);
int mt_sample_resized(struct mt_thread *t);
/* The realloc failed: the block is what it was. */
void mt_sample_kept(struct mt_thread *t, const void *block);

/* Recording has ended and no thread is inside a hook. */
void mt_sample_reset(void);

/* Parts, for tests. */

/* Does a point fall into the next `size` bytes of this thread? */
int mt_sample_hit(struct mt_thread *t, size_t size);
/* Bytes to the next point, at least 1; *random: any state, moved on. */
uint64_t mt_sample_gap(uint64_t *random, uint64_t mean);
/* -ln(u), u in (0, 1]; relative error below 1e-14. */
double mt_sample_minus_log(double u);
/* False: no memory, or it is not there. */
int mt_sample_insert(const void *block);
int mt_sample_remove(const void *block);

#endif
