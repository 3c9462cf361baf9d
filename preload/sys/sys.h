/*
 * The kernel, without libc in between: raw system calls that touch neither errno nor the functions
 * the shim interposes (a plain mmap() in here would come back through our own hook). Every call
 * returns the kernel's result: a negative value is -errno.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_SYS_H
#define MEMTRACE_PRELOAD_SYS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

long mt_sys_call(long number, long a, long b, long c, long d, long e, long f);

#define mt_sys0(n) mt_sys_call((n), 0, 0, 0, 0, 0, 0)
#define mt_sys1(n, a) mt_sys_call((n), (long)(a), 0, 0, 0, 0, 0)
#define mt_sys2(n, a, b) mt_sys_call((n), (long)(a), (long)(b), 0, 0, 0, 0)
#define mt_sys3(n, a, b, c) mt_sys_call((n), (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define mt_sys4(n, a, b, c, d) mt_sys_call((n), (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)

int mt_sys_open(const char *path, int flags, mode_t mode);
int mt_sys_close(int fd);
ssize_t mt_sys_read(int fd, void *buf, size_t size); /* retries EINTR */
ssize_t mt_sys_pread(int fd, void *buf, size_t size, uint64_t offset);
ssize_t mt_sys_pwrite(int fd, const void *buf, size_t size, uint64_t offset);
ssize_t mt_sys_write(int fd, const void *buf, size_t size);
void *mt_sys_mmap(size_t size, int prot, int flags, int fd, uint64_t offset); /* NULL on failure */
/* Readable and writable, at `at` (MAP_FIXED). 1, or 0: failed. */
int mt_sys_mmap_at(void *at, size_t size, int flags, int fd);
int mt_sys_munmap(void *p, size_t size);
int mt_sys_madvise(void *p, size_t size, int advice);
int mt_sys_fallocate(int fd, uint64_t offset, uint64_t size);
int mt_sys_fstat(int fd, struct stat *st);
int mt_sys_stat(const char *path, struct stat *st); /* does not follow a last symbolic link */
int mt_sys_getpid(void);
int mt_sys_gettid(void);
int mt_sys_readlink(const char *path, char *buf, size_t size); /* terminates; length or -errno */

/* Reads a small file whole and terminates it; bytes read or -errno. */
ssize_t mt_sys_slurp(const char *path, char *buf, size_t size);

/* Moves fd to the top of the descriptor table, close-on-exec; the new number, or fd itself. */
int mt_sys_raise_fd(int fd);

/* A full barrier on every other thread of this process: the expensive side of an asymmetric
 * pair. -errno when the kernel has none; mt_sys_barrier_init() says so at start. */
int mt_sys_barrier_init(void);
int mt_sys_barrier(void);

/* Calls f on a stack that ends at `top`, 16-byte aligned, where this machine is known; else on the
 * caller's. For what needs more room than a hook may take of the program's stack. */
void mt_sys_on_stack(void (*f)(void), void *top);

/* Sleeps for ns, or less. */
void mt_sys_nap(uint64_t ns);

/* Waits for *word to leave `value`, at most ns; and wakes those who do. */
void mt_sys_futex_wait(uint32_t *word, uint32_t value, uint64_t ns);
void mt_sys_futex_wake(uint32_t *word);

#endif
