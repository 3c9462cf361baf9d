/*
 * Questions to the driver and to NVML, so that the report can say which device, whose pool and how
 * much is in use. They are asked only from inside a call that the program itself makes to the
 * driver, after that call succeeded: so the driver is initialised, and no lock of ours or of an
 * allocator's is held. NVML is asked only if the program has loaded and initialised it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <string.h>

#include "core/config.h"
#include "core/gpu.h"
#include "core/guard.h"
#include "hooks/cuda.h"
#include "sys/sys.h"

#define POOLS 16
#define NVML_CLIENTS 64
#define RESERVED_MEM_CURRENT 5 /* CU_MEMPOOL_ATTR_... */
#define USED_MEM_CURRENT 7

static struct {
	int (*device)(int *device); /* cuCtxGetDevice */
	int (*current)(void **context); /* cuCtxGetCurrent */
	int (*uuid)(char *uuid, int device);
	int (*name)(char *name, int length, int device);
	int (*total)(size_t *bytes, int device);
	int (*state)(int device, unsigned int *flags, int *active); /* primary context's */
	int (*pool_attribute)(void *pool, int attribute, uint64_t *value);
	int (*device_pool)(void **pool, int device); /* cuDeviceGetMemPool */
	int (*range)(uint64_t *base, size_t *size, uint64_t addr);
	int (*capturing)(uint64_t stream, int *status); /* cuStreamIsCapturing */
} ask;

static const struct {
	const char *names[2];
	size_t offset;
} questions[] = {
	{ { "cuCtxGetDevice" }, offsetof(__typeof__(ask), device) },
	{ { "cuCtxGetCurrent" }, offsetof(__typeof__(ask), current) },
	{ { "cuDeviceGetUuid_v2", "cuDeviceGetUuid" }, offsetof(__typeof__(ask), uuid) },
	{ { "cuDeviceGetName" }, offsetof(__typeof__(ask), name) },
	{ { "cuDeviceTotalMem_v2" }, offsetof(__typeof__(ask), total) },
	{ { "cuDevicePrimaryCtxGetState" }, offsetof(__typeof__(ask), state) },
	{ { "cuMemPoolGetAttribute" }, offsetof(__typeof__(ask), pool_attribute) },
	{ { "cuDeviceGetMemPool" }, offsetof(__typeof__(ask), device_pool) },
	{ { "cuMemGetAddressRange_v2" }, offsetof(__typeof__(ask), range) },
	{ { "cuStreamIsCapturing" }, offsetof(__typeof__(ask), capturing) },
};

static void *driver_handle; /* atomic; libcuda's */
static uint32_t introduced; /* atomic; bit: a GPU_DEVICE record stands in the trace */
static char uuids[MT_GPU_DEVICES][16];
static uint64_t nvml_due[MT_GPU_DEVICES]; /* atomic; units */

/* struct dl_find_object, which older headers do not declare. It is found without a lock; where the
 * function is missing, the range stays unknown. */
struct object {
	unsigned long long flags;
	void *start, *end;
	unsigned long long reserved[10];
};

extern int object_of_address(void *address, struct object *o) __asm__("_dl_find_object")
	__attribute__((weak));

static void forget(void);

void mt_cuda_device_init(void *handle, const void *in_driver)
{
	struct object range;

	for (size_t i = 0; i < sizeof(questions) / sizeof(questions[0]); i++) {
		void *p = dlsym(handle, questions[i].names[0]);

		if (!p && questions[i].names[1])
			p = dlsym(handle, questions[i].names[1]);
		*(void **)((char *)&ask + questions[i].offset) = p;
	}
	if (object_of_address && object_of_address((void *)(uintptr_t)in_driver, &range) == 0) {
		__atomic_store_n(&mt_gpu_driver_low, (uintptr_t)range.start, __ATOMIC_RELAXED);
		__atomic_store_n(&mt_gpu_driver_high, (uintptr_t)range.end, __ATOMIC_RELAXED);
	}
	mt_gpu_on_forget = forget;
	__atomic_store_n(&driver_handle, handle, __ATOMIC_RELEASE);
}

int mt_cuda_device_is_ready(void)
{
	return __atomic_load_n(&driver_handle, __ATOMIC_ACQUIRE) != NULL;
}

void *mt_cuda_exported(const char *symbol)
{
	void *handle = __atomic_load_n(&driver_handle, __ATOMIC_ACQUIRE);
	void *p = handle ? mt_dlsym_real(handle, symbol) : NULL;

	return p;
}

/* The first time: who the device is. */
static void introduce(unsigned int device)
{
	uint32_t bit = 1u << device;
	char name[128] = "";
	size_t total = 0;
	struct mt_thread *t;
	int has_uuid;

	if (__atomic_fetch_or(&introduced, bit, __ATOMIC_RELAXED) & bit)
		return;
	has_uuid = ask.uuid && ask.uuid(uuids[device], (int)device) == 0;
	if (!ask.name || ask.name(name, sizeof(name) - 1, (int)device) != 0)
		name[0] = '\0';
	if (!ask.total || ask.total(&total, (int)device) != 0)
		total = 0;
	__atomic_store_n(&mt_gpu_memory[device].total, total, __ATOMIC_RELAXED);
	t = mt_enter();
	if (!t)
		return;
	mt_record_gpu_device(t, device, has_uuid ? uuids[device] : NULL, name, total);
	mt_leave(t);
}

struct cu_where mt_cuda_where(struct mt_thread *t)
{
	struct cu_where where = { 0, 0 };
	void *context = NULL;
	int device = -1;

	if (mt_gpu_muted || !mt_cuda_device_is_ready() || !t)
		return where;
	if (ask.current && ask.current(&context) == 0)
		where.context = (uintptr_t)context;
	if (ask.device && ask.device(&device) == 0 && device >= 0) {
		where.device = (uint64_t)device + 1;
		if (device < MT_GPU_DEVICES)
			introduce((unsigned int)device);
	}
	return where;
}

uint64_t mt_cuda_size_of(uint64_t addr)
{
	uint64_t base;
	size_t size = 0;

	if (mt_gpu_muted || !ask.range || ask.range(&base, &size, addr) != 0)
		return 0;
	return size;
}

/* Not asked of the default streams: that would be an error while another one captures. */
int mt_cuda_is_captured(uint64_t stream)
{
	int status = 0;

	return stream > 2 && !mt_gpu_muted && ask.capturing &&
	       ask.capturing(stream, &status) == 0 && status == 1;
}

int mt_cuda_device_is_alive(int device)
{
	unsigned int flags;
	int active = 1;

	if (!mt_gpu_muted && ask.state && ask.state(device, &flags, &active) != 0)
		active = 1;
	return active;
}

/* ---- pools -------------------------------------------------------------------------------------- */

static struct {
	uint64_t pool, device; /* pool 0 and device 0: free */
	uint64_t next; /* units: when it is measured again */
} pools[POOLS]; /* filled under no lock: two threads may both take a place, which costs a record */

static uint64_t *pool_due(uint64_t pool, uint64_t device)
{
	for (size_t i = 0; i < POOLS; i++) {
		if (!pools[i].pool && !pools[i].device) {
			pools[i].pool = pool;
			pools[i].device = device;
		}
		if (pools[i].pool == pool && (pool || pools[i].device == device))
			return &pools[i].next;
	}
	return NULL;
}

static uint64_t interval_units(uint64_t divisor)
{
	return (uint64_t)mt_config.interval / divisor >> MT_TIME_SHIFT;
}

static void measure_pool(struct mt_thread *t, uint64_t device, void *pool, int at_once)
{
	struct mt_ev_gpu_pool e = { .op = MT_GPU_POOL_LEVEL, .device = device };
	uint64_t now = mt_clock_now(), reserved, used, *due;
	void *which = pool;

	due = pool_due((uintptr_t)pool, device);
	if (!due || !ask.pool_attribute || (!at_once && now < *due))
		return;
	*due = now + interval_units(10);
	if (!which &&
	    (!device || !ask.device_pool || ask.device_pool(&which, (int)device - 1) != 0))
		return;
	e.pool = (uintptr_t)pool;
	if (ask.pool_attribute(which, RESERVED_MEM_CURRENT, &reserved) == 0)
		e.reserved = reserved + 1;
	if (ask.pool_attribute(which, USED_MEM_CURRENT, &used) == 0)
		e.used = used + 1;
	t = mt_enter();
	if (!t)
		return;
	mt_record_gpu_pool(t, &e);
	mt_leave(t);
}

/* ---- NVML --------------------------------------------------------------------------------------- */

struct nvml_process {
	unsigned int pid;
	unsigned long long bytes;
	unsigned int instance, compute_instance;
};

static struct {
	int (*by_uuid)(const char *uuid, void **device);
	int (*processes)(void *device, unsigned int *count, struct nvml_process *list);
	int (*memory)(void *device, unsigned long long *total_free_used);
} nvml;

static int nvml_is_there(void)
{
	static int looked_for;
	void *handle = nvml.by_uuid ? NULL : dlopen("libnvidia-ml.so.1", RTLD_LAZY | RTLD_NOLOAD);

	if (handle && !looked_for) {
		looked_for = 1;
		*(void **)&nvml.processes = dlsym(handle,
						  "nvmlDeviceGetComputeRunningProcesses_v3");
		*(void **)&nvml.memory = dlsym(handle, "nvmlDeviceGetMemoryInfo");
		*(void **)&nvml.by_uuid = dlsym(handle, "nvmlDeviceGetHandleByUUID");
	}
	return nvml.by_uuid && nvml.processes && nvml.memory;
}

/* "GPU-8-4-4-4-12" hexadecimal digits */
static void uuid_text(char *out, const char *uuid)
{
	memcpy(out, "GPU-", 4);
	out += 4;
	for (int i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*out++ = '-';
		*out++ = "0123456789abcdef"[(unsigned char)uuid[i] >> 4];
		*out++ = "0123456789abcdef"[uuid[i] & 15];
	}
	*out = '\0';
}

/* Is it one of this process's numbers, in its own or an outer pid namespace? */
static int is_own_pid(unsigned int pid)
{
	static char status[4096];
	const char *p;

	if (mt_sys_slurp("/proc/self/status", status, sizeof(status)) <= 0)
		return 0;
	p = strstr(status, "\nNSpid:");
	for (p = p ? p + 7 : ""; *p && *p != '\n';) {
		unsigned int n = 0;

		while (*p == '\t' || *p == ' ')
			p++;
		while (*p >= '0' && *p <= '9')
			n = n * 10 + (unsigned int)(*p++ - '0');
		if (n == pid)
			return 1;
	}
	return 0;
}

static void measure_nvml(uint64_t device)
{
	static struct nvml_process list[NVML_CLIENTS]; /* one thread at a time: see the caller */
	unsigned int count = NVML_CLIENTS;
	struct mt_ev_gpu_used e = { .device = device };
	unsigned long long memory[3];
	struct mt_thread *t;
	char text[48];
	void *of;

	uuid_text(text, uuids[device - 1]);
	if (nvml.by_uuid(text, &of) != 0)
		return; /* not initialised by the program, or a slice of a device */
	if (nvml.memory(of, memory) == 0) {
		e.all = memory[2] + 1;
		__atomic_store_n(&mt_gpu_memory[device - 1].used, memory[2], __ATOMIC_RELAXED);
	}
	if (nvml.processes(of, &count, list) == 0)
		for (unsigned int i = 0; i < count; i++)
			if (is_own_pid(list[i].pid) || count == 1)
				e.own = list[i].bytes + 1;
	t = mt_enter();
	if (!t)
		return;
	mt_record_gpu_used(t, &e);
	mt_leave(t);
}

/* at_once: -1: no pool is meant; 0: when its time has come; 1: now. */
void mt_cuda_measure(struct mt_thread *t, uint64_t device, void *pool, int at_once)
{
	static uint32_t busy;
	uint64_t now = mt_clock_now();

	if (mt_gpu_muted || !t)
		return;
	if (at_once >= 0)
		measure_pool(t, device, pool, at_once);
	if (!device || device > MT_GPU_DEVICES ||
	    now < __atomic_load_n(&nvml_due[device - 1], __ATOMIC_RELAXED) ||
	    __atomic_exchange_n(&busy, 1, __ATOMIC_ACQUIRE))
		return;
	__atomic_store_n(&nvml_due[device - 1], now + interval_units(1), __ATOMIC_RELAXED);
	if (nvml_is_there() && introduced >> (device - 1) & 1)
		measure_nvml(device);
	__atomic_store_n(&busy, 0, __ATOMIC_RELEASE);
}

/* The next trace knows no device yet, and may count time by another clock. */
static void forget(void)
{
	if (!introduced)
		return;
	introduced = 0;
	memset(pools, 0, sizeof(pools));
	memset(nvml_due, 0, sizeof(nvml_due));
}
