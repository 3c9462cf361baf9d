/*
 * Interposed heap functions. Each forwards to the next allocator and reports what it did; results,
 * errno and side effects are the C library's own. See core/guard.h for the pattern.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "core/bootstrap.h"
#include "core/control.h"
#include "core/guard.h"
#include "core/real.h"
#include "record/record.h"

/* A block of the bootstrap arena moves to the real heap when it is resized. */
static void *rescue(void *block, size_t size)
{
	size_t room = mt_bootstrap_room(block);
	void *fresh = malloc(size);

	if (fresh)
		memcpy(fresh, block, room < size ? room : size);
	return fresh;
}

/*
 * Where not every call is looked at (core/sampling.h), most leave here: ahead of the thread's
 * struct, the stamp and the stack. The guard is still set around the real call, for a mapping made
 * inside it is its backing store.
 */
#define LEAVE_EARLY(unknown, size, call)                                                           \
	if (mt_unlikely(mt_control_word())) {                                                      \
		if (mt_unlikely(mt_control_calls()))                                               \
			mt_control_attend();                                                       \
		if (mt_light == MT_LIGHT_PASS)                                                     \
			return call;                                                               \
		if (mt_light == MT_LIGHT_SAMPLE && (unknown) && mt_sample_skips(size)) {           \
			void *quick_;                                                              \
                                                                                                   \
			mt_tls.guard = MT_GUARD_REAL;                                              \
			quick_ = call;                                                             \
			mt_tls.guard = MT_GUARD_NONE;                                              \
			return quick_;                                                             \
		}                                                                                  \
	}

MT_EXPORT void *malloc(size_t size)
{
	struct mt_thread *t;
	void *p;

	LEAVE_EARLY(1, size, mt_real.malloc(size))
	t = mt_enter();
	if (mt_unlikely(!mt_real.malloc))
		return mt_bootstrap_alloc(16, size);
	p = mt_real.malloc(size);
	if (!t)
		return p;
	if (p)
		mt_record_alloc(t, MT_KIND_HEAP, p, size, MT_CALLER());
	mt_leave(t);
	return p;
}

MT_EXPORT void free(void *block)
{
	struct mt_thread *t;

	if (!block || mt_unlikely(mt_bootstrap_owns(block)))
		return;
	if (mt_unlikely(mt_control_word())) {
		if (mt_unlikely(mt_control_calls()))
			mt_control_attend();
		if (mt_light == MT_LIGHT_PASS ||
		    (mt_light == MT_LIGHT_SAMPLE && mt_sample_is_unknown(block))) {
			mt_real.free(block);
			return;
		}
	}
	t = mt_enter();
	if (t)
		mt_record_free(t, MT_KIND_HEAP, block);
	if (mt_likely(mt_real.free))
		mt_real.free(block);
	if (t)
		mt_leave(t);
}

MT_EXPORT void *calloc(size_t count, size_t size)
{
	struct mt_thread *t;
	size_t total;
	void *p;

	LEAVE_EARLY(!__builtin_mul_overflow(count, size, &total), total,
		    mt_real.calloc(count, size))
	t = mt_enter();
	if (mt_unlikely(!mt_real.calloc)) {
		if (__builtin_mul_overflow(count, size, &total)) {
			errno = ENOMEM;
			return NULL;
		}
		return mt_bootstrap_alloc(16, total);
	}
	p = mt_real.calloc(count, size);
	if (!t)
		return p;
	if (p) /* then count * size did not overflow */
		mt_record_alloc(t, MT_KIND_HEAP, p, count * size, MT_CALLER());
	mt_leave(t);
	return p;
}

/* What realloc and reallocarray did, once `p` is known. */
static void resized(struct mt_thread *t, void *block, void *p, size_t size, uint64_t before,
		    struct mt_caller caller)
{
	if (!block && p)
		mt_record_alloc(t, MT_KIND_HEAP, p, size, caller);
	else if (block && p)
		mt_record_realloc(t, MT_KIND_HEAP, block, p, size, before, caller);
	else if (block && !size) /* glibc: realloc(p, 0) frees and returns NULL */
		mt_record_free_at(t, MT_KIND_HEAP, block, before);
	else if (block)
		mt_record_kept(t, block);
}

MT_EXPORT void *realloc(void *block, size_t size)
{
	struct mt_thread *t;
	uint64_t before;
	void *p;

	if (mt_unlikely(block && mt_bootstrap_owns(block)))
		return rescue(block, size);
	LEAVE_EARLY(mt_sample_is_unknown(block), size, mt_real.realloc(block, size))
	t = mt_enter();
	if (mt_unlikely(!mt_real.realloc))
		return mt_bootstrap_alloc(16, size);
	if (!t)
		return mt_real.realloc(block, size);
	before = mt_record_resizing(t, MT_KIND_HEAP, block);
	p = mt_real.realloc(block, size);
	resized(t, block, p, size, before, MT_CALLER());
	mt_leave(t);
	return p;
}

MT_EXPORT void *reallocarray(void *block, size_t count, size_t size)
{
	struct mt_thread *t;
	uint64_t before;
	size_t total;
	void *p;

	if (__builtin_mul_overflow(count, size, &total)) {
		errno = ENOMEM;
		return NULL;
	}
	if (mt_unlikely(block && mt_bootstrap_owns(block)))
		return rescue(block, total);
	LEAVE_EARLY(mt_sample_is_unknown(block), total, mt_real.realloc(block, total))
	t = mt_enter();
	if (mt_unlikely(!mt_real.realloc))
		return mt_bootstrap_alloc(16, total);
	before = t ? mt_record_resizing(t, MT_KIND_HEAP, block) : 0;
	/* Not the real reallocarray: glibc's calls realloc through the PLT, and that is us again. */
	p = mt_real.realloc(block, total);
	if (!t)
		return p;
	resized(t, block, p, total, before, MT_CALLER());
	mt_leave(t);
	return p;
}

MT_EXPORT int posix_memalign(void **out, size_t alignment, size_t size)
{
	struct mt_thread *t;
	int err;

	MT_ATTEND();
	t = mt_enter();
	if (mt_unlikely(!mt_real.posix_memalign)) {
		*out = mt_bootstrap_alloc(alignment, size);
		return *out ? 0 : ENOMEM;
	}
	err = mt_real.posix_memalign(out, alignment, size);
	if (!t)
		return err;
	if (!err && *out)
		mt_record_alloc(t, MT_KIND_HEAP, *out, size, MT_CALLER());
	mt_leave(t);
	return err;
}

/* The aligned variants differ only in the call: one body, so that they cannot drift apart. */
#define ALIGNED_BODY(call, alignment)                                                              \
	struct mt_thread *t;                                                                       \
	void *p;                                                                                   \
                                                                                                   \
	MT_ATTEND();                                                                               \
	t = mt_enter();                                                                            \
	if (mt_unlikely(!mt_real.malloc))                                                          \
		return mt_bootstrap_alloc(alignment, size);                                        \
	p = mt_real.call;                                                                          \
	if (!t)                                                                                    \
		return p;                                                                          \
	if (p)                                                                                     \
		mt_record_alloc(t, MT_KIND_HEAP, p, size, MT_CALLER());                            \
	mt_leave(t);                                                                               \
	return p;

MT_EXPORT void *aligned_alloc(size_t alignment, size_t size)
{
	ALIGNED_BODY(aligned_alloc(alignment, size), alignment)
}

MT_EXPORT void *memalign(size_t alignment, size_t size)
{
	ALIGNED_BODY(memalign(alignment, size), alignment)
}

MT_EXPORT void *valloc(size_t size)
{
	ALIGNED_BODY(valloc(size), 4096)
}

MT_EXPORT void *pvalloc(size_t size)
{
	ALIGNED_BODY(pvalloc(size), 4096)
}

/* Old and new spellings of free: all end in the same block being given back. The C library's
 * headers declare them only where it has them. */
void cfree(void *block);
void free_sized(void *block, size_t size);
void free_aligned_sized(void *block, size_t alignment, size_t size);

MT_EXPORT void cfree(void *block)
{
	free(block);
}

MT_EXPORT void free_sized(void *block, size_t size)
{
	(void)size;
	free(block);
}

MT_EXPORT void free_aligned_sized(void *block, size_t alignment, size_t size)
{
	(void)alignment;
	(void)size;
	free(block);
}

MT_EXPORT size_t malloc_usable_size(void *block)
{
	if (!block || mt_bootstrap_owns(block) || !mt_real.malloc_usable_size)
		return 0;
	return mt_real.malloc_usable_size(block);
}
