/*
 * Uses every function of the CUDA runtime that takes or gives back memory, over the fakes of
 * tests/support/cuda, found by dlsym's default order: so each call goes through whoever interposes
 * it. Prints the fake driver's ledger at the end.
 *
 *   gpu_runtime LIBRARY [arrays]     libcudart.so.12 or .13
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "../support/cuda/driver.h"

#define MIB ((size_t)1 << 20)

struct extent {
	size_t width, height, depth;
};

struct pitched {
	void *addr;
	size_t pitch, width, height;
};

struct format {
	int x, y, z, w, f;
};

static int bad;

static void check(int ok, const char *what)
{
	if (!ok) {
		printf("bad %s\n", what);
		bad = 1;
	}
}

/* call(name, (types), (arguments)) */
#define CALL(name, types, arguments)                                                               \
	check(((int(*) types)(uintptr_t)dlsym(RTLD_DEFAULT, #name))arguments == 0, #name)

static void plain(void)
{
	struct extent e = { 1000, 10, 3 };
	struct pitched p;
	void *a, *b, *c;
	size_t pitch;

	CALL(cudaMalloc, (void **, size_t), (&a, 3 * MIB));
	CALL(cudaMalloc, (void **, size_t), (&b, 5 * MIB));
	CALL(cudaMallocPitch, (void **, size_t *, size_t, size_t), (&c, &pitch, 1000, 10));
	CALL(cudaMalloc3D, (struct pitched *, struct extent), (&p, e));
	CALL(cudaMallocManaged, (void **, size_t, unsigned int), (&c, 7 * MIB, 1));
	CALL(cudaFree, (void *), (a));
	CALL(cudaFree, (void *), (NULL));
	CALL(cudaFree, (void *), (c));
}

static void pinned(void)
{
	void *a, *b, *c = malloc(2 * MIB), *d = malloc(MIB);

	CALL(cudaHostAlloc, (void **, size_t, unsigned int), (&a, 4 * MIB, 0));
	CALL(cudaMallocHost, (void **, size_t), (&b, 2 * MIB));
	CALL(cudaFreeHost, (void *), (b));
	CALL(cudaHostRegister, (void *, size_t, unsigned int), (c, 2 * MIB, 0));
	CALL(cudaHostRegister, (void *, size_t, unsigned int), (d, MIB, 0));
	CALL(cudaHostUnregister, (void *), (d));
}

static void ordered(void)
{
	struct pool_props props = { .type = 1, .location_type = 1, .location_id = 1 };
	void *a, *b, *c, *d, *pool;

	CALL(cudaMemPoolCreate, (void **, const void *), (&pool, &props));
	CALL(cudaMallocAsync, (void **, size_t, void *), (&a, 2 * MIB, NULL));
	CALL(cudaMallocAsync_ptsz, (void **, size_t, void *), (&b, 4 * MIB, NULL));
	CALL(cudaMallocFromPoolAsync, (void **, size_t, void *, void *), (&c, 6 * MIB, pool, NULL));
	CALL(cudaMallocFromPoolAsync_ptsz, (void **, size_t, void *, void *),
	     (&d, 8 * MIB, pool, NULL));
	CALL(cudaFreeAsync, (void *, void *), (a, NULL));
	CALL(cudaFreeAsync_ptsz, (void *, void *), (d, NULL));
}

static void of_others(void)
{
	struct ipc h = { "12345678remote" };
	void *a, *b;

	CALL(cudaIpcOpenMemHandle, (void **, struct ipc, unsigned int), (&a, h, 1));
	CALL(cudaIpcOpenMemHandle, (void **, struct ipc, unsigned int), (&b, h, 1));
	CALL(cudaIpcCloseMemHandle, (void *), (b));
}

static void arrays(void)
{
	struct format f = { 32, 32, 0, 0, 2 };
	struct extent e = { 16, 16, 16 };
	void *a, *b, *c, *d;

	CALL(cudaMallocArray, (void **, const void *, size_t, size_t, unsigned int),
	     (&a, &f, 128, 128, 0));
	CALL(cudaMalloc3DArray, (void **, const void *, struct extent, unsigned int),
	     (&b, &f, e, 0));
	CALL(cudaMallocMipmappedArray,
	     (void **, const void *, struct extent, unsigned int, unsigned int), (&c, &f, e, 3, 0));
	CALL(cudaMallocMipmappedArray,
	     (void **, const void *, struct extent, unsigned int, unsigned int), (&d, &f, e, 2, 0));
	CALL(cudaFreeArray, (void *), (a));
	CALL(cudaFreeMipmappedArray, (void *), (d));
}

int main(int argc, char **argv)
{
	struct fake_ledger *(*ledger)(void);
	void *h, *a;

	if (argc < 2 || !dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL)) {
		printf("bad %s\n", argc < 2 ? "usage" : dlerror());
		return 2;
	}
	plain();
	CALL(cudaDeviceReset, (void), ());
	plain();
	pinned();
	ordered();
	of_others();
	if (argc > 2)
		arrays();
	check(((int (*)(void **, size_t))(uintptr_t)dlsym(RTLD_DEFAULT, "cudaMalloc"))(
		      &a, (size_t)1 << 40) == OUT_OF_MEMORY,
	      "out of memory");
	h = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
	*(void **)&ledger = h ? dlsym(h, "fake_cuda_ledger") : NULL;
	if (!ledger)
		return 2;
	fake_print(ledger());
	return bad;
}
