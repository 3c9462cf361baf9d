/*
 * A CUDA driver without a device: keeps books of what it hands out. Device addresses are reserved
 * address space that nobody can touch; two devices of FAKE_CUDA_TOTAL bytes each (default 1 GiB);
 * beyond them: out of memory. It makes no use of dlsym.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "driver.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

pthread_mutex_t fake_lock = PTHREAD_MUTEX_INITIALIZER;
struct block fake_blocks[BLOCKS];
size_t fake_block_end;
struct pool fake_pools[POOLS]; /* the first ones are the devices' own */
static struct context contexts[8] = { { 0, 0 }, { 1, 0 } };
static size_t context_count = FAKE_DEVICES;
static __thread struct context *current;
static pid_t init_pid;
uint64_t fake_next_handle = 0x1000;
struct fake_ledger *fake_ledger;

static void lock_prepare(void)
{
	pthread_mutex_lock(&fake_lock);
}

static void lock_done(void)
{
	pthread_mutex_unlock(&fake_lock);
}

__attribute__((constructor)) static void start(void)
{
	fake_ledger = mmap(NULL, sizeof(*fake_ledger), PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pthread_atfork(lock_prepare, lock_done, lock_done);
	for (int i = 0; i < FAKE_DEVICES; i++)
		fake_pools[i].device = i;
}

API struct fake_ledger *fake_cuda_ledger(void)
{
	return fake_ledger;
}

static uint64_t total(void)
{
	const char *text = getenv("FAKE_CUDA_TOTAL");

	return text ? strtoull(text, NULL, 10) : (uint64_t)1 << 30;
}

/* Of every call but cuInit. */
int fake_problem(void)
{
	if (init_pid && init_pid != getpid()) {
		__atomic_fetch_add(&fake_ledger->calls_in_child, 1, __ATOMIC_RELAXED);
		return NOT_INITIALIZED;
	}
	return init_pid ? SUCCESS : NOT_INITIALIZED;
}

struct context *fake_here(void)
{
	return current ? current : &contexts[0];
}

static uint64_t held(int device)
{
	return fake_ledger->kind[device][FAKE_DEVICE].live +
	       fake_ledger->kind[device][FAKE_MANAGED].live;
}

/* Lock held. */
static void count(int device, enum fake_kind kind, uint64_t size)
{
	fake_ledger->kind[device][kind].live += size;
	fake_ledger->kind[device][kind].taken++;
	if (fake_ledger->kind[device][kind].live > fake_ledger->kind[device][kind].peak)
		fake_ledger->kind[device][kind].peak = fake_ledger->kind[device][kind].live;
	if (held(device) > fake_ledger->device_peak[device])
		fake_ledger->device_peak[device] = held(device);
}

static struct block *place(void)
{
	for (size_t i = 0; i < fake_block_end; i++)
		if (!fake_blocks[i].addr)
			return &fake_blocks[i];
	return fake_block_end < BLOCKS ? &fake_blocks[fake_block_end++] : NULL;
}

struct block *fake_find(uint64_t addr)
{
	for (size_t i = 0; addr && i < fake_block_end; i++)
		if (fake_blocks[i].addr == addr)
			return &fake_blocks[i];
	return NULL;
}

uint64_t fake_space(size_t size)
{
	void *p = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? 0 : (uintptr_t)p;
}

int fake_take(uint64_t *out, size_t size, enum fake_kind kind, enum how how, int device)
{
	struct block *b;
	int err = fake_problem();

	if (err)
		return err;
	if (!size || !out)
		return INVALID;
	pthread_mutex_lock(&fake_lock);
	b = place();
	if (!b ||
	    ((kind == FAKE_DEVICE || kind == FAKE_MANAGED) && held(device) + size > total())) {
		pthread_mutex_unlock(&fake_lock);
		return OUT_OF_MEMORY;
	}
	b->addr = how == PHYSICAL ? fake_next_handle++ : fake_space(size);
	if (kind == FAKE_PINNED)
		mprotect((void *)b->addr, size, PROT_READ | PROT_WRITE);
	b->size = size;
	b->kind = kind;
	b->how = how;
	b->device = device;
	b->context = fake_here();
	b->refs = 1;
	b->maps = 0;
	b->pool = NULL;
	b->unbacked = 0;
	if (how != GRAPH && !(kind == FAKE_BORROWED && how == PHYSICAL))
		count(device, kind, size);
	*out = b->addr;
	pthread_mutex_unlock(&fake_lock);
	return SUCCESS;
}

/* Lock held. */
void fake_drop(struct block *b)
{
	if (b->how != GRAPH && !(b->kind == FAKE_BORROWED && b->how == PHYSICAL)) {
		fake_ledger->kind[b->device][b->kind].live -= b->size;
		fake_ledger->kind[b->device][b->kind].given++;
	}
	if (b->pool)
		((struct pool *)b->pool)->used -= b->size;
	if (b->how != PHYSICAL && b->kind != FAKE_BORROWED)
		munmap((void *)b->addr, b->size);
	b->addr = 0;
}

int fake_give(uint64_t addr, enum fake_kind kind, enum fake_kind other)
{
	struct block *b;
	int err = fake_problem();

	if (err || !addr)
		return err;
	pthread_mutex_lock(&fake_lock);
	b = fake_find(addr);
	if (b && b->how != PHYSICAL && (b->kind == kind || b->kind == other))
		fake_drop(b);
	else
		err = INVALID;
	pthread_mutex_unlock(&fake_lock);
	return err;
}

/* ---- devices and contexts ------------------------------------------------------------------------ */

int cuInit(unsigned int flags)
{
	(void)flags;
	if (init_pid && init_pid != getpid())
		return fake_problem();
	init_pid = getpid();
	return SUCCESS;
}

int cuDriverGetVersion(int *version)
{
	*version = 13000;
	return SUCCESS;
}

int cuDeviceGetCount(int *n)
{
	*n = FAKE_DEVICES;
	return fake_problem();
}

int cuDeviceGet(int *device, int ordinal)
{
	*device = ordinal;
	return ordinal >= 0 && ordinal < FAKE_DEVICES ? fake_problem() : INVALID;
}

int cuDeviceGetName(char *name, int length, int device)
{
	snprintf(name, (size_t)length, "Fake device %d", device);
	return fake_problem();
}

int cuDeviceGetUuid_v2(char *uuid, int device)
{
	memset(uuid, 0x10 + device, 16);
	return fake_problem();
}

int cuDeviceTotalMem_v2(size_t *bytes, int device)
{
	(void)device;
	*bytes = total();
	return fake_problem();
}

int cuDevicePrimaryCtxRetain(void **context, int device)
{
	contexts[device].alive++;
	*context = &contexts[device];
	return fake_problem();
}

static void end_context(const struct context *c)
{
	pthread_mutex_lock(&fake_lock);
	for (size_t i = 0; i < fake_block_end; i++)
		if (fake_blocks[i].addr && fake_blocks[i].context == c &&
		    fake_blocks[i].how != PHYSICAL && fake_blocks[i].kind != FAKE_PINNED &&
		    /* a pool belongs to its device, whoever takes from it */
		    (fake_blocks[i].how != ASYNC || fake_blocks[i].device == c->device))
			fake_drop(&fake_blocks[i]);
	pthread_mutex_unlock(&fake_lock);
}

int cuDevicePrimaryCtxRelease_v2(int device)
{
	if (contexts[device].alive && --contexts[device].alive == 0)
		end_context(&contexts[device]);
	return fake_problem();
}

int cuDevicePrimaryCtxReset_v2(int device)
{
	contexts[device].alive = 0;
	end_context(&contexts[device]);
	return fake_problem();
}

/* The forms of before CUDA 11, which is what CUDA's own runtime asks for to this day. */
int cuDevicePrimaryCtxRelease(int device)
{
	return cuDevicePrimaryCtxRelease_v2(device);
}

int cuDevicePrimaryCtxReset(int device)
{
	return cuDevicePrimaryCtxReset_v2(device);
}

int cuDevicePrimaryCtxGetState(int device, unsigned int *flags, int *active)
{
	*flags = 0;
	*active = contexts[device].alive != 0;
	return fake_problem();
}

int cuCtxSetCurrent(void *context)
{
	current = context;
	return fake_problem();
}

int cuCtxGetCurrent(void **context)
{
	*context = fake_here();
	return fake_problem();
}

int cuCtxGetDevice(int *device)
{
	*device = fake_here()->device;
	return fake_problem();
}

int cuCtxCreate_v2(void **context, unsigned int flags, int device)
{
	struct context *c = &contexts[context_count++ % 8];

	(void)flags;
	c->device = device;
	c->alive = 1;
	*context = current = c;
	return fake_problem();
}

int cuCtxDestroy_v2(void *context)
{
	end_context(context);
	if (current == context)
		current = NULL;
	return fake_problem();
}

int cuCtxDestroy(void *context)
{
	return cuCtxDestroy_v2(context);
}

int cuMemGetInfo_v2(size_t *free_bytes, size_t *all)
{
	*all = total();
	*free_bytes = total() - held(fake_here()->device);
	return fake_problem();
}

int cuMemGetAddressRange_v2(CUptr *base, size_t *size, CUptr addr)
{
	struct block *b = fake_find(addr);

	if (!b || fake_problem())
		return INVALID;
	*base = b->addr;
	*size = b->size;
	return SUCCESS;
}

/* ---- plain memory -------------------------------------------------------------------------------- */

int cuMemAlloc_v2(CUptr *out, size_t size)
{
	return fake_take(out, size, FAKE_DEVICE, PLAIN, fake_here()->device);
}

int cuMemAlloc(unsigned int *out, unsigned int size)
{
	(void)size;
	*out = 0x1234;
	return SUCCESS;
}

int cuMemAllocPitch_v2(CUptr *out, size_t *pitch, size_t width, size_t height, unsigned int element)
{
	(void)element;
	*pitch = (width + 511) & ~(size_t)511;
	return fake_take(out, *pitch * height, FAKE_DEVICE, PLAIN, fake_here()->device);
}

int cuMemFree_v2(CUptr addr)
{
	struct block *b = fake_find(addr);

	if (b && b->kind == FAKE_BORROWED)
		return INVALID;
	return fake_give(addr, FAKE_DEVICE, FAKE_MANAGED);
}

int cuMemAllocManaged(CUptr *out, size_t size, unsigned int flags)
{
	(void)flags;
	return fake_take(out, size, FAKE_MANAGED, PLAIN, fake_here()->device);
}

int cuMemHostAlloc(void **out, size_t size, unsigned int flags)
{
	(void)flags;
	return fake_take((uint64_t *)out, size, FAKE_PINNED, PLAIN, 0);
}

int cuMemAllocHost_v2(void **out, size_t size)
{
	return cuMemHostAlloc(out, size, 0); /* through the exported one: a call of its own */
}

int cuMemFreeHost(void *addr)
{
	return fake_give((uintptr_t)addr, FAKE_PINNED, FAKE_PINNED);
}

static struct {
	void *addr;
	size_t size;
} registered[64];

int cuMemHostRegister_v2(void *addr, size_t size, unsigned int flags)
{
	(void)flags;
	for (int i = 0; i < 64 && !fake_problem(); i++)
		if (!registered[i].addr) {
			registered[i].addr = addr;
			registered[i].size = size;
			fake_ledger->registered += size;
			return SUCCESS;
		}
	return INVALID;
}

int cuMemHostRegister(void *addr, size_t size, unsigned int flags)
{
	return cuMemHostRegister_v2(addr, size, flags);
}

int cuMemHostUnregister(void *addr)
{
	for (int i = 0; i < 64 && !fake_problem(); i++)
		if (registered[i].addr == addr) {
			registered[i].addr = NULL;
			fake_ledger->registered -= registered[i].size;
			return SUCCESS;
		}
	return INVALID;
}

static size_t format_bytes(int format)
{
	return format == 0x20 || format == 0x03 || format == 0x0a   ? 4
	       : format == 0x10 || format == 0x02 || format == 0x09 ? 2
								    : 1;
}

int cuArrayCreate_v2(void **out, const struct array2 *a)
{
	return fake_take((uint64_t *)out,
			 a->width * (a->height ? a->height : 1) * a->channels *
				 format_bytes(a->format),
			 FAKE_DEVICE, ARRAY, fake_here()->device);
}

int cuArray3DCreate_v2(void **out, const struct array3 *a)
{
	return fake_take((uint64_t *)out,
			 a->width * (a->height ? a->height : 1) * (a->depth ? a->depth : 1) *
				 a->channels * format_bytes(a->format),
			 FAKE_DEVICE, ARRAY, fake_here()->device);
}

int cuArrayDestroy(void *array)
{
	return fake_give((uintptr_t)array, FAKE_DEVICE, FAKE_DEVICE);
}

int cuMipmappedArrayCreate(void **out, const struct array3 *a, unsigned int levels)
{
	size_t bytes = 0, w = a->width, h = a->height, d = a->depth;

	for (unsigned int i = 0; i < levels; i++, w /= 2, h /= 2, d /= 2)
		bytes += (w ? w : 1) * (h ? h : 1) * (d ? d : 1) * a->channels *
			 format_bytes(a->format);
	return fake_take((uint64_t *)out, bytes, FAKE_DEVICE, ARRAY, fake_here()->device);
}

int cuMipmappedArrayDestroy(void *array)
{
	return fake_give((uintptr_t)array, FAKE_DEVICE, FAKE_DEVICE);
}
