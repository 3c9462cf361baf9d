/*
 * The fake driver's cuGetProcAddress: by name, version and stream semantics, from a table.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "driver.h"

#include <stdlib.h>
#include <string.h>

#define FN(f) ((void *)(uintptr_t)(f))

/* N: neither takes nor gives memory. M: does, in a form that must be recorded. */
#define N(name, version, stream, function) { name, version, stream, 0, FN(function) },
#define M(name, version, stream, function) { name, version, stream, 1, FN(function) },

/* clang-format off */
static const struct {
	const char *name;
	int version;
	unsigned int stream;
	int memory;
	void *function;
} names[] = {
	N("cuInit", 2000, 0, cuInit)
	N("cuDriverGetVersion", 2020, 0, cuDriverGetVersion)
	N("cuDeviceGetCount", 2000, 0, cuDeviceGetCount)
	N("cuDeviceGet", 2000, 0, cuDeviceGet)
	N("cuDevicePrimaryCtxRetain", 7000, 0, cuDevicePrimaryCtxRetain)
	M("cuDevicePrimaryCtxRelease", 7000, 0, cuDevicePrimaryCtxRelease)
	M("cuDevicePrimaryCtxRelease", 11000, 0, cuDevicePrimaryCtxRelease_v2)
	M("cuDevicePrimaryCtxReset", 7000, 0, cuDevicePrimaryCtxReset)
	M("cuDevicePrimaryCtxReset", 11000, 0, cuDevicePrimaryCtxReset_v2)
	N("cuCtxSetCurrent", 4000, 0, cuCtxSetCurrent)
	M("cuCtxDestroy", 2000, 0, cuCtxDestroy)
	M("cuCtxDestroy", 4000, 0, cuCtxDestroy_v2)
	N("cuMemAlloc", 2000, 0, cuMemAlloc)
	M("cuMemAlloc", 3020, 0, cuMemAlloc_v2)
	M("cuMemAllocPitch", 3020, 0, cuMemAllocPitch_v2)
	M("cuMemFree", 3020, 0, cuMemFree_v2)
	M("cuMemAllocManaged", 6000, 0, cuMemAllocManaged)
	M("cuMemHostAlloc", 2020, 0, cuMemHostAlloc)
	M("cuMemAllocHost", 3020, 0, cuMemAllocHost_v2)
	M("cuMemFreeHost", 2000, 0, cuMemFreeHost)
	M("cuMemHostRegister", 4000, 0, cuMemHostRegister)
	M("cuMemHostRegister", 6050, 0, cuMemHostRegister_v2)
	M("cuMemHostUnregister", 4000, 0, cuMemHostUnregister)
	M("cuArrayCreate", 3020, 0, cuArrayCreate_v2)
	M("cuArray3DCreate", 3020, 0, cuArray3DCreate_v2)
	M("cuArrayDestroy", 2000, 0, cuArrayDestroy)
	M("cuMipmappedArrayCreate", 5000, 0, cuMipmappedArrayCreate)
	M("cuMipmappedArrayDestroy", 5000, 0, cuMipmappedArrayDestroy)
	N("cuMemAddressReserve", 10020, 0, cuMemAddressReserve)
	N("cuMemAddressFree", 10020, 0, cuMemAddressFree)
	M("cuMemCreate", 10020, 0, cuMemCreate)
	M("cuMemRelease", 10020, 0, cuMemRelease)
	M("cuMemMap", 10020, 0, cuMemMap)
	M("cuMemUnmap", 10020, 0, cuMemUnmap)
	M("cuMemRetainAllocationHandle", 11000, 0, cuMemRetainAllocationHandle)
	M("cuMulticastCreate", 12010, 0, cuMulticastCreate)
	M("cuMemAllocAsync", 11020, 0, cuMemAllocAsync)
	M("cuMemAllocAsync", 11020, 2, cuMemAllocAsync_ptsz)
	M("cuMemAllocFromPoolAsync", 11020, 0, cuMemAllocFromPoolAsync)
	M("cuMemAllocFromPoolAsync", 11020, 2, cuMemAllocFromPoolAsync_ptsz)
	M("cuMemFreeAsync", 11020, 2, cuMemFreeAsync_ptsz)
	M("cuMemPoolCreate", 11020, 0, cuMemPoolCreate)
	M("cuMemPoolDestroy", 11020, 0, cuMemPoolDestroy)
	M("cuMemPoolTrimTo", 11020, 0, cuMemPoolTrimTo)
	M("cuMemPoolImportPointer", 11020, 0, cuMemPoolImportPointer)
	N("cuIpcGetMemHandle", 4010, 0, cuIpcGetMemHandle)
	M("cuIpcOpenMemHandle", 11000, 0, cuIpcOpenMemHandle_v2)
	M("cuExternalMemoryGetMappedBuffer", 10000, 0, cuExternalMemoryGetMappedBuffer)
	M("cuIpcOpenMemHandle", 4010, 0, cuIpcOpenMemHandle)
	M("cuIpcCloseMemHandle", 4010, 0, cuIpcCloseMemHandle)
	M("cuMemFreeAsync", 11020, 0, cuMemFreeAsync)
	M("cuMemImportFromShareableHandle", 10020, 0, cuMemImportFromShareableHandle)
	M("cuGraphAddMemAllocNode", 11040, 0, cuGraphAddMemAllocNode)
	M("cuGraphAddNode", 12020, 0, cuGraphAddNode)
	M("cuGraphAddMemFreeNode", 11040, 0, cuGraphAddMemFreeNode)
	M("cuGraphAddNode", 12030, 0, cuGraphAddNode_v2)
	M("cuGetProcAddress", 11030, 0, cuGetProcAddress)
	M("cuGetProcAddress", 12000, 0, cuGetProcAddress_v2)
};
/* clang-format on */

/* FAKE_CUDA_ANSWER_ALL: what is not known is there as well, and does nothing, so that a runtime that
 * wants all of the driver goes on for as long as it can. */
static int answers_all(void)
{
	return getenv("FAKE_CUDA_ANSWER_ALL") != NULL;
}

static int does_nothing(void)
{
	return fake_problem();
}

static int attribute(int *value, int which, int device)
{
	(void)device;
	*value = which == 75 ? 9 : which == 76 ? 0 : 1; /* compute capability 9.0 */
	return fake_problem();
}

static int no_table(const void **table, const void *which)
{
	(void)which;
	*table = NULL;
	fake_ledger->tables++;
	return NOT_FOUND;
}

static void *any(const char *name)
{
	if (!strcmp(name, "cuDeviceGetAttribute"))
		return FN(attribute);
	return strcmp(name, "cuGetExportTable") != 0 ? FN(does_nothing) : FN(no_table);
}

static int look_up(const char *name, void **out, int version, uint64_t flags, int *status)
{
	unsigned int stream = flags & 2 ? 2 : 0;
	int best = -1, known = 0;

	__atomic_fetch_add(&fake_ledger->asked, 1, __ATOMIC_RELAXED);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(names[i].name, name) != 0)
			continue;
		known = 1;
		if (names[i].version > version || (names[i].stream && names[i].stream != stream))
			continue;
		if (best < 0 || names[i].version > names[best].version ||
		    names[i].stream > names[best].stream)
			best = (int)i;
	}
	if (best >= 0)
		__atomic_fetch_add(&fake_ledger->asked_memory, names[best].memory,
				   __ATOMIC_RELAXED);
	*out = best >= 0			  ? names[best].function
	       : !known && *name && answers_all() ? any(name)
						  : NULL;
	if (status)
		*status = *out ? 0 : known ? 2 : 1;
	return *out ? SUCCESS : NOT_FOUND;
}

int cuGetProcAddress(const char *name, void **out, int version, uint64_t flags)
{
	return look_up(name, out, version, flags, NULL);
}

int cuGetProcAddress_v2(const char *name, void **out, int version, uint64_t flags, int *status)
{
	return look_up(name, out, version, flags, status);
}

API int fake_cuda_unseen(const char *name, void **out, int version, uint64_t flags, int *status);
int fake_cuda_unseen(const char *name, void **out, int version, uint64_t flags, int *status)
{
	return look_up(name, out, version, flags, status);
}
