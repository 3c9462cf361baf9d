/*
 * What the CUDA hooks share: how a call is bracketed, how the real function behind an exported one
 * is found, and the few structures of the CUDA ABI that tell sizes (from the public documentation).
 *
 * The real call is always made outside the guard: the driver may block, call back, or allocate.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_HOOKS_CUDA_H
#define MEMTRACE_PRELOAD_HOOKS_CUDA_H

#include <stddef.h>
#include <stdint.h>

#include "record/gpu.h"

#define MT_CUDA_NOT_LOADED 303 /* CUDA_ERROR_SHARED_OBJECT_INIT_FAILED, of driver and runtime */

struct cu_array {
	size_t width, height;
	int format;
	unsigned int channels;
};

struct cu_array_3d {
	size_t width, height, depth;
	int format;
	unsigned int channels, flags;
};

struct cu_properties { /* CUmemAllocationProp */
	int type, handle_types, location_type, location_id;
	void *security;
	unsigned char flags[8];
};

struct cu_pool_properties { /* CUmemPoolProps */
	int type, handle_types, location_type, location_id;
	void *security;
	unsigned char rest[64];
};

struct cu_graph_alloc { /* CUDA_MEM_ALLOC_NODE_PARAMS */
	struct cu_pool_properties pool;
	const void *access;
	size_t access_count, size;
	uint64_t addr;
};

struct cu_graph_node { /* CUgraphNodeParams */
	int type; /* 10: memory is taken; 11: given back */
	int reserved[3];
	union {
		struct cu_graph_alloc alloc;
		uint64_t freed;
		int64_t padding[29];
	} u;
	int64_t more;
};

struct cu_buffer { /* CUDA_EXTERNAL_MEMORY_BUFFER_DESC */
	uint64_t offset, size;
	unsigned int flags, reserved[16];
};

struct cu_ipc {
	char bytes[64];
};

struct cuda_extent {
	size_t width, height, depth;
};

struct cuda_pitched {
	void *addr;
	size_t pitch, width, height;
};

/* One call of the driver by somebody else than us. t NULL: it is not recorded. */
struct cu_call {
	struct mt_thread *t;
	struct mt_caller caller;
	uint64_t before; /* units: when it began */
	const char *api;
};

/* hooks/dlsym.c */
extern void *(*mt_dlsym_real)(void *, const char *)__attribute__((visibility("hidden")));

/* hooks/cuda_driver.c: a look-up in `handle` found `found`: what the program is to be given. */
void *mt_cuda_found(void *handle, const char *name, void *found);

/* hooks/cuda_find.c: the function of that name that the code at return_address would have been
 * bound to without us; else that of one of the libraries, by soname, ending with NULL. NULL: there
 * is none. May take the loader's lock: never from inside a hook of the heap. */
void *mt_cuda_behind(uintptr_t return_address, const char *name, const char *const *sonames);
int mt_cuda_is_ours(const void *p);

/* hooks/cuda_device.c: questions to the driver, asked while a wrapped call of it is under way (so
 * they are not recorded) and never in a child of a process that used CUDA. */
struct cu_where {
	uint64_t device; /* ordinal plus one; 0: not known */
	uint64_t context;
};
void mt_cuda_device_init(void *handle, const void *in_driver); /* handle: dlopen's, of libcuda */
int mt_cuda_device_is_ready(void);
void *mt_cuda_exported(const char *symbol); /* libcuda's own; NULL */
struct cu_where mt_cuda_where(struct mt_thread *t);
int mt_cuda_is_captured(uint64_t stream); /* into a graph: nothing is taken yet */
uint64_t mt_cuda_size_of(uint64_t addr); /* of the allocation at addr; 0: not known */
int mt_cuda_device_is_alive(int device); /* its primary context */
/* A pool's or device's state, when its time has come. pool NULL: the device's own. */
void mt_cuda_measure(struct mt_thread *t, uint64_t device, void *pool, int at_once);

#endif
