/*
 * Threads of the traced process. See thread.h. Structs are never freed: the list only grows to the
 * largest number of threads that lived at once, and a thread that ends hands its struct, with its
 * stream and caches, to the next one.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core/thread.h"

#include <errno.h>
#include <pthread.h>

#include "core/clock.h"
#include "core/guard.h"
#include "core/mem.h"
#include "sys/sys.h"

struct mt_thread *mt_thread_all;
uint32_t mt_thread_shared;
void (*mt_thread_on_start)(struct mt_thread *t);
void (*mt_thread_on_end)(struct mt_thread *t);

/* Free structs: pointer in the low 48 bits, a counter above it against ABA. */
static uint64_t free_head;
static uint32_t next_stream;
static pthread_key_t end_key;
static int have_key;

#define POINTER_MASK ((UINT64_C(1) << 48) - 1)
#define COUNT_ONE (UINT64_C(1) << 48)

static void free_push(struct mt_thread *t)
{
	uint64_t head = __atomic_load_n(&free_head, __ATOMIC_RELAXED);
	uint64_t next;

	do {
		t->next_free = (struct mt_thread *)(uintptr_t)(head & POINTER_MASK);
		next = ((head & ~POINTER_MASK) + COUNT_ONE) | (uint64_t)(uintptr_t)t;
		/* Release: what the thread wrote to its struct is seen by the next owner. */
	} while (!__atomic_compare_exchange_n(&free_head, &head, next, 0, __ATOMIC_RELEASE,
					      __ATOMIC_RELAXED));
}

static struct mt_thread *free_pop(void)
{
	uint64_t head = __atomic_load_n(&free_head, __ATOMIC_ACQUIRE);
	struct mt_thread *t;
	uint64_t next;

	do {
		t = (struct mt_thread *)(uintptr_t)(head & POINTER_MASK);
		if (!t)
			return NULL;
		next = ((head & ~POINTER_MASK) + COUNT_ONE) | (uint64_t)(uintptr_t)t->next_free;
	} while (!__atomic_compare_exchange_n(&free_head, &head, next, 0, __ATOMIC_ACQUIRE,
					      __ATOMIC_ACQUIRE));
	return t;
}

static struct mt_thread *thread_new(void)
{
	struct mt_thread *t = mt_mem_keep(sizeof(*t));

	if (!t)
		return NULL;
	t->stream = __atomic_fetch_add(&next_stream, 1, __ATOMIC_RELAXED);
	t->next_all = __atomic_load_n(&mt_thread_all, __ATOMIC_RELAXED);
	while (!__atomic_compare_exchange_n(&mt_thread_all, &t->next_all, t, 0, __ATOMIC_RELEASE,
					    __ATOMIC_RELAXED))
		;
	return t;
}

/* Read after `busy` was set: what the thread has of the trace stays mapped then. */
static int is_recording(void)
{
	return (__atomic_load_n(&mt_state, __ATOMIC_SEQ_CST) & ~(uint32_t)MT_STATE_GATE) ==
	       MT_STATE_RUNNING;
}

/* Runs among the thread's other key destructors; a later one may allocate, then the thread adopts
 * again and this runs once more. */
static void thread_end(void *value)
{
	struct mt_thread *t = value;

	if (mt_tls.thread != t || mt_tls.guard)
		return;
	mt_tls.guard = MT_GUARD_SELF;
	__atomic_store_n(&t->busy, 1, __ATOMIC_SEQ_CST);
	if (mt_thread_on_end && is_recording())
		mt_thread_on_end(t);
	mt_tls.thread = NULL;
	__atomic_store_n(&t->busy, 0, __ATOMIC_RELEASE);
	free_push(t);
	mt_tls.guard = MT_GUARD_NONE;
}

int mt_thread_init(void)
{
	if (!have_key)
		have_key = pthread_key_create(&end_key, thread_end) == 0;
	return have_key ? 0 : -EAGAIN;
}

struct mt_thread *mt_thread_adopt(void)
{
	struct mt_thread *t = free_pop();
	int saved = errno;

	if (!t)
		t = thread_new();
	if (!t)
		return NULL;
	if (t->stream)
		mt_thread_shared = 1;
	t->tid = (uint32_t)mt_sys_gettid();
	t->stack_low = t->stack_high = 0;
	t->named = 0;
	if (t->codec.time == 0)
		t->codec.time = mt_clock_now();
	mt_tls.thread = t;
	if (have_key)
		pthread_setspecific(end_key, t);
	if (mt_thread_on_start) {
		__atomic_store_n(&t->busy, 1, __ATOMIC_SEQ_CST);
		if (is_recording())
			mt_thread_on_start(t);
		__atomic_store_n(&t->busy, 0, __ATOMIC_RELEASE);
	}
	errno = saved;
	return t;
}

/* What a thread has of the trace and its dictionaries. */
static void let_go(struct mt_thread *t)
{
	if (t->map)
		mt_sys_munmap(t->map, t->map_bytes);
	t->map = NULL;
	t->chunk = NULL;
	t->at = t->end = NULL;
	t->seq = 0;
	t->lost = 0;
	t->next_units = 0;
	t->named = 0;
	t->codec.time = 0;
	for (unsigned int i = 0; i < sizeof(t->ids) / sizeof(t->ids[0]); i++)
		t->ids[i].next = t->ids[i].end = 0;
}

void mt_thread_child(struct mt_thread *self)
{
	uint32_t stream = 1;

	free_head = 0;
	for (struct mt_thread *t = mt_thread_all; t; t = t->next_all) {
		let_go(t);
		t->busy = t == self;
		t->stream = t == self ? 0 : stream++;
		if (t != self)
			free_push(t);
	}
	next_stream = stream;
	mt_thread_shared = 0;
	if (self)
		self->tid = (uint32_t)mt_sys_gettid();
}

void mt_thread_forget(void)
{
	for (struct mt_thread *t = mt_thread_all; t; t = t->next_all) {
		let_go(t);
		t->last_block = NULL;
		t->native_cache = t->python_cache = t->nursery = NULL;
		t->sample_mean = 0;
		t->old_block = 0;
	}
}
