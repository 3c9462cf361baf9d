/*
 * PyTorch's own allocators, seen through functions that its libraries export and call through their
 * procedure tables:
 *   c10::reportMemoryUsageToProfiler   the CUDA caching allocator calls it on every block, profiler
 *                                      or not, with what it holds and has reserved by then
 *   c10::reportOutOfMemoryToProfiler   the same, when it must give up
 *   c10::alloc_cpu, free_cpu           tensors on the host
 *   record_function_enter_new          names such as "Optimizer.step#Adam.step"
 *
 * The caching allocator holds its lock while it reports: nothing here waits, calls CUDA or takes
 * the interpreter's lock. The names are C++'s; the calls are C's: c10::Device is two bytes in a
 * register. Each version of PyTorch has one of the spellings.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <errno.h>
#include <string.h>

#include "core/config.h"
#include "core/gpu.h"
#include "core/guard.h"
#include "hooks/cuda.h"

#define CUDA_TYPE 1 /* c10::DeviceType::CUDA */

static const char *const c10[] = { "libc10.so", "libc10.so", NULL };
static const char *const torch[] = { "libtorch_cpu.so", "libtorch_cpu.so", NULL };

/* The real function of that name, looked for once; NULL: none. */
static void *behind(void **cache, const char *name, uintptr_t return_address,
		    const char *const *sonames)
{
	void *p = __atomic_load_n(cache, __ATOMIC_ACQUIRE);

	if (mt_unlikely(!p)) {
		int saved = errno;

		p = mt_cuda_behind(return_address, name, sonames);
		__atomic_store_n(cache, p, __ATOMIC_RELEASE);
		errno = saved;
	}
	return p;
}

static void usage(void *block, int64_t bytes, uint64_t allocated, uint64_t reserved,
		  unsigned int device, struct mt_caller caller)
{
	struct mt_thread *t;

	if (!mt_config.gpu || (device & 0xff) != CUDA_TYPE)
		return;
	t = mt_enter();
	if (!t)
		return;
	mt_record_gpu_tensor(t, device >> 8 & 0xff, block, bytes, allocated, reserved, caller);
	mt_leave(t);
}

static void out_of_memory(uint64_t bytes, uint64_t allocated, uint64_t reserved,
			  unsigned int device, struct mt_caller caller)
{
	struct mt_ev_gpu_oom e = { .device = (device >> 8 & 0xff) + 1,
				   .size = bytes,
				   .allocated = allocated,
				   .reserved = reserved };
	struct mt_thread *t;

	if (!mt_config.gpu || (device & 0xff) != CUDA_TYPE)
		return;
	t = mt_enter();
	if (!t)
		return;
	mt_record_gpu_oom(t, &e, caller);
	mt_leave(t);
}

#define USAGE(suffix)                                                                              \
	typedef void suffix##_fn(void *, int64_t, uint64_t, uint64_t, uint16_t);                   \
	MT_EXPORT suffix##_fn _ZN3c1027reportMemoryUsageToProfilerEPv##suffix##NS_6DeviceE;        \
	void _ZN3c1027reportMemoryUsageToProfilerEPv##suffix##NS_6DeviceE(                         \
		void *block, int64_t bytes, uint64_t allocated, uint64_t reserved,                 \
		uint16_t device)                                                                   \
	{                                                                                          \
		static void *cache;                                                                \
		struct mt_caller caller = MT_CALLER();                                             \
		suffix##_fn *real;                                                                 \
                                                                                                   \
		*(void **)&real = behind(                                                          \
			&cache, "_ZN3c1027reportMemoryUsageToProfilerEPv" #suffix "NS_6DeviceE",   \
			*(const uintptr_t *)caller.slot, c10);                                     \
		usage(block, bytes, allocated, reserved, device, caller);                          \
		if (real)                                                                          \
			real(block, bytes, allocated, reserved, device);                           \
	}

USAGE(lmm) /* 2.x */
USAGE(lll) /* 1.9 to 2.0 */

/* 1.6 to 1.8: no totals; what is live tells. */
typedef void oldest_fn(void *, int64_t, uint16_t);
MT_EXPORT oldest_fn _ZN3c1027reportMemoryUsageToProfilerEPvlNS_6DeviceE;
void _ZN3c1027reportMemoryUsageToProfilerEPvlNS_6DeviceE(void *block, int64_t bytes,
							 uint16_t device)
{
	static void *cache;
	struct mt_caller caller = MT_CALLER();
	struct mt_thread *t;
	oldest_fn *real;

	*(void **)&real = behind(&cache, "_ZN3c1027reportMemoryUsageToProfilerEPvlNS_6DeviceE",
				 *(const uintptr_t *)caller.slot, c10);
	t = mt_config.gpu && (device & 0xff) == CUDA_TYPE ? mt_enter() : NULL;
	if (t) {
		if (bytes > 0)
			mt_record_alloc(t, MT_KIND_TENSOR, block, (size_t)bytes, caller);
		else if (block)
			mt_record_free(t, MT_KIND_TENSOR, block);
		mt_leave(t);
	}
	if (real)
		real(block, bytes, device);
}

#define OOM(suffix)                                                                                \
	typedef void oom_##suffix##_fn(uint64_t, uint64_t, uint64_t, uint16_t);                    \
	MT_EXPORT oom_##suffix##_fn _ZN3c1027reportOutOfMemoryToProfilerE##suffix##NS_6DeviceE;    \
	void _ZN3c1027reportOutOfMemoryToProfilerE##suffix##NS_6DeviceE(                           \
		uint64_t bytes, uint64_t allocated, uint64_t reserved, uint16_t device)            \
	{                                                                                          \
		static void *cache;                                                                \
		struct mt_caller caller = MT_CALLER();                                             \
		oom_##suffix##_fn *real;                                                           \
                                                                                                   \
		*(void **)&real = behind(                                                          \
			&cache, "_ZN3c1027reportOutOfMemoryToProfilerE" #suffix "NS_6DeviceE",     \
			*(const uintptr_t *)caller.slot, c10);                                     \
		out_of_memory(bytes, allocated, reserved, device, caller);                         \
		if (real)                                                                          \
			real(bytes, allocated, reserved, device);                                  \
	}

OOM(lll)
OOM(lmm)
OOM(mmm)

/* ---- tensors on the host -------------------------------------------------------------------------- */

/*
 * What a tensor takes is recorded as heap where malloc hands it out. Here it gets a second record,
 * of kind tensor, that no total of the heap counts. It costs as much as the first, so only a
 * program that has PyTorch's CUDA library loaded, when its first tensor is made, pays for it. In
 * sample mode there is none: a sampled block is known by its address alone.
 */
enum { UNDECIDED, WITHOUT, WITH };

static int with_cuda(void)
{
	static uint32_t decided;
	uint32_t with = __atomic_load_n(&decided, __ATOMIC_RELAXED);
	void *handle;
	int saved = errno;

	if (mt_likely(with != UNDECIDED))
		return with == WITH;
	handle = mt_gpu_muted ? NULL : dlopen("libc10_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
	if (handle)
		dlclose(handle);
	__atomic_store_n(&decided, handle ? WITH : WITHOUT, __ATOMIC_RELAXED);
	errno = saved;
	return handle != NULL;
}

static struct mt_thread *enter_tensor(void)
{
	return mt_config.gpu && !mt_sample_mean && with_cuda() ? mt_enter() : NULL;
}

typedef void *alloc_fn(size_t);
MT_EXPORT alloc_fn _ZN3c109alloc_cpuEm;
void *_ZN3c109alloc_cpuEm(size_t size)
{
	static void *cache;
	struct mt_caller caller = MT_CALLER();
	struct mt_thread *t;
	alloc_fn *real;
	void *p;

	*(void **)&real = behind(&cache, "_ZN3c109alloc_cpuEm", *(const uintptr_t *)caller.slot,
				 c10);
	if (!real)
		return NULL;
	p = real(size); /* may throw */
	t = p ? enter_tensor() : NULL;
	if (t) {
		mt_record_alloc(t, MT_KIND_TENSOR, p, size, caller);
		mt_leave(t);
	}
	return p;
}

typedef void free_fn(void *);
MT_EXPORT free_fn _ZN3c108free_cpuEPv;
void _ZN3c108free_cpuEPv(void *block)
{
	static void *cache;
	struct mt_thread *t = block ? enter_tensor() : NULL;
	free_fn *real;

	if (t) {
		mt_record_free(t, MT_KIND_TENSOR, block);
		mt_leave(t);
	}
	*(void **)&real = behind(&cache, "_ZN3c108free_cpuEPv",
				 (uintptr_t)__builtin_return_address(0), c10);
	if (real)
		real(block);
}

/* ---- steps ---------------------------------------------------------------------------------------- */

struct text { /* std::string of libstdc++'s present ABI */
	const char *bytes;
	size_t length;
};

#define BATCHES_ALONE 4 /* so many without a step of an optimizer: then batches are steps */

static int begins(const struct text *name, const char *prefix, size_t length)
{
	return name->length >= length && !memcmp(name->bytes, prefix, length);
}

/* One optimizer's steps are the program's, unless it counts them itself. Where there is none (it is
 * evaluated, or its optimizer is of another kind), each batch that a DataLoader hands out is one. */
static void step(const struct text *name)
{
	static const char of_optimizer[] = "Optimizer.step#",
			  of_loader[] = "enumerate(DataLoader)#";
	static char first[64];
	static uint64_t count, batches;
	size_t length = name->length < sizeof(first) - 1 ? name->length : sizeof(first) - 1;
	struct mt_thread *t;

	if (!mt_config.gpu || mt_record_has_steps)
		return;
	if (begins(name, of_optimizer, sizeof(of_optimizer) - 1)) {
		if (!first[0])
			memcpy(first, name->bytes, length);
		if (strncmp(first, name->bytes, length) != 0 || first[length])
			return;
	} else if (first[0] || !begins(name, of_loader, sizeof(of_loader) - 1) ||
		   __atomic_add_fetch(&batches, 1, __ATOMIC_RELAXED) <= BATCHES_ALONE) {
		return;
	}
	t = mt_enter();
	if (!t)
		return;
	mt_record_mark(t, MT_MARK_STEP, __atomic_add_fetch(&count, 1, __ATOMIC_RELAXED), NULL);
	mt_leave(t);
}

/* The result goes where the caller says: C++ returns an object that way. */
#define ENTER(symbol)                                                                              \
	typedef void *symbol##_fn(void *, const struct text *, const void *);                      \
	MT_EXPORT symbol##_fn symbol;                                                              \
	void *symbol(void *result, const struct text *name, const void *arguments)                 \
	{                                                                                          \
		static void *cache;                                                                \
		symbol##_fn *real;                                                                 \
                                                                                                   \
		*(void **)&real = behind(&cache, #symbol, (uintptr_t)__builtin_return_address(0),  \
					 torch);                                                   \
		step(name);                                                                        \
		return real ? real(result, name, arguments) : result;                              \
	}

ENTER(_ZN5torch8autograd8profiler25record_function_enter_newERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEERKSt8optionalIS7_E)
ENTER(_ZN5torch8autograd8profiler25record_function_enter_newERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEERKN3c108optionalIS7_EE)
