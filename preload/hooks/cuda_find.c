/*
 * The real function behind an interposed one of CUDA or PyTorch. RTLD_NEXT doesn't lead to them:
 * Python loads extension modules privately, so they are in no global order of search. What leads to
 * them is the caller: its own module and what that needs. Two CUDA runtimes in one process are
 * each reached by their own callers.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <link.h>
#include <string.h>

#include "core/gpu.h"
#include "hooks/cuda.h"

extern const char __ehdr_start __attribute__((visibility("hidden")));

int mt_cuda_is_ours(const void *p)
{
	Dl_info info;

	return dladdr(p, &info) && info.dli_fbase == (const void *)&__ehdr_start;
}

/* The answer of one loaded library and what it needs; its reference is kept: the pointer must
 * stay good. */
static void *in_library(const char *path, const char *name)
{
	void *handle = dlopen(path, RTLD_LAZY | RTLD_NOLOAD);
	void *p = handle ? dlsym(handle, name) : NULL;

	if (p && mt_cuda_is_ours(p))
		p = NULL;
	if (handle && !p)
		dlclose(handle);
	return p;
}

struct search {
	const char *stem; /* "libcudart" */
	char path[512];
};

static int look_at(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct search *s = arg;
	const char *base = strrchr(info->dlpi_name, '/');
	size_t length = strlen(info->dlpi_name);

	(void)size;
	base = base ? base + 1 : info->dlpi_name;
	if (strncmp(base, s->stem, strlen(s->stem)) != 0 || length >= sizeof(s->path))
		return 0;
	memcpy(s->path, info->dlpi_name, length + 1);
	return 1;
}

void *mt_cuda_behind(uintptr_t return_address, const char *name, const char *const *sonames)
{
	struct search s = { .stem = sonames[0] };
	Dl_info info;
	void *p = NULL;

	if (dladdr((void *)return_address, &info) && info.dli_fname && *info.dli_fname)
		p = in_library(info.dli_fname, name);
	if (!p)
		p = dlsym(RTLD_NEXT, name);
	for (size_t i = 1; !p && sonames[i]; i++)
		p = in_library(sonames[i], name);
	/* By its file's beginning: wheels rename libcudart. The walk takes a lock of the loader's that
	 * a forked child may never get. */
	if (!p && !mt_gpu_muted && dl_iterate_phdr(look_at, &s))
		p = in_library(s.path, name);
	return p;
}
