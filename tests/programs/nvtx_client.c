/*
 * What the header of NVTX does at a program's first use of it, by hand: loads the library named by
 * NVTX_INJECTION64_PATH, hands it the table of its slots, and calls through them.
 *
 *   nvtx_client          ranges and a mark; a range named by a registered string
 *   nvtx_client pool     a pool of 64 MiB of the fake driver's memory, out of which regions are taken
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define MIB ((size_t)1 << 20)

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

/* ---- the memory extension ---------------------------------------------------------------------------- */

struct range {
	size_t size;
	const void *addr;
};

static void *memory_slots[63];

static int memory_start(void *h)
{
	struct {
		size_t id, count;
		void **slots;
	} segment = { 1, 63, memory_slots };
	struct {
		uint16_t version, bytes, id, compatible;
		size_t segments;
		void *segment;
		void *get, *info;
	} module = { 3, sizeof(module), 1, 0x0102, 1, &segment, NULL, NULL };
	int (*init)(void *);

	*(void **)&init = dlsym(h, "InitializeInjectionNvtxExtension");
	return init && init(&module);
}

static const void *heap_register(const void *addr, size_t size, const char *name)
{
	struct range range = { size, addr };
	struct {
		uint16_t compatible, bytes;
		uint32_t reserved, usage, type;
		size_t range_bytes;
		const struct range *range;
		uint32_t category, message_type;
		const char *message;
	} desc = { 0x0102, sizeof(desc), 0, 1, 1, sizeof(range), &range, 0, 1, name };

	return ((const void *(*)(void *, const void *))memory_slots[0])(NULL, &desc);
}

static void regions(int which, const void *heap, const struct range *first, size_t count)
{
	struct {
		uint16_t compatible, bytes;
		uint32_t type;
		const void *heap;
		size_t count, stride;
		const struct range *first;
		const void **handles;
	} with_heap = { 0x0102, sizeof(with_heap), 1, heap, count, sizeof(*first), first, NULL };
	struct {
		uint16_t compatible, bytes;
		uint32_t type;
		size_t count, stride;
		const struct range *first;
	} without = { 0x0102, sizeof(without), 1, count, sizeof(*first), first };

	((void (*)(void *, const void *))memory_slots[which])(
		NULL, which == 3 ? (const void *)&with_heap : (const void *)&without);
}

static void unregister(const void *const *addrs, size_t count)
{
	struct {
		uint16_t compatible, bytes;
		uint32_t type;
		size_t count, stride;
		const void *const *first;
	} batch = { 0x0102, sizeof(batch), 1, count, sizeof(*addrs), addrs };

	((void (*)(void *, const void *))memory_slots[5])(NULL, &batch);
}

/* Of 64 MiB a pool of 48: three regions of 1 MiB are taken, one grows to 4, one is given back. */
static int pool(void *h)
{
	void *driver = dlopen("libcuda.so.1", RTLD_NOW);
	int (*init)(unsigned int), (*take)(char **, size_t);
	const void *heap;
	char *base = NULL;

	*(void **)&init = driver ? dlsym(driver, "cuInit") : NULL;
	*(void **)&take = driver ? dlsym(driver, "cuMemAlloc_v2") : NULL;
	if (!take || init(0) != 0 || take(&base, 64 * MIB) != 0 || !memory_start(h))
		return 2;
	heap = heap_register(base, 48 * MIB, "my pool");
	regions(3, heap,
		(struct range[]){
			{ MIB, base }, { MIB, base + 8 * MIB }, { MIB, base + 16 * MIB } },
		3);
	regions(4, heap, (struct range[]){ { 4 * MIB, base + 8 * MIB } }, 1);
	unregister((const void *[]){ base }, 1);
	printf("pool registered=%d\n", heap == base);
	return 0;
}

/* ---- ranges and marks -------------------------------------------------------------------------------- */

static void registered_range(void)
{
	struct {
		uint16_t version, bytes;
		uint32_t category;
		int32_t color_type;
		uint32_t color;
		int32_t payload_type, reserved;
		uint64_t payload;
		int32_t message_type;
		const void *message;
	} a = { 3, sizeof(a), 0, 0, 0, 0, 0, 0, 3, NULL };

	if (!core2[10] || !core2[4] || !core2[5])
		return;
	((const void *(*)(void *, const char *))(uintptr_t)core2[10])(NULL, "not this one");
	a.message = ((const void *(*)(void *, const char *))(uintptr_t)core2[10])(NULL, "validate");
	((int (*)(void *, const void *))(uintptr_t)core2[4])(NULL, &a);
	((int (*)(void *))(uintptr_t)core2[5])(NULL);
}

int main(int argc, char **argv)
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
	if (argc > 1)
		return argv[1] && h ? pool(h) : 2;
	ok = init && init(export_table);
	a = push("train");
	b = push("inner");
	free(malloc(100));
	pop();
	pop();
	registered_range();
	if (core[2])
		((void (*)(const char *))(uintptr_t)core[2])("here");
	printf("nvtx attached=%d first=%d second=%d\n", ok, a, b);
	return 0;
}
