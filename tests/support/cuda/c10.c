/*
 * The parts of PyTorch's libc10.so that are interposed, in both spellings of 2.x and 1.x. Each counts
 * what reaches it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

struct device {
	signed char type, index;
};

static long reports, ooms;

void report_new(void *, long, size_t, size_t, struct device) __asm__(
	"_ZN3c1027reportMemoryUsageToProfilerEPvlmmNS_6DeviceE");
void report_old(void *, long, long, long, struct device) __asm__(
	"_ZN3c1027reportMemoryUsageToProfilerEPvlllNS_6DeviceE");
void oom_new(long, size_t, size_t, struct device) __asm__(
	"_ZN3c1027reportOutOfMemoryToProfilerElmmNS_6DeviceE");
void *alloc_cpu(size_t) __asm__("_ZN3c109alloc_cpuEm");
void free_cpu(void *) __asm__("_ZN3c108free_cpuEPv");
long fake_c10_reports(void);
long fake_c10_ooms(void);

void report_new(void *p, long bytes, size_t allocated, size_t reserved, struct device d)
{
	(void)p, (void)bytes, (void)allocated, (void)reserved;
	reports += d.type == 1 ? 1 : 1000000;
}

void report_old(void *p, long bytes, long allocated, long reserved, struct device d)
{
	(void)p, (void)bytes, (void)allocated, (void)reserved;
	reports += d.type == 1 ? 1 : 1000000;
}

void oom_new(long bytes, size_t allocated, size_t reserved, struct device d)
{
	(void)bytes, (void)allocated, (void)reserved, (void)d;
	ooms++;
}

void *alloc_cpu(size_t size)
{
	void *p = NULL;

	return posix_memalign(&p, 64, size) == 0 ? p : NULL;
}

void free_cpu(void *p)
{
	free(p);
}

long fake_c10_reports(void)
{
	return reports;
}

long fake_c10_ooms(void)
{
	return ooms;
}
