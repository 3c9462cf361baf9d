/*
 * A caching allocator as PyTorch's: segments from cudaMalloc, blocks inside, each reported with the
 * totals while a lock is held. Where blocks go is the test's choice (segment and offset), so that it
 * knows what is fragmented.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

struct device {
	signed char type, index;
};

extern int cudaMalloc(void **out, size_t size);
extern int cudaFree(void *addr);
extern int cudaMallocAsync(void **out, size_t size, void *stream);
extern int cudaFreeAsync(void *addr, void *stream);
void report_new(void *, long, size_t, size_t,
		struct device) __asm__("_ZN3c1027reportMemoryUsageToProfilerEPvlmmNS_6DeviceE");
void report_old(void *, long, long, long,
		struct device) __asm__("_ZN3c1027reportMemoryUsageToProfilerEPvlllNS_6DeviceE");
void oom_new(long, size_t, size_t,
	     struct device) __asm__("_ZN3c1027reportOutOfMemoryToProfilerElmmNS_6DeviceE");

void *cache_segment(size_t size, int device);
void cache_release(void *segment, size_t size);
void cache_block(void *at, size_t size, int device, int old);
void cache_free(void *at, size_t size, int device, int old);
void cache_oom(size_t size, int device);
char *cache_space(size_t size);
void cache_map(char *at, size_t size, int device);
void cache_unmap(char *at, size_t size);
void *cache_async(size_t size);
void cache_async_free(void *at);
void *cache_alone(size_t size);
void cache_alone_free(void *at);
size_t cache_allocated(void);
size_t cache_reserved(void);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static size_t allocated, reserved;

static void report(void *at, long bytes, int device, int old)
{
	struct device d = { 1, (signed char)device };

	if (old)
		report_old(at, bytes, (long)allocated, (long)reserved, d);
	else
		report_new(at, bytes, allocated, reserved, d);
}

void *cache_segment(size_t size, int device)
{
	void *p = NULL;

	(void)device;
	pthread_mutex_lock(&lock);
	if (cudaMalloc(&p, size) == 0)
		reserved += size;
	pthread_mutex_unlock(&lock);
	return p;
}

void cache_release(void *segment, size_t size)
{
	pthread_mutex_lock(&lock);
	cudaFree(segment);
	reserved -= size;
	pthread_mutex_unlock(&lock);
}

void cache_block(void *at, size_t size, int device, int old)
{
	pthread_mutex_lock(&lock);
	allocated += size;
	report(at, (long)size, device, old);
	pthread_mutex_unlock(&lock);
}

void cache_free(void *at, size_t size, int device, int old)
{
	pthread_mutex_lock(&lock);
	allocated -= size;
	report(at, -(long)size, device, old);
	pthread_mutex_unlock(&lock);
}

void cache_oom(size_t size, int device)
{
	oom_new((long)size, allocated, reserved, (struct device){ 1, (signed char)device });
}

size_t cache_allocated(void)
{
	return allocated;
}

size_t cache_reserved(void)
{
	return reserved;
}

/* ---- segments that grow: physical memory mapped into reserved addresses ------------------------------ */

struct where {
	int type, handle_types, location_type, location_id;
	void *security;
	unsigned char flags[8];
};

static int (*reserve)(uint64_t *, size_t, size_t, uint64_t, uint64_t);
static int (*create)(uint64_t *, size_t, const struct where *, uint64_t);
static int (*map)(uint64_t, size_t, size_t, uint64_t, uint64_t);
static int (*unmap)(uint64_t, size_t), (*release)(uint64_t);

#define PIECES 64
static struct {
	uint64_t at, handle;
} pieces[PIECES];

static void entry_points(void)
{
	int (*get)(const char *, void **, int, uint64_t, int *), status;
	void *h = dlopen("libcuda.so.1", RTLD_NOW);

	*(void **)&get = dlsym(h, "cuGetProcAddress_v2");
	get("cuMemAddressReserve", (void **)&reserve, 12000, 0, &status);
	get("cuMemCreate", (void **)&create, 12000, 0, &status);
	get("cuMemMap", (void **)&map, 12000, 0, &status);
	get("cuMemUnmap", (void **)&unmap, 12000, 0, &status);
	get("cuMemRelease", (void **)&release, 12000, 0, &status);
}

char *cache_space(size_t size)
{
	uint64_t at = 0;
	void *warm;

	cudaMalloc(&warm, 1); /* initialises the driver */
	cudaFree(warm);
	entry_points();
	reserve(&at, size, 0, 0, 0);
	return (char *)(uintptr_t)at;
}

void cache_map(char *at, size_t size, int device)
{
	struct where p = { .type = 1, .location_type = 1, .location_id = device };
	uint64_t handle = 0;

	pthread_mutex_lock(&lock);
	if (create(&handle, size, &p, 0) == 0 && map((uintptr_t)at, size, 0, handle, 0) == 0)
		reserved += size;
	for (int i = 0; i < PIECES; i++)
		if (!pieces[i].at) {
			pieces[i].at = (uintptr_t)at;
			pieces[i].handle = handle;
			break;
		}
	pthread_mutex_unlock(&lock);
}

void cache_unmap(char *at, size_t size)
{
	pthread_mutex_lock(&lock);
	for (int i = 0; i < PIECES; i++)
		if (pieces[i].at == (uintptr_t)at && unmap((uintptr_t)at, size) == 0 &&
		    release(pieces[i].handle) == 0) {
			pieces[i].at = 0;
			reserved -= size;
		}
	pthread_mutex_unlock(&lock);
}

/* ---- without the cache: nothing is reported ----------------------------------------------------------- */

void *cache_async(size_t size)
{
	void *p = NULL;

	cudaMallocAsync(&p, size, NULL);
	return p;
}

void cache_async_free(void *at)
{
	cudaFreeAsync(at, NULL);
}

void *cache_alone(size_t size)
{
	void *p = NULL;

	cudaMalloc(&p, size);
	return p;
}

void cache_alone_free(void *at)
{
	cudaFree(at);
}
