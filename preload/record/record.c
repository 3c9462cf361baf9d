/*
 * The recorder's hot path: allocations, frees, mappings. See record.h. Costs are dominated by the
 * stack capture; the rest is a time stamp, some ten bytes of varints and one release store.
 *
 * The guard is SELF while a record is made: a signal handler that maps memory just then must not
 * write into the middle of it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "record/record.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#include "core/guard.h"
#include "core/tick.h"
#include "out/stream.h"
#include "record/nursery.h"
#include "sys/sys.h"

#define TMPFS_MAGIC 0x01021994
#define HUGETLBFS_MAGIC 0x958458f6

uint32_t mt_record_paused;

struct stacks {
	uint32_t native, python;
};

static inline struct stacks capture(struct mt_thread *t, struct mt_caller caller)
{
	struct stacks s;

	s.native = mt_stack_native(t, caller);
	s.python = mt_stack_python(t);
	return s;
}

/* A block is young first, where allocations are folded; else it is listed at once. */
static inline void new_block(struct mt_thread *t, unsigned int kind, const void *block, size_t size,
			     uint64_t now, struct stacks s)
{
	struct mt_block b = { .addr = (uintptr_t)block,
			      .time = now,
			      .size = size,
			      .native = s.native,
			      .python = s.python,
			      .kind = kind };

	/* A sampled block is listed at once: only ALLOC and REALLOC are weighed by the reader. */
	if (!mt_nursery_on || mt_unlikely(mt_sample_mean) || !mt_nursery_add(t, &b))
		MT_EMIT(t, alloc, .time = now, .addr = b.addr, .size = size, .native = s.native,
			.python = s.python, .kind = kind);
}

/* before: when, or 0: now. */
static inline void gone_block(struct mt_thread *t, unsigned int kind, const void *block,
			      uint64_t before)
{
	uint64_t time = before;

	if (mt_nursery_on && mt_nursery_free(t, kind, (uintptr_t)block, &time))
		return;
	if (!before && (before = mt_clock_now()) > time)
		time = before;
	MT_EMIT(t, free, .time = time, .addr = (uintptr_t)block, .kind = kind);
}

void mt_record_alloc(struct mt_thread *t, unsigned int kind, const void *block, size_t size,
		     struct mt_caller caller)
{
	uint64_t now = mt_clock_now();

	if (mt_unlikely(mt_record_paused))
		return;
	if (mt_unlikely(mt_sample_mean) && !mt_sample_take(t, block, size))
		return;
	MT_SELF_BEGIN();
	new_block(t, kind, block, size, now, capture(t, caller));
	t->last_block = block;
	mt_tick(t, now);
	MT_SELF_END();
}

void mt_record_free(struct mt_thread *t, unsigned int kind, const void *block)
{
	if (mt_unlikely(mt_sample_mean) && !mt_sample_forget(block))
		return;
	MT_SELF_BEGIN();
	t->last_block = NULL;
	gone_block(t, kind, block, 0);
	MT_SELF_END();
}

void mt_record_free_at(struct mt_thread *t, unsigned int kind, const void *block, uint64_t before)
{
	if (mt_unlikely(mt_sample_mean) && !mt_sample_resized(t))
		return;
	MT_SELF_BEGIN();
	gone_block(t, kind, block, before);
	MT_SELF_END();
}

/* Of which of the two blocks there is a record: of both: true, and it is one record; else the free
 * or the allocation is recorded here. */
static MT_COLD int sampled_realloc(struct mt_thread *t, unsigned int kind, const void *old,
				   const void *block, size_t size, uint64_t before,
				   struct mt_caller caller)
{
	int known = mt_sample_resized(t);
	int taken = !mt_record_paused && mt_sample_take(t, block, size);

	if (known && taken)
		return 1;
	MT_SELF_BEGIN();
	if (known) {
		gone_block(t, kind, old, before);
	} else if (taken) {
		struct stacks s = capture(t, caller);

		MT_EMIT(t, alloc, .time = mt_clock_now(), .addr = (uintptr_t)block, .size = size,
			.native = s.native, .python = s.python, .kind = kind);
	}
	MT_SELF_END();
	return 0;
}

void mt_record_realloc(struct mt_thread *t, unsigned int kind, const void *old, const void *block,
		       size_t size, uint64_t before, struct mt_caller caller)
{
	uint64_t after = mt_clock_now();

	if (mt_unlikely(mt_sample_mean) &&
	    !sampled_realloc(t, kind, old, block, size, before, caller))
		return;
	if (mt_unlikely(mt_record_paused)) {
		mt_record_free_at(t, kind, old, before);
		return;
	}
	MT_SELF_BEGIN();
	{
		struct stacks s = capture(t, caller);

		/* A young block's past is of no interest; an old one's new place is: one record. */
		if (mt_nursery_on && mt_nursery_free(t, kind, (uintptr_t)old, &before))
			new_block(t, kind, block, size, after, s);
		else
			MT_EMIT(t, realloc, .time = before, .old_addr = (uintptr_t)old,
				.took = after > before ? after - before : 0,
				.addr = (uintptr_t)block, .size = size, .native = s.native,
				.python = s.python, .kind = kind);
	}
	mt_tick(t, after);
	MT_SELF_END();
}

/* ---- mappings: rare, so no care is taken to be short ------------------------------------------- */

int mt_record_is_memory_file(int fd)
{
	struct statfs fs;

	return fd >= 0 && mt_sys2(SYS_fstatfs, fd, &fs) == 0 &&
	       ((uint32_t)fs.f_type == TMPFS_MAGIC || (uint32_t)fs.f_type == HUGETLBFS_MAGIC);
}

/*
 * Descriptors of shared memory are asked for by the sampler; so that what is kept for less than its
 * interval is seen too, it is asked early when as many mappings came as there were before, in part,
 * and before the first of them goes.
 */
static uint32_t shm_maps; /* so far */
static uint32_t shm_asked, shm_unmap_asked; /* how many there were when it was last asked early */
static uint64_t shm_asked_at;

#define SHM_PAUSE_UNITS (UINT64_C(1) << 22) /* some 90 ms, between questions before unmapping */

static void shm_mapped(void)
{
	uint32_t n = __atomic_add_fetch(&shm_maps, 1, __ATOMIC_RELAXED);
	uint32_t asked = __atomic_load_n(&shm_asked, __ATOMIC_RELAXED);

	if (n - asked < 4 + asked / 8)
		return;
	__atomic_store_n(&shm_asked, n, __ATOMIC_RELAXED);
	mt_tick_hurry();
}

void mt_record_unmapping(struct mt_thread *t, size_t size)
{
	uint32_t n = __atomic_load_n(&shm_maps, __ATOMIC_RELAXED);
	uint64_t now;

	if (mt_likely(n - __atomic_load_n(&shm_unmap_asked, __ATOMIC_RELAXED) < 2) || size < 4096)
		return;
	now = mt_clock_now();
	if (now - __atomic_load_n(&shm_asked_at, __ATOMIC_RELAXED) < SHM_PAUSE_UNITS)
		return;
	MT_SELF_BEGIN();
	__atomic_store_n(&shm_unmap_asked, n, __ATOMIC_RELAXED);
	__atomic_store_n(&shm_asked_at, now, __ATOMIC_RELAXED);
	mt_tick_hurry();
	mt_tick(t, now);
	MT_SELF_END();
}

void mt_record_map(struct mt_thread *t, const struct mt_mapping *map, struct mt_caller caller)
{
	uint64_t now = mt_clock_now();
	int fd = map->flags & MAP_ANONYMOUS ? -1 : map->fd;
	unsigned int kind = MT_KIND_MMAP;
	struct stat st = { 0 };
	struct stacks s;

	if (mt_record_paused)
		return;
	MT_SELF_BEGIN();
	if (fd >= 0)
		mt_sys_fstat(fd, &st);
	if ((map->flags & MAP_SHARED) && (fd < 0 || mt_record_is_memory_file(fd)))
		kind = MT_KIND_SHM;
	if (map->backing)
		kind |= MT_KIND_BACKING;
	s = capture(t, caller);
	MT_EMIT(t, map, .time = now, .addr = (uintptr_t)map->addr, .size = map->size, .kind = kind,
		.prot = (uint64_t)map->prot, .flags = (uint64_t)(uint32_t)map->flags,
		.dev = st.st_dev, .inode = st.st_ino, .offset = (uint64_t)map->offset,
		.native = s.native, .python = s.python);
	if (kind == MT_KIND_SHM && fd >= 0)
		shm_mapped();
	mt_tick(t, now);
	MT_SELF_END();
}

void mt_record_unmap(struct mt_thread *t, const void *addr, size_t size, uint64_t before)
{
	MT_SELF_BEGIN();
	MT_EMIT(t, unmap, .time = before, .addr = (uintptr_t)addr, .size = size);
	MT_SELF_END();
}

void mt_record_remap(struct mt_thread *t, const void *old, size_t old_size, const void *addr,
		     size_t size, int flags, uint64_t before, struct mt_caller caller)
{
	uint64_t after = mt_clock_now();
	struct stacks s;

	MT_SELF_BEGIN();
	s = capture(t, caller);
	MT_EMIT(t, remap, .time = before, .old_addr = (uintptr_t)old, .old_size = old_size,
		.took = after > before ? after - before : 0, .addr = (uintptr_t)addr, .size = size,
		.flags = (uint64_t)flags, .native = s.native, .python = s.python);
	MT_SELF_END();
}

void mt_record_break(struct mt_thread *t, const void *old, const void *addr, int backing,
		     struct mt_caller caller)
{
	uint64_t now = mt_clock_now();
	struct stacks s;

	MT_SELF_BEGIN();
	s = capture(t, caller);
	MT_EMIT(t, brk, .time = now, .old_addr = (uintptr_t)old, .addr = (uintptr_t)addr,
		.kind = MT_KIND_MMAP | (backing ? (unsigned int)MT_KIND_BACKING : 0),
		.native = s.native, .python = s.python);
	MT_SELF_END();
}

void mt_record_shmat(struct mt_thread *t, int id, const void *addr, struct mt_caller caller)
{
	uint64_t now = mt_clock_now();
	struct shmid_ds info = { 0 };
	struct stacks s;

	MT_SELF_BEGIN();
	mt_sys3(SYS_shmctl, id, IPC_STAT, &info);
	s = capture(t, caller);
	MT_EMIT(t, map, .time = now, .addr = (uintptr_t)addr, .size = info.shm_segsz,
		.kind = MT_KIND_SHM, .flags = MAP_SHARED, .inode = (uint64_t)id, .native = s.native,
		.python = s.python);
	MT_EMIT(t, object, .time = now, .op = MT_OBJECT_SHMAT, .inode = (uint64_t)id,
		.size = info.shm_segsz, .native = s.native, .python = s.python);
	MT_SELF_END();
}

void mt_record_object(struct mt_thread *t, enum mt_object_op op, int fd, uint64_t size,
		      const char *name, struct mt_caller caller)
{
	struct stat st = { 0 };
	struct stacks s;
	uint32_t length = 0;

	MT_SELF_BEGIN();
	if (fd >= 0)
		mt_sys_fstat(fd, &st);
	while (name && length < 255 && name[length])
		length++;
	s = capture(t, caller);
	MT_EMIT(t, object, .time = mt_clock_now(), .op = op, .dev = st.st_dev, .inode = st.st_ino,
		.size = size, .name = { name, length }, .native = s.native, .python = s.python);
	MT_SELF_END();
}
