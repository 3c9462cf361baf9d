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

/* Where blocks of one size were allocated last; see replay_shm.c. */
struct recent_block {
	uint64_t key, size;
	uint32_t site;
};
#define RECENT_WAYS 4
#define RECENT_LEAST 4096 /* bytes; smaller tensors are not worth a file of their own */

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
	struct phases *phases; /* NULL: the program told of none */
	struct sampling *sampling; /* NULL: nothing was sampled so far */
	struct walks *walks; /* owned by walk.c */
	/* The largest freed block that glibc would have taken a mapping of its own for. */
	struct large_freed {
		uint64_t size;
		uint32_t owner, site;
	} large_freed;
	/* Such blocks that were taken from a heap all the same: what a fixed threshold would have
	 * kept out of it. */
	struct large_heap {
		uint64_t live, peak;
		uint64_t folded; /* bytes of those that were not listed, whenever they lived */
	} large_heap;
	uint32_t mean; /* of the block being taken */
	struct gpu_state *gpu; /* NULL: no GPU record yet */
	bool resizing; /* one half of a REALLOC or REMAP is being replayed */
	struct recent_block *recent; /* NULL: no large block so far */
	uint32_t peak_turn; /* how often the process has held more than ever before */
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

/*
 * replay_growth.c: what becomes of a site's blocks. growth_born() after the site's live_* have
 * risen, where the site is followed or may be from now on; growth_died() where it is followed.
 */
#define GROWTH_BLOCKS 4 /* live at one time: such a site is followed */
void growth_born(struct replay *r, struct local_site *s, uint64_t size);
void growth_died(struct replay *r, struct local_site *s, uint64_t birth, uint64_t bytes,
		 uint32_t mean, unsigned int blocks);
/* It is gone, but its free was not seen: nothing can be concluded of its site. */
void growth_missed(struct replay *r, struct local_site *s, uint64_t birth, uint64_t bytes,
		   uint32_t mean);
void growth_folded(struct replay *r, struct local_site *s, uint64_t from, uint64_t to,
		   uint64_t count);
void growth_settle(struct replay *r); /* the end of what is judged */

/* replay_phases.c: what phases took and kept. The second and third: where there are phases. */
void phases_mark(struct replay *r, struct mt_str label); /* empty: the phase ends */
void phases_forked(struct replay *r,
		   const struct mt_ev_fork *e); /* if it is a DataLoader's worker */
void phases_waited(struct replay *r, uint64_t pid);
void phases_taken(struct replay *r, uint8_t kind, uint64_t birth, uint64_t bytes);
void phases_dropped(struct replay *r, uint32_t site, uint64_t birth, uint64_t bytes, uint32_t mean);
void phases_settle(struct replay *r); /* the first call counts */
void phases_release(struct replay *r);
/* glibc's M_MMAP_THRESHOLD before it is raised, and the most it raises it to by itself. */
#define LARGE_LEAST (UINT64_C(128) << 10)
#define LARGE_MOST (UINT64_C(32) << 20)

/* A heap block of that size was freed, listed or folded. */
static inline void replay_freed_large(struct replay *r, uint64_t size, uint32_t owner,
				      uint32_t site)
{
	if (__builtin_expect(size >= LARGE_LEAST, 0) && size <= LARGE_MOST &&
	    size > r->large_freed.size)
		r->large_freed = (struct large_freed){ size, owner, site };
}

/* A heap block of any size comes or goes. One with a mapping of its own begins behind its header. */
static inline bool replay_is_large_in_heap(uint64_t addr, uint64_t size)
{
	return __builtin_expect(size >= LARGE_LEAST, 0) && (addr & 4095) != 16;
}

static inline void replay_large_in_heap(struct replay *r, uint64_t addr, uint64_t size, bool taken)
{
	if (!replay_is_large_in_heap(addr, size))
		return;
	r->large_heap.live += taken ? size : -size;
	if (taken && r->large_heap.live > r->large_heap.peak)
		r->large_heap.peak = r->large_heap.live;
}

/* replay_maps.c: mappings. */
#define MAP_FLAG_FIXED 0x10 /* MAP_FIXED: the overlap is unmapped on purpose */
void map_take(struct replay *r, uint64_t addr, uint64_t size, uint64_t native, uint64_t python,
	      uint64_t kind, bool replaces);
void map_record(struct replay *r, const struct mt_ev_map *e);
/* size 0: the whole mapping that starts there (shmdt). False: nothing known was mapped there. */
bool map_give(struct replay *r, uint64_t addr, uint64_t size);
void remap_give(struct replay *r, const struct mt_ev_remap *e, uint32_t stream);
void remap_take(struct replay *r, const struct mt_ev_remap *e, uint32_t stream);
void break_move(struct replay *r, const struct mt_ev_brk *e);

/* The struct build_use of what is being mapped, index + 1, or 0: it is no object. */
uint32_t shm_map(struct replay *r, const struct mt_ev_map *e, uint32_t site);
/* Of a range with a use a part has gone; `left` as in maps_removed_fn. */
void shm_unmap(struct replay *r, uint32_t use, int left);
void shm_block_taken(struct replay *r, uint64_t key, uint64_t size, uint32_t site);
bool shm_record(struct replay *r, const struct mt_record *rec); /* false: not one of its records */
void shm_fork(struct replay *r); /* r has its parent's mappings */
void shm_end(struct replay *r);

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
