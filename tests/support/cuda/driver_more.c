/*
 * The fake driver's physical memory, pools, memory of other processes, and graphs. See driver.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>
#include <sys/mman.h>

#include "driver.h"

static struct mapping {
	uint64_t addr, size;
	size_t of; /* index in fake_blocks */
} mappings[BLOCKS];
static size_t mapping_end;
static size_t pool_count = FAKE_DEVICES; /* the first ones are the devices' own */

/* ---- physical memory and mappings ---------------------------------------------------------------- */

int cuMemAddressReserve(CUptr *out, size_t size, size_t align, CUptr addr, uint64_t flags)
{
	(void)align;
	(void)addr;
	(void)flags;
	*out = fake_space(size);
	return fake_problem();
}

int cuMemAddressFree(CUptr addr, size_t size)
{
	munmap((void *)addr, size);
	return fake_problem();
}

int cuMemCreate(uint64_t *handle, size_t size, const struct props *p, uint64_t flags)
{
	(void)flags;
	if (size % PAGE)
		return INVALID;
	return fake_take(handle, size, p->location_type == 1 ? FAKE_DEVICE : FAKE_PINNED, PHYSICAL,
			 p->location_type == 1 ? p->location_id : 0);
}

/* A handle whose last reference goes is handed out anew while mappings keep the memory. */
static struct block *handle_of(uint64_t handle)
{
	struct block *b = NULL;

	for (size_t i = 0; i < fake_block_end; i++)
		if (fake_blocks[i].addr == handle && fake_blocks[i].how == PHYSICAL &&
		    fake_blocks[i].refs)
			b = &fake_blocks[i];
	return b;
}

static void maybe_drop(struct block *b)
{
	if (!b->refs && !b->maps)
		fake_drop(b);
}

int cuMemRelease(uint64_t handle)
{
	struct block *b;
	int err = fake_problem();

	pthread_mutex_lock(&fake_lock);
	b = handle_of(handle);
	if (!err && !b)
		err = INVALID;
	if (!err) {
		if (!--b->refs && b->maps)
			fake_next_handle = handle; /* reused at once: the worst case */
		maybe_drop(b);
	}
	pthread_mutex_unlock(&fake_lock);
	return err;
}

int cuMemMap(CUptr addr, size_t size, size_t offset, uint64_t handle, uint64_t flags)
{
	struct block *b;
	int err = fake_problem();

	(void)flags;
	pthread_mutex_lock(&fake_lock);
	b = handle_of(handle);
	if (!err && (!b || offset + size > b->size))
		err = INVALID;
	if (!err) {
		mappings[mapping_end].addr = addr;
		mappings[mapping_end].size = size;
		mappings[mapping_end++].of = (size_t)(b - fake_blocks);
		b->maps++;
		if (b->kind == FAKE_BORROWED && !b->unbacked)
			fake_ledger->kind[b->device][FAKE_BORROWED].live += size;
	}
	pthread_mutex_unlock(&fake_lock);
	return err;
}

int cuMemUnmap(CUptr addr, size_t size)
{
	int found = 0, err = fake_problem();

	pthread_mutex_lock(&fake_lock);
	for (size_t i = 0; !err && i < mapping_end; i++)
		if (mappings[i].size && mappings[i].addr >= addr &&
		    mappings[i].addr + mappings[i].size <= addr + size) {
			struct block *b = &fake_blocks[mappings[i].of];

			if (b->kind == FAKE_BORROWED && !b->unbacked)
				fake_ledger->kind[b->device][FAKE_BORROWED].live -=
					mappings[i].size;
			mappings[i].size = 0;
			b->maps--;
			maybe_drop(b);
			found = 1;
		}
	pthread_mutex_unlock(&fake_lock);
	return err ? err : found ? SUCCESS : INVALID;
}

int cuMemRetainAllocationHandle(uint64_t *handle, void *addr)
{
	int err = fake_problem();

	pthread_mutex_lock(&fake_lock);
	for (size_t i = 0; !err && i < mapping_end; i++)
		if (mappings[i].size && (uintptr_t)addr - mappings[i].addr < mappings[i].size) {
			struct block *b = &fake_blocks[mappings[i].of];

			b->refs++;
			*handle = b->addr;
			pthread_mutex_unlock(&fake_lock);
			return SUCCESS;
		}
	pthread_mutex_unlock(&fake_lock);
	return err ? err : INVALID;
}

int cuMemImportFromShareableHandle(uint64_t *handle, void *os_handle, int type)
{
	(void)type;
	return fake_take(handle, (uintptr_t)os_handle, FAKE_BORROWED, PHYSICAL, 0);
}

int cuMulticastCreate(uint64_t *handle, const void *properties)
{
	int err;

	(void)properties;
	err = fake_take(handle, PAGE, FAKE_BORROWED, PHYSICAL, 0);
	if (!err)
		fake_find(*handle)->unbacked = 1;
	return err;
}

/* ---- pools --------------------------------------------------------------------------------------- */

static int take_from(CUptr *out, size_t size, struct pool *p)
{
	int err = fake_take(out, size, FAKE_DEVICE, ASYNC, p->device);

	if (err)
		return err;
	pthread_mutex_lock(&fake_lock);
	fake_find(*out)->pool = p;
	p->used += size;
	if (p->used > p->reserved)
		p->reserved = (p->used + PAGE - 1) / PAGE * PAGE;
	pthread_mutex_unlock(&fake_lock);
	return SUCCESS;
}

int cuStreamIsCapturing(void *stream, int *status)
{
	*status = stream == CAPTURING;
	return stream ? fake_problem() : INVALID; /* as while another stream captures */
}

int cuMemAllocAsync(CUptr *out, size_t size, void *stream)
{
	if (stream == CAPTURING)
		return fake_take(out, size, FAKE_DEVICE, GRAPH, fake_here()->device);
	return take_from(out, size, &fake_pools[fake_here()->device]);
}

int cuMemAllocAsync_ptsz(CUptr *out, size_t size, void *stream)
{
	return cuMemAllocAsync(out, size, stream);
}

int cuMemAllocFromPoolAsync(CUptr *out, size_t size, void *pool, void *stream)
{
	(void)stream;
	return take_from(out, size, pool);
}

int cuMemAllocFromPoolAsync_ptsz(CUptr *out, size_t size, void *pool, void *stream)
{
	return cuMemAllocFromPoolAsync(out, size, pool, stream);
}

int cuMemFreeAsync(CUptr addr, void *stream)
{
	(void)stream;
	return fake_give(addr, FAKE_DEVICE, FAKE_DEVICE);
}

int cuMemFreeAsync_ptsz(CUptr addr, void *stream)
{
	return cuMemFreeAsync(addr, stream);
}

int cuMemPoolCreate(void **pool, const struct pool_props *p)
{
	if (pool_count == POOLS)
		return OUT_OF_MEMORY;
	fake_pools[pool_count].device = p->location_id;
	*pool = &fake_pools[pool_count++];
	return fake_problem();
}

int cuMemPoolDestroy(void *pool)
{
	((struct pool *)pool)->reserved = 0;
	return fake_problem();
}

int cuMemPoolTrimTo(void *pool, size_t keep)
{
	struct pool *p = pool;

	p->reserved = p->used > keep ? (p->used + PAGE - 1) / PAGE * PAGE : keep;
	return fake_problem();
}

int cuMemPoolGetAttribute(void *pool, int attribute, uint64_t *value)
{
	const struct pool *p = pool;

	*value = attribute == 5 ? p->reserved : p->used;
	return attribute == 5 || attribute == 7 ? fake_problem() : INVALID;
}

int cuDeviceGetMemPool(void **pool, int device)
{
	*pool = &fake_pools[device];
	return fake_problem();
}

/* ---- of other processes, and graphs ---------------------------------------------------------------- */

int cuMemPoolImportPointer(CUptr *out, void *pool, void *data)
{
	(void)pool;
	(void)data;
	return fake_take(out, PAGE, FAKE_BORROWED, PLAIN, fake_here()->device);
}

int cuIpcGetMemHandle(struct ipc *handle, CUptr addr)
{
	memcpy(handle->bytes, &addr, sizeof(addr));
	return fake_problem();
}

int cuIpcOpenMemHandle_v2(CUptr *out, struct ipc handle, unsigned int flags)
{
	(void)flags;
	if (memcmp(handle.bytes + 8, "remote", 6) != 0)
		return INVALID;
	return fake_take(out, PAGE, FAKE_BORROWED, PLAIN, fake_here()->device);
}

int cuIpcOpenMemHandle(CUptr *out, struct ipc handle, unsigned int flags)
{
	return cuIpcOpenMemHandle_v2(out, handle, flags);
}

int cuIpcCloseMemHandle(CUptr addr)
{
	return fake_give(addr, FAKE_BORROWED, FAKE_BORROWED);
}

int cuExternalMemoryGetMappedBuffer(CUptr *out, void *memory, const struct buffer *b)
{
	(void)memory;
	return fake_take(out, b->size, FAKE_BORROWED, PLAIN, fake_here()->device);
}

int cuGraphAddMemAllocNode(void **node, void *graph, void *const *after, size_t n,
			   struct graph_alloc *p)
{
	(void)graph;
	(void)after;
	(void)n;
	*node = p;
	return fake_take(&p->addr, p->size, FAKE_DEVICE, GRAPH, p->pool.location_id);
}

int cuGraphAddMemFreeNode(void **node, void *graph, void *const *after, size_t n, CUptr addr)
{
	(void)graph;
	(void)after;
	(void)n;
	*node = NULL;
	return fake_give(addr, FAKE_DEVICE, FAKE_DEVICE);
}

int cuGraphAddNode(void **node, void *graph, void *const *after, size_t n, struct graph_node *p)
{
	if (p->type == 10)
		return cuGraphAddMemAllocNode(node, graph, after, n, &p->u.alloc);
	return p->type == 11 ? cuGraphAddMemFreeNode(node, graph, after, n, p->u.freed) : SUCCESS;
}

int cuGraphAddNode_v2(void **node, void *graph, void *const *after, const void *edges, size_t n,
		      struct graph_node *p)
{
	(void)edges;
	return cuGraphAddNode(node, graph, after, n, p);
}
