/*
 * The fake CUDA driver's insides, shared by driver.c (memory) and driver_names.c (look-up by name).
 * Written from the public documentation of the CUDA driver API.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FAKE_CUDA_DRIVER_H
#define FAKE_CUDA_DRIVER_H

#include <pthread.h>

#include "ledger.h"

#define API __attribute__((visibility("default")))

enum { SUCCESS = 0, INVALID = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, NOT_FOUND = 500 };

typedef uint64_t CUptr;

struct props {
	int type, handle_types, location_type, location_id;
	void *security;
	unsigned char flags[8];
};

struct pool_props {
	int type, handle_types, location_type, location_id;
	void *security;
	unsigned char rest[64];
};

struct array2 {
	size_t width, height;
	int format;
	unsigned int channels;
};

struct array3 {
	size_t width, height, depth;
	int format;
	unsigned int channels, flags;
};

struct ipc {
	char bytes[64];
};

struct buffer {
	uint64_t offset, size;
	unsigned int flags, reserved[16];
};

struct graph_alloc {
	struct pool_props pool;
	const void *access;
	size_t access_count, size;
	CUptr addr;
};

struct graph_node { /* CUgraphNodeParams */
	int type, reserved[3];
	union {
		struct graph_alloc alloc;
		CUptr freed;
		int64_t padding[29];
	} u;
	int64_t more;
};

#define CAPTURING ((void *)0xca90) /* a stream whose work goes into a graph */

/* Every function: F(exported name, (parameters)) */
#define FAKE_FUNCTIONS                                                                             \
	F(cuInit, (unsigned int))                                                                  \
	F(cuDriverGetVersion, (int *))                                                             \
	F(cuDeviceGetCount, (int *))                                                               \
	F(cuDeviceGet, (int *, int))                                                               \
	F(cuDeviceGetName, (char *, int, int))                                                     \
	F(cuDeviceGetUuid_v2, (char *, int))                                                       \
	F(cuDeviceTotalMem_v2, (size_t *, int))                                                    \
	F(cuDevicePrimaryCtxRetain, (void **, int))                                                \
	F(cuDevicePrimaryCtxRelease, (int))                                                        \
	F(cuDevicePrimaryCtxReset, (int))                                                          \
	F(cuDevicePrimaryCtxRelease_v2, (int))                                                     \
	F(cuDevicePrimaryCtxReset_v2, (int))                                                       \
	F(cuDevicePrimaryCtxGetState, (int, unsigned int *, int *))                                \
	F(cuCtxSetCurrent, (void *))                                                               \
	F(cuCtxGetCurrent, (void **))                                                              \
	F(cuCtxGetDevice, (int *))                                                                 \
	F(cuCtxCreate_v2, (void **, unsigned int, int))                                            \
	F(cuCtxDestroy, (void *))                                                                  \
	F(cuCtxDestroy_v2, (void *))                                                               \
	F(cuMemGetInfo_v2, (size_t *, size_t *))                                                   \
	F(cuMemGetAddressRange_v2, (CUptr *, size_t *, CUptr))                                     \
	F(cuMemAlloc_v2, (CUptr *, size_t))                                                        \
	F(cuMemAllocPitch_v2, (CUptr *, size_t *, size_t, size_t, unsigned int))                   \
	F(cuMemFree_v2, (CUptr))                                                                   \
	F(cuMemAllocManaged, (CUptr *, size_t, unsigned int))                                      \
	F(cuMemHostAlloc, (void **, size_t, unsigned int))                                         \
	F(cuMemAllocHost_v2, (void **, size_t))                                                    \
	F(cuMemFreeHost, (void *))                                                                 \
	F(cuMemHostRegister, (void *, size_t, unsigned int))                                       \
	F(cuMemHostRegister_v2, (void *, size_t, unsigned int))                                    \
	F(cuMemHostUnregister, (void *))                                                           \
	F(cuArrayCreate_v2, (void **, const struct array2 *))                                      \
	F(cuArray3DCreate_v2, (void **, const struct array3 *))                                    \
	F(cuArrayDestroy, (void *))                                                                \
	F(cuMipmappedArrayCreate, (void **, const struct array3 *, unsigned int))                  \
	F(cuMipmappedArrayDestroy, (void *))                                                       \
	F(cuMemAddressReserve, (CUptr *, size_t, size_t, CUptr, uint64_t))                         \
	F(cuMemAddressFree, (CUptr, size_t))                                                       \
	F(cuMemCreate, (uint64_t *, size_t, const struct props *, uint64_t))                       \
	F(cuMemRelease, (uint64_t))                                                                \
	F(cuMemMap, (CUptr, size_t, size_t, uint64_t, uint64_t))                                   \
	F(cuMemUnmap, (CUptr, size_t))                                                             \
	F(cuMemRetainAllocationHandle, (uint64_t *, void *))                                       \
	F(cuMemImportFromShareableHandle, (uint64_t *, void *, int))                               \
	F(cuMulticastCreate, (uint64_t *, const void *))                                           \
	F(cuMemAllocAsync, (CUptr *, size_t, void *))                                              \
	F(cuMemAllocAsync_ptsz, (CUptr *, size_t, void *))                                         \
	F(cuMemAllocFromPoolAsync, (CUptr *, size_t, void *, void *))                              \
	F(cuMemAllocFromPoolAsync_ptsz, (CUptr *, size_t, void *, void *))                         \
	F(cuMemFreeAsync, (CUptr, void *))                                                         \
	F(cuMemFreeAsync_ptsz, (CUptr, void *))                                                    \
	F(cuMemPoolCreate, (void **, const struct pool_props *))                                   \
	F(cuMemPoolDestroy, (void *))                                                              \
	F(cuMemPoolTrimTo, (void *, size_t))                                                       \
	F(cuMemPoolGetAttribute, (void *, int, uint64_t *))                                        \
	F(cuDeviceGetMemPool, (void **, int))                                                      \
	F(cuMemPoolImportPointer, (CUptr *, void *, void *))                                       \
	F(cuIpcGetMemHandle, (struct ipc *, CUptr))                                                \
	F(cuIpcOpenMemHandle, (CUptr *, struct ipc, unsigned int))                                 \
	F(cuIpcOpenMemHandle_v2, (CUptr *, struct ipc, unsigned int))                              \
	F(cuIpcCloseMemHandle, (CUptr))                                                            \
	F(cuExternalMemoryGetMappedBuffer, (CUptr *, void *, const struct buffer *))               \
	F(cuGraphAddMemAllocNode, (void **, void *, void *const *, size_t, struct graph_alloc *))  \
	F(cuGraphAddMemFreeNode, (void **, void *, void *const *, size_t, CUptr))                  \
	F(cuGraphAddNode, (void **, void *, void *const *, size_t, struct graph_node *))           \
	F(cuGraphAddNode_v2,                                                                       \
	  (void **, void *, void *const *, const void *, size_t, struct graph_node *))             \
	F(cuStreamIsCapturing, (void *, int *))                                                    \
	F(cuGetProcAddress, (const char *, void **, int, uint64_t))                                \
	F(cuGetProcAddress_v2, (const char *, void **, int, uint64_t, int *))

#define F(name, parameters) API int name parameters;
FAKE_FUNCTIONS
#undef F

/* The 32-bit ABI of the first CUDA, whose wrapper must never be ours. */
API int cuMemAlloc(unsigned int *out, unsigned int size);

/* ---- between the files ---------------------------------------------------------------------------- */

#define BLOCKS 65536
#define POOLS 8
#define PAGE ((size_t)2 << 20)

struct context {
	int device, alive;
};

enum how { PLAIN, ASYNC, ARRAY, PHYSICAL, GRAPH };

struct block {
	uint64_t addr, size; /* addr 0: free; of physical memory its handle */
	enum fake_kind kind;
	enum how how;
	int device, refs, maps,
		unbacked; /* unbacked: a multicast object has no memory of its own */
	void *context, *pool;
};

struct pool {
	int device;
	uint64_t reserved, used;
};

extern struct fake_ledger *fake_ledger;
extern pthread_mutex_t fake_lock;
extern struct block fake_blocks[BLOCKS];
extern size_t fake_block_end;
extern struct pool fake_pools[POOLS];
extern uint64_t fake_next_handle;

int fake_problem(void);
struct context *fake_here(void);
struct block *fake_find(uint64_t addr);
uint64_t fake_space(size_t size);
int fake_take(uint64_t *out, size_t size, enum fake_kind kind, enum how how, int device);
void fake_drop(struct block *b); /* lock held */
int fake_give(uint64_t addr, enum fake_kind kind, enum fake_kind other);

#endif
