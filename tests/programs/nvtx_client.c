/*
 * What the header of NVTX does at a program's first use of it, by hand: loads the library named by
 * NVTX_INJECTION64_PATH, hands it the table of its slots, and calls through them.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef void slot(void);
static slot *core[17], *core2[16];
static slot **core_table[17], **core2_table[16];

static int table_of(uint32_t module, slot ****table, uint32_t *count)
{
	if (module != 1 && module != 5)
		return 0;
	*table = module == 1 ? core_table : core2_table;
	*count = module == 1 ? 17 : 16;
	return 1;
}

static const struct {
	size_t bytes;
	int (*table)(uint32_t, slot ****, uint32_t *);
} callbacks = { sizeof(callbacks), table_of };

static const void *export_table(uint32_t id)
{
	return id == 1 ? &callbacks : NULL;
}

static int push(const char *text)
{
	return core[9] ? ((int (*)(const char *))(uintptr_t)core[9])(text) : -2;
}

static int pop(void)
{
	return core[11] ? ((int (*)(void))(uintptr_t)core[11])() : -2;
}

int main(void)
{
	const char *path = getenv("NVTX_INJECTION64_PATH");
	void *h = path ? dlopen(path, RTLD_LAZY) : NULL;
	int (*init)(const void *(*)(uint32_t)) = NULL, ok, a, b;

	for (int i = 0; i < 17; i++)
		core_table[i] = &core[i];
	for (int i = 0; i < 16; i++)
		core2_table[i] = &core2[i];
	if (h)
		*(void **)&init = dlsym(h, "InitializeInjectionNvtx2");
	ok = init && init(export_table);
	a = push("train");
	b = push("inner");
	free(malloc(100));
	pop();
	pop();
	if (core[2])
		((void (*)(const char *))(uintptr_t)core[2])("here");
	printf("nvtx attached=%d first=%d second=%d\n", ok, a, b);
	return 0;
}
