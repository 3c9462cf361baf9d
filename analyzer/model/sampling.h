/*
 * The replay of sampled allocations: which records are a sample, and what they stand for. Blocks
 * are counted in the model's integers like any other; what they stand for beyond that is kept
 * beside, and put on top when the replay is done.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_SAMPLING_H
#define MEMTRACE_ANALYZER_SAMPLING_H

#include "model/replay.h"

struct sampling;

/* A SAMPLING record: what the stream lists from here on is a sample. */
void sampling_begin(struct replay *r, uint32_t stream, uint64_t mean, uint64_t time);
/* A forked child inherits from a sampled parent. */
void sampling_fork(struct replay *r, const struct replay *parent);
void sampling_free(struct replay *r);

/* All below: only when r->sampling is there. */

/* The next ALLOC or REALLOC is of this stream: the index of the mean; 0: it is exact. */
uint32_t sampling_mean(const struct replay *r, uint32_t stream, unsigned int kind);
void sampling_taken(struct replay *r, struct local_site *s, const struct live_block *block);
/* freed: by the process; else it was lost from sight. brief: it was short-lived. */
void sampling_dropped(struct replay *r, struct local_site *s, const struct live_block *block,
		      bool freed, bool brief);
void sampling_dropped_inherited(struct replay *r, const struct live_block *block, bool freed);
/* Bytes that the sampled live blocks, own and inherited, stand for beyond their own. */
uint64_t sampling_live_more(const struct replay *r);

/* Once for all, at the end: the model's integers become estimates. */
void sampling_settle(struct builder *b);

/* The same for sites, from their uses; superseded, by process: their live blocks don't count. */
void sampling_sites(struct model *m, const bool *superseded);

#endif
