/*
 * Recording of GPU memory. As record.h: the guard is held, nothing blocks, nothing calls CUDA.
 * Fields that the recorder knows better (time, stacks) are filled in here.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_RECORD_GPU_H
#define MEMTRACE_PRELOAD_RECORD_GPU_H

#include "memtrace/events.h"
#include "record/record.h"

void mt_record_gpu_take(struct mt_thread *t, struct mt_ev_gpu_take *e, struct mt_caller caller);
/* Ahead of the call; addr 0: the free just recorded failed. */
void mt_record_gpu_give(struct mt_thread *t, unsigned int kind, uint64_t addr, const char *api);
void mt_record_gpu_pin(struct mt_thread *t, uint64_t addr, uint64_t size, struct mt_caller caller);
/* e->time 0: now. */
void mt_record_gpu_vmm(struct mt_thread *t, struct mt_ev_gpu_vmm *e, struct mt_caller caller);
void mt_record_gpu_pool(struct mt_thread *t, struct mt_ev_gpu_pool *e);
void mt_record_gpu_reset(struct mt_thread *t, uint64_t device, uint64_t context);
void mt_record_gpu_used(struct mt_thread *t, struct mt_ev_gpu_used *e);
/* uuid: 16 bytes or NULL */
void mt_record_gpu_device(struct mt_thread *t, unsigned int device, const char *uuid,
			  const char *name, uint64_t total);

/* A block of PyTorch's caching allocator came (bytes > 0) or went; the totals are its own. */
void mt_record_gpu_tensor(struct mt_thread *t, unsigned int device, const void *block,
			  int64_t bytes, uint64_t allocated, uint64_t reserved,
			  struct mt_caller caller);
void mt_record_gpu_oom(struct mt_thread *t, struct mt_ev_gpu_oom *e, struct mt_caller caller);

/* At the end: what of the driver's functions was looked up through us. */
void mt_record_gpu_names(struct mt_thread *t);

/* Recording has ended. */
void mt_record_gpu_forget(void);

#endif
