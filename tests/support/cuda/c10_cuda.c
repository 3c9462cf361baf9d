/*
 * A caching allocator as PyTorch's: segments from cudaMalloc, blocks inside, each reported with the
 * totals while a lock is held. Where blocks go is the test's choice (segment and offset), so that it
 * knows what is fragmented.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

struct device {
	signed char type, index;
};

extern int cudaMalloc(void **out, size_t size);
extern int cudaFree(void *addr);
void report_new(void *, long, size_t, size_t, struct device) __asm__(
	"_ZN3c1027reportMemoryUsageToProfilerEPvlmmNS_6DeviceE");
void report_old(void *, long, long, long, struct device) __asm__(
	"_ZN3c1027reportMemoryUsageToProfilerEPvlllNS_6DeviceE");
void oom_new(long, size_t, size_t, struct device) __asm__(
	"_ZN3c1027reportOutOfMemoryToProfilerElmmNS_6DeviceE");

void *cache_segment(size_t size, int device);
void cache_release(void *segment, size_t size);
void cache_block(void *at, size_t size, int device, int old);
void cache_free(void *at, size_t size, int device, int old);
void cache_oom(size_t size, int device);
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
