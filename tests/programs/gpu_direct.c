/*
 * Uses the CUDA driver in every way that programs do, over the fake of tests/support/cuda, and prints
 * the fake's ledger at the end.
 *
 *   gpu_direct PATTERN...   each of: plain async pools vmm arrays pinned managed borrowed graph
 *                           context reset older names private runtime12 runtime13 oom fork threads
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../support/cuda/driver.h"

#define MIB ((size_t)1 << 20)

static void *driver;
static int bad;

static void check(int ok, const char *what)
{
	if (!ok) {
		printf("bad %s\n", what);
		bad = 1;
	}
}

/* By dlsym of the versioned name, as XLA does. */
#define FIND(name) __typeof__(&name) name##_ = (__typeof__(&name))(uintptr_t)dlsym(driver, #name)

static void plain(void)
{
	FIND(cuMemAlloc_v2);
	FIND(cuMemFree_v2);
	FIND(cuMemAllocPitch_v2);
	CUptr a, b, c;
	size_t pitch;

	check(cuMemAlloc_v2_(&a, 3 * MIB) == 0, "alloc");
	check(cuMemAlloc_v2_(&b, 5 * MIB) == 0, "alloc");
	check(cuMemAllocPitch_v2_(&c, &pitch, 1000, 10, 4) == 0 && pitch == 1024, "pitch");
	check(cuMemFree_v2_(a) == 0, "free");
	check(cuMemFree_v2_(0) == 0, "free of nothing");
	check(cuMemFree_v2_(12345) == INVALID, "free of an unknown address");
}

static void async(void)
{
	FIND(cuMemAllocAsync);
	FIND(cuMemAllocAsync_ptsz);
	FIND(cuMemFreeAsync);
	FIND(cuMemPoolCreate);
	FIND(cuMemAllocFromPoolAsync);
	struct pool_props props = { .type = 1, .location_type = 1, .location_id = 1 };
	void *pool;
	CUptr a, b, c;

	check(cuMemAllocAsync_(&a, 2 * MIB, NULL) == 0, "async");
	check(cuMemAllocAsync_ptsz_(&b, 4 * MIB, NULL) == 0, "async ptsz");
	check(cuMemFreeAsync_(a, NULL) == 0, "free async");
	check(cuMemPoolCreate_(&pool, &props) == 0, "pool");
	check(cuMemAllocFromPoolAsync_(&c, 6 * MIB, pool, NULL) == 0, "from pool");
}

/* Of both stream semantics, from a pool of each device; trimmed and destroyed. */
static void pools(void)
{
	FIND(cuMemPoolCreate);
	FIND(cuMemPoolDestroy);
	FIND(cuMemPoolTrimTo);
	FIND(cuMemAllocFromPoolAsync);
	FIND(cuMemAllocFromPoolAsync_ptsz);
	FIND(cuMemFreeAsync_ptsz);
	FIND(cuMemFree_v2);
	struct pool_props props = { .type = 1, .location_type = 1, .location_id = 0 };
	void *first, *second;
	CUptr a, b, c;

	check(cuMemPoolCreate_(&first, &props) == 0, "pool");
	props.location_id = 1;
	check(cuMemPoolCreate_(&second, &props) == 0, "pool");
	check(cuMemAllocFromPoolAsync_(&a, 3 * MIB, first, NULL) == 0, "from pool");
	check(cuMemAllocFromPoolAsync_ptsz_(&b, 5 * MIB, second, NULL) == 0, "from pool ptsz");
	check(cuMemAllocFromPoolAsync_ptsz_(&c, 7 * MIB, second, NULL) == 0, "from pool ptsz");
	check(cuMemFreeAsync_ptsz_(b, NULL) == 0, "free async ptsz");
	check(cuMemFree_v2_(a) == 0, "a plain free of a pool's memory");
	check(cuMemPoolTrimTo_(first, 0) == 0 && cuMemPoolDestroy_(first) == 0, "end of a pool");
}

static void vmm(void)
{
	FIND(cuMemAddressReserve);
	FIND(cuMemCreate);
	FIND(cuMemMap);
	FIND(cuMemUnmap);
	FIND(cuMemRelease);
	FIND(cuMemRetainAllocationHandle);
	struct props props = { .type = 1, .location_type = 1, .location_id = 1 };
	uint64_t h, h2, again;
	CUptr va;

	check(cuMemAddressReserve_(&va, 256 * MIB, 0, 0, 0) == 0, "reserve");
	check(cuMemCreate_(&h, 20 * MIB, &props, 0) == 0, "create");
	check(cuMemMap_(va, 20 * MIB, 0, h, 0) == 0, "map");
	check(cuMemRelease_(h) == 0, "release");
	/* The same handle, while the first one's memory is alive. */
	check(cuMemCreate_(&h2, 2 * MIB, &props, 0) == 0 && h2 == h, "handle again");
	check(cuMemMap_(va + 20 * MIB, 2 * MIB, 0, h2, 0) == 0, "map");
	check(cuMemRetainAllocationHandle_(&again, (void *)(va + 20 * MIB)) == 0 && again == h2,
	      "retain");
	check(cuMemUnmap_(va + 20 * MIB, 2 * MIB) == 0, "unmap");
	check(cuMemRelease_(h2) == 0, "release"); /* one reference is left: 2 MiB stay */
	check(cuMemRelease_(999) == INVALID, "release of nothing");
}

static void arrays(void)
{
	FIND(cuArrayCreate_v2);
	FIND(cuArray3DCreate_v2);
	FIND(cuMipmappedArrayCreate);
	FIND(cuArrayDestroy);
	FIND(cuMipmappedArrayDestroy);
	struct array2 a = { 256, 256, 0x20, 4 };
	struct array3 b = { 64, 64, 64, 0x10, 1, 0 };
	void *x, *y, *z, *w;

	check(cuArrayCreate_v2_(&x, &a) == 0, "array");
	check(cuArray3DCreate_v2_(&y, &b) == 0, "array 3d");
	b.depth = 0;
	check(cuMipmappedArrayCreate_(&z, &b, 3) == 0, "mipmapped");
	check(cuMipmappedArrayCreate_(&w, &b, 2) == 0, "mipmapped");
	check(cuMipmappedArrayDestroy_(w) == 0, "destroy");
	check(cuArrayDestroy_(x) == 0, "destroy");
}

static void pinned(void)
{
	FIND(cuMemHostAlloc);
	FIND(cuMemAllocHost_v2);
	FIND(cuMemFreeHost);
	FIND(cuMemHostRegister_v2);
	FIND(cuMemHostUnregister);
	void *a, *b, *c = malloc(3 * MIB), *d = malloc(MIB);

	check(cuMemHostAlloc_(&a, 7 * MIB, 0) == 0, "host");
	check(cuMemAllocHost_v2_(&b, 2 * MIB) == 0, "host");
	check(cuMemFreeHost_(b) == 0, "free host");
	check(cuMemHostRegister_v2_(c, 3 * MIB, 0) == 0, "register");
	check(cuMemHostRegister_v2_(d, MIB, 0) == 0, "register");
	check(cuMemHostUnregister_(d) == 0, "unregister");
}

static void managed(void)
{
	FIND(cuMemAllocManaged);
	FIND(cuMemFree_v2);
	CUptr a, b;

	check(cuMemAllocManaged_(&a, 9 * MIB, 1) == 0, "managed");
	check(cuMemAllocManaged_(&b, 1 * MIB, 1) == 0, "managed");
	check(cuMemFree_v2_(b) == 0, "free");
}

static void borrowed(void)
{
	FIND(cuIpcOpenMemHandle_v2);
	FIND(cuIpcCloseMemHandle);
	FIND(cuExternalMemoryGetMappedBuffer);
	FIND(cuMemImportFromShareableHandle);
	FIND(cuMulticastCreate);
	FIND(cuMemMap);
	FIND(cuMemAddressReserve);
	FIND(cuMemRelease);
	FIND(cuMemPoolImportPointer);
	struct ipc h = { "12345678remote" };
	struct buffer buffer = { .size = 3 * MIB };
	uint64_t handle;
	CUptr a, b, c;

	check(cuIpcOpenMemHandle_v2_(&a, h, 1) == 0, "open");
	check(cuIpcOpenMemHandle_v2_(&b, h, 1) == 0, "open");
	check(cuIpcCloseMemHandle_(b) == 0, "close");
	check(cuExternalMemoryGetMappedBuffer_(&c, NULL, &buffer) == 0, "external");
	check(cuMemImportFromShareableHandle_(&handle, (void *)(4 * MIB), 1) == 0, "import");
	check(cuMemAddressReserve_(&a, 4 * MIB, 0, 0, 0) == 0, "reserve");
	check(cuMemMap_(a, 4 * MIB, 0, handle, 0) == 0, "map of what is imported");
	check(cuMemRelease_(handle) == 0, "release of what is imported");
	check(cuMulticastCreate_(&handle, NULL) == 0, "multicast");
	check(cuMemPoolImportPointer_(&c, NULL, NULL) == 0, "pointer of another's pool");
}

static void graph(void)
{
	FIND(cuGraphAddMemAllocNode);
	FIND(cuGraphAddMemFreeNode);
	FIND(cuGraphAddNode);
	FIND(cuGraphAddNode_v2);
	FIND(cuMemAllocAsync);
	FIND(cuMemFreeAsync);
	struct graph_alloc p = { .size = 8 * MIB };
	struct graph_node n = { .type = 10, .u.alloc.size = 2 * MIB };
	void *node;
	CUptr a;

	check(cuGraphAddMemAllocNode_(&node, NULL, NULL, 0, &p) == 0, "graph");
	check(cuGraphAddMemFreeNode_(&node, NULL, NULL, 0, p.addr) == 0, "graph");
	check(cuGraphAddNode_(&node, NULL, NULL, 0, &n) == 0, "node");
	check(cuGraphAddNode_v2_(&node, NULL, NULL, NULL, 0, &n) == 0, "node");
	a = n.u.alloc.addr;
	n.type = 11;
	n.u.freed = a;
	check(cuGraphAddNode_v2_(&node, NULL, NULL, NULL, 0, &n) == 0, "node that frees");
	check(cuMemAllocAsync_(&a, MIB, CAPTURING) == 0, "taken by a graph that is captured");
	check(cuMemAllocAsync_(&a, MIB, CAPTURING) == 0, "taken by a graph that is captured");
	check(cuMemFreeAsync_(a, CAPTURING) == 0, "given back by it");
}

static void context(void)
{
	FIND(cuCtxCreate_v2);
	FIND(cuCtxDestroy_v2);
	FIND(cuMemAlloc_v2);
	void *c;
	CUptr a;

	check(cuCtxCreate_v2_(&c, 0, 1) == 0, "context");
	check(cuMemAlloc_v2_(&a, 11 * MIB) == 0, "alloc");
	check(cuCtxDestroy_v2_(c) == 0, "destroy");
}

/* Everything of a device goes but pinned and physical memory, when its context does. */
static void reset(void)
{
	FIND(cuDevicePrimaryCtxRetain);
	FIND(cuDevicePrimaryCtxRelease_v2);
	FIND(cuDevicePrimaryCtxReset_v2);
	FIND(cuMemAlloc_v2);
	FIND(cuMemAllocManaged);
	FIND(cuMemHostAlloc);
	CUptr a, b;
	void *c;

	check(cuMemAlloc_v2_(&a, 3 * MIB) == 0 && cuMemAllocManaged_(&b, MIB, 1) == 0 &&
		      cuMemHostAlloc_(&c, MIB, 0) == 0,
	      "alloc");
	check(cuDevicePrimaryCtxReset_v2_(0) == 0, "reset");
	check(cuDevicePrimaryCtxRetain_(&c, 0) == 0 && cuDevicePrimaryCtxRetain_(&c, 0) == 0,
	      "retain");
	check(cuMemAlloc_v2_(&a, 5 * MIB) == 0, "alloc");
	check(cuDevicePrimaryCtxRelease_v2_(0) == 0, "release"); /* one reference is left */
	check(cuMemAlloc_v2_(&a, 7 * MIB) == 0, "alloc");
	check(cuDevicePrimaryCtxRelease_v2_(0) == 0, "the last release");
	check(cuMemAlloc_v2_(&a, 9 * MIB) == 0, "alloc");
}

/* Forms of old, which are still exported, and asked for by CUDA's own runtime. */
static void older(void)
{
	FIND(cuDevicePrimaryCtxRetain);
	FIND(cuDevicePrimaryCtxRelease);
	FIND(cuDevicePrimaryCtxReset);
	FIND(cuCtxCreate_v2);
	FIND(cuCtxDestroy);
	FIND(cuMemAlloc_v2);
	FIND(cuMemHostRegister);
	FIND(cuIpcOpenMemHandle);
	struct ipc h = { "12345678remote" };
	void *c;
	CUptr a;

	check(cuMemAlloc_v2_(&a, 3 * MIB) == 0 && cuDevicePrimaryCtxReset_(0) == 0, "reset");
	check(cuDevicePrimaryCtxRetain_(&c, 0) == 0 && cuMemAlloc_v2_(&a, 5 * MIB) == 0 &&
		      cuDevicePrimaryCtxRelease_(0) == 0,
	      "release");
	check(cuCtxCreate_v2_(&c, 0, 1) == 0 && cuMemAlloc_v2_(&a, 7 * MIB) == 0 &&
		      cuCtxDestroy_(c) == 0,
	      "context");
	check(cuMemHostRegister_(malloc(MIB), MIB, 0) == 0, "register");
	check(cuIpcOpenMemHandle_(&a, h, 1) == 0, "open");
	check(cuMemAlloc_v2_(&a, 9 * MIB) == 0, "alloc");
}

/* By name, version and stream semantics; and ABIs that must not be mixed up. */
static void names(void)
{
	FIND(cuGetProcAddress);
	FIND(cuGetProcAddress_v2);
	int (*alloc)(CUptr *, size_t), (*alloc32)(unsigned int *, unsigned int), status;
	int (*get2)(const char *, void **, int, uint64_t, int *);
	int (*async0)(CUptr *, size_t, void *), (*async2)(CUptr *, size_t, void *);
	unsigned int small = 0;
	void *p = NULL;
	CUptr a;

	check(cuGetProcAddress_v2_("cuMemAlloc", (void **)&alloc, 12000, 0, &status) == 0, "get");
	check(alloc(&a, MIB) == 0, "alloc by name");
	check(cuGetProcAddress_("cuMemAlloc", (void **)&alloc, 3020, 0) == 0, "get");
	check(alloc(&a, MIB) == 0, "alloc by name");
	check(cuGetProcAddress_v2_("cuMemAlloc", (void **)&alloc32, 2000, 0, &status) == 0, "old");
	check(alloc32(&small, 4096) == 0 && small == 0x1234, "the first ABI is not ours");
	check(cuGetProcAddress_v2_("cuGetProcAddress", (void **)&get2, 12000, 0, &status) == 0,
	      "get itself");
	check(get2("cuMemAllocAsync", (void **)&async0, 12000, 0, &status) == 0, "async");
	check(get2("cuMemAllocAsync", (void **)&async2, 12000, 2, &status) == 0, "async ptsz");
	check(async0 != async2, "two semantics, two functions");
	check(async0(&a, MIB, NULL) == 0 && async2(&a, MIB, NULL) == 0, "async by name");
	check(cuGetProcAddress_v2_("cuNothing", &p, 12000, 0, &status) == NOT_FOUND && !p &&
		      status == 1,
	      "what is missing stays missing");
	check(cuGetProcAddress_v2_("cuMemCreate", &p, 9000, 0, &status) == NOT_FOUND && !p &&
		      status == 2,
	      "too old a version");
}

static void private_runtime(void)
{
	void *h = dlopen("libhidden.so", RTLD_NOW | RTLD_LOCAL), *a = NULL, *b = NULL;
	int (*take)(void **, size_t), (*give)(void *);

	*(void **)&take = h ? dlsym(h, "hidden_buffer") : NULL;
	*(void **)&give = h ? dlsym(h, "hidden_release") : NULL;
	check(take && give && take(&a, 13 * MIB) == 0 && take(&b, MIB) == 0 && give(b) == 0,
	      "private runtime");
}

static void runtime(const char *name)
{
	void *h = dlopen(name, RTLD_NOW | RTLD_LOCAL), *a = NULL, *b = NULL, *c = NULL;
	int (*take)(void **, size_t), (*give)(void *), (*host)(void **, size_t, unsigned int);

	*(void **)&take = h ? dlsym(h, "cudaMalloc") : NULL;
	*(void **)&give = h ? dlsym(h, "cudaFree") : NULL;
	*(void **)&host = h ? dlsym(h, "cudaHostAlloc") : NULL;
	check(take && take(&a, 2 * MIB) == 0 && take(&b, MIB) == 0 && give(b) == 0 &&
		      host(&c, 4 * MIB, 0) == 0,
	      name);
}

static void oom(void)
{
	FIND(cuMemAlloc_v2);
	CUptr a = 77;

	check(cuMemAlloc_v2_(&a, (size_t)1 << 40) == OUT_OF_MEMORY && a == 77, "out of memory");
}

static void in_child(void)
{
	FIND(cuMemAlloc_v2);
	FIND(cuMemFree_v2);
	CUptr a = 0;
	pid_t pid = fork();
	int status;

	if (!pid) {
		void *p = malloc(1000);
		int r = cuMemAlloc_v2_(&a, MIB);

		free(p);
		_exit(r == NOT_INITIALIZED && cuMemFree_v2_(4096) == NOT_INITIALIZED ? 0 : 9);
	}
	check(waitpid(pid, &status, 0) == pid && status == 0, "child");
	check(cuMemAlloc_v2_(&a, MIB) == 0, "the parent goes on");
}

static void *worker(void *arg)
{
	FIND(cuMemAlloc_v2);
	FIND(cuMemFree_v2);
	CUptr a[8];

	for (int i = 0; i < 200; i++) {
		for (int k = 0; k < 8; k++)
			check(cuMemAlloc_v2_(&a[k], 4096 * (size_t)(k + 1)) == 0, "alloc");
		for (int k = 0; k < 8 - (i == 199); k++)
			check(cuMemFree_v2_(a[k]) == 0, "free");
	}
	return arg;
}

static void threads(void)
{
	pthread_t t[4];

	for (int i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, worker, NULL);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
}

static const struct {
	const char *name;
	void (*run)(void);
} patterns[] = {
	{ "plain", plain },
	{ "async", async },
	{ "vmm", vmm },
	{ "arrays", arrays },
	{ "pinned", pinned },
	{ "managed", managed },
	{ "borrowed", borrowed },
	{ "graph", graph },
	{ "context", context },
	{ "names", names },
	{ "private", private_runtime },
	{ "oom", oom },
	{ "pools", pools },
	{ "reset", reset },
	{ "older", older },
	{ "fork", in_child },
	{ "threads", threads },
};

int main(int argc, char **argv)
{
	struct fake_ledger *(*ledger)(void);
	int (*init)(unsigned int);

	driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
	if (!driver) {
		printf("bad %s\n", dlerror());
		return 2;
	}
	*(void **)&ledger = dlsym(driver, "fake_cuda_ledger");
	*(void **)&init = dlsym(driver, "cuInit");
	check(init(0) == 0, "init");
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "runtime12"))
			runtime("libcudart.so.12");
		if (!strcmp(argv[i], "runtime13"))
			runtime("libcudart.so.13");
		for (size_t k = 0; k < sizeof(patterns) / sizeof(patterns[0]); k++)
			if (!strcmp(argv[i], patterns[k].name))
				patterns[k].run();
	}
	fake_print(ledger());
	return bad;
}
