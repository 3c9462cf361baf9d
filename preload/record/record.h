/*
 * The recorder: the only thing hooks may call. Every function wants the guard held (core/guard.h)
 * and leaves errno alone; none blocks, allocates or fails visibly.
 *
 * Stamps: an allocation is stamped after the real call, a free before it, so that merging threads
 * by time never shows an address reused before it was freed.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_RECORD_H
#define MEMTRACE_PRELOAD_RECORD_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/clock.h"
#include "core/thread.h"
#include "memtrace/format.h"
#include "record/nursery.h"
#include "record/sample.h"
#include "stack/stack.h"

/* A block was handed out. kind: enum mt_kind and flags. */
void mt_record_alloc(struct mt_thread *t, unsigned int kind, const void *block, size_t size,
		     struct mt_caller caller);

/* A block is about to be taken back. */
void mt_record_free(struct mt_thread *t, unsigned int kind, const void *block);

/* Ahead of a real realloc of `old` (NULL: a mere allocation): the `before` of what follows. */
static inline uint64_t mt_record_resizing(struct mt_thread *t, unsigned int kind, const void *old)
{
	if (__builtin_expect(old && mt_thread_shared && mt_nursery_on, 0))
		mt_nursery_resizing(t, kind, (uintptr_t)old);
	if (__builtin_expect(mt_sample_mean != 0, 0))
		mt_sample_resizing(t, old);
	return mt_clock_now();
}

/* It failed. */
static inline void mt_record_kept(struct mt_thread *t, const void *old)
{
	if (__builtin_expect(mt_sample_mean != 0, 0))
		mt_sample_kept(t, old);
}

/* A block was resized. */
void mt_record_realloc(struct mt_thread *t, unsigned int kind, const void *old, const void *block,
		       size_t size, uint64_t before, struct mt_caller caller);

/* A block was resized to nothing: freed, at `before` of mt_record_resizing(). */
void mt_record_free_at(struct mt_thread *t, unsigned int kind, const void *block, uint64_t before);

struct mt_mapping {
	const void *addr;
	size_t size;
	int prot, flags, fd;
	off_t offset;
	int backing; /* made inside an allocator whose blocks are counted */
};

void mt_record_map(struct mt_thread *t, const struct mt_mapping *map, struct mt_caller caller);
/* Before the real munmap, which may be of a shared-memory object. */
void mt_record_unmapping(struct mt_thread *t, size_t size);
void mt_record_unmap(struct mt_thread *t, const void *addr, size_t size, uint64_t before);
void mt_record_remap(struct mt_thread *t, const void *old, size_t old_size, const void *addr,
		     size_t size, int flags, uint64_t before, struct mt_caller caller);
void mt_record_break(struct mt_thread *t, const void *old, const void *addr, int backing,
		     struct mt_caller caller);
void mt_record_shmat(struct mt_thread *t, int id, const void *addr, struct mt_caller caller);

/* fd -1: the object has no descriptor (shm_unlink). */
void mt_record_object(struct mt_thread *t, enum mt_object_op op, int fd, uint64_t size,
		      const char *name, struct mt_caller caller);

/* Is fd a file of a memory file system (shm, memfd)? */
int mt_record_is_memory_file(int fd);

/* Life of processes. traced: see mt_record_env_is_traced. */
void mt_record_fork(struct mt_thread *t, pid_t pid, uint64_t time, uint32_t inexact,
		    struct mt_caller caller);
void mt_record_exec(struct mt_thread *t, const char *path, char *const envp[]);
void mt_record_exec_failed(struct mt_thread *t, int error);
void mt_record_spawn(struct mt_thread *t, pid_t pid, const char *path, char *const envp[]);
void mt_record_wait(struct mt_thread *t, pid_t pid, int status);
void mt_record_launch(struct mt_thread *t); /* a pipe was made; recorded if Python code did it */

/* The process ends: EXIT, a last sample, and the file's unused tail back. Once per process. */
void mt_record_exit(struct mt_thread *t, enum mt_exit_kind kind, int code);

void mt_record_mark(struct mt_thread *t, enum mt_mark_kind kind, uint64_t value, const char *label);
void mt_record_thread_name(struct mt_thread *t);
void mt_record_fact(struct mt_thread *t, const char *key, const char *value, size_t length);
void mt_record_note(struct mt_thread *t, const char *text);

/* While paused, allocations of this process are not recorded; frees are. */
extern uint32_t mt_record_paused;

/* The pages of this process are about to be looked at: what is live now must be listed. */
void mt_record_looked(void);

/* While no other thread is inside a hook: the process forks at `time`. In the child: a fresh start. */
void mt_record_fork_cut(uint64_t time);
void mt_record_child(void);

/* Once at start: threads say who they are; fold: short-lived blocks are counted and not listed. */
void mt_record_init(int fold);
int mt_record_is_folded(void);

#endif
