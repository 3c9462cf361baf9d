/*
 * Who is calling: the native and the Python stack of the running thread as two interned ids. New
 * frames, nodes, modules and code objects are written to the thread's stream before the id that
 * needs them is returned (out/stream.h). Nothing here locks, allocates from the heap or calls into
 * the interpreter's API beyond PyGILState_GetThisThreadState().
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_STACK_H
#define MEMTRACE_PRELOAD_STACK_H

#include <stdint.h>

#include "core/thread.h"
#include "stack/modules.h"

/* Where a hook was called from: hooks are compiled with frame pointers, see MT_CALLER. */
struct mt_caller {
	uintptr_t slot; /* address of the hook's return address on the stack */
	uintptr_t rbp; /* the caller's frame pointer register at the call */
};

/* To be used in the interposed function itself. */
#define MT_CALLER()                                                                                \
	({                                                                                         \
		const uintptr_t *fp_ = (const uintptr_t *)__builtin_frame_address(0);              \
		(struct mt_caller){ (uintptr_t)(fp_ + 1), fp_[0] };                                \
	})

/* When recording begins; at the shim's start in the first thread. max_depth: MEMTRACE_DEPTH. late: in
 * the middle of the program, where ld.so's lock may belong to a thread that waits for this one:
 * modules are then told of as they are met on stacks. */
void mt_stack_init(struct mt_thread *t, unsigned int max_depth, int python, int late);

/* In its place at the start of a process that may record later: in the first thread. */
void mt_stack_prepare(void);

/* Recording has ended and no thread is inside a hook: everything that was learnt is forgotten. */
void mt_stack_forget(void);

/* In a forked child of a process that records nothing. */
void mt_modules_dormant_child(void);

/* Id of the native stack from `caller` outwards; 0: unknown. */
uint32_t mt_stack_native(struct mt_thread *t, struct mt_caller caller);

/* In a signal handler: that of what was interrupted, and its innermost frame with it. context: the
 * handler's third parameter. 0 also where the shim's own walk was interrupted. */
uint32_t mt_stack_interrupted(struct mt_thread *t, const void *context);

/*
 * After that one: is the address neither on the thread's stack nor in a module? Then an instruction that
 * faulted there is none of those by which CPython puts up a frame (its innermost frame lies on the C
 * stack up to 3.12, and is not filled in for a moment), so its frames can be read.
 */
int mt_stack_is_elsewhere(struct mt_thread *t, uintptr_t address);

/* The value mt_modules_running had when it was last looked for Python in vain; see modules.h. */
#define MT_PYTHON_PRESENT UINT32_MAX
extern uint32_t mt_python_absent_at; /* atomic */

uint32_t mt_python_stack(struct mt_thread *t);

/* Id of the Python stack of this thread; 0: none. A program without Python pays two loads. */
static inline uint32_t mt_stack_python(struct mt_thread *t)
{
	return __atomic_load_n(&mt_python_absent_at, __ATOMIC_RELAXED) ==
			       __atomic_load_n(&mt_modules_running, __ATOMIC_RELAXED)
		       ? 0
		       : mt_python_stack(t);
}

/* In a forked child, before its first event: what other threads had under way is dropped. t: the
 * thread that forked, or NULL when it has no struct yet. */
void mt_stack_child(struct mt_thread *t);

/* Before a real dlclose: modules are about to vanish. After it: find out which did, and write
 * MODULE_GONE. t NULL: only the caches are dropped. No guard is needed around begin. */
void mt_stack_unload_begin(void);
void mt_stack_unload_end(struct mt_thread *t);

/* Writes MODULE records for everything mapped that has none yet; process start and after dlopen.
 * Never in a forked child's prologue: it may meet a lock that another thread held at the fork. */
void mt_stack_modules_scan(struct mt_thread *t);

/* MEMTRACE_VERIFY, from the constructor: it loads a library. And before the process ends: what came
 * of it, as a fact and a note. */
void mt_stack_verify(unsigned int every);
void mt_stack_verify_end(struct mt_thread *t);

/* Is this address inside the code that maps CPython's small-object arenas? */
int mt_python_is_arena_caller(uintptr_t return_address);

#endif
