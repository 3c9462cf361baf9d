/*
 * NVML for the fake driver: says of its first device that every client listed in FAKE_NVML uses what
 * the fake driver gave this process and 512 MiB more, which no call shows.
 *
 *   FAKE_NVML    pids separated by commas, 0 for the process itself; unset: nobody
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ledger.h"

#define API __attribute__((visibility("default")))
#define HIDDEN_BYTES (UINT64_C(512) << 20)
#define UNINITIALIZED 1
#define NOT_FOUND 6
#define TOO_SMALL 7

struct client {
	unsigned int pid;
	unsigned long long bytes;
	unsigned int instance, compute_instance;
};

static int initialised;

API int nvmlInit_v2(void);
int nvmlInit_v2(void)
{
	initialised = 1;
	return 0;
}

static uint64_t used(void)
{
	void *h = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
	struct fake_ledger *(*ledger)(void) = NULL;

	if (h)
		*(void **)&ledger = dlsym(h, "fake_cuda_ledger");
	return HIDDEN_BYTES +
	       (ledger ? ledger()->kind[0][FAKE_DEVICE].live + ledger()->kind[0][FAKE_MANAGED].live
		       : 0);
}

API int nvmlDeviceGetHandleByUUID(const char *uuid, void **device);
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device)
{
	static int first;

	*device = &first;
	if (!initialised)
		return UNINITIALIZED;
	return strcmp(uuid, "GPU-10101010-1010-1010-1010-101010101010") ? NOT_FOUND : 0;
}

API int nvmlDeviceGetMemoryInfo(void *device, unsigned long long *total_free_used);
int nvmlDeviceGetMemoryInfo(void *device, unsigned long long *total_free_used)
{
	(void)device;
	total_free_used[0] = UINT64_C(8) << 30;
	total_free_used[2] = used() * 2;
	total_free_used[1] = total_free_used[0] - total_free_used[2];
	return 0;
}

API int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned int *count,
						struct client *list);
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned int *count, struct client *list)
{
	const char *text = getenv("FAKE_NVML");
	unsigned int room = *count;

	(void)device;
	for (*count = 0; text && *text; text += *text == ',') {
		char *end;
		unsigned long pid = strtoul(text, &end, 10);

		if (*count == room)
			return TOO_SMALL;
		list[(*count)++] = (struct client){ pid ? (unsigned int)pid
							: (unsigned int)getpid(),
						    used(), 0, 0 };
		text = end;
	}
	return 0;
}
