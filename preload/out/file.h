/*
 * The trace file: making or joining it, and claiming pieces of it. One file serves the whole
 * process tree; its header page is mapped in every process, and nothing but atomic additions to it
 * coordinates them, so a process that is killed can hold nothing up.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_FILE_H
#define MEMTRACE_PRELOAD_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "memtrace/format.h"

#define MT_PATH_MAX 4096
#define MT_ROOT_PROC 1 /* number of the process that made the trace */

struct mt_file {
	struct mt_file_header *header; /* header page and process table, mapped; NULL: no trace */
	struct mt_proc_slot *slots;
	dev_t dev;
	ino_t inode;
	int fd; /* the root's (inherited by its forks), high and close-on-exec; -1: none kept */
	int root_fd; /* its number in the root process, to find the file when it was renamed */
	int stopped; /* errno that ended recording in this process; 0 */
	uint64_t max_bytes; /* 0: no cap */
	char path[MT_PATH_MAX]; /* absolute */
};

extern struct mt_file mt_file;

/* A new trace at `path` (see out/place.c for who may use a name). 0 or -errno. */
int mt_file_create(const char *path);

/* Joins the trace that `token` (MEMTRACE_TRACE) names: by path, else through the root's own
 * descriptor; inode and trace id must match. 0 or -errno. */
int mt_file_join(const char *token);

/* Writes the token children join by; proc: this process's number, as 8 hex digits at its end. */
size_t mt_file_token(char *buf, size_t size, uint32_t proc);

/* Takes `units` of the file and maps them. *map and *map_bytes are what to unmap later, the return
 * value is where the units begin; NULL: recording has stopped for this process. */
void *mt_file_claim(uint32_t units, uint64_t *offset, void **map, uint64_t *map_bytes);

/* Gives back the units from `first` on if they are still the last of the file. */
void mt_file_trim(uint64_t end, uint64_t first);

/* Enters this process into the table of live ones; takes it out. start 0: not known, which a
 * stranger takes for alive as long as the pid exists. */
void mt_file_slot_take(uint32_t proc, uint32_t pid, uint64_t start);
void mt_file_slot_drop(void);

/* This process was sampled: `when` in MT_SLOT_TIME_NS. */
void mt_file_slot_sampled(uint64_t when);

/*
 * A live process of the tree, not this one, that was not sampled for `age`; it counts as sampled
 * at `now` from then on, so that only one relative does it. Looks from slot *at on and moves
 * it past the one found. 0: none.
 */
uint32_t mt_file_slot_silent(size_t *at, uint64_t age, uint64_t now);
/* The same process is to be left alone until `when`; at: as it was returned. */
void mt_file_slot_rest(size_t at, uint64_t when);
/* When this process's pages were last walked (mt_file_header.walked); NULL: it has no slot. */
uint32_t *mt_file_slot_walked(void);

/* In a forked child: the slot is the parent's. */
void mt_file_child(void);

/* Recording has ended: lets go of the file. */
void mt_file_forget(void);

/* One clause on an errno: "No space left on device". */
const char *mt_file_why(int error);

/* Field 22 of /proc/PID/stat, clock ticks since boot; 0 when it can't be read. */
uint64_t mt_process_start(uint32_t pid);

/* Is a process of the trace with this header still alive, as far as this machine can tell? */
int mt_file_in_use(const struct mt_file_header *header, const struct mt_proc_slot *slots,
		   uint64_t idle_s);

#endif
