/*
 * The CUDA runtime's functions, as labels: what the program called is what the report names, while
 * the driver's call inside is what counts. Only if that was not seen (a driver found by ways that
 * hooks/cuda_driver.c does not know) does the runtime's call count itself.
 *
 * Each caller reaches the runtime that it was linked with, of which there may be two.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "core/config.h"
#include "core/guard.h"
#include "hooks/cuda.h"

enum row {
#define MT_CUDA(symbol, parameters, arguments, what) ROW_##symbol,
#include "memtrace/cuda.def"
	ROWS
};

#define CALLERS 128 /* places that call; beyond them the search is made each time */

/* By caller: filled once per place, never emptied. addr is stored last. */
static struct {
	uintptr_t addr; /* atomic; return address; 0: free */
	void *real;
} callers[ROWS][CALLERS];

static const char *const sonames[] = { "libcudart", "libcudart.so.13", "libcudart.so.12",
				       "libcudart.so.11.0", NULL };

static MT_COLD void *search(enum row row, const char *name, uintptr_t addr)
{
	void *p = mt_cuda_behind(addr, name, sonames);
	uintptr_t none;

	for (size_t i = 0; p && i < CALLERS; i++) {
		none = 0;
		/* 1 while it is being filled: no code lies there */
		if (__atomic_compare_exchange_n(&callers[row][i].addr, &none, 1, 0,
						__ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
			callers[row][i].real = p;
			__atomic_store_n(&callers[row][i].addr, addr, __ATOMIC_RELEASE);
			break;
		}
	}
	return p;
}

static void *real_of(enum row row, const char *name, uintptr_t addr)
{
	for (size_t i = 0; i < CALLERS; i++) {
		uintptr_t at = __atomic_load_n(&callers[row][i].addr, __ATOMIC_ACQUIRE);

		if (at == addr)
			return callers[row][i].real;
		if (!at)
			break;
	}
	return search(row, name, addr);
}

/* ---- around a call ------------------------------------------------------------------------------ */

static void label_begin(struct cu_call *c, const char *api)
{
	struct mt_thread *t = mt_config.gpu ? mt_enter() : NULL;

	c->t = NULL;
	c->api = api;
	if (!t)
		return;
	if (!t->gpu.label && !t->gpu.inside) { /* else: inside another one, which is the label */
		c->t = t;
		t->gpu.label = api;
		t->gpu.seen = 0;
	}
	mt_leave(t);
}

/* True: the call is ours to count. */
static int label_end(struct cu_call *c, int result)
{
	if (!c->t)
		return 0;
	c->t->gpu.label = NULL;
	return result == 0 && !c->t->gpu.seen;
}

static void take(struct cu_call *c, struct mt_ev_gpu_take e)
{
	struct mt_thread *t = e.addr ? mt_enter() : NULL;

	if (!t)
		return;
	e.api = (struct mt_str){ c->api, (uint32_t)strlen(c->api) };
	e.flags |= MT_GPU_RUNTIME;
	mt_record_gpu_take(t, &e, c->caller);
	mt_leave(t);
}

static void give(struct cu_call *c, unsigned int kind, const void *addr)
{
	struct mt_thread *t = addr ? mt_enter() : NULL;

	if (!t)
		return;
	mt_record_gpu_give(t, kind, (uintptr_t)addr, c->api);
	mt_leave(t);
}

static void pin(struct cu_call *c, const void *addr, size_t size)
{
	struct mt_thread *t = mt_enter();

	if (!t)
		return;
	mt_record_gpu_pin(t, (uintptr_t)addr, size, c->caller);
	mt_leave(t);
}

#define TAKE(k, a, s)                                                                              \
	take(&c, (struct mt_ev_gpu_take){ .kind = (k), .addr = (uintptr_t)(a), .size = (s) })
#define TAKE_ASYNC(a, s, st, po)                                                                   \
	take(&c, (struct mt_ev_gpu_take){ .kind = MT_KIND_DEVICE,                                  \
					  .addr = (uintptr_t)(a),                                  \
					  .size = (s),                                             \
					  .cu_stream = (uintptr_t)(st),                            \
					  .pool = (uintptr_t)(po),                                 \
					  .flags = MT_GPU_ASYNC })
#define BORROW(a, s)                                                                               \
	take(&c, (struct mt_ev_gpu_take){ .kind = MT_KIND_DEVICE,                                  \
					  .addr = (uintptr_t)(a),                                  \
					  .size = (s),                                             \
					  .flags = MT_GPU_BORROWED })
#define PIN(a, s) pin(&c, (a), (s))

#define RUNTIME(symbol, parameters, arguments, what)                                               \
	MT_EXPORT int symbol parameters;                                                           \
	MT_EXPORT int symbol parameters                                                            \
	{                                                                                          \
		struct cu_call c = { .caller = MT_CALLER() };                                      \
		void *behind = real_of(ROW_##symbol, #symbol, *(const uintptr_t *)c.caller.slot);  \
		int result;                                                                        \
                                                                                                   \
		if (!behind)                                                                       \
			return MT_CUDA_NOT_LOADED;                                                 \
		label_begin(&c, #symbol);                                                          \
		result = ((int(*) parameters)(uintptr_t)behind)arguments;                          \
		if (label_end(&c, result))                                                         \
			what;                                                                      \
		return result;                                                                     \
	}
#define MT_CUDA(symbol, parameters, arguments, what) RUNTIME(symbol, parameters, arguments, what)
#define MT_CUDA_GIVE(symbol, parameters, arguments, kind, address)                                 \
	RUNTIME(symbol, parameters, arguments, give(&c, (kind), (address)))
#include "memtrace/cuda.def"
