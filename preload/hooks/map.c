/*
 * Interposed mapping and shared-memory functions. Unlike heap calls these may arrive from inside
 * the real allocator (jemalloc's mmap): then they are recorded as its backing store.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/guard.h"
#include "core/real.h"
#include "record/record.h"
#include "sys/sys.h"

/* A raw call, before the real functions are known. */
static long raw(long result)
{
	if (result < 0 && result > -4096) {
		errno = (int)-result;
		return -1;
	}
	return result;
}

/* The same for what is no single system call. dlsym of a symbol that exists does not allocate. */
static void *early(const char *name)
{
	return dlsym(RTLD_NEXT, name);
}

static void *map_common(struct mt_mapping map, const void *hint, struct mt_caller caller)
{
	int backing;
	struct mt_thread *t = mt_enter_nested(&backing);
	void *p;

	if (mt_real.mmap)
		p = mt_real.mmap((void *)(uintptr_t)hint, map.size, map.prot, map.flags, map.fd,
				 map.offset);
	else
		p = (void *)raw(mt_sys_call(SYS_mmap, (long)hint, (long)map.size, map.prot,
					    map.flags, map.fd, map.offset));
	if (!t)
		return p;
	if (p != MAP_FAILED) {
		int saved = errno;

		map.addr = p;
		map.backing = backing || mt_python_is_arena_caller(*(const uintptr_t *)caller.slot);
		mt_record_map(t, &map, caller);
		errno = saved;
	}
	mt_leave_nested(t, backing);
	return p;
}

MT_EXPORT void *mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset)
{
	struct mt_mapping map = {
		.size = length, .prot = prot, .flags = flags, .fd = fd, .offset = offset
	};

	return map_common(map, addr, MT_CALLER());
}

MT_EXPORT void *mmap64(void *addr, size_t length, int prot, int flags, int fd, off_t offset)
{
	struct mt_mapping map = {
		.size = length, .prot = prot, .flags = flags, .fd = fd, .offset = offset
	};

	return map_common(map, addr, MT_CALLER());
}

MT_EXPORT int munmap(void *addr, size_t length)
{
	int backing;
	struct mt_thread *t = mt_enter_nested(&backing);
	uint64_t before;
	int result;

	if (t && !backing)
		mt_record_unmapping(t, length);
	before = t ? mt_clock_now() : 0;
	if (mt_real.munmap)
		result = mt_real.munmap(addr, length);
	else
		result = (int)raw(mt_sys_munmap(addr, length));
	if (!t)
		return result;
	if (result == 0)
		mt_record_unmap(t, addr, length, before);
	mt_leave_nested(t, backing);
	return result;
}

MT_EXPORT void *mremap(void *addr, size_t old_length, size_t length, int flags, ...)
{
	int backing;
	struct mt_thread *t = mt_enter_nested(&backing);
	uint64_t before = t ? mt_clock_now() : 0;
	void *want = NULL, *p;
	va_list args;

	if (flags & MREMAP_FIXED) {
		va_start(args, flags);
		want = va_arg(args, void *);
		va_end(args);
	}
	if (mt_real.mremap)
		p = mt_real.mremap(addr, old_length, length, flags, want);
	else
		p = (void *)raw(mt_sys_call(SYS_mremap, (long)addr, (long)old_length, (long)length,
					    flags, (long)want, 0));
	if (!t)
		return p;
	if (p != MAP_FAILED)
		mt_record_remap(t, addr, old_length, p, length, flags, before, MT_CALLER());
	mt_leave_nested(t, backing);
	return p;
}

MT_EXPORT int brk(void *addr)
{
	int backing;
	struct mt_thread *t = mt_enter_nested(&backing);
	void *old = t ? mt_real.sbrk(0) : NULL;
	int result;

	if (mt_unlikely(!mt_real.brk))
		*(void **)&mt_real.brk = early("brk");
	if (!mt_real.brk) {
		errno = ENOSYS;
		return -1;
	}
	result = mt_real.brk(addr);
	if (!t)
		return result;
	if (result == 0)
		mt_record_break(t, old, addr, backing, MT_CALLER());
	mt_leave_nested(t, backing);
	return result;
}

MT_EXPORT void *sbrk(intptr_t increment)
{
	int backing;
	struct mt_thread *t = mt_enter_nested(&backing);
	void *old;

	if (mt_unlikely(!mt_real.sbrk))
		*(void **)&mt_real.sbrk = early("sbrk");
	if (!mt_real.sbrk) {
		errno = ENOSYS;
		return (void *)-1;
	}
	old = mt_real.sbrk(increment);
	if (!t)
		return old;
	if (old != (void *)-1 && increment)
		mt_record_break(t, old, (char *)old + increment, backing, MT_CALLER());
	mt_leave_nested(t, backing);
	return old;
}

MT_EXPORT void *shmat(int id, const void *addr, int flags)
{
	struct mt_thread *t = mt_enter();
	void *p = mt_real.shmat ? mt_real.shmat(id, addr, flags) : (void *)-1;

	if (!t)
		return p;
	if (p != (void *)-1)
		mt_record_shmat(t, id, p, MT_CALLER());
	mt_leave(t);
	return p;
}

MT_EXPORT int shmdt(const void *addr)
{
	struct mt_thread *t = mt_enter();
	uint64_t before = t ? mt_clock_now() : 0;
	int result = mt_real.shmdt ? mt_real.shmdt(addr) : -1;

	if (!t)
		return result;
	if (result == 0)
		mt_record_unmap(t, addr, 0, before);
	mt_leave(t);
	return result;
}

/* ---- named objects: they may block on the file system, so the guard is taken only afterwards ---- */

static void object_done(enum mt_object_op op, int fd, uint64_t size, const char *name,
			struct mt_caller caller)
{
	int saved = errno;
	struct mt_thread *t = mt_enter();

	if (t) {
		mt_record_object(t, op, fd, size, name, caller);
		mt_leave(t);
	}
	errno = saved;
}

MT_EXPORT int shm_open(const char *name, int flags, mode_t mode)
{
	int fd = mt_real.shm_open ? mt_real.shm_open(name, flags, mode) : -1;

	if (fd >= 0)
		object_done(MT_OBJECT_SHM_OPEN, fd, 0, name, MT_CALLER());
	return fd;
}

MT_EXPORT int shm_unlink(const char *name)
{
	int result = mt_real.shm_unlink ? mt_real.shm_unlink(name) : -1;

	if (result == 0)
		object_done(MT_OBJECT_SHM_UNLINK, -1, 0, name, MT_CALLER());
	return result;
}

MT_EXPORT int memfd_create(const char *name, unsigned int flags)
{
	int fd = mt_real.memfd_create ? mt_real.memfd_create(name, flags) : -1;

	if (fd >= 0)
		object_done(MT_OBJECT_MEMFD, fd, 0, name, MT_CALLER());
	return fd;
}

static int truncate_common(int (*real)(int, off_t), int fd, off_t length, struct mt_caller caller)
{
	int result;

	if (!real)
		return (int)raw(mt_sys2(SYS_ftruncate, fd, length));
	result = real(fd, length);
	if (result == 0 && mt_record_is_memory_file(fd))
		object_done(MT_OBJECT_TRUNCATE, fd, (uint64_t)length, NULL, caller);
	return result;
}

MT_EXPORT int ftruncate(int fd, off_t length)
{
	return truncate_common(mt_real.ftruncate, fd, length, MT_CALLER());
}

MT_EXPORT int ftruncate64(int fd, off_t length)
{
	return truncate_common(mt_real.ftruncate64, fd, length, MT_CALLER());
}
