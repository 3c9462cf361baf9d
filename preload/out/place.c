/*
 * Where a new trace goes. See place.h.
 *
 * Several newcomers may meet one finished trace. The old file's own flock decides who renames it,
 * and whoever gets the lock looks again whether the name still leads to the file that was locked.
 * The new file is made under a private name and given its public one by link(), which fails
 * when the name is taken: a half-made trace is never seen, and none is ever replaced.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "out/place.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "core/clock.h"
#include "out/file.h"
#include "sys/fmt.h"
#include "sys/sys.h"

int mt_place_expand(const char *pattern, const char *rank, char *out, size_t size)
{
	struct utsname host;
	size_t n = 0;

	if (mt_sys1(SYS_uname, &host) < 0)
		memcpy(host.nodename, "host", 5);
	if (*pattern != '/') {
		long len = mt_sys2(SYS_getcwd, out, size - 1);

		if (len < 0)
			return (int)len;
		n = (size_t)len - 1;
		if (n > 1)
			out[n++] = '/';
	}
	for (; *pattern; pattern++) {
		char kind = *pattern == '%' ? pattern[1] : 0;

		if (n + 80 > size)
			return -ENAMETOOLONG;
		if (kind == 'p')
			n += mt_fmt(out + n, size - n, "%u", (unsigned int)mt_sys_getpid());
		else if (kind == 'h')
			n += mt_fmt(out + n, size - n, "%s", host.nodename);
		else if (kind == 'r')
			n += mt_fmt(out + n, size - n, "%s", rank);
		else
			out[n++] = *pattern;
		pattern += kind == 'p' || kind == 'h' || kind == 'r' || kind == '%';
	}
	out[n] = '\0';
	return 0;
}

enum verdict { NAME_FREE, NAME_FINISHED, NAME_TAKEN, NAME_NO_FILE };

/* What lies at `path`; for NAME_FINISHED an open descriptor is left in *fd. */
static enum verdict look(const char *path, int *fd, struct stat *st)
{
	struct mt_file_header *h;
	enum verdict verdict = NAME_TAKEN;
	uint64_t now = mt_clock_realtime_ns() / 1000000000, touched;

	*fd = -1;
	if (mt_sys_stat(path, st) == -ENOENT)
		return NAME_FREE;
	if (!S_ISREG(st->st_mode) && !S_ISLNK(st->st_mode))
		return NAME_NO_FILE; /* a device, a folder: nothing is wanted beside it */
	if (!S_ISREG(st->st_mode) || st->st_uid != (uid_t)mt_sys0(SYS_geteuid) ||
	    (uint64_t)st->st_size < MT_HEADER_BYTES)
		return NAME_TAKEN;
	*fd = mt_sys_open(path, O_RDWR | O_NOFOLLOW, 0);
	if (*fd < 0)
		return NAME_TAKEN;
	touched = (uint64_t)st->st_mtim.tv_sec;
	h = mt_sys_fstat(*fd, st) < 0 ? NULL
				      : mt_sys_mmap(MT_HEADER_BYTES, PROT_READ, MAP_SHARED, *fd, 0);
	if (h) {
		if (!memcmp(h->magic, MT_FILE_MAGIC, sizeof(h->magic)) &&
		    !mt_file_in_use(h, (struct mt_proc_slot *)((char *)h + 4096),
				    now > touched ? now - touched : 0))
			verdict = NAME_FINISHED;
		mt_sys_munmap(h, MT_HEADER_BYTES);
	}
	if (verdict != NAME_FINISHED)
		mt_sys_close(*fd);
	return verdict;
}

/* Renames the finished trace behind fd to path.old; 0 also when somebody else just did. */
static int set_aside(const char *path, int fd, const struct stat *st)
{
	char old[MT_PATH_MAX + 8];
	struct stat now;
	int err = (int)mt_sys2(SYS_flock, fd, LOCK_EX);

	mt_fmt(old, sizeof(old), "%s.old", path);
	if (!err && mt_sys_stat(path, &now) == 0 && now.st_dev == st->st_dev &&
	    now.st_ino == st->st_ino)
		err = (int)mt_sys4(SYS_renameat2, AT_FDCWD, path, AT_FDCWD, old);
	mt_sys_close(fd); /* and with it the lock */
	return err;
}

/* Gives the trace made at `from` its name. */
static int publish(const char *from, const char *to)
{
	int err = (int)mt_sys_call(SYS_linkat, AT_FDCWD, (long)from, AT_FDCWD, (long)to, 0, 0);

	if (err == -EPERM ||
	    err == -EOPNOTSUPP) /* no hard links here: the kernel's own no-replace */
		return (int)mt_sys_call(SYS_renameat2, AT_FDCWD, (long)from, AT_FDCWD, (long)to,
					1 /* RENAME_NOREPLACE */, 0);
	if (!err)
		mt_sys3(SYS_unlinkat, AT_FDCWD, from, 0);
	return err;
}

/* "dir/trace.bin" -> "dir/trace.PID.bin" */
static void beside(const char *path, char *out, size_t size)
{
	const char *slash = strrchr(path, '/');
	const char *dot = strrchr(slash ? slash : path, '.');
	size_t stem = dot ? (size_t)(dot - path) : strlen(path);

	memcpy(out, path, stem);
	mt_fmt(out + stem, size - stem, ".%u%s", (unsigned int)mt_sys_getpid(), dot ? dot : "");
}

int mt_place_create(const char *path, int *moved)
{
	char private[MT_PATH_MAX], wanted[MT_PATH_MAX];
	struct stat st;
	int fd, err;

	*moved = 0;
	if (strlen(path) + 40 > sizeof(private))
		return -ENAMETOOLONG;
	memcpy(wanted, path, strlen(path) + 1);
	mt_fmt(private, sizeof(private), "%s.new.%u", path, (unsigned int)mt_sys_getpid());
	mt_sys3(SYS_unlinkat, AT_FDCWD, private, 0); /* left by a process of our pid, long dead */
	err = mt_file_create(private);
	if (!err) /* before the file has its name: nobody may take it for a finished one */
		mt_file_slot_take(MT_ROOT_PROC, mt_file.header->root_pid,
				  mt_file.header->root_start);
	for (int tries = 0; !err && tries < 100; tries++) {
		switch (look(wanted, &fd, &st)) {
		case NAME_FINISHED:
			err = set_aside(wanted, fd, &st);
			break;
		case NAME_NO_FILE:
			err = -ENOTSUP;
			break;
		case NAME_TAKEN:
			if (*moved)
				err = -EEXIST;
			*moved = 1;
			beside(path, wanted, sizeof(wanted));
			break;
		case NAME_FREE:
			err = publish(private, wanted);
			if (!err) {
				memcpy(mt_file.path, wanted, strlen(wanted) + 1);
				return 0;
			}
			err = err == -EEXIST ? 0 : err;
			break;
		}
	}
	mt_sys3(SYS_unlinkat, AT_FDCWD, private, 0);
	return err ? err : -EEXIST;
}
