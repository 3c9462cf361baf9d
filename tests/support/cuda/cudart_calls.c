/*
 * Calls NVIDIA's own runtime, linked dynamically or statically, over the fake driver: prints what each
 * call answers, then how many names the runtime asked of the driver. The runtime wants tables of the
 * driver that are not public, so it gets as far as its look-ups and questions about the device; no
 * call here succeeds beyond that, with the shim or without.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>

#include "ledger.h"

extern int cudaRuntimeGetVersion(int *version);
extern int cudaDriverGetVersion(int *version);
extern int cudaGetDeviceCount(int *count);
extern int cudaSetDevice(int device);
extern int cudaMalloc(void **out, size_t size);
extern int cudaFree(void *addr);
extern int cudaHostAlloc(void **out, size_t size, unsigned int flags);
extern int cudaMallocAsync(void **out, size_t size, void *stream);
extern int cudaDeviceReset(void);
extern int cudaGetLastError(void);
extern const char *cudaGetErrorString(int error);

static void say(const char *call, int result, long value)
{
	printf("%s %d (%s) %ld\n", call, result, cudaGetErrorString(result), value);
}

int main(void)
{
	struct fake_ledger *(*ledger)(void);
	int runtime = 0, driver = 0, count = -1, error;
	void *a = NULL, *b = NULL, *c = NULL, *h;

	/* The runtime closes it when it gives up: its books would be gone. */
	h = dlopen("libcuda.so.1", RTLD_NOW);

	error = cudaRuntimeGetVersion(&runtime);
	say("version", error, runtime);
	error = cudaDriverGetVersion(&driver);
	say("driver", error, driver);
	error = cudaGetDeviceCount(&count);
	say("count", error, count);
	say("set", cudaSetDevice(0), 0);
	error = cudaMalloc(&a, 1 << 20);
	say("malloc", error, a != NULL);
	error = cudaHostAlloc(&b, 1 << 20, 0);
	say("host", error, b != NULL);
	error = cudaMallocAsync(&c, 1 << 20, NULL);
	say("async", error, c != NULL);
	say("free", cudaFree(a), 0);
	say("reset", cudaDeviceReset(), 0);
	say("last", cudaGetLastError(), 0);
	*(void **)&ledger = h ? dlsym(h, "fake_cuda_ledger") : NULL;
	if (!ledger)
		return 2;
	printf("looked asked=%lu memory=%lu tables=%lu taken=%lu\n", ledger()->asked,
	       ledger()->asked_memory, ledger()->tables,
	       ledger()->kind[0][FAKE_DEVICE].taken + ledger()->kind[0][FAKE_PINNED].taken);
	return 0;
}
