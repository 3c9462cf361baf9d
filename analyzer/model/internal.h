/*
 * What the files of the model share while it is being built: the builder and its processes.
 *
 *   builder.c  traces, processes, clock, notes    replay.c   blocks, counted; replay_maps.c
 * mappings replay_shm.c, shm.c  shared-memory objects replay_folds.c what was counted only records.c  facts, threads, children, samples  stacks.c   ids to canonical stacks tree.c
 * who is whose child, how it ended   roles.c    what a process was for timeline.c samples, peaks,
 * marks finish.c   from builder to model
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_MODEL_INTERNAL_H
#define MEMTRACE_ANALYZER_MODEL_INTERNAL_H

#include "model/build.h"
#include "model/dict.h"
#include "model/live.h"
#include "model/pages.h"
#include "model/shm.h"
#include "util/arena.h"
#include "util/hashmap.h"
#include "util/index.h"
#include "util/vec.h"

/* Sizes above can't be true: more than any address space. */
#define MAX_BLOCK_BYTES (UINT64_C(1) << 56)
struct local_site {
	uint32_t native, python; /* ids of the process; canonical from finish.c on */
	uint8_t kind; /* with flags */
	uint64_t allocations, frees, bytes_allocated;
	uint64_t live_bytes, live_count, peak_bytes, short_lived_count;
	uint64_t at_peak_bytes; /* its live_bytes in turn peak_turn of the process's peaks */
	uint32_t peak_turn;
	struct sampled *sampled; /* in the model's arena */
	double peak_estimate; /* of bytes, where sampled */
	struct cohorts *cohorts; /* NULL: not followed; the model's from finish.c on */
	bool missed; /* a free of one of its blocks was not seen */
};

/* The clock of a trace: units to ns since its start. */
struct timebase {
	uint64_t start; /* ticks */
	uint32_t shift;
	uint64_t rate; /* ns per tick, times 2^32 */
	bool guessed; /* nothing to measure it by */
};

struct build_wait {
	uint32_t process; /* who was told */
	uint32_t pid;
	uint64_t signal, code;
	int64_t time;
};

struct build_sample {
	struct sample s;
	uint32_t pid; /* whose, when not the process's own; 0: its own */
};

/* A pipe was made by Python code. */
struct launch {
	int64_t time;
	uint32_t python; /* id of the process, canonical from finish.c on */
};

/* See shm.h. */
struct build_object {
	struct shm_object o; /* site: the mapping's in its creator, an index in proc.sites */
	uint32_t source; /* ... of the block that it is a copy of; NO_ID: none was found */
	uint32_t site_of; /* process + 1 that site and source are of */
	uint32_t newest_use; /* index in builder.shm.uses; NO_ID */
	bool certain; /* the creator was seen to make it */
	bool truncated, mapped, named;
};

struct build_use {
	struct shm_use u;
	uint32_t older; /* use of the object; NO_ID */
	uint32_t newer_of_process; /* index + 1 of another use of the process; 0 */
	uint32_t maps; /* of the object now */
	int64_t seen_open; /* last time */
};

struct build_unlink {
	const char *name;
	uint32_t trace;
	int64_t time;
};

struct build_shm {
	struct hashmap index; /* trace, dev and inode to object */
	VEC(struct build_object) objects;
	VEC(struct build_use) uses;
	VEC(struct build_unlink) unlinks;
};

struct proc {
	uint32_t id, trace, number;
	struct mt_ev_process ev; /* zeroed when it is missing */
	bool known; /* ev is there */
	uint32_t inherits;
	uint64_t first_time; /* units */
	struct dict dict;
	VEC(struct local_site) sites;
	VEC(struct backing_event) backing; /* site: index in sites until finish.c */
	VEC(struct build_sample) samples;
	size_t samples_room; /* of the process.samples made from them */
	VEC(struct thread_info) threads;
	VEC(struct child_event)
	children; /* stacks: ids of the process, canonical from finish.c on */
	struct child_event *made_by; /* the parent's record of it; NULL: not there */
	size_t first_open; /* children before it are matched */
	VEC(char *) facts; /* key, value, ... */
	uint32_t shm_uses; /* index + 1 of its last one in builder.shm.uses; 0: none */
	VEC(int64_t) asked; /* when it was asked for its descriptors */
	uint64_t open_most; /* descriptors at one time; 0: never asked */
	VEC(struct launch) launches;
	bool exited;
	int32_t exit_code;
	bool exec_pending; /* its own EXEC was the last word so far */
	bool folds_coarse; /* the window cuts through counts of what was folded */
	bool outside; /* nothing of it lies in the window */
	bool dropped; /* by --pid, --role or the window */
	uint64_t unknown_frees, missed_frees, bad_values;
	struct sharing *sharing; /* owned by sharing.c; NULL: not forked, and no walks */
	uint64_t *cow_owners, *backing_owners; /* owner and local site of what its cow lists */
};

/* A walk over the pages of another process than the one that made it. */
struct foreign_walk {
	uint32_t trace, by; /* id of who made it */
	struct page_walk walk;
};

/* What `memtrace run` was told of a device's client. */
struct gpu_seen {
	uint32_t trace, pid; /* pid 0: its only client, whoever that is */
	int64_t from, to; /* ns: asked, answered */
	uint64_t own, all; /* plus one; 0: not told */
	uint8_t uuid[16];
};

/* For look-ups by pid: sorted by trace, pid, order of start. */
struct pid_holder {
	uint32_t trace, pid, id;
};

struct builder {
	struct build_options options;
	struct model *m; /* being filled; traces, modules, codes, nodes, notes are final */
	struct arena arena; /* dictionary strings, gone with the builder */
	VEC(struct trace_info) traces;
	VEC(struct timebase) clocks;
	VEC(struct mt_file_header) headers;
	VEC(struct build_counts) counts;
	VEC(struct proc) procs;
	VEC(struct process) processes; /* same index */
	struct hashmap numbers; /* trace and number to id */
	VEC(struct mark) marks;
	VEC(struct build_wait) waits;
	VEC(struct pid_holder) pids;
	VEC(struct foreign_walk) foreign;
	VEC(struct gpu_seen) gpu_seen; /* by time */
	size_t held; /* processes whose inherited live set is kept until all is read */
	struct build_shm shm;
	VEC(char *) notes;
	struct hashmap note_set;
	VEC(struct module) modules;
	struct hashmap module_set;
	VEC(struct code) codes;
	struct hashmap code_set;
	VEC(struct native_node) native;
	struct index native_set;
	VEC(struct python_node) python;
	struct index python_set;
	uint64_t events;
	uint64_t means[LIVE_MAX_MEAN + 1]; /* index 0: not sampled */
	uint32_t mean_count;
};

/* builder.c */
int64_t timebase_ns(const struct timebase *tb, uint64_t units);
uint64_t timebase_units(const struct timebase *tb, int64_t ns); /* clamped to [0, max] */
char *text_of(struct mt_str s); /* a copy; bytes after a zero byte are left out */
uint32_t builder_find(const struct builder *b, uint32_t trace, uint32_t number); /* or NO_ID */

/* records.c: all that is not about blocks and mappings. False: not one of its records. */
bool record_add(struct builder *b, struct proc *p, const struct mt_record *r, uint32_t stream,
		uint64_t time, uint64_t live_bytes);

/* stacks.c: canonical ids. */
uint32_t stack_native(struct builder *b, struct proc *p, uint64_t id);
uint32_t stack_python(struct builder *b, struct proc *p, uint64_t id);
/* Does the stack pass through a file whose name ends so? While records still come in. */
bool stack_python_is_in(struct builder *b, struct proc *p, uint64_t id, const char *file_end);
uint32_t stack_module(struct builder *b, struct mt_str path, struct mt_str build_id);

/* tree.c */
void tree_parents(struct builder *b); /* parent, image_of */
/* Who had the pid at that time: the latest to start before; NO_ID. After tree_parents(). */
uint32_t tree_holder(const struct builder *b, uint32_t trace, uint32_t pid, int64_t time);
void tree_children(struct builder *b); /* child events matched to processes */
void tree_ends(struct builder *b); /* end_kind, end_code, running traces */

/* roles.c: needs sites of the processes and the tree. */
void roles_assign(struct builder *b);

/* Which processes are workers that a later epoch's worker of the same loader and index replaced;
 * one flag each, the caller's to free. */
bool *roles_superseded(const struct process *processes, size_t count);

/* timeline.c: samples to the processes they are of, peaks, marks in order */
void timeline_samples(struct builder *b);
void timeline_tree_peak(struct builder *b);
void timeline_marks(struct builder *b);

/* replay_folds.c: a note, where the window could not be cut out of what was folded exactly. */
void folds_note(struct builder *b);

/* finish_sites.c: fills the model's sites and uses; new_id: of processes. */
void finish_sites(struct builder *b, const uint32_t *new_id);
/* gpu_snapshot.c: sites of a process got other numbers. */
void gpu_renumber(struct process *p, const uint32_t *to);

/* gpu_seen.c: what was seen from outside goes to the processes it is about. */
void gpu_seen_settle(struct builder *b);
/* shm.c: site numbers of the process p to those of the run, by `site`; and again by `place`. */
void shm_sites(struct builder *b, const struct proc *p, const uint32_t *site);
void shm_renumber_sites(struct builder *b, const uint32_t *place);
/* All objects that are worth it, with new numbers of processes, to the model. */
void shm_finish(struct builder *b, const uint32_t *new_id);

/* finish.c */
const char *proc_fact(const struct proc *p, const char *key); /* its own, or NULL */
bool in_window(const struct builder *b, int64_t time);

/* replay_phases.c: sites were put in order, place says where each one is now. */
void phases_sites_sorted(struct model *m, const uint32_t *place);

#endif
