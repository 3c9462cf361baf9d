/*
 * What the shim says to the user. See log.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sys/log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "sys/fmt.h"
#include "sys/sys.h"

static int log_fd = -1;
static int log_level = MT_LOG_WARN;
static dev_t log_dev; /* what the copy referred to: a program may close it and reuse the number */
static ino_t log_inode;

void mt_log_init(int level)
{
	struct stat st;
	int fd;

	log_level = level;
	if (level == MT_LOG_QUIET)
		return;
	fd = (int)mt_sys3(SYS_fcntl, 2, F_DUPFD_CLOEXEC, 3);
	if (fd < 0)
		return;
	log_fd = mt_sys_raise_fd(fd);
	if (mt_sys_fstat(log_fd, &st) == 0) {
		log_dev = st.st_dev;
		log_inode = st.st_ino;
	}
}

void mt_log_close(void)
{
	struct stat st;

	if (log_fd >= 0 && mt_sys_fstat(log_fd, &st) == 0 && st.st_dev == log_dev &&
	    st.st_ino == log_inode)
		mt_sys_close(log_fd);
	log_fd = -1;
}

void mt_log(enum mt_log_level level, const char *format, ...)
{
	char line[1024] = "memtrace: ";
	struct stat st;
	va_list args;
	size_t n;

	if (log_fd < 0 || (int)level > log_level) /* QUIET: what was asked for by name */
		return;
	if (mt_sys_fstat(log_fd, &st) < 0 || st.st_dev != log_dev || st.st_ino != log_inode)
		return;
	va_start(args, format);
	n = 10 + mt_vfmt(line + 10, sizeof(line) - 11, format, args);
	va_end(args);
	line[n++] = '\n';
	mt_sys_write(log_fd, line, n);
}
