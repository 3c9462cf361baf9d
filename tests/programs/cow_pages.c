/*
 * A forked child and pages that are special: "pinned" for a device, which a fork copies at once, or
 * "huge". "registered": as pinned, and the fake driver is told of three quarters of what is pinned, and
 * of some that is not. Arguments: pinned|registered|huge, MiB. The child makes an event, writes to one page in each 2 MiB
 * and leaves; it prints what the kernel says then is its own of the region, and how much of the
 * region was its own before it wrote (pinned) or lies in huge pages (huge). known=0: the kernel
 * does not do it here.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE ((size_t)4096)
#define HUGE_BYTES ((size_t)2 << 20)
#define EXCLUSIVE ((UINT64_C(1) << 63) | (UINT64_C(1) << 56))

static void *volatile kept;

/* Bytes of a line of the region's smaps. */
static size_t of_region(const char *region, const char *what)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	char line[512];
	size_t found = 0, length = strlen(what);
	int inside = 0;

	while (f && fgets(line, sizeof(line), f)) {
		unsigned long start, end;

		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			inside = start <= (uintptr_t)region && (uintptr_t)region < end;
		else if (inside && !strncmp(line, what, length))
			found = (size_t)strtoul(line + length, NULL, 10) * 1024;
	}
	if (f)
		fclose(f);
	return found;
}

static size_t own_bytes(const char *region, size_t bytes)
{
	int fd = open("/proc/self/pagemap", O_RDONLY);
	size_t own = 0;
	uint64_t entry;

	for (size_t at = 0; at < bytes; at += PAGE)
		if (pread(fd, &entry, sizeof(entry),
			  (off_t)(((uintptr_t)region + at) / PAGE * 8)) == sizeof(entry) &&
		    (entry & EXCLUSIVE) == EXCLUSIVE)
			own += PAGE;
	close(fd);
	return own;
}

/* As a driver does for a buffer that a device writes to. */
static int pin(char *region, size_t bytes)
{
	struct io_uring_params p;
	struct iovec v = { region, bytes };
	int fd;

	memset(&p, 0, sizeof(p));
	fd = (int)syscall(SYS_io_uring_setup, 1, &p);
	return fd >= 0 && syscall(SYS_io_uring_register, fd, IORING_REGISTER_BUFFERS, &v, 1) == 0;
}

/* As CUDA programs do with buffers that they have. */
static int register_buffer(char *region, size_t bytes)
{
	void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
	int (*init)(unsigned int) = NULL, (*pinned)(void *, size_t, unsigned int) = NULL;

	*(void **)&init = driver ? dlsym(driver, "cuInit") : NULL;
	*(void **)&pinned = driver ? dlsym(driver, "cuMemHostRegister_v2") : NULL;
	return init && pinned && init(0) == 0 && pinned(region, bytes, 0) == 0;
}

static void be_child(char *region, size_t bytes, int huge, int known)
{
	size_t before;

	kept = malloc(10); /* its baseline is taken */
	before = huge ? of_region(region, "AnonHugePages:") : own_bytes(region, bytes);
	for (size_t at = 0; at < bytes; at += HUGE_BYTES)
		region[at + 5 * PAGE]++;
	printf("pages known=%d before=%zu own=%zu\n", known && before, before,
	       of_region(region, "Private_Dirty:"));
	exit(0);
}

int main(int argc, char **argv)
{
	int huge = argc > 1 && !strcmp(argv[1], "huge"), known = 1, status = 0;
	size_t bytes = (size_t)(argc > 2 ? atoi(argv[2]) : 16) << 20;
	char *raw = mmap(NULL, bytes + HUGE_BYTES, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *region = (char *)(((uintptr_t)raw + HUGE_BYTES - 1) & ~(HUGE_BYTES - 1));

	if (raw == MAP_FAILED)
		return 2;
	madvise(region, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	memset(region, 1, bytes);
	if (!huge)
		known = pin(region, bytes / 2);
	if (argc > 1 && !strcmp(argv[1], "registered") &&
	    (!register_buffer(region, bytes / 8 * 3) ||
	     !register_buffer(region + bytes / 4 * 3, bytes / 8)))
		return 3;
	if (fork() == 0)
		be_child(region, bytes, huge, known);
	return wait(&status) < 0 || status != 0;
}
