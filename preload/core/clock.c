/*
 * Time stamps. See clock.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core/clock.h"

#include <string.h>
#include <time.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "sys/sys.h"

int mt_clock_is_tsc;

static uint64_t clock_ns(clockid_t id)
{
	struct timespec ts = { 0, 0 };

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t mt_clock_monotonic_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

uint64_t mt_clock_realtime_ns(void)
{
	return clock_ns(CLOCK_REALTIME);
}

/* Invariant by CPUID, and the kernel has not found it unstable: it keeps its own time by it. */
int mt_clock_tsc_is_usable(void)
{
#if defined(__x86_64__)
	unsigned int a, b, c, d;
	char source[32];

	if (!__get_cpuid(0x80000007, &a, &b, &c, &d) || !(d & (1u << 8)))
		return 0;
	if (!__get_cpuid(0x80000001, &a, &b, &c, &d) || !(d & (1u << 27))) /* rdtscp */
		return 0;
	if (mt_sys_slurp("/sys/devices/system/clocksource/clocksource0/current_clocksource", source,
			 sizeof(source)) < 0)
		return 0;
	return !strncmp(source, "tsc", 3) || !strncmp(source, "kvm-clock", 9) ||
	       !strncmp(source, "hyperv_clocksource_tsc_page", 27);
#else
	return 0;
#endif
}
