/*
 * One link of a chain of RTLD_NEXT: answers what the next library's function says, plus 10. Also asks
 * by RTLD_DEFAULT and dlvsym from inside a library. Compiled without optimisation, so that its own
 * calls are plain ones.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#pragma GCC optimize("O0")
#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

int chained(void);
int asked_by_default(void);
int asked_by_version(void);

int chained(void)
{
	int (*next)(void);

	*(void **)&next = dlsym(RTLD_NEXT, "chained");
	return (next ? next() : 0) + 10;
}

int asked_by_default(void)
{
	return dlsym(RTLD_DEFAULT, "chained") != NULL;
}

int asked_by_version(void)
{
	void *a = dlvsym(RTLD_NEXT, "memcpy", "GLIBC_2.14"), *b = dlsym(RTLD_NEXT, "memcpy");

	return a != NULL && b != NULL;
}
