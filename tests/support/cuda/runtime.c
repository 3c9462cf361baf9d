/*
 * A CUDA runtime over whatever driver is found: as the real one, it looks up cuGetProcAddress_v2 by
 * dlsym and everything else by that. Built as libcudart.so.12 and .13 with version nodes, and, with
 * RUNTIME_PRIVATE, into a library that keeps it to itself (as NCCL, cuBLAS and cuDNN do).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#ifdef RUNTIME_PRIVATE
#define API static __attribute__((unused))
#else
#define API __attribute__((visibility("default")))
#endif

struct extent {
	size_t width, height, depth;
};

struct pitched {
	void *addr;
	size_t pitch, width, height;
};

struct handle {
	char bytes[64];
};

typedef int get_fn(const char *, void **, int, uint64_t, int *);

static get_fn *get(void)
{
	static get_fn *found;
	void *handle;

	if (found)
		return found;
	/* FAKE_CUDA_UNSEEN: by a way that nobody knows who looks for the known ones. */
	handle = dlopen("libcuda.so.1", RTLD_NOW);
	if (handle)
		*(void **)&found = dlsym(handle, getenv("FAKE_CUDA_UNSEEN")
							 ? "fake_cuda_unseen"
							 : "cuGetProcAddress_v2");
	return found;
}

static void *entry(const char *name, int version, uint64_t flags)
{
	void *p = NULL;
	int status;

	if (!get() || get()(name, &p, version, flags, &status) != 0)
		return NULL;
	return p;
}

/* The driver's function, looked up once; missing: 35, as with a driver that is too old. */
#define DRIVER(name, version, flags, parameters, arguments)                                        \
	static int(*f) parameters;                                                                 \
	static int (*init)(unsigned int);                                                          \
	if (!f) {                                                                                  \
		*(void **)&init = entry("cuInit", 2000, 0);                                        \
		*(void **)&f = entry(name, version, flags);                                        \
	}                                                                                          \
	if (!f || !init)                                                                           \
		return 35;                                                                         \
	init(0);                                                                                   \
	return f arguments

API int cudaMalloc(void **out, size_t size);
API int cudaMalloc(void **out, size_t size)
{
	DRIVER("cuMemAlloc", 12000, 0, (void **, size_t), (out, size));
}

API int cudaMallocPitch(void **out, size_t *pitch, size_t width, size_t height);
API int cudaMallocPitch(void **out, size_t *pitch, size_t width, size_t height)
{
	DRIVER("cuMemAllocPitch", 12000, 0, (void **, size_t *, size_t, size_t, unsigned int),
	       (out, pitch, width, height, 4));
}

API int cudaMalloc3D(struct pitched *out, struct extent e);
API int cudaMalloc3D(struct pitched *out, struct extent e)
{
	out->width = e.width;
	out->height = e.height;
	DRIVER("cuMemAllocPitch", 12000, 0, (void **, size_t *, size_t, size_t, unsigned int),
	       (&out->addr, &out->pitch, e.width, e.height * e.depth, 4));
}

API int cudaFree(void *addr);
API int cudaFree(void *addr)
{
	DRIVER("cuMemFree", 12000, 0, (void *), (addr));
}

API int cudaMallocManaged(void **out, size_t size, unsigned int flags);
API int cudaMallocManaged(void **out, size_t size, unsigned int flags)
{
	DRIVER("cuMemAllocManaged", 12000, 0, (void **, size_t, unsigned int), (out, size, flags));
}

API int cudaHostAlloc(void **out, size_t size, unsigned int flags);
API int cudaHostAlloc(void **out, size_t size, unsigned int flags)
{
	DRIVER("cuMemHostAlloc", 12000, 0, (void **, size_t, unsigned int), (out, size, flags));
}

API int cudaMallocHost(void **out, size_t size);
API int cudaMallocHost(void **out, size_t size)
{
	DRIVER("cuMemHostAlloc", 12000, 0, (void **, size_t, unsigned int), (out, size, 0));
}

API int cudaFreeHost(void *addr);
API int cudaFreeHost(void *addr)
{
	DRIVER("cuMemFreeHost", 12000, 0, (void *), (addr));
}

API int cudaHostRegister(void *addr, size_t size, unsigned int flags);
API int cudaHostRegister(void *addr, size_t size, unsigned int flags)
{
	DRIVER("cuMemHostRegister", 12000, 0, (void *, size_t, unsigned int), (addr, size, flags));
}

API int cudaHostUnregister(void *addr);
API int cudaHostUnregister(void *addr)
{
	DRIVER("cuMemHostUnregister", 12000, 0, (void *), (addr));
}

API int cudaMallocAsync(void **out, size_t size, void *stream);
API int cudaMallocAsync(void **out, size_t size, void *stream)
{
	DRIVER("cuMemAllocAsync", 12000, 0, (void **, size_t, void *), (out, size, stream));
}

API int cudaMallocAsync_ptsz(void **out, size_t size, void *stream);
API int cudaMallocAsync_ptsz(void **out, size_t size, void *stream)
{
	DRIVER("cuMemAllocAsync", 12000, 2, (void **, size_t, void *), (out, size, stream));
}

API int cudaFreeAsync(void *addr, void *stream);
API int cudaFreeAsync(void *addr, void *stream)
{
	DRIVER("cuMemFreeAsync", 12000, 0, (void *, void *), (addr, stream));
}

API int cudaFreeAsync_ptsz(void *addr, void *stream);
API int cudaFreeAsync_ptsz(void *addr, void *stream)
{
	DRIVER("cuMemFreeAsync", 12000, 2, (void *, void *), (addr, stream));
}

API int cudaMallocFromPoolAsync(void **out, size_t size, void *pool, void *stream);
API int cudaMallocFromPoolAsync(void **out, size_t size, void *pool, void *stream)
{
	DRIVER("cuMemAllocFromPoolAsync", 12000, 0, (void **, size_t, void *, void *),
	       (out, size, pool, stream));
}

API int cudaMallocFromPoolAsync_ptsz(void **out, size_t size, void *pool, void *stream);
API int cudaMallocFromPoolAsync_ptsz(void **out, size_t size, void *pool, void *stream)
{
	DRIVER("cuMemAllocFromPoolAsync", 12000, 2, (void **, size_t, void *, void *),
	       (out, size, pool, stream));
}

API int cudaMemPoolCreate(void **pool, const void *properties);
API int cudaMemPoolCreate(void **pool, const void *properties)
{
	DRIVER("cuMemPoolCreate", 12000, 0, (void **, const void *), (pool, properties));
}

API int cudaIpcOpenMemHandle(void **out, struct handle h, unsigned int flags);
API int cudaIpcOpenMemHandle(void **out, struct handle h, unsigned int flags)
{
	DRIVER("cuIpcOpenMemHandle", 12000, 0, (void **, struct handle, unsigned int),
	       (out, h, flags));
}

API int cudaIpcCloseMemHandle(void *addr);
API int cudaIpcCloseMemHandle(void *addr)
{
	DRIVER("cuIpcCloseMemHandle", 12000, 0, (void *), (addr));
}

/* ---- arrays --------------------------------------------------------------------------------------- */

struct format { /* bits of each channel, and the kind of number */
	int x, y, z, w, f;
};

struct array_3d {
	size_t width, height, depth;
	int format;
	unsigned int channels, flags;
};

/* 32-bit floats only */
static struct array_3d described(const struct format *of, struct extent e, unsigned int flags)
{
	unsigned int channels = !!of->x + !!of->y + !!of->z + !!of->w;

	return (struct array_3d){ e.width, e.height, e.depth, 0x20, channels, flags };
}

API int cudaMallocArray(void **out, const struct format *of, size_t width, size_t height,
			unsigned int flags);
API int cudaMallocArray(void **out, const struct format *of, size_t width, size_t height,
			unsigned int flags)
{
	struct array_3d a = described(of, (struct extent){ width, height, 0 }, flags);

	DRIVER("cuArray3DCreate", 12000, 0, (void **, const struct array_3d *), (out, &a));
}

API int cudaMalloc3DArray(void **out, const struct format *of, struct extent e, unsigned int flags);
API int cudaMalloc3DArray(void **out, const struct format *of, struct extent e, unsigned int flags)
{
	struct array_3d a = described(of, e, flags);

	DRIVER("cuArray3DCreate", 12000, 0, (void **, const struct array_3d *), (out, &a));
}

API int cudaMallocMipmappedArray(void **out, const struct format *of, struct extent e,
				 unsigned int levels, unsigned int flags);
API int cudaMallocMipmappedArray(void **out, const struct format *of, struct extent e,
				 unsigned int levels, unsigned int flags)
{
	struct array_3d a = described(of, e, flags);

	DRIVER("cuMipmappedArrayCreate", 12000, 0, (void **, const struct array_3d *, unsigned int),
	       (out, &a, levels));
}

API int cudaFreeArray(void *array);
API int cudaFreeArray(void *array)
{
	DRIVER("cuArrayDestroy", 12000, 0, (void *), (array));
}

API int cudaFreeMipmappedArray(void *array);
API int cudaFreeMipmappedArray(void *array)
{
	DRIVER("cuMipmappedArrayDestroy", 12000, 0, (void *), (array));
}

API int cudaSetDevice(int device);
API int cudaSetDevice(int device)
{
	static int (*retain)(void **, int), (*set)(void *), (*init)(unsigned int);
	void *context = NULL;

	*(void **)&init = entry("cuInit", 2000, 0);
	*(void **)&retain = entry("cuDevicePrimaryCtxRetain", 12000, 0);
	*(void **)&set = entry("cuCtxSetCurrent", 12000, 0);
	if (!init || !retain || !set || init(0) != 0 || retain(&context, device) != 0)
		return 35;
	return set(context);
}

API int cudaDeviceReset(void);
API int cudaDeviceReset(void)
{
	DRIVER("cuDevicePrimaryCtxReset", 7000, 0, (int), (0)); /* the version NVIDIA's asks for */
}

#ifdef RUNTIME_PRIVATE
/* What the library that hides it offers: a buffer of its own. */
__attribute__((visibility("default"))) int hidden_buffer(void **out, size_t size);
int hidden_buffer(void **out, size_t size)
{
	return cudaMalloc(out, size);
}

__attribute__((visibility("default"))) int hidden_release(void *addr);
int hidden_release(void *addr)
{
	return cudaFree(addr);
}
#endif
