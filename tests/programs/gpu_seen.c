/*
 * Processes that use the fake driver's first device, and say so to the fake NVML in FAKE_NVML_FILE.
 *
 *   gpu_seen MIB:PID:MORE ...   one process for each, the first one this: takes MIB from the driver;
 *                               NVML is to say that PID ("self", or a number) uses MORE MiB beyond
 *                               that ("NA": that it does not say)
 *
 * "none" is a process that uses no GPU.
 *
 * All stay until there is a file "go", or for GPU_SEEN_MS milliseconds. Each prints its pid, and whether it has NVML loaded.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../support/cuda/driver.h"

static void *volatile kept;

static void claim(size_t mib, const char *pid, const char *more)
{
	const char *path = getenv("FAKE_NVML_FILE");
	int fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1, n;
	char line[96], bytes[32];

	if (fd < 0)
		return;
	snprintf(bytes, sizeof(bytes), "%zu", (mib + (size_t)atoi(more)) << 20);
	n = snprintf(line, sizeof(line), "0 %d %s\n",
		     strcmp(pid, "self") ? atoi(pid) : (int)getpid(),
		     strcmp(more, "NA") ? bytes : "NA");
	n = (int)write(fd, line, (size_t)n);
	close(fd);
}

static int has_nvml(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	char line[4096];
	int found = 0;

	while (f && fgets(line, sizeof(line), f))
		found |= strstr(line, "libnvidia-ml") != NULL;
	if (f)
		fclose(f);
	return found;
}

static int take_and_claim(char *text)
{
	void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
	char *pid = strchr(text, ':'), *more = pid ? strchr(pid + 1, ':') : NULL;
	int (*init)(unsigned int) = NULL, (*take)(CUptr *, size_t) = NULL;
	size_t mib = (size_t)atoi(text);
	CUptr p;

	if (!driver || !more)
		return 2;
	*more++ = '\0';
	*(void **)&init = dlsym(driver, "cuInit");
	*(void **)&take = dlsym(driver, "cuMemAlloc_v2");
	if (init(0) != 0 || take(&p, mib << 20) != 0)
		return 2;
	claim(mib, pid + 1, more);
	return 0;
}

static int be_client(char *text)
{
	const char *ms = getenv("GPU_SEEN_MS");

	if (strcmp(text, "none") && take_and_claim(text))
		return 2;
	printf("client pid=%d\n", (int)getpid());
	fflush(stdout);
	for (int i = 0; i < (ms ? atoi(ms) / 10 : 6000) && access("go", F_OK) < 0; i++) {
		kept = malloc(16); /* who makes no event can't be attached to */
		free(kept);
		usleep(10000);
	}
	printf("loaded nvml=%d\n", has_nvml());
	fflush(stdout);
	return 0;
}

int main(int argc, char **argv)
{
	int status, bad = 0;

	for (int i = 2; i < argc; i++)
		if (fork() == 0)
			_exit(be_client(argv[i]));
	if (argc > 1)
		bad = be_client(argv[1]);
	while (wait(&status) > 0)
		bad |= status;
	return bad != 0;
}
