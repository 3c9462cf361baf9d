/*
 * The model: what a run's processes did to memory, replayed from records. Built by the pipeline in
 * one pass over each process; afterwards read-only for analyses.
 *
 * Every process has its own address space and dictionaries; ids in records are the process's own.
 * A forked child starts with its parent's live set as of the fork (held once and shared by layers,
 * see live.h) and resolves dictionary ids below its bases in its parent.
 *
 * Sizes are bytes, times are nanoseconds from the trace's start unless a name says otherwise.
 * Ownership: everything belongs to the model and goes with model_free().
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_MODEL_H
#define MEMTRACE_ANALYZER_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memtrace/events.h"
#include "model/cow.h"
#include "model/gpu.h"
#include "model/resident.h"
#include "model/sampled.h"
#include "model/shm.h"
#include "util/arena.h"

#ifdef __cplusplus
extern "C" {
#endif

#define NO_ID UINT32_MAX

struct cohorts; /* model/cohorts.h */

struct kind_totals {
	uint64_t allocations, frees, bytes_allocated, live_bytes, live_count;
};

/* One (native stack, Python stack, kind) of the whole run; equal stacks of processes are one. */
struct site {
	uint32_t id; /* index in model->sites */
	uint32_t native,
		python; /* canonical stack nodes: model->native[], model->python[]; 0 none */
	uint8_t kind; /* enum mt_kind */
	bool backing;
	uint64_t allocations, bytes_allocated, frees;
	uint64_t live_bytes,
		live_count; /* CONTRACT: at each process's own end, latest generations */
	uint64_t peak_bytes; /* highest in one process */
	uint64_t
		at_peak_bytes; /* at each process's peak_live_time, latest generations; listed ones */
	uint64_t short_lived_count; /* lived less than MT_BRIEF_UNITS: model->brief_ns */
	struct sampled *sampled; /* NULL: exact */
	uint32_t first_use; /* index of first struct site_use in model->uses, sorted by process */
	uint32_t use_count;
};

/* A site's part in one process. */
struct site_use {
	uint32_t site, process;
	uint64_t allocations, frees, bytes_allocated, live_bytes, live_count, peak_bytes;
	uint64_t at_peak_bytes; /* when the process held most, folded blocks left out */
	uint64_t short_lived_count;
	struct sampled *sampled; /* NULL: exact */
	struct cohorts
		*cohorts; /* what became of its blocks, by birth; NULL: it never held several */
};

/* A canonical stack node: chain through parent to 0. */
struct native_node {
	uint32_t parent;
	uint32_t module; /* index in model->modules; NO_ID: none */
	uint64_t offset; /* ELF virtual address; without module: enum mt_pseudo_frame or address */
	bool interrupted; /* FRAME.flags 1: look up offset itself, not offset - 1 */
};

struct python_node {
	uint32_t parent;
	uint32_t
		code; /* index in model->codes; NO_ID: frames were left out here (MEMTRACE_DEPTH) */
	uint32_t offset; /* bytes into the code */
	bool entry;
};

/* Same file and build-id is one module, whatever the process. */
struct module {
	char *path; /* "" unknown */
	uint8_t build_id[32];
	uint32_t build_id_len; /* 0: none */
};

struct code {
	char *filename, *name;
	uint32_t first_line;
	enum mt_line_kind line_kind;
	uint8_t *lines;
	uint32_t lines_len;
};

enum end_kind { END_UNKNOWN, END_EXIT, END_SIGNAL, END_EXEC, END_RUNNING };

struct sample {
	int64_t time;
	struct mt_ev_sample v; /* each value one more than measured, 0: not measured */
	uint64_t live_bytes; /* heap live of this process then; SAMPLE_LIVE_UNKNOWN */
};

#define SAMPLE_LIVE_UNKNOWN UINT64_MAX /* taken by a relative: the live set is not known */

struct mark {
	int64_t time;
	uint32_t process;
	enum mt_mark_kind kind;
	uint64_t value;
	char *label;
};

struct thread_info {
	uint32_t tid;
	char *name;
	int64_t start, end; /* end -1: not seen */
};

/* A child that was forked, spawned or exec'd and what is known of it. */
struct child_event {
	uint32_t pid;
	int64_t time;
	enum { CHILD_FORK, CHILD_SPAWN, CHILD_EXEC } how;
	bool traced; /* its environment loads the shim */
	bool failed; /* the exec failed */
	char *path; /* exec, spawn */
	uint32_t process; /* the process record it became, NO_ID: never reported */
	uint32_t native, python; /* stack at fork */
};

/* A mapping that backs an allocator (a Python arena, a jemalloc extent) came or went, in part. */
struct backing_event {
	int64_t time;
	uint32_t site; /* index in model->sites: who made the mapping */
	int64_t delta; /* bytes: + made, - given back */
};

/* What a process counts with in the tree's proportional size, from that time to the next or its end. */
struct pss_point {
	int64_t time;
	uint64_t bytes;
};

/* A phase that the program told of. */
struct phase {
	char *name;
	int64_t start, end; /* end: of the process, where it is open */
	bool open; /* nothing ended it */
	bool by_workers; /* the program named none: it is the life of a DataLoader's workers */
	uint64_t peak_bytes; /* of the process's live bytes in it */
	uint64_t end_bytes; /* taken in it and held when it ended */
	uint64_t kept_bytes; /* taken in it and held when the process wound up */
};

#define PHASE_SITES 6 /* of each phase, those that kept most */
struct phase_site {
	uint32_t phase; /* index in the process's phases */
	uint32_t site; /* index in model->sites; NO_ID: left out */
	double bytes; /* of kept_bytes */
};

struct process {
	uint32_t id; /* index in model->processes; order of start */
	uint32_t trace; /* index of the file */
	uint32_t number; /* in its trace */
	uint32_t pid, ppid;
	uint32_t parent; /* id; NO_ID: root. For an exec'd image: of the process that made this pid
			  */
	uint32_t image_of; /* id of the same pid's earlier image; NO_ID */
	uint32_t generation; /* 0; counts processes that had the same role and index before */
	enum mt_process_reason reason;
	char *command; /* cmdline joined by spaces; forked: the parent's */
	const char *role; /* CONTRACT names */
	int32_t rank; /* -1 none */
	struct {
		bool is;
		char *loader; /* "train.py:42" or NULL; filled in by the pipeline from node */
		uint32_t node; /* canonical Python stack that ends in the user's line; 0: not known
				*/
		int32_t index, of; /* -1 unknown */
		const char *start_method;
		uint32_t owner; /* process whose loader it is: not its parent under a fork server */
		uint32_t threads; /* of this process that are workers themselves */
	} worker;
	int64_t start, end; /* end: last event seen */
	int64_t shutdown; /* its Python began to end; 0: not seen */
	enum end_kind end_kind;
	int32_t end_code; /* exit status or signal */
	struct kind_totals kinds[MT_KINDS]; /* without backing mappings in live_* */
	uint64_t allocations, frees, bytes_allocated; /* heap, and python in objects mode */
	uint64_t live_bytes, live_count; /* its own blocks at its end */
	uint64_t inherited_live_bytes, inherited_live_count; /* at its end, still not freed */
	uint64_t inherited_freed_bytes, inherited_freed_count;
	uint64_t peak_live_bytes; /* own + inherited */
	int64_t peak_live_time;
	uint64_t young_most_bytes; /* at no time more was alive that was folded later */
	uint64_t peak_error_bytes; /* the true peak is at most this much higher */
	uint64_t peak_rss, peak_pss; /* 0: not measured */
	uint64_t most_descriptors; /* open at one time; 0: not measured */
	uint64_t lost_events, unknown_frees, missed_frees;
	struct process_sampled *sampled; /* NULL: exact */
	bool live_unknown; /* its live_* are 0: see model_forget_live() */
	bool fork_inexact;
	bool late; /* recording began in mid-run: what `before` tells was there already */
	bool detached; /* and ended before the process did */
	char *older; /* OLDER's text; NULL: there is none */
	struct mt_ev_before before; /* each value one more than measured, 0: not measured */
	struct sample *samples;
	size_t sample_count;
	struct pss_point *pss;
	size_t pss_count;
	struct thread_info *threads;
	size_t thread_count;
	struct child_event *children;
	size_t child_count;
	struct backing_event *backing; /* in order of time; its own, not inherited ones */
	size_t backing_count;
	struct gpu_process *gpu; /* NULL: it used none; see gpu.h */
	struct process_cow *cow; /* NULL: its pages were not walked, or it was not forked */
	/* What its resident pages held: at the walk that found most, and at the last one. May be one
	 * and the same; NULL: no walk. */
	struct resident *resident_most, *resident_last;
	struct phase *phases; /* in order of time */
	size_t phase_count;
	struct phase_site *phase_sites; /* by phase, the largest first */
	size_t phase_site_count;
	char **facts; /* key, value, key, value ... NULL */
};

struct trace_info {
	char *path;
	uint64_t bytes;
	char *host;
	int64_t start_realtime_ns;
	uint32_t page_size;
	bool complete; /* every chunk whole, nothing lost */
	bool recovered; /* it was cut or damaged and read as far as possible */
	bool running; /* a process of it is still alive on this machine */
	char mode[16],
		events[16]; /* as recorded: "full", "folded" asked but "all" written: see notes */
	uint64_t sample_bytes; /* 0: not sampled */
	uint64_t coarsest_bytes; /* largest mean of a SAMPLING record; 0: none */
	int64_t sampled_from; /* time of the first one */
	bool stopped; /* the cap was reached: what was freed after that is not known */
};

struct model {
	struct arena arena; /* of the structs sampled */
	struct trace_info *traces;
	size_t trace_count;
	struct process *processes;
	size_t process_count;
	struct site *sites; /* by live_bytes, largest first, once model_finish() is done */
	size_t site_count;
	struct site_use *uses;
	size_t use_count;
	struct shm_object *shm; /* shared-memory objects, by start */
	size_t shm_count;
	struct shm_use *shm_uses;
	size_t shm_use_count;
	struct native_node *native; /* [0] is the empty stack */
	size_t native_count;
	struct python_node *python;
	size_t python_count;
	struct module *modules;
	size_t module_count;
	struct code *codes;
	size_t code_count;
	struct mark *marks; /* by time */
	size_t mark_count;
	char **notes; /* sentences for the report, each once */
	size_t note_count;
	int64_t duration; /* of the longest trace */
	int64_t brief_ns; /* below this lifetime a block is short-lived: MT_BRIEF_UNITS */
	uint64_t events, lost_events;
	uint64_t unknown_frees, missed_frees; /* not of blocks from before a late beginning: */
	uint64_t older_frees;
	uint64_t
		cow_extra; /* bytes that families of forked processes hold more than once, at most */
	bool cow_known;
	uint64_t tree_peak_pss; /* sum over processes of PSS at one time; 0: not measured */
	int64_t tree_peak_time;
	/* The restrictions it was built with (--pid, --role, --from/--to), for the report. */
	bool restricted;
	int64_t window_from, window_to; /* INT64_MIN, INT64_MAX: open */
};

/* The value of a fact of a process, or of its nearest ancestor that has it; NULL: none. */
const char *process_fact(const struct model *m, const struct process *p, const char *key);

/* What processes of a stopped trace still held cannot be told: it becomes 0. */
void model_forget_live(struct model *m);

void model_free(struct model *m); /* accepts NULL */

#ifdef __cplusplus
}
#endif

#endif
