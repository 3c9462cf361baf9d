/*
 * The replay of one process, shared by replay.c (blocks, totals, records), replay_maps.c (mappings)
 * and replay_folds.c (what was counted and not listed).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_REPLAY_H
#define MEMTRACE_ANALYZER_REPLAY_H

#include "model/internal.h"
#include "model/live.h"
#include "model/maps.h"

struct site_slot {
	uint64_t ids; /* native << 32 | python */
	uint32_t kind;
	uint32_t site; /* index + 1; 0: free */
};

/* Between the two halves of a REMAP, per stream. */
struct remap {
	uint8_t kind;
	bool known;
};

/* What a stream had folded of a site by a time. Only grows. */
struct fold_count {
	uint32_t stream, site; /* index in p->sites */
	uint64_t time; /* units: everything in it is not later */
	uint64_t count, bytes, brief, largest;
};

struct replay {
	struct builder *b;
	struct proc *p;
	struct process *out;
	uint64_t from, to; /* the window, units */
	bool counting; /* the window has begun */
	bool over; /* and ended */
	uint64_t page;
	struct live_set live;
	struct maps maps;
	struct site_slot *slots;
	size_t slot_mask;
	struct site_slot last;
	uint64_t now; /* time of the last record */
	uint64_t peak_time; /* units */
	uint64_t shutdown; /* of its Python, units; 0: not seen */
	VEC(struct remap) remaps;
	VEC(struct fold_count) folds; /* as last said by the trace */
	struct index fold_set;
	VEC(uint64_t) young_most; /* by stream: the largest in the window */
	uint64_t young_peak, young_peak_time; /* highest listed and folded together; units */
	struct sampling *sampling; /* NULL: nothing was sampled so far */
	uint32_t mean; /* of the block being taken */
	struct gpu_state *gpu; /* NULL: no GPU record yet */
	bool missed; /* what map_removed() is told of was not given back by anybody */
};

/* replay.c: what is held and counted. */

/* Index in p->sites. Ids that don't fit are damaged: they become one that is never defined. */
uint32_t replay_site(struct replay *r, uint64_t native, uint64_t python, uint32_t kind);
/* False: it can't be true, and was counted as such. */
bool replay_plausible(struct replay *r, uint64_t addr, uint64_t size, uint64_t kind);
void replay_taken(struct replay *r, struct local_site *s, uint64_t size); /* one allocation */
/* Own memory is not held any more, whoever is to be thanked for it; `blocks` may be negative. */
void replay_dropped(struct replay *r, struct local_site *s, uint64_t bytes, int blocks);
/* A block comes or goes: sites, totals, the live set. */
void replay_block_take(struct replay *r, uint64_t time, uint64_t addr, uint64_t size,
		       uint32_t site);
void replay_block_give(struct replay *r, uint64_t time, uint64_t addr, uint64_t kind_flags);
void replay_freed(struct replay *r, unsigned int kind); /* one free is counted */
void replay_freed_unknown(struct replay *r, unsigned int kind);

/* replay_maps.c: mappings. */
#define MAP_FLAG_FIXED 0x10 /* MAP_FIXED: the overlap is unmapped on purpose */
void map_take(struct replay *r, uint64_t addr, uint64_t size, uint64_t native, uint64_t python,
	      uint64_t kind, bool replaces);
/* size 0: the whole mapping that starts there (shmdt). False: nothing known was mapped there. */
bool map_give(struct replay *r, uint64_t addr, uint64_t size);
void remap_give(struct replay *r, const struct mt_ev_remap *e, uint32_t stream);
void remap_take(struct replay *r, const struct mt_ev_remap *e, uint32_t stream);
void break_move(struct replay *r, const struct mt_ev_brk *e);

/* replay_folds.c: what was counted and not listed. */
void folds_add(struct replay *r, const struct mt_ev_fold *e, uint32_t stream);
void folds_cell(struct replay *r, const struct mt_cell *cell, uint32_t stream);
void folds_young(struct replay *r, const struct mt_ev_young *e, uint32_t stream);
void folds_peak(struct replay *r); /* the process's peak and how far it may be off */
void folds_release(struct replay *r);

/* replay_gpu.c, gpu_snapshot.c. False: not one of its records. */
bool gpu_record(struct replay *r, const struct mt_record *rec, uint32_t stream);
void gpu_snapshot(struct replay *r, bool all_count);
void gpu_finish(struct replay *r);

#endif
