/*
 * See allocs.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "samplers/allocs.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "core/arenas.h"
#include "core/clock.h"
#include "core/mem.h"
#include "memtrace/varint.h"
#include "out/stream.h"
#include "sys/sys.h"

#define PAGE ((uint64_t)4096)
#define PAGE_UP(x) (((x) + PAGE - 1) & ~(PAGE - 1))

/* ---- reading ------------------------------------------------------------------------------------- */

/*
 * By /proc/self/mem. process_vm_readv would pin the pages for the moment, and for that the kernel
 * gives the process a copy of its own of each anonymous page that it shares with its parent or
 * children (since Linux 5.19): looking would cost the memory that is looked for.
 */
void mt_allocs_open(struct mt_allocs *a)
{
	a->memory = mt_sys_open("/proc/self/mem", O_RDONLY | O_CLOEXEC, 0);
}

void mt_allocs_close(struct mt_allocs *a)
{
	if (a->memory >= 0)
		mt_sys_close(a->memory);
	a->memory = -1;
}

/* 0, or -1: not all of it is there. */
static int peek(const struct mt_allocs *a, uint64_t address, void *to, size_t size)
{
	return a->memory >= 0 && mt_sys_pread(a->memory, to, size, address) == (ssize_t)size ? 0
											     : -1;
}

/* Was this page ever touched? Reading one that was not would map a page of zeros there. */
static int is_touched(uint64_t address)
{
	unsigned char there = 0;

	return mt_sys3(SYS_mincore, address & ~(PAGE - 1), PAGE, &there) == 0 && there & 1;
}

static int peek_touched(const struct mt_allocs *a, uint64_t address, void *to, size_t size)
{
	return is_touched(address) ? peek(a, address, to, size) : -1;
}

/* ---- glibc's arenas ------------------------------------------------------------------------------ */

#define HEAP_BYTES (UINT64_C(64) << 20) /* further heaps begin at multiples of it */

struct heap_info {
	uint64_t arena, previous, size, usable;
};

/* In struct malloc_state: with and without the word that came with glibc 2.27. */
static const uint32_t top_offsets[] = { 96, 88 };

/* The topmost chunk, if it lies in this heap: it reaches to the heap's end. */
static uint64_t top_of(const struct mt_allocs *a, const struct heap_info *h, uint64_t heap)
{
	for (size_t i = 0; i < sizeof(top_offsets) / sizeof(top_offsets[0]); i++) {
		uint64_t top, size;

		if (peek_touched(a, h->arena + top_offsets[i], &top, sizeof(top)) < 0 || top & 15 ||
		    top <= heap || top >= heap + h->size ||
		    peek_touched(a, top + 8, &size, sizeof(size)) < 0)
			continue;
		if ((size & ~UINT64_C(7)) == heap + h->size - top)
			return top;
	}
	return 0;
}

static int look_for_arena(struct mt_thread *t, const struct mt_allocs *a, uint64_t heap,
			  uint64_t end)
{
	struct heap_info h;
	uint64_t first;

	if (peek_touched(a, heap, &h, sizeof(h)) < 0)
		return 0;
	first = h.arena & ~(HEAP_BYTES - 1);
	if (!h.size || h.size % PAGE || h.size > HEAP_BYTES || heap + h.size > end ||
	    h.usable < h.size || h.usable > HEAP_BYTES || h.arena - first < 32 ||
	    h.arena - first > 64 || h.arena & 15)
		return 0;
	if (h.previous ? h.previous % HEAP_BYTES || first == heap : first != heap)
		return 0;
	MT_EMIT(t, arena, .time = mt_clock_now(), .scan = a->scan, .start = heap,
		.end = heap + h.size, .arena = h.arena, .top = top_of(a, &h, heap));
	return 1;
}

/* ---- stacks -------------------------------------------------------------------------------------- */

#define GUARD_MOST (UINT64_C(1) << 20)

static uint64_t usual_stack(void)
{
	struct rlimit limit = { 0, 0 };

	mt_sys2(SYS_getrlimit, RLIMIT_STACK, &limit);
	return limit.rlim_cur && limit.rlim_cur < UINT64_C(1) << 30 ? limit.rlim_cur
								    : UINT64_C(8) << 20;
}

static void stack(struct mt_thread *t, const struct mt_allocs *a, uint32_t tid, uint64_t start,
		  uint64_t end)
{
	MT_EMIT(t, stack, .time = mt_clock_now(), .scan = a->scan, .tid = tid, .start = start,
		.end = end);
}

/*
 * A thread's descriptor lies at the upper end of its stack. The stack of a thread that ended, which
 * glibc keeps for the next one, is known by the guard below it: all that the program maps itself is
 * recorded, so nobody else makes such a pair unseen.
 */
static void look_for_stack(struct mt_thread *t, struct mt_allocs *a, uint64_t start, uint64_t end)
{
	int guarded = a->guard_end == start && start - a->guard_start <= GUARD_MOST;
	uint32_t found = 0;

	for (struct mt_thread *i = __atomic_load_n(&mt_thread_all, __ATOMIC_ACQUIRE); i;
	     i = i->next_all) {
		uint64_t high = i->stack_high;

		if (high <= start || high >= end)
			continue;
		stack(t, a, i->tid, start, PAGE_UP(high) + PAGE < end ? PAGE_UP(high) + PAGE : end);
		found++;
	}
	if (found || !guarded)
		return;
	if (!a->stack_bytes)
		a->stack_bytes = usual_stack();
	if (a->guard_start + a->stack_bytes < end)
		end = a->guard_start + a->stack_bytes;
	stack(t, a, 0, start, end);
}

void mt_allocs_mapping(struct mt_thread *t, struct mt_allocs *a, uint64_t start, uint64_t end,
		       uint32_t prot)
{
	uint64_t heap = (start + HEAP_BYTES - 1) & ~(HEAP_BYTES - 1);
	int arenas = 0;

	if (prot == PROT_NONE) {
		a->guard_start = start;
		a->guard_end = end;
		return;
	}
	if (!(prot & PROT_WRITE))
		return;
	for (; heap < end; heap += HEAP_BYTES)
		arenas += look_for_arena(t, a, heap, end);
	if (!arenas)
		look_for_stack(t, a, start, end);
}

/* ---- CPython's pools ----------------------------------------------------------------------------- */

#define POOLS_MOST 64 /* of an arena, of either kind */

struct pool_header {
	uint32_t used, unused;
	uint64_t free_block, next, previous;
	uint32_t arena, size_class, next_offset, last_offset;
};

enum { UNTOUCHED = 0, FREE = 1, UNREADABLE = 2 }; /* as POOLS says it */

static uint8_t *put_pool(uint8_t *p, const struct pool_header *h, uint64_t pool_bytes)
{
	uint64_t block = (uint64_t)(h->size_class + 1) * 16;

	if (!h->used)
		return mt_put_varint(p, FREE);
	if (h->size_class > 63 || h->used * block > pool_bytes)
		return mt_put_varint(p, UNREADABLE);
	return mt_put_varint(mt_put_varint(p, UNREADABLE + block / 16), h->used);
}

static void look_at_arena(struct mt_thread *t, const struct mt_allocs *a, uint64_t start,
			  uint64_t size)
{
	uint64_t pool_bytes = size == MT_ARENA_LARGE ? 16384 : 4096;
	uint64_t first = (start + pool_bytes - 1) & ~(pool_bytes - 1);
	uint64_t count = (start + size - first) / pool_bytes;
	unsigned char touched[MT_ARENA_LARGE / PAGE];
	uint8_t codes[POOLS_MOST * 4], *p = codes;

	if (mt_sys3(SYS_mincore, start, size, touched) != 0)
		return; /* it is gone */
	for (uint64_t i = 0; i < count; i++) {
		uint64_t at = first + i * pool_bytes;
		struct pool_header head;

		if (!(touched[(at - start) / PAGE] & 1))
			p = mt_put_varint(p, UNTOUCHED);
		else if (peek(a, at, &head, sizeof(head)) < 0)
			p = mt_put_varint(p, UNREADABLE);
		else
			p = put_pool(p, &head, pool_bytes);
	}
	while (p > codes && p[-1] == UNTOUCHED)
		p--;
	MT_EMIT(t, pools, .time = mt_clock_now(), .scan = a->scan, .start = start, .size = size,
		.pool_bytes = pool_bytes, .pools = { (const char *)codes, (uint32_t)(p - codes) });
}

void mt_allocs_pools(struct mt_thread *t, const struct mt_allocs *a)
{
	size_t count = mt_arenas_count(), size;

	for (size_t i = 0; i < count; i++) {
		uintptr_t start = mt_arenas_get(i, &size);

		if (start)
			look_at_arena(t, a, start, size);
	}
}

/* ---- ourselves ----------------------------------------------------------------------------------- */

void mt_allocs_tool(struct mt_thread *t, uint64_t scan)
{
	size_t count = mt_mem_listed();

	for (size_t i = 0; i < count; i++) {
		uintptr_t end, start = mt_mem_get(i, &end);

		if (start)
			MT_EMIT(t, tool, .time = mt_clock_now(), .scan = scan, .start = start,
				.end = end);
	}
}
