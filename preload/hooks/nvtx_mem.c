/*
 * NVTX's memory extension: pools that a program makes of memory it has (RMM and the like), and what
 * it hands out from them. A region is recorded as a tensor is: a block inside memory that is
 * counted elsewhere; a heap tells what of that is the pool's. Another tool that wants the extension
 * has it alone: handles would be its own.
 *
 * Layouts and numbers are those of NVTX's public headers (nvToolsExtMem.h, compatibility 0x0102).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <errno.h>
#include <string.h>

#include "core/config.h"
#include "core/guard.h"
#include "hooks/nvtx.h"
#include "record/gpu.h"

#define MODULE_MEMORY 1
#define VIRTUAL_ADDRESS 1 /* NVTX_MEM_TYPE_... */
#define MAX_REGIONS (1u << 20) /* of one call */

enum { HEAP_REGISTER, HEAP_UNREGISTER, HEAP_RESET, REGISTER, RESIZE, UNREGISTER };

struct range {
	size_t size;
	const void *addr;
};

struct heap { /* nvtxMemHeapDesc_t */
	uint16_t compatible, bytes;
	uint32_t reserved, usage, type;
	size_t range_bytes;
	const struct range *range;
	uint32_t category, message_type;
	const char *message;
};

struct batch { /* how the next two go on */
	size_t count, stride;
	const char *first; /* struct range; UNREGISTER: handles, which are addresses where ours */
};

struct regions { /* nvtxMemRegionsRegisterBatch_t */
	uint16_t compatible, bytes;
	uint32_t type;
	const void *heap;
	struct batch batch;
	const void **handles; /* filled in; may be NULL */
};

struct resized { /* nvtxMemRegionsResizeBatch_t, and that of Unregister */
	uint16_t compatible, bytes;
	uint32_t type;
	struct batch batch;
};

static void record_heap(const void *addr, size_t size, const char *name)
{
	int saved = errno;
	struct mt_thread *t = mt_enter();

	if (t) {
		mt_record_gpu_heap(t, (uintptr_t)addr, size, name);
		mt_leave(t);
	}
	errno = saved;
}

static void *on_heap(void *domain, const struct heap *h)
{
	(void)domain;
	if (!h || h->type != VIRTUAL_ADDRESS || !h->range || h->range_bytes < sizeof(*h->range) ||
	    !h->range->addr)
		return (void *)-1; /* NVTX_MEM_HEAP_HANDLE_NO_TOOL */
	record_heap(h->range->addr, h->range->size, mt_nvtx_text(h->message_type, h->message));
	return (void *)(uintptr_t)h->range->addr;
}

static void on_heap_gone(void *domain, const void *heap)
{
	(void)domain;
	if (heap && heap != (const void *)-1)
		record_heap(heap, 0, "");
}

/* size 0: the region is gone */
static void region(const void *addr, size_t size, int is_new, struct mt_caller caller)
{
	int saved = errno;
	/* A sampled block is known by its address alone, and a heap block may lie at this one. */
	struct mt_thread *t = addr && !mt_sample_mean ? mt_enter() : NULL;

	if (t) {
		if (!is_new)
			mt_record_free(t, MT_KIND_TENSOR, addr);
		if (size)
			mt_record_alloc(t, MT_KIND_TENSOR, addr, size, caller);
		mt_leave(t);
	}
	errno = saved;
}

static int is_readable(const struct batch *b, size_t least)
{
	return b->stride >= least && b->count <= MAX_REGIONS;
}

/* handles: to be filled in; NULL: none are wanted */
static void each_range(const struct batch *b, int is_new, const void **handles,
		       struct mt_caller caller)
{
	for (size_t i = 0; is_readable(b, sizeof(struct range)) && i < b->count; i++) {
		const struct range *range = (const void *)(b->first + i * b->stride);

		region(range->addr, range->size, is_new, caller);
		if (handles)
			handles[i] = range->addr;
	}
}

static void on_register(void *domain, const struct regions *r)
{
	struct mt_caller caller = MT_CALLER();

	(void)domain;
	if (r && r->type == VIRTUAL_ADDRESS)
		each_range(&r->batch, 1, r->handles, caller);
}

static void on_resize(void *domain, const struct resized *r)
{
	struct mt_caller caller = MT_CALLER();

	(void)domain;
	if (r && r->type == VIRTUAL_ADDRESS)
		each_range(&r->batch, 0, NULL, caller);
}

static void on_unregister(void *domain, const struct resized *r)
{
	struct mt_caller caller = MT_CALLER();

	(void)domain;
	for (size_t i = 0; r && is_readable(&r->batch, sizeof(void *)) && i < r->batch.count; i++)
		region(*(const void *const *)(const void *)(r->batch.first + i * r->batch.stride),
		       0, 0, caller);
}

/* ---- start ---------------------------------------------------------------------------------------- */

struct segment {
	size_t id, count;
	void **slots;
};

struct module {
	uint16_t version, bytes, id, compatible;
	size_t segment_count;
	struct segment *segments;
};

static int other_has_it(struct module *m)
{
	const char *path = mt_config.nvtx;
	void *tool = *path ? dlopen(path, RTLD_LAZY | RTLD_LOCAL) : NULL;
	int (*init)(struct module *) = NULL;

	if (tool)
		*(void **)&init = dlsym(tool, "InitializeInjectionNvtxExtension");
	return init && init(m);
}

MT_EXPORT int InitializeInjectionNvtxExtension(struct module *m);
MT_EXPORT int InitializeInjectionNvtxExtension(struct module *m)
{
	void **slots;

	if (!m || other_has_it(m))
		return m != NULL;
	if (!mt_config.gpu || m->id != MODULE_MEMORY || !m->segment_count || !m->segments ||
	    m->segments->count <= UNREGISTER)
		return 0;
	slots = m->segments->slots;
	slots[HEAP_REGISTER] = (void *)(uintptr_t)on_heap;
	slots[HEAP_UNREGISTER] = (void *)(uintptr_t)on_heap_gone;
	slots[REGISTER] = (void *)(uintptr_t)on_register;
	slots[RESIZE] = (void *)(uintptr_t)on_resize;
	slots[UNREGISTER] = (void *)(uintptr_t)on_unregister;
	return 1;
}
