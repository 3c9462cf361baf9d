/*
 * NVML for the fake driver.
 *
 *   FAKE_NVML        pids separated by commas, 0 for the process itself: each uses of the first device
 *                    what the fake driver gave this process, and 512 MiB more, which no call shows
 *   FAKE_NVML_FILE   instead: a file with a line "DEVICE PID BYTES" for each client; BYTES may be NA
 *   FAKE_NVML_LOG    a file that gets a line "loaded PID" when this library is loaded, and "asked PID
 *                    DEVICE" for each list of clients that was given out
 *   FAKE_NVML_FAIL, FAKE_NVML_HANG   the call (init, count, index, uuid, memory, processes) that fails,
 *                    or never returns
 *   FAKE_NVML_MIG    the devices are in slices
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
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

#define UNKNOWN 999
#define NOT_AVAILABLE (~0ull)

static int initialised;
static int devices[FAKE_DEVICES]; /* their addresses are the handles */
static const char *const uuids[FAKE_DEVICES] = { "GPU-10101010-1010-1010-1010-101010101010",
						 "GPU-11111111-1111-1111-1111-111111111111" };

static void note(const char *what, int device)
{
	const char *path = getenv("FAKE_NVML_LOG");
	char line[64];
	int fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1, n;

	if (fd < 0)
		return;
	n = snprintf(line, sizeof(line), "%s %d %d\n", what, (int)getpid(), device);
	n = (int)write(fd, line, (size_t)n);
	close(fd);
}

__attribute__((constructor)) static void loaded(void)
{
	note("loaded", -1);
}

/* What a call answers before it does anything. */
static int trouble(const char *call)
{
	const char *fails = getenv("FAKE_NVML_FAIL"), *hangs = getenv("FAKE_NVML_HANG");

	if (hangs && !strcmp(hangs, call))
		note("hangs", -1);
	while (hangs && !strcmp(hangs, call))
		pause();
	return fails && !strcmp(fails, call) ? UNKNOWN : 0;
}

API int nvmlInit_v2(void);
int nvmlInit_v2(void)
{
	initialised = 1;
	return trouble("init");
}

API int nvmlDeviceGetCount_v2(unsigned int *count);
int nvmlDeviceGetCount_v2(unsigned int *count)
{
	*count = FAKE_DEVICES;
	return initialised ? trouble("count") : UNINITIALIZED;
}

API int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device);
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device)
{
	if (index >= FAKE_DEVICES)
		return NOT_FOUND;
	*device = &devices[index];
	return trouble("index");
}

API int nvmlDeviceGetUUID(void *device, char *text, unsigned int size);
int nvmlDeviceGetUUID(void *device, char *text, unsigned int size)
{
	snprintf(text, size, "%s", uuids[(int *)device - devices]);
	return trouble("uuid");
}

API int nvmlDeviceGetMigMode(void *device, unsigned int *current, unsigned int *pending);
int nvmlDeviceGetMigMode(void *device, unsigned int *current, unsigned int *pending)
{
	(void)device;
	*current = *pending = getenv("FAKE_NVML_MIG") != NULL;
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
	*device = &devices[0];
	if (!initialised)
		return UNINITIALIZED;
	return strcmp(uuid, uuids[0]) ? NOT_FOUND : 0;
}

API int nvmlDeviceGetMemoryInfo(void *device, unsigned long long *total_free_used);
int nvmlDeviceGetMemoryInfo(void *device, unsigned long long *total_free_used)
{
	(void)device;
	total_free_used[0] = UINT64_C(8) << 30;
	total_free_used[2] = used() * 2;
	total_free_used[1] = total_free_used[0] - total_free_used[2];
	return trouble("memory");
}

/* As FAKE_NVML_FILE has them. */
static int told_clients(FILE *f, int device, unsigned int *count, struct client *list)
{
	unsigned int room = *count, pid;
	char bytes[32];
	int of;

	for (*count = 0; fscanf(f, "%d %u %31s", &of, &pid, bytes) == 3;) {
		if (of != device)
			continue;
		if (*count == room)
			return TOO_SMALL;
		list[(*count)++] = (struct client){
			pid, !strcmp(bytes, "NA") ? NOT_AVAILABLE : strtoull(bytes, NULL, 10), 0, 0
		};
	}
	return 0;
}

API int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned int *count,
						struct client *list);
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned int *count, struct client *list)
{
	const char *text = getenv("FAKE_NVML"), *path = getenv("FAKE_NVML_FILE");
	int index = (int)((int *)device - devices), result = trouble("processes");
	unsigned int room = *count;

	if (path) {
		FILE *f = fopen(path, "re");

		*count = f ? *count : 0;
		result = f && !result ? told_clients(f, index, count, list) : result;
		if (f)
			fclose(f);
		note("asked", index);
		return result;
	}
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
	return result;
}
