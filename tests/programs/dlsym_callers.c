/*
 * Look-ups whose answer depends on who asks, made at -O0. Its own `chained` is the first link of a
 * chain, dlsym_next.so (argument) the second; loaded privately, that library must find itself by
 * RTLD_DEFAULT, which the program does not.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#pragma GCC optimize("O0")
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	void *h = argc > 1 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL, *g;
	int (*chained)(void), (*by_default)(void), (*by_version)(void);
	const char *error;

	if (!h)
		return 2;
	*(void **)&chained = dlsym(h, "chained");
	*(void **)&by_default = dlsym(h, "asked_by_default");
	*(void **)&by_version = dlsym(h, "asked_by_version");
	printf("library chained=%d default=%d version=%d\n", chained(), by_default(), by_version());
	printf("program default=%d next=%d\n", dlsym(RTLD_DEFAULT, "chained") != NULL,
	       dlsym(RTLD_NEXT, "chained") != NULL);
	g = dlopen(NULL, RTLD_NOW);
	printf("missing=%d", dlsym(g, "cuNothingAtAll") == NULL);
	error = dlerror();
	printf(" error=%d again=%d\n", error != NULL, dlerror() == NULL);
	printf("short=%d\n", dlsym(g, "c") == NULL && dlsym(g, "") == NULL);
	return 0;
}
