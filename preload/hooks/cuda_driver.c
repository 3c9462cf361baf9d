/*
 * The CUDA driver's functions that take and give back memory: wrappers made from cuda.def. They are
 * reached in three ways: bound by the loader (exported names), found by dlsym (mt_cuda_found), or
 * handed out by cuGetProcAddress, which every CUDA runtime uses, also the ones that are linked into
 * NCCL, cuBLAS and cuDNN. cuGetExportTable is never touched: its tables are under a checksum.
 *
 * A free is recorded ahead of the call, so that an address is never handed out again before it was
 * given back; if it then fails, a second record takes it back.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <string.h>

#include "core/config.h"
#include "core/gpu.h"
#include "core/guard.h"
#include "hooks/cuda.h"
#include "sys/log.h"

#define NEWEST_KNOWN 13010 /* cudaVersion that cuda.def was written for */
#define PER_THREAD 2 /* CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM */

enum row {
#define MT_CU(symbol, asked, version, stream, parameters, arguments, what) ROW_##symbol,
#include "memtrace/cuda.def"
	ROWS
};

static void *real[ROWS]; /* atomic; NULL: not met yet */

/* ---- around a call ------------------------------------------------------------------------------ */

static void call_begin(struct cu_call *c, const char *api)
{
	struct mt_thread *t = mt_config.gpu ? mt_enter() : NULL;

	c->t = NULL;
	c->api = api;
	if (!t)
		return;
	if (!t->gpu.inside) { /* else: the driver calls itself */
		c->t = t;
		t->gpu.inside = 1;
		if (t->gpu.label)
			c->api = t->gpu.label;
		c->before = mt_clock_now();
	}
	mt_leave(t);
}

static void call_end(struct cu_call *c)
{
	if (c->t)
		c->t->gpu.inside = 0;
}

static struct mt_str api_of(const struct cu_call *c)
{
	return (struct mt_str){ c->api, (uint32_t)strlen(c->api) };
}

static void take(struct cu_call *c, struct mt_ev_gpu_take e)
{
	struct cu_where where;
	struct mt_thread *t;

	if (!c->t || !e.addr)
		return;
	where = mt_cuda_where(c->t);
	if (e.kind != MT_KIND_PINNED) {
		e.device = where.device;
		e.context = where.context;
	}
	if (!e.size && e.flags & MT_GPU_BORROWED)
		e.size = mt_cuda_size_of(e.addr);
	if (e.flags & MT_GPU_ASYNC && mt_cuda_is_captured(e.cu_stream))
		e.flags = MT_GPU_GRAPH;
	e.api = api_of(c);
	t = mt_enter();
	if (!t)
		return;
	t->gpu.seen = 1;
	mt_record_gpu_take(t, &e, c->caller);
	mt_leave(t);
	mt_cuda_measure(t, where.device, (void *)(uintptr_t)e.pool,
			e.flags & MT_GPU_ASYNC ? 0 : -1);
}

static void give(struct cu_call *c, unsigned int kind, uint64_t addr)
{
	struct mt_thread *t = c->t && addr ? mt_enter() : NULL;

	if (!t)
		return;
	t->gpu.seen = 1;
	mt_record_gpu_give(t, kind, addr, c->api);
	mt_leave(t);
}

static void give_failed(struct cu_call *c, unsigned int kind, uint64_t addr)
{
	struct mt_thread *t = c->t && addr ? mt_enter() : NULL;

	if (!t)
		return;
	mt_record_gpu_give(t, kind, 0, c->api);
	mt_leave(t);
}

/* What a pool keeps of what it gets back is the driver's business: so it is asked now and then. */
static void look_at_pool(struct cu_call *c)
{
	if (c->t)
		mt_cuda_measure(c->t, mt_cuda_where(c->t).device, NULL, 0);
}

static void pin(struct cu_call *c, const void *addr, size_t size)
{
	struct mt_thread *t = c->t ? mt_enter() : NULL;

	if (!t)
		return;
	t->gpu.seen = 1;
	mt_record_gpu_pin(t, (uintptr_t)addr, size, c->caller);
	mt_leave(t);
}

static void vmm(struct cu_call *c, struct mt_ev_gpu_vmm e)
{
	struct mt_thread *t = c->t ? mt_enter() : NULL;

	if (!t)
		return;
	mt_record_gpu_vmm(t, &e, c->caller);
	mt_leave(t);
	if (e.op == MT_GPU_VMM_CREATE)
		mt_cuda_measure(t, e.device, NULL, -1);
}

static void pool_event(struct cu_call *c, uint64_t op, void *p, uint64_t device)
{
	struct mt_ev_gpu_pool e = { .op = op, .pool = (uintptr_t)p, .device = device };
	struct mt_thread *t;

	if (!c->t)
		return;
	if (op == MT_GPU_POOL_LEVEL) {
		mt_cuda_measure(c->t, 0, p, 1);
		return;
	}
	t = mt_enter();
	if (!t)
		return;
	mt_record_gpu_pool(t, &e);
	mt_leave(t);
}

static void reset(struct cu_call *c, uint64_t device, const void *context)
{
	struct mt_thread *t = c->t ? mt_enter() : NULL;

	if (!t)
		return;
	t->gpu.seen = 1;
	mt_record_gpu_reset(t, device, (uintptr_t)context);
	mt_leave(t);
}

/* Bytes of one element of one channel: enum CUarray_format. What is not listed is packed video or
 * compressed, about one byte. */
static size_t format_bytes(int format)
{
	switch (format) {
	case 0x02: /* unsigned 16 */
	case 0x09: /* signed 16 */
	case 0x10: /* half */
		return 2;
	case 0x03: /* unsigned 32 */
	case 0x0a: /* signed 32 */
	case 0x20: /* float */
		return 4;
	default:
		return 1;
	}
}

/* Of the levels, each half as wide as the one before; a zero extent counts as 1. */
static uint64_t array_bytes(size_t width, size_t height, size_t depth, int format,
			    unsigned int channels, unsigned int levels)
{
	uint64_t bytes = 0;

	for (unsigned int i = 0; i < levels; i++) {
		bytes += (uint64_t)(width ? width : 1) * (height ? height : 1) *
			 (depth ? depth : 1) * channels * format_bytes(format);
		width /= 2;
		height /= 2;
		depth /= 2;
	}
	return bytes;
}

/* ---- the wrappers ------------------------------------------------------------------------------- */

static const char *const sonames[] = { "libcuda.so", "libcuda.so.1", NULL };

static MT_COLD void *find_real(enum row row, const char *name, uintptr_t return_address)
{
	void *p = mt_cuda_behind(return_address, name, sonames), *handle;

	if (!p)
		return NULL;
	__atomic_store_n(&real[row], p, __ATOMIC_RELEASE);
	handle = mt_cuda_device_is_ready() ? NULL : dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
	if (handle)
		mt_cuda_device_init(handle, p);
	return p;
}

#define TAKE(k, a, s) take(&c, (struct mt_ev_gpu_take){ .kind = (k), .addr = (a), .size = (s) })
#define TAKE_ARRAY(a, w, h, d, f, n, l)                                                            \
	take(&c, (struct mt_ev_gpu_take){ .kind = MT_KIND_DEVICE,                                  \
					  .addr = (a),                                             \
					  .size = array_bytes(w, h, d, f, n, l),                   \
					  .flags = MT_GPU_ARRAY })
#define TAKE_ASYNC(a, s, st, po)                                                                   \
	take(&c, (struct mt_ev_gpu_take){ .kind = MT_KIND_DEVICE,                                  \
					  .addr = (a),                                             \
					  .size = (s),                                             \
					  .cu_stream = (uintptr_t)(st),                            \
					  .pool = (uintptr_t)(po),                                 \
					  .flags = MT_GPU_ASYNC })
#define TAKE_GRAPH(a, s)                                                                           \
	take(&c,                                                                                   \
	     (struct mt_ev_gpu_take){                                                              \
		     .kind = MT_KIND_DEVICE, .addr = (a), .size = (s), .flags = MT_GPU_GRAPH })
#define GRAPH_NODE(p)                                                                              \
	do {                                                                                       \
		if ((p)->type == 10)                                                               \
			TAKE_GRAPH((p)->u.alloc.addr, (p)->u.alloc.size);                          \
		if ((p)->type == 11)                                                               \
			give(&c, MT_KIND_DEVICE, (p)->u.freed);                                    \
	} while (0)
#define BORROW(a, s)                                                                               \
	take(&c,                                                                                   \
	     (struct mt_ev_gpu_take){                                                              \
		     .kind = MT_KIND_DEVICE, .addr = (a), .size = (s), .flags = MT_GPU_BORROWED })
#define PIN(a, s) pin(&c, (a), (s))
#define VMM(o, ...) vmm(&c, (struct mt_ev_gpu_vmm){ .op = (o), __VA_ARGS__ })
#define HERE mt_cuda_where(c.t).device
#define VMM_BACK(o, ...) vmm(&c, (struct mt_ev_gpu_vmm){ .op = (o), .time = c.before, __VA_ARGS__ })
#define POOL(o, p, d) pool_event(&c, (o), (p), (d))
#define RESET(d) reset(&c, (uint64_t)(d) + 1, NULL)
#define RELEASED(d)                                                                                \
	do {                                                                                       \
		if (c.t && !mt_cuda_device_is_alive(d))                                            \
			reset(&c, (uint64_t)(d) + 1, NULL);                                        \
	} while (0)
#define RESET_CONTEXT(x) reset(&c, 0, (x))

#define WRAPPER_BEGIN(symbol)                                                                      \
	struct cu_call c = { .caller = MT_CALLER() };                                              \
	void *behind = __atomic_load_n(&real[ROW_##symbol], __ATOMIC_ACQUIRE);                     \
	int result;                                                                                \
	if (mt_unlikely(!behind))                                                                  \
		behind = find_real(ROW_##symbol, #symbol, *(const uintptr_t *)c.caller.slot);      \
	if (!behind)                                                                               \
		return MT_CUDA_NOT_LOADED;                                                         \
	call_begin(&c, #symbol)

#define CALL(parameters, arguments) ((int(*) parameters)(uintptr_t)behind) arguments

/* Exported under its name, and known to us under another one, which nobody else's can replace. */
#define MT_CU(symbol, asked, version, stream, parameters, arguments, what)                         \
	MT_EXPORT int symbol parameters;                                                           \
	static __attribute__((used)) int wrap_##symbol parameters                                  \
	{                                                                                          \
		WRAPPER_BEGIN(symbol);                                                             \
		result = CALL(parameters, arguments);                                              \
		if (result == 0)                                                                   \
			what;                                                                      \
		call_end(&c);                                                                      \
		return result;                                                                     \
	}                                                                                          \
	MT_EXPORT int symbol parameters __attribute__((alias("wrap_" #symbol)));
#define MT_CU_GIVE(symbol, asked, version, stream, parameters, arguments, kind, address)           \
	MT_EXPORT int symbol parameters;                                                           \
	static __attribute__((used)) int wrap_##symbol parameters                                  \
	{                                                                                          \
		WRAPPER_BEGIN(symbol);                                                             \
		give(&c, (kind), (uint64_t)(address));                                             \
		result = CALL(parameters, arguments);                                              \
		if (result != 0)                                                                   \
			give_failed(&c, (kind), (uint64_t)(address));                              \
		else if (strstr(#symbol, "FreeAsync"))                                             \
			look_at_pool(&c);                                                          \
		call_end(&c);                                                                      \
		return result;                                                                     \
	}                                                                                          \
	MT_EXPORT int symbol parameters __attribute__((alias("wrap_" #symbol)));
#include "memtrace/cuda.def"

/* ---- who asks for what -------------------------------------------------------------------------- */

struct entry {
	const char *symbol, *asked;
	unsigned int version, stream;
	int row; /* -1: passed on as it is */
	void *wrapper;
};

static const struct entry entries[] = {
#define MT_CU(symbol, asked, version, stream, parameters, arguments, what)                         \
	{ #symbol, asked, version, stream, ROW_##symbol, (void *)(uintptr_t)wrap_##symbol },
#define MT_CU_OTHER(asked, version) { NULL, asked, version, 0, -1, NULL },
#include "memtrace/cuda.def"
};

#define ENTRIES (sizeof(entries) / sizeof(entries[0]))

static int wrap_cuGetProcAddress(const char *name, void **out, int version, uint64_t flags);
static int wrap_cuGetProcAddress_v2(const char *name, void **out, int version, uint64_t flags,
				    int *status);

static void *real_get[2]; /* atomic: cuGetProcAddress, _v2 */

static int is_get(const char *name)
{
	return !strcmp(name, "cuGetProcAddress") ? 1 : !strcmp(name, "cuGetProcAddress_v2") ? 2 : 0;
}

static void *wrapped_get(int which, void *found)
{
	if (!mt_cuda_is_ours(found))
		__atomic_store_n(&real_get[which - 1], found, __ATOMIC_RELEASE);
	return which == 1 ? (void *)(uintptr_t)wrap_cuGetProcAddress
			  : (void *)(uintptr_t)wrap_cuGetProcAddress_v2;
}

static void *wrapped(const struct entry *e, void *found)
{
	if (e->row < 0 || mt_cuda_is_ours(found))
		return found;
	__atomic_store_n(&real[e->row], found, __ATOMIC_RELEASE);
	return e->wrapper;
}

void *mt_cuda_found(void *handle, const char *name, void *found)
{
	const struct entry *e = NULL;
	int get = is_get(name);
	const char *base;
	Dl_info info;

	for (size_t i = 0; i < ENTRIES && !e && !get; i++)
		if (entries[i].symbol && !strcmp(entries[i].symbol, name))
			e = &entries[i];
	/* cuDNN's, cuBLAS's and cuFFT's names begin with cu as well; and a stand-in's is its own. */
	if ((!e && !get) || !dladdr(found, &info) || !info.dli_fname)
		return found;
	base = strrchr(info.dli_fname, '/');
	if (strncmp(base ? base + 1 : info.dli_fname, "libcuda.so", 10) != 0)
		return found;
	if (!mt_cuda_device_is_ready())
		mt_cuda_device_init(handle, found);
	return get ? wrapped_get(get, found) : wrapped(e, found);
}

/* The ABI that is handed out for a name: the newest that is not newer than what was asked for, of
 * the stream semantics asked for where it has two. */
static const struct entry *entry_for(const char *name, int version, uint64_t flags)
{
	unsigned int stream = flags & PER_THREAD ? PER_THREAD : 0;
	const struct entry *best = NULL;

	for (size_t i = 0; i < ENTRIES; i++) {
		const struct entry *e = &entries[i];

		if (strcmp(e->asked, name) != 0 || (int)e->version > version ||
		    (e->stream && e->stream != stream))
			continue;
		if (!best || e->version > best->version ||
		    (e->version == best->version && e->stream > best->stream))
			best = e;
	}
	return best;
}

/* What `found`, the driver's answer, is to be replaced by. An ABI newer than this file knows may
 * have other arguments: it is passed on, unless it is the very function we know. */
static void *replacement(const char *name, int version, uint64_t flags, void *found)
{
	const struct entry *e;

	if (!strcmp(name, "cuGetProcAddress"))
		return wrapped_get(version >= 12000 ? 2 : 1, found);
	e = entry_for(name, version, flags);
	if (!e)
		return found;
	if (version > NEWEST_KNOWN && e->row >= 0 &&
	    found != __atomic_load_n(&real[e->row], __ATOMIC_ACQUIRE) &&
	    found != mt_cuda_exported(e->symbol)) {
		__atomic_fetch_add(&mt_gpu_names.newer, 1, __ATOMIC_RELAXED);
		return found;
	}
	return wrapped(e, found);
}

static void answer(const char *name, int version, uint64_t flags, void **out, int result)
{
	const char *how = "none";

	if (!mt_config.gpu)
		return;
	__atomic_fetch_add(&mt_gpu_names.asked, 1, __ATOMIC_RELAXED);
	if (result == 0 && *out) {
		void *given = replacement(name, version, flags, *out);

		how = given == *out ? "as it is" : "ours";
		if (given != *out)
			__atomic_fetch_add(&mt_gpu_names.ours, 1, __ATOMIC_RELAXED);
		*out = given;
	}
	mt_log(MT_LOG_DEBUG, "cuGetProcAddress: %s, version %d, flags %d: %s", name, version,
	       (int)flags, how);
}

static void *behind_get(int which, uintptr_t return_address)
{
	static const char *const names[] = { "cuGetProcAddress", "cuGetProcAddress_v2" };
	void *p = __atomic_load_n(&real_get[which - 1], __ATOMIC_ACQUIRE);

	if (!p) {
		p = mt_cuda_behind(return_address, names[which - 1], sonames);
		__atomic_store_n(&real_get[which - 1], p, __ATOMIC_RELEASE);
	}
	return p;
}

MT_EXPORT int cuGetProcAddress(const char *name, void **out, int version, uint64_t flags);
MT_EXPORT int cuGetProcAddress_v2(const char *name, void **out, int version, uint64_t flags,
				  int *status);

static __attribute__((used)) int wrap_cuGetProcAddress(const char *name, void **out, int version,
						       uint64_t flags)
{
	void *p = behind_get(1, (uintptr_t)__builtin_return_address(0));
	int result = p ? ((int (*)(const char *, void **, int, uint64_t))(uintptr_t)p)(
				 name, out, version, flags)
		       : MT_CUDA_NOT_LOADED;

	if (name && out)
		answer(name, version, flags, out, result);
	return result;
}

static __attribute__((used)) int wrap_cuGetProcAddress_v2(const char *name, void **out, int version,
							  uint64_t flags, int *status)
{
	void *p = behind_get(2, (uintptr_t)__builtin_return_address(0));
	int result = p ? ((int (*)(const char *, void **, int, uint64_t, int *))(uintptr_t)p)(
				 name, out, version, flags, status)
		       : MT_CUDA_NOT_LOADED;

	if (name && out)
		answer(name, version, flags, out, result);
	return result;
}

MT_EXPORT int cuGetProcAddress(const char *name, void **out, int version, uint64_t flags)
	__attribute__((alias("wrap_cuGetProcAddress")));
MT_EXPORT int cuGetProcAddress_v2(const char *name, void **out, int version, uint64_t flags,
				  int *status) __attribute__((alias("wrap_cuGetProcAddress_v2")));
