/*
 * What the shim knows of GPUs, for whoever records, samples or forks. Nothing in here calls CUDA.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_GPU_H
#define MEMTRACE_PRELOAD_GPU_H

#include <stdint.h>

#define MT_GPU_DEVICES 32 /* ordinals above are recorded without levels */

/* What PyTorch's caching allocator last said of a device; written under its own lock. */
struct mt_gpu_level {
	uint64_t allocated, reserved, peak_allocated, peak_reserved;
	uint32_t known; /* 0: it said nothing yet */
};

extern struct mt_gpu_level mt_gpu_levels[MT_GPU_DEVICES]; /* members atomic, relaxed */

/* What a device has, and what of it all processes use; 0: not known. */
struct mt_gpu_memory {
	uint64_t total, used;
};

extern struct mt_gpu_memory mt_gpu_memory[MT_GPU_DEVICES]; /* members atomic, relaxed */

/* This process took memory from CUDA, or tried to fork after that. */
extern uint32_t mt_gpu_used; /* atomic */

/* A forked child of a process that had used CUDA: nothing of CUDA may be called by the shim. */
extern uint32_t mt_gpu_muted;

/* Names that were asked of cuGetProcAddress through us: all, those answered with ours, and those of
 * an ABI newer than we know, which were passed on. */
struct mt_gpu_names {
	uint32_t asked, ours, newer;
};
extern struct mt_gpu_names mt_gpu_names; /* members atomic, relaxed */

/* Where libcuda's code lies; 0: it is not known to be loaded. What it maps is its own business. */
extern uintptr_t mt_gpu_driver_low, mt_gpu_driver_high; /* atomic */

static inline int mt_gpu_is_driver(uintptr_t return_address)
{
	return return_address - __atomic_load_n(&mt_gpu_driver_low, __ATOMIC_RELAXED) <
	       __atomic_load_n(&mt_gpu_driver_high, __ATOMIC_RELAXED) -
		       __atomic_load_n(&mt_gpu_driver_low, __ATOMIC_RELAXED);
}

/* In a forked child: it has no context, whatever its parent had. */
void mt_gpu_child(void);

/* Recording has ended: what is said of levels from now on is not heard. */
void mt_gpu_forget(void);
extern void (*mt_gpu_on_forget)(void); /* of the hooks; NULL */

#endif
