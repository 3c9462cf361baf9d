/*
 * The trace file. See file.h.
 *
 * Space is reserved with fallocate before it is mapped, so that a full disk is an error here and
 * not a SIGBUS in the traced program; RLIMIT_FSIZE is looked at first because fallocate beyond it
 * raises SIGXFSZ.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "out/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "core/clock.h"
#include "core/sampling.h"
#include "sys/fmt.h"
#include "sys/sys.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define GROUP_BYTES ((uint64_t)256 << 10) /* least space reserved at once */
#define FREE_BYTES 4 /* of a FREE record, at least */
#define POPULATE_BYTES ((size_t)16 << 10) /* smaller claims fault in by themselves */
#define SETTLE_LAG ((uint64_t)32 << 20) /* how much of the trace's end is left in the page cache */
#define SETTLE_WINDOW ((uint64_t)2 << 20)
#define SETTLE_STEP ((uint64_t)1 << 20)
#define SETTLE_SHARE 32

struct mt_file mt_file = { .fd = -1, .root_fd = -1 };

static const struct {
	int error;
	const char *text;
} reasons[] = {
	{ ENOSPC, "No space left on device" },
	{ EDQUOT, "Disk quota exceeded" },
	{ EFBIG, "File too large (file size limit)" },
	{ EACCES, "Permission denied" },
	{ EPERM, "Operation not permitted" },
	{ EROFS, "Read-only file system" },
	{ ENOENT, "No such file or directory" },
	{ ENOTDIR, "Not a directory" },
	{ EISDIR, "Is a directory" },
	{ ELOOP, "The name is a symbolic link" },
	{ EEXIST, "The name is taken" },
	{ EMFILE, "Too many open files" },
	{ ENFILE, "Too many open files in system" },
	{ ENOMEM, "Cannot allocate memory" },
	{ EFAULT, "The file system could not provide the space it had promised" },
	{ ENODEV, "The file system cannot map files" },
	{ ENAMETOOLONG, "File name too long" },
	{ ENOTSUP, "There is something that is not a file" },
	{ ESTALE, "The trace is gone" },
	{ EOVERFLOW, "The size cap (MEMTRACE_MAX_BYTES) is reached" },
};

const char *mt_file_why(int error)
{
	for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
		if (reasons[i].error == error)
			return reasons[i].text;
	return "Input/output error";
}

uint64_t mt_process_start(uint32_t pid)
{
	char path[64], text[1024];
	const char *p;

	mt_fmt(path, sizeof(path), "/proc/%u/stat", pid);
	if (mt_sys_slurp(path, text, sizeof(text)) <= 0)
		return 0;
	p = strrchr(text, ')'); /* the command may hold spaces and parentheses */
	for (int field = 2; p && field < 22; field++) {
		p = strchr(p, ' ');
		p = p ? p + 1 : NULL;
	}
	return p ? mt_parse_number(&p, 10) : 0;
}

static int map_header(int fd)
{
	void *p = mt_sys_mmap(MT_HEADER_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (!p)
		return -ENODEV;
	mt_file.header = p;
	mt_file.slots = (struct mt_proc_slot *)((char *)p + 4096);
	return 0;
}

/* The largest size the file may get: the user's cap and the process's file size limit. */
static uint64_t size_cap(int *error)
{
	struct rlimit limit = { 0 };
	uint64_t cap = mt_file.max_bytes ? mt_file.max_bytes : UINT64_MAX;

	*error = -EOVERFLOW;
	if (mt_sys4(SYS_prlimit64, 0, RLIMIT_FSIZE, 0, &limit) == 0 && limit.rlim_cur < cap) {
		*error = -EFBIG;
		cap = limit.rlim_cur;
	}
	return cap;
}

static int reserve_space(int fd, uint64_t from, uint64_t to)
{
	int err;

	do
		err = mt_sys_fallocate(fd, from, to - from);
	while (err == -EINTR);
	return err == -ENOSYS ? -EOPNOTSUPP : err;
}

/* Where the file system can't reserve: slower, but the blocks are there just the same. */
static int write_zeros(int fd, uint64_t from, uint64_t to)
{
	static const char zeros[4096];

	while (from < to) {
		uint64_t left = to - from;
		ssize_t n = mt_sys_pwrite(fd, zeros, left < 4096 ? left : 4096, from);

		if (n <= 0)
			return n < 0 ? (int)n : -ENOSPC;
		from += (uint64_t)n;
	}
	return 0;
}

static void header_fill(struct mt_file_header *h)
{
	char text[64];
	struct stat st;

	memcpy(h->magic, MT_FILE_MAGIC, sizeof(h->magic));
	h->version = MT_FORMAT_VERSION;
	h->header_bytes = MT_HEADER_BYTES;
	h->unit_bytes = MT_UNIT_BYTES;
	h->time_shift = MT_TIME_SHIFT;
	h->page_size = (uint32_t)getauxval(AT_PAGESZ);
	h->root_pid = (uint32_t)mt_sys_getpid();
	h->root_start = mt_process_start(h->root_pid);
	if (mt_sys4(SYS_newfstatat, AT_FDCWD, "/proc/self/ns/pid", &st, 0) == 0)
		h->pid_namespace = st.st_ino;
	if (mt_sys3(SYS_getrandom, h->trace_id, sizeof(h->trace_id), 0) < 0) {
		uint64_t seed[2] = { mt_clock_realtime_ns(), (uint64_t)(uintptr_t)h };

		memcpy(h->trace_id, seed, sizeof(seed));
	}
	if (mt_sys_slurp("/proc/sys/kernel/random/boot_id", text, sizeof(h->boot_id)) > 0)
		memcpy(h->boot_id, text, sizeof(h->boot_id) - 4);
	h->flags = mt_clock_is_tsc ? MT_FILE_TSC : 0;
	h->next_proc = MT_ROOT_PROC + 1;
	h->start_ticks = mt_clock_now() << MT_TIME_SHIFT;
	h->start_realtime_ns = mt_clock_realtime_ns();
	h->start_monotonic_ns = mt_clock_monotonic_ns();
}

int mt_file_create(const char *path)
{
	struct stat st;
	uint64_t cap, size;
	int fd, err;

	/* The program's umask must not take our own right to map the file away. */
	fd = mt_sys_open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
	if (fd < 0)
		return fd;
	mt_sys2(SYS_fchmod, fd, 0600);
	cap = size_cap(&err);
	size = cap < GROUP_BYTES ? cap / MT_UNIT_BYTES * MT_UNIT_BYTES : GROUP_BYTES;
	if (size > MT_HEADER_BYTES)
		err = reserve_space(fd, 0, size);
	if (err == -EOPNOTSUPP)
		err = write_zeros(fd, 0, size);
	if (!err)
		err = mt_sys_fstat(fd, &st);
	if (!err)
		err = map_header(fd);
	if (err) {
		mt_sys_close(fd);
		mt_sys3(SYS_unlinkat, AT_FDCWD, path, 0);
		return err;
	}
	header_fill(mt_file.header);
	mt_file.header->limit = (size - MT_HEADER_BYTES) / MT_UNIT_BYTES;
	mt_file.dev = st.st_dev;
	mt_file.inode = st.st_ino;
	mt_file.fd = mt_file.root_fd = mt_sys_raise_fd(fd);
	return 0;
}

/* ---- joining ----------------------------------------------------------------------------------- */

static char *put_hex(char *p, const uint8_t *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		*p++ = "0123456789abcdef"[bytes[i] >> 4];
		*p++ = "0123456789abcdef"[bytes[i] & 15];
	}
	return p;
}

/* "id:dev:inode:root pid:root fd:proc:path". The path is last: it may hold anything. */
size_t mt_file_token(char *buf, size_t size, uint32_t proc)
{
	char id[2 * MT_TRACE_ID_BYTES + 1], number[9];
	uint8_t big[4] = { (uint8_t)(proc >> 24), (uint8_t)(proc >> 16), (uint8_t)(proc >> 8),
			   (uint8_t)proc };

	*put_hex(id, mt_file.header->trace_id, MT_TRACE_ID_BYTES) = '\0';
	*put_hex(number, big, sizeof(big)) = '\0';
	return mt_fmt(buf, size, "%s:%lx:%lx:%u:%u:%s:%s", id, (uint64_t)mt_file.dev,
		      (uint64_t)mt_file.inode, mt_file.header->root_pid,
		      (unsigned int)mt_file.root_fd, number, mt_file.path);
}

struct token {
	char id[2 * MT_TRACE_ID_BYTES + 1];
	uint64_t dev, inode, root_pid, root_fd;
	const char *path;
};

static int token_parse(const char *text, struct token *out)
{
	static const unsigned int bases[] = { 16, 16, 10, 10, 16 };
	uint64_t values[5];

	if (strlen(text) < sizeof(out->id) || text[sizeof(out->id) - 1] != ':')
		return -EINVAL;
	memcpy(out->id, text, sizeof(out->id) - 1);
	out->id[sizeof(out->id) - 1] = '\0';
	text += sizeof(out->id);
	for (size_t i = 0; i < 5; i++) {
		const char *start = text;

		values[i] = mt_parse_number(&text, bases[i]);
		if (text == start || *text++ != ':')
			return -EINVAL;
	}
	out->dev = values[0];
	out->inode = values[1];
	out->root_pid = values[2];
	out->root_fd = values[3];
	out->path = text;
	return *text == '/' && strlen(text) < MT_PATH_MAX ? 0 : -EINVAL;
}

/* Opens `path` if it is the very file; follow: for /proc/PID/fd, which are links by nature. */
static int open_same(const char *path, dev_t dev, ino_t inode, int follow)
{
	int fd = mt_sys_open(path, O_RDWR | (follow ? 0 : O_NOFOLLOW), 0);
	struct stat st;

	if (fd < 0)
		return fd;
	if (mt_sys_fstat(fd, &st) == 0 && st.st_dev == dev && st.st_ino == inode)
		return fd;
	mt_sys_close(fd);
	return -ESTALE;
}

/* The file, wherever it went: kept descriptor, path, or the root's descriptor. */
static int file_open(uint32_t root_pid)
{
	char link[64];
	struct stat st;
	int fd;

	if (mt_file.fd >= 0) {
		if (mt_sys_fstat(mt_file.fd, &st) == 0 && st.st_dev == mt_file.dev &&
		    st.st_ino == mt_file.inode)
			return mt_file.fd;
		mt_file.fd = -1; /* closed by the program; the number may be its own by now */
	}
	fd = open_same(mt_file.path, mt_file.dev, mt_file.inode, 0);
	if (fd >= 0 || mt_file.root_fd < 0)
		return fd;
	mt_fmt(link, sizeof(link), "/proc/%u/fd/%d", root_pid, mt_file.root_fd);
	return open_same(link, mt_file.dev, mt_file.inode, 1);
}

/* The root keeps what it had to reopen; all others close it. */
static void file_done(int fd)
{
	if (fd < 0 || fd == mt_file.fd)
		return;
	if (mt_file.header && mt_file.root_fd >= 0 &&
	    mt_file.header->root_pid == (uint32_t)mt_sys_getpid())
		mt_file.fd = mt_sys_raise_fd(fd);
	else
		mt_sys_close(fd);
}

int mt_file_join(const char *text)
{
	char id[2 * MT_TRACE_ID_BYTES + 1];
	struct token token;
	int fd, err;

	if (token_parse(text, &token) < 0)
		return -EINVAL;
	mt_file.dev = (dev_t)token.dev;
	mt_file.inode = (ino_t)token.inode;
	mt_file.root_fd = (int)token.root_fd;
	memcpy(mt_file.path, token.path, strlen(token.path) + 1);
	fd = file_open((uint32_t)token.root_pid);
	if (fd < 0)
		return fd;
	err = map_header(fd);
	if (!err) {
		*put_hex(id, mt_file.header->trace_id, MT_TRACE_ID_BYTES) = '\0';
		if (memcmp(mt_file.header->magic, MT_FILE_MAGIC, 8) != 0 ||
		    mt_file.header->version != MT_FORMAT_VERSION || !mt_same(id, token.id))
			err = -ESTALE;
	}
	if (err && mt_file.header) {
		mt_sys_munmap(mt_file.header, MT_HEADER_BYTES);
		mt_file.header = NULL;
	}
	if (err)
		mt_sys_close(fd);
	else
		file_done(fd);
	return err;
}

/* ---- claiming ---------------------------------------------------------------------------------- */

static void fetch_max(uint64_t *word, uint64_t v)
{
	uint64_t old = __atomic_load_n(word, __ATOMIC_RELAXED);

	while (old < v &&
	       !__atomic_compare_exchange_n(word, &old, v, 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
		;
}

/*
 * Makes the units [first, end), which are the caller's own, exist on disk. Any number of processes
 * may do so at once: reserving harms nobody's data, but zeros are written into what is the caller's
 * alone, for what lies beside it may be in use by now. So where they are needed, being below `limit`
 * says nothing; the flag is set before the limit is raised by anybody who wrote some.
 */
static int extend(int fd, uint64_t first, uint64_t end)
{
	struct mt_file_header *h = mt_file.header;
	uint64_t limit = __atomic_load_n(&h->limit, __ATOMIC_ACQUIRE);
	int writes = __atomic_load_n(&h->flags, __ATOMIC_RELAXED) & MT_FILE_NO_FALLOCATE;
	uint64_t to = MT_HEADER_BYTES + end * MT_UNIT_BYTES, cap, group;
	int err;

	if (end <= limit && !writes)
		return 0;
	cap = size_cap(&err);
	if (to > cap)
		return err;
	group = (to + GROUP_BYTES - 1) / GROUP_BYTES * GROUP_BYTES;
	if (group > cap)
		group = cap / MT_UNIT_BYTES * MT_UNIT_BYTES;
	err = writes ? -EOPNOTSUPP
		     : reserve_space(fd, MT_HEADER_BYTES + limit * MT_UNIT_BYTES, group);
	if (err == -EOPNOTSUPP) {
		__atomic_fetch_or(&h->flags, MT_FILE_NO_FALLOCATE, __ATOMIC_RELAXED);
		group = to;
		err = write_zeros(fd, MT_HEADER_BYTES + first * MT_UNIT_BYTES, to);
	}
	if (!err)
		fetch_max(&h->limit, (group - MT_HEADER_BYTES) / MT_UNIT_BYTES);
	return err;
}

/*
 * Long recordings must not push out what the program caches: what was written a while ago goes to
 * the disk, and out of the page cache once it is there. Everything is visited twice or more: first to
 * be written, then to be dropped. Starting to write may wait for a slow disk, so the calls may take
 * a sixty-fourth of the time and no more; a trace that outgrows the disk is left to the kernel.
 * Advice only, failures don't matter; pages that are mapped stay.
 */
static void settle(int fd, uint64_t end)
{
	static uint64_t not_before; /* CLOCK_MONOTONIC ns */
	struct mt_file_header *h = mt_file.header;
	uint64_t done = __atomic_load_n(&h->settled, __ATOMIC_RELAXED), now;
	uint64_t from = end - SETTLE_LAG - SETTLE_WINDOW;

	if (end < SETTLE_LAG + SETTLE_WINDOW || end < done + SETTLE_STEP)
		return;
	now = mt_clock_monotonic_ns();
	if (now < not_before || !__atomic_compare_exchange_n(&h->settled, &done, end, 0,
							     __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		return;
	not_before = UINT64_MAX;
	mt_sys4(SYS_fadvise64, fd, from, SETTLE_WINDOW, POSIX_FADV_DONTNEED);
	not_before = now + SETTLE_SHARE * (mt_clock_monotonic_ns() - now);
}

static void *claim_failed(int err)
{
	uint32_t none = 0;

	mt_file.stopped = -err;
	__atomic_compare_exchange_n(&mt_file.header->error, &none, (uint32_t)-err, 0,
				    __ATOMIC_RELAXED, __ATOMIC_RELAXED);
	__atomic_fetch_or(&mt_file.header->flags, MT_FILE_FULL, __ATOMIC_RELAXED);
	return NULL;
}

static void thin_out(uint64_t used)
{
	uint64_t paid = mt_sampling_old_frees() * FREE_BYTES;

	paid += __atomic_fetch_add(&mt_file.header->paid, paid, __ATOMIC_RELAXED);
	used -= MT_HEADER_BYTES;
	mt_sampling_pressure(used > paid ? used - paid : 0, mt_file.max_bytes - MT_HEADER_BYTES);
}

void *mt_file_claim(uint32_t units, uint64_t *offset, void **map, uint64_t *map_bytes)
{
	struct mt_file_header *h = mt_file.header;
	uint64_t first, low;
	int fd, err;
	char *p;

	if (!h || mt_file.stopped)
		return NULL;
	fd = file_open(h->root_pid);
	if (fd < 0)
		return claim_failed(fd);
	/* The descriptor comes first: a claim that can't be mapped would leave a hole. */
	first = __atomic_fetch_add(&h->next, units, __ATOMIC_RELAXED);
	err = extend(fd, first, first + units);
	*offset = MT_HEADER_BYTES + first * MT_UNIT_BYTES;
	if (mt_file.max_bytes > MT_HEADER_BYTES)
		thin_out(*offset);
	low = *offset & ~(uint64_t)4095;
	*map_bytes = ((*offset + (uint64_t)units * MT_UNIT_BYTES + 4095) & ~(uint64_t)4095) - low;
	p = err ? NULL : mt_sys_mmap(*map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, low);
	if (!err && !p)
		err = -ENOMEM;
	if (p && *map_bytes >= POPULATE_BYTES &&
	    mt_sys_madvise(p, *map_bytes, MADV_POPULATE_WRITE) == -EFAULT) {
		mt_sys_munmap(p, *map_bytes);
		err = -EFAULT;
	}
	if (!err)
		settle(fd, *offset);
	file_done(fd);
	if (err) {
		mt_file_trim(*offset + (uint64_t)units * MT_UNIT_BYTES, *offset);
		return claim_failed(err);
	}
	*map = p;
	return p + (*offset - low);
}

void mt_file_trim(uint64_t end, uint64_t first)
{
	uint64_t last = (end - MT_HEADER_BYTES) / MT_UNIT_BYTES;
	uint64_t keep = (first - MT_HEADER_BYTES) / MT_UNIT_BYTES;

	__atomic_compare_exchange_n(&mt_file.header->next, &last, keep, 0, __ATOMIC_RELEASE,
				    __ATOMIC_RELAXED);
}

void mt_file_forget(void)
{
	int fd = mt_file.fd;
	struct stat st;

	mt_file_slot_drop();
	if (fd >= 0 && mt_sys_fstat(fd, &st) == 0 && st.st_dev == mt_file.dev &&
	    st.st_ino == mt_file.inode)
		mt_sys_close(fd);
	if (mt_file.header)
		mt_sys_munmap(mt_file.header, MT_HEADER_BYTES);
	memset(&mt_file, 0, sizeof(mt_file));
	mt_file.fd = mt_file.root_fd = -1;
}
