/*
 * CPython's small objects (MEMTRACE_PYTHON=objects): its allocator domains MEM and OBJ are wrapped by
 * the interpreter's own PyMem_SetAllocator, from our constructor and so before the interpreter
 * starts: every object is seen, and blocks carry no header of ours. The RAW domain ends in malloc
 * and is seen there. A block above 512 bytes comes from malloc below the wrapper, where the guard
 * keeps it from being counted twice.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>

#include "core/control.h"
#include "core/guard.h"
#include "init.h"
#include "record/record.h"

/* PyMemAllocatorEx of CPython's cpymem.h, the same since 3.5. */
struct allocator {
	void *ctx;
	void *(*malloc)(void *ctx, size_t size);
	void *(*calloc)(void *ctx, size_t count, size_t size);
	void *(*realloc)(void *ctx, void *block, size_t size);
	void (*free)(void *ctx, void *block);
};

enum { DOMAIN_MEM = 1, DOMAIN_OBJ = 2 }; /* PyMemAllocatorDomain */

typedef void (*allocator_function)(int domain, struct allocator *allocator);

static struct allocator real[3]; /* by domain */
static allocator_function get_allocator;

static struct mt_thread *enter(void)
{
	struct mt_thread *t;

	MT_ATTEND();
	if (mt_light == MT_LIGHT_PASS)
		return NULL;
	t = mt_enter();
	if (t)
		mt_tls.guard = MT_GUARD_DOMAIN;
	return t;
}

static void *wrap_malloc(void *ctx, size_t size)
{
	const struct allocator *a = ctx;
	struct mt_thread *t = enter();
	void *p = a->malloc(a->ctx, size);

	if (!t)
		return p;
	if (p)
		mt_record_alloc(t, MT_KIND_PYTHON, p, size, MT_CALLER());
	mt_leave(t);
	return p;
}

static void *wrap_calloc(void *ctx, size_t count, size_t size)
{
	const struct allocator *a = ctx;
	struct mt_thread *t = enter();
	void *p = a->calloc(a->ctx, count, size);

	if (!t)
		return p;
	if (p)
		mt_record_alloc(t, MT_KIND_PYTHON, p, count * size, MT_CALLER());
	mt_leave(t);
	return p;
}

/* Unlike libc's, this realloc never frees: a size of 0 is a block of at least one byte. */
static void *wrap_realloc(void *ctx, void *block, size_t size)
{
	const struct allocator *a = ctx;
	struct mt_thread *t = enter();
	uint64_t before = t ? mt_record_resizing(t, MT_KIND_PYTHON, block) : 0;
	void *p = a->realloc(a->ctx, block, size);

	if (!t)
		return p;
	if (p && block)
		mt_record_realloc(t, MT_KIND_PYTHON, block, p, size, before, MT_CALLER());
	else if (p)
		mt_record_alloc(t, MT_KIND_PYTHON, p, size, MT_CALLER());
	else if (block)
		mt_record_kept(t, block);
	mt_leave(t);
	return p;
}

static void wrap_free(void *ctx, void *block)
{
	const struct allocator *a = ctx;
	struct mt_thread *t = block ? enter() : NULL;

	if (t)
		mt_record_free(t, MT_KIND_PYTHON, block);
	a->free(a->ctx, block);
	if (t)
		mt_leave(t);
}

int mt_pymem_install(int late)
{
	allocator_function set_allocator;

	if (late || get_allocator) /* blocks that are there already are not ours to wrap */
		return get_allocator != NULL;
	set_allocator = (allocator_function)dlsym(RTLD_DEFAULT, "PyMem_SetAllocator");
	get_allocator = (allocator_function)dlsym(RTLD_DEFAULT, "PyMem_GetAllocator");
	if (!get_allocator || !set_allocator) {
		get_allocator = NULL;
		return 0; /* no Python in this program, or one that is loaded later */
	}
	for (int domain = DOMAIN_MEM; domain <= DOMAIN_OBJ; domain++) {
		struct allocator wrapped = { &real[domain], wrap_malloc, wrap_calloc, wrap_realloc,
					     wrap_free };

		get_allocator(domain, &real[domain]);
		set_allocator(domain, &wrapped);
	}
	return 1;
}

int mt_pymem_was_replaced(void)
{
	struct allocator now = { 0 };

	if (!get_allocator)
		return 0;
	get_allocator(DOMAIN_OBJ, &now);
	return now.malloc != wrap_malloc;
}
