/*
 * The kernel, without libc in between. See sys.h for the rules.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sys/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

long mt_sys_call(long number, long a, long b, long c, long d, long e, long f)
{
#if defined(__x86_64__)
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
#else
	int saved = errno;
	long result = syscall(number, a, b, c, d, e, f);

	if (result == -1)
		result = -errno;
	errno = saved;
	return result;
#endif
}

int mt_sys_open(const char *path, int flags, mode_t mode)
{
	return (int)mt_sys4(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, mode);
}

int mt_sys_close(int fd)
{
	return (int)mt_sys1(SYS_close, fd);
}

ssize_t mt_sys_read(int fd, void *buf, size_t size)
{
	long n;

	do
		n = mt_sys3(SYS_read, fd, buf, size);
	while (n == -EINTR);
	return n;
}

ssize_t mt_sys_pread(int fd, void *buf, size_t size, uint64_t offset)
{
	return mt_sys4(SYS_pread64, fd, buf, size, offset);
}

ssize_t mt_sys_pwrite(int fd, const void *buf, size_t size, uint64_t offset)
{
	return mt_sys4(SYS_pwrite64, fd, buf, size, offset);
}

ssize_t mt_sys_write(int fd, const void *buf, size_t size)
{
	return mt_sys3(SYS_write, fd, buf, size);
}

void *mt_sys_mmap(size_t size, int prot, int flags, int fd, uint64_t offset)
{
	long p = mt_sys_call(SYS_mmap, 0, (long)size, prot, flags, fd, (long)offset);

	return p < 0 && p > -4096 ? NULL : (void *)p;
}

int mt_sys_mmap_at(void *at, size_t size, int flags, int fd)
{
	return mt_sys_call(SYS_mmap, (long)at, (long)size, PROT_READ | PROT_WRITE, flags, fd, 0) ==
	       (long)at;
}

int mt_sys_munmap(void *p, size_t size)
{
	return (int)mt_sys2(SYS_munmap, p, size);
}

int mt_sys_madvise(void *p, size_t size, int advice)
{
	return (int)mt_sys3(SYS_madvise, p, size, advice);
}

int mt_sys_fallocate(int fd, uint64_t offset, uint64_t size)
{
	return (int)mt_sys4(SYS_fallocate, fd, 0, offset, size);
}

int mt_sys_fstat(int fd, struct stat *st)
{
	return (int)mt_sys4(SYS_newfstatat, fd, "", st, AT_EMPTY_PATH);
}

int mt_sys_stat(const char *path, struct stat *st)
{
	return (int)mt_sys4(SYS_newfstatat, AT_FDCWD, path, st, AT_SYMLINK_NOFOLLOW);
}

int mt_sys_getpid(void)
{
	return (int)mt_sys0(SYS_getpid);
}

int mt_sys_gettid(void)
{
	return (int)mt_sys0(SYS_gettid);
}

int mt_sys_readlink(const char *path, char *buf, size_t size)
{
	long n = mt_sys4(SYS_readlinkat, AT_FDCWD, path, buf, size - 1);

	buf[n < 0 ? 0 : n] = '\0';
	return (int)n;
}

ssize_t mt_sys_slurp(const char *path, char *buf, size_t size)
{
	int fd = mt_sys_open(path, O_RDONLY, 0);
	size_t have = 0;
	ssize_t n = 0;

	buf[0] = '\0';
	if (fd < 0)
		return fd;
	while (have < size - 1 && (n = mt_sys_read(fd, buf + have, size - 1 - have)) > 0)
		have += (size_t)n;
	mt_sys_close(fd);
	buf[have] = '\0';
	return n < 0 ? n : (ssize_t)have;
}

int mt_sys_raise_fd(int fd)
{
	struct rlimit limit = { 0 };
	long want, raised;

	if (mt_sys4(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, &limit) < 0)
		return fd;
	/* Not higher than needed: every fork copies the table up to the highest open descriptor. */
	want = limit.rlim_cur > 1024 ? 1024 : (long)limit.rlim_cur;
	for (want -= want > 64 ? 16 : 2; want > fd && want > 2; want /= 2) {
		raised = mt_sys3(SYS_fcntl, fd, F_DUPFD_CLOEXEC, want);
		if (raised >= 0) {
			mt_sys_close(fd);
			return (int)raised;
		}
	}
	return fd;
}

int mt_sys_barrier_init(void)
{
	return (int)mt_sys3(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
}

int mt_sys_barrier(void)
{
	return (int)mt_sys3(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
}

/* Not nanosleep: what the kernel keeps of a sleep that was interrupted is one per thread, and a thread
 * that was stopped in its own sleep to load us goes on with that one afterwards. */
void mt_sys_nap(uint64_t ns)
{
	struct timespec timeout = { (time_t)(ns / 1000000000), (long)(ns % 1000000000) };

	mt_sys_call(SYS_pselect6, 0, 0, 0, 0, (long)&timeout, 0);
}

void mt_sys_futex_wait(uint32_t *word, uint32_t value, uint64_t ns)
{
	struct timespec timeout = { (time_t)(ns / 1000000000), (long)(ns % 1000000000) };

	mt_sys4(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, &timeout);
}

void mt_sys_futex_wake(uint32_t *word)
{
	mt_sys3(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX);
}

void mt_sys_on_stack(void (*f)(void), void *top)
{
#if defined(__x86_64__)
	/* rbx survives the call: it holds our own stack pointer meanwhile. */
	__asm__ volatile("movq %%rsp, %%rbx\n\t"
			 "movq %1, %%rsp\n\t"
			 "call *%0\n\t"
			 "movq %%rbx, %%rsp"
			 :
			 : "r"(f), "r"(top)
			 : "rbx", "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11",
			   "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6",
			   "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14",
			   "xmm15");
#else
	(void)top;
	f();
#endif
}
