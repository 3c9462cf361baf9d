/*
 * See gpu.h. Device and pinned memory is listed one by one: it is taken a few times a second, or
 * by a caching allocator whose own blocks (tensors) go the way of the heap and may be folded.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "record/gpu.h"

#include <string.h>

#include "core/gpu.h"
#include "core/guard.h"
#include "core/tick.h"
#include "out/file.h"
#include "out/stream.h"
#include "record/cut.h"
#include "sys/fmt.h"

#define LEVEL_UNITS (UINT64_C(20000000000) >> MT_TIME_SHIFT) /* 7 to 10 s of a common counter */
#define NAME_MAX_BYTES 256

static uint64_t next_level; /* atomic; units: when tensors are cut from what is folded again */

#define STACKS(t, caller) .native = mt_stack_native((t), (caller)), .python = mt_stack_python(t)

void mt_record_gpu_take(struct mt_thread *t, struct mt_ev_gpu_take *e, struct mt_caller caller)
{
	e->time = mt_clock_now();
	if (mt_record_paused)
		return;
	__atomic_store_n(&mt_gpu_used, 1, __ATOMIC_RELAXED);
	MT_SELF_BEGIN();
	e->native = mt_stack_native(t, caller);
	e->python = mt_stack_python(t);
	uint8_t *p = mt_stream_reserve(t, mt_gpu_take_room(e));
	if (p)
		mt_stream_commit(t, mt_put_gpu_take(p, &t->codec, e));
	mt_tick(t, e->time);
	MT_SELF_END();
}

void mt_record_gpu_give(struct mt_thread *t, unsigned int kind, uint64_t addr, const char *api)
{
	MT_SELF_BEGIN();
	MT_EMIT(t, gpu_give, .time = mt_clock_now(), .api = { api, (uint32_t)strlen(api) },
		.kind = kind, .addr = addr);
	MT_SELF_END();
}

void mt_record_gpu_pin(struct mt_thread *t, uint64_t addr, uint64_t size, struct mt_caller caller)
{
	MT_SELF_BEGIN();
	MT_EMIT(t, gpu_pin, .time = mt_clock_now(), .addr = addr, .size = size, STACKS(t, caller));
	MT_SELF_END();
}

void mt_record_gpu_vmm(struct mt_thread *t, struct mt_ev_gpu_vmm *e, struct mt_caller caller)
{
	if (!e->time)
		e->time = mt_clock_now();
	__atomic_store_n(&mt_gpu_used, 1, __ATOMIC_RELAXED);
	MT_SELF_BEGIN();
	if (e->op != MT_GPU_VMM_RELEASE && e->op != MT_GPU_VMM_UNMAP) {
		e->native = mt_stack_native(t, caller);
		e->python = mt_stack_python(t);
	}
	uint8_t *p = mt_stream_reserve(t, mt_gpu_vmm_room(e));
	if (p)
		mt_stream_commit(t, mt_put_gpu_vmm(p, &t->codec, e));
	MT_SELF_END();
}

void mt_record_gpu_pool(struct mt_thread *t, struct mt_ev_gpu_pool *e)
{
	e->time = mt_clock_now();
	MT_SELF_BEGIN();
	uint8_t *p = mt_stream_reserve(t, mt_gpu_pool_room(e));
	if (p)
		mt_stream_commit(t, mt_put_gpu_pool(p, &t->codec, e));
	MT_SELF_END();
}

void mt_record_gpu_heap(struct mt_thread *t, uint64_t addr, uint64_t size, const char *name)
{
	MT_SELF_BEGIN();
	MT_EMIT(t, gpu_heap, .time = mt_clock_now(), .addr = addr, .size = size,
		.name = { name, (uint32_t)strnlen(name, NAME_MAX_BYTES) });
	MT_SELF_END();
}

void mt_record_gpu_reset(struct mt_thread *t, uint64_t device, uint64_t context)
{
	MT_SELF_BEGIN();
	MT_EMIT(t, gpu_reset, .time = mt_clock_now(), .device = device, .context = context);
	MT_SELF_END();
}

void mt_record_gpu_used(struct mt_thread *t, struct mt_ev_gpu_used *e)
{
	MT_SELF_BEGIN();
	MT_EMIT(t, gpu_used, .time = mt_clock_now(), .device = e->device, .own = e->own,
		.all = e->all);
	MT_SELF_END();
}

void mt_record_gpu_device(struct mt_thread *t, unsigned int device, const char *uuid,
			  const char *name, uint64_t total)
{
	MT_SELF_BEGIN();
	/* For `memtrace run`, which asks NVML only where there is something to ask it. */
	if (mt_file.header)
		__atomic_fetch_or(&mt_file.header->flags, MT_FILE_GPU, __ATOMIC_RELAXED);
	MT_EMIT(t, gpu_device, .time = mt_clock_now(), .device = device + 1,
		.uuid = { uuid, uuid ? 16 : 0 },
		.name = { name, (uint32_t)strnlen(name, NAME_MAX_BYTES) }, .total = total);
	MT_SELF_END();
}

static void emit_level(struct mt_thread *t, unsigned int device, uint64_t time, uint64_t flags)
{
	const struct mt_gpu_level *l = &mt_gpu_levels[device];

	MT_EMIT(t, gpu_level, .time = time, .device = device + 1, .allocated = l->allocated,
		.reserved = l->reserved, .peak_allocated = l->peak_allocated,
		.peak_reserved = l->peak_reserved, .flags = flags);
}

static void note_level(struct mt_gpu_level *l, uint64_t allocated, uint64_t reserved)
{
	__atomic_store_n(&l->allocated, allocated, __ATOMIC_RELAXED);
	__atomic_store_n(&l->reserved, reserved, __ATOMIC_RELAXED);
	if (allocated > l->peak_allocated)
		__atomic_store_n(&l->peak_allocated, allocated, __ATOMIC_RELAXED);
	if (reserved > l->peak_reserved)
		__atomic_store_n(&l->peak_reserved, reserved, __ATOMIC_RELAXED);
	__atomic_store_n(&l->known, 1, __ATOMIC_RELAXED);
}

/* Now and then no tensor that lives may be folded any more: then the reader can lay tensors over
 * the segments they are in, and sees all of them. */
static MT_COLD void cut_level(struct mt_thread *t, unsigned int device, uint64_t now)
{
	uint64_t time = mt_nursery_on ? mt_cut() : now;

	__atomic_store_n(&next_level, now + LEVEL_UNITS, __ATOMIC_RELAXED);
	emit_level(t, device, time, 1);
}

void mt_record_gpu_tensor(struct mt_thread *t, unsigned int device, const void *block,
			  int64_t bytes, uint64_t allocated, uint64_t reserved,
			  struct mt_caller caller)
{
	uint64_t now;

	if (bytes > 0)
		mt_record_alloc(t, MT_KIND_TENSOR, block, (size_t)bytes, caller);
	else if (block)
		mt_record_free(t, MT_KIND_TENSOR, block);
	if (device >= MT_GPU_DEVICES)
		return;
	__atomic_store_n(&mt_gpu_used, 1, __ATOMIC_RELAXED);
	note_level(&mt_gpu_levels[device], allocated, reserved);
	now = mt_clock_rough();
	if (mt_unlikely(now >= __atomic_load_n(&next_level, __ATOMIC_RELAXED))) {
		MT_SELF_BEGIN();
		cut_level(t, device, now);
		MT_SELF_END();
	}
}

void mt_record_gpu_oom(struct mt_thread *t, struct mt_ev_gpu_oom *e, struct mt_caller caller)
{
	MT_SELF_BEGIN();
	e->time = mt_nursery_on ? mt_cut() : mt_clock_now();
	e->native = mt_stack_native(t, caller);
	e->python = mt_stack_python(t);
	uint8_t *p = mt_stream_reserve(t, mt_gpu_oom_room(e));
	if (p)
		mt_stream_commit(t, mt_put_gpu_oom(p, &t->codec, e));
	MT_SELF_END();
}

void mt_record_gpu_names(struct mt_thread *t)
{
	const struct mt_gpu_names *n = &mt_gpu_names;
	char text[160];

	if (!n->asked)
		return;
	mt_fmt(text, sizeof(text), "asked=%u ours=%u newer=%u", n->asked, n->ours, n->newer);
	mt_record_fact(t, "cuda_names", text, strlen(text));
	if (!n->newer)
		return;
	mt_fmt(text, sizeof(text),
	       "%u functions of the CUDA driver were asked for in a form newer than is known here: "
	       "memory taken by them is not in the trace",
	       n->newer);
	mt_record_note(t, text);
}

void mt_record_gpu_forget(void)
{
	next_level = 0;
}
