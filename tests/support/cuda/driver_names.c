/*
 * The fake driver's cuGetProcAddress: by name, version and stream semantics, from a table.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "driver.h"

#include <string.h>

#define FN(f) ((void *)(uintptr_t)(f))

static const struct {
	const char *name;
	int version;
	unsigned int stream;
	void *function;
} names[] = {
	{ "cuInit", 2000, 0, FN(cuInit) },
	{ "cuDriverGetVersion", 2020, 0, FN(cuDriverGetVersion) },
	{ "cuDeviceGetCount", 2000, 0, FN(cuDeviceGetCount) },
	{ "cuDeviceGet", 2000, 0, FN(cuDeviceGet) },
	{ "cuDevicePrimaryCtxRetain", 7000, 0, FN(cuDevicePrimaryCtxRetain) },
	{ "cuDevicePrimaryCtxRelease", 11000, 0, FN(cuDevicePrimaryCtxRelease_v2) },
	{ "cuDevicePrimaryCtxReset", 11000, 0, FN(cuDevicePrimaryCtxReset_v2) },
	{ "cuCtxSetCurrent", 4000, 0, FN(cuCtxSetCurrent) },
	{ "cuMemAlloc", 2000, 0, FN(cuMemAlloc) },
	{ "cuMemAlloc", 3020, 0, FN(cuMemAlloc_v2) },
	{ "cuMemAllocPitch", 3020, 0, FN(cuMemAllocPitch_v2) },
	{ "cuMemFree", 3020, 0, FN(cuMemFree_v2) },
	{ "cuMemAllocManaged", 6000, 0, FN(cuMemAllocManaged) },
	{ "cuMemHostAlloc", 2020, 0, FN(cuMemHostAlloc) },
	{ "cuMemAllocHost", 3020, 0, FN(cuMemAllocHost_v2) },
	{ "cuMemFreeHost", 2000, 0, FN(cuMemFreeHost) },
	{ "cuMemHostRegister", 6050, 0, FN(cuMemHostRegister_v2) },
	{ "cuMemHostUnregister", 4000, 0, FN(cuMemHostUnregister) },
	{ "cuArrayCreate", 3020, 0, FN(cuArrayCreate_v2) },
	{ "cuArray3DCreate", 3020, 0, FN(cuArray3DCreate_v2) },
	{ "cuArrayDestroy", 2000, 0, FN(cuArrayDestroy) },
	{ "cuMipmappedArrayCreate", 5000, 0, FN(cuMipmappedArrayCreate) },
	{ "cuMipmappedArrayDestroy", 5000, 0, FN(cuMipmappedArrayDestroy) },
	{ "cuMemAddressReserve", 10020, 0, FN(cuMemAddressReserve) },
	{ "cuMemAddressFree", 10020, 0, FN(cuMemAddressFree) },
	{ "cuMemCreate", 10020, 0, FN(cuMemCreate) },
	{ "cuMemRelease", 10020, 0, FN(cuMemRelease) },
	{ "cuMemMap", 10020, 0, FN(cuMemMap) },
	{ "cuMemUnmap", 10020, 0, FN(cuMemUnmap) },
	{ "cuMemRetainAllocationHandle", 11000, 0, FN(cuMemRetainAllocationHandle) },
	{ "cuMemImportFromShareableHandle", 10020, 0, FN(cuMemImportFromShareableHandle) },
	{ "cuMulticastCreate", 12010, 0, FN(cuMulticastCreate) },
	{ "cuMemAllocAsync", 11020, 0, FN(cuMemAllocAsync) },
	{ "cuMemAllocAsync", 11020, 2, FN(cuMemAllocAsync_ptsz) },
	{ "cuMemAllocFromPoolAsync", 11020, 0, FN(cuMemAllocFromPoolAsync) },
	{ "cuMemAllocFromPoolAsync", 11020, 2, FN(cuMemAllocFromPoolAsync_ptsz) },
	{ "cuMemFreeAsync", 11020, 0, FN(cuMemFreeAsync) },
	{ "cuMemFreeAsync", 11020, 2, FN(cuMemFreeAsync_ptsz) },
	{ "cuMemPoolCreate", 11020, 0, FN(cuMemPoolCreate) },
	{ "cuMemPoolDestroy", 11020, 0, FN(cuMemPoolDestroy) },
	{ "cuMemPoolTrimTo", 11020, 0, FN(cuMemPoolTrimTo) },
	{ "cuMemPoolImportPointer", 11020, 0, FN(cuMemPoolImportPointer) },
	{ "cuIpcGetMemHandle", 4010, 0, FN(cuIpcGetMemHandle) },
	{ "cuIpcOpenMemHandle", 4010, 0, FN(cuIpcOpenMemHandle) },
	{ "cuIpcOpenMemHandle", 11000, 0, FN(cuIpcOpenMemHandle_v2) },
	{ "cuIpcCloseMemHandle", 4010, 0, FN(cuIpcCloseMemHandle) },
	{ "cuExternalMemoryGetMappedBuffer", 10000, 0, FN(cuExternalMemoryGetMappedBuffer) },
	{ "cuGraphAddMemAllocNode", 11040, 0, FN(cuGraphAddMemAllocNode) },
	{ "cuGraphAddMemFreeNode", 11040, 0, FN(cuGraphAddMemFreeNode) },
	{ "cuGetProcAddress", 11030, 0, FN(cuGetProcAddress) },
	{ "cuGetProcAddress", 12000, 0, FN(cuGetProcAddress_v2) },
};

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
	*out = best < 0 ? NULL : names[best].function;
	if (status)
		*status = best >= 0 ? 0 : known ? 2 : 1;
	return best < 0 ? NOT_FOUND : SUCCESS;
}

int cuGetProcAddress(const char *name, void **out, int version, uint64_t flags)
{
	return look_up(name, out, version, flags, NULL);
}

int cuGetProcAddress_v2(const char *name, void **out, int version, uint64_t flags, int *status)
{
	return look_up(name, out, version, flags, status);
}
