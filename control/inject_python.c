/*
 * Putting the shim into a Python that helps: since 3.14 an interpreter runs a script that it is given
 * from outside, at a moment that is safe by its own rules (sys.remote_exec). Nothing is stopped then. It is
 * asked by another process of the same interpreter, which alone knows how.
 *
 * The script is a file of its own name that removes itself. An interpreter that waits in a system call
 * or computes in a library runs it much later, or never: then a thread is diverted after all, and the
 * script finds that there is nothing left to do.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <ctype.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "inject_parts.h"
#include "page.h"

#define PATIENCE_MS 2000

/* Path of a program python3.14 or later; 0: it is none. */
static int interpreter_of(pid_t pid, char out[PATH_MAX])
{
	char link[64];
	const char *base;
	int minor = 0;
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/%d/exe", (int)pid);
	n = readlink(link, out, PATH_MAX - 1);
	out[n < 0 ? 0 : n] = '\0';
	base = strrchr(out, '/');
	return base && sscanf(base, "/python3.%d", &minor) == 1 && minor >= 14;
}

/* Nothing that a Python string without escapes could not hold. */
static int is_plain(const char *path)
{
	for (; *path; path++)
		if (!isprint((unsigned char)*path) || *path == '\'' || *path == '\\')
			return 0;
	return 1;
}

static int same_file(const char *path, pid_t pid)
{
	char there[PATH_MAX + 32];
	struct stat a, b;

	snprintf(there, sizeof(there), "/proc/%d/root%s", (int)pid, path);
	return stat(path, &a) == 0 && stat(there, &b) == 0 && a.st_dev == b.st_dev &&
	       a.st_ino == b.st_ino;
}

/* The process may remove it: it is given to its user. 0 or -1. */
static int script_write(pid_t pid, const char *shim, char *path, size_t size)
{
	const char *folder = getenv("TMPDIR");
	char proc[64];
	struct stat st;
	int fd, bad;

	snprintf(path, size, "%s/memtrace-attach-XXXXXX",
		 folder && *folder == '/' ? folder : "/tmp");
	if (!is_plain(path) || !is_plain(shim) || (fd = mkostemp(path, O_CLOEXEC)) < 0)
		return -1;
	bad = dprintf(fd,
		      "try:\n"
		      "    import _ctypes\n"
		      "    _ctypes.call_function(_ctypes.dlsym(_ctypes.dlopen('%s', 2), '%s'), "
		      "(None,))\n"
		      "except Exception:\n"
		      "    pass\n"
		      "import os\n"
		      "try:\n"
		      "    os.unlink('%s')\n"
		      "except OSError:\n"
		      "    pass\n",
		      shim, INJECT_ENTRY, path) < 0;
	snprintf(proc, sizeof(proc), "/proc/%d", (int)pid);
	if (geteuid() == 0)
		bad |= stat(proc, &st) < 0 || fchown(fd, st.st_uid, st.st_gid) < 0;
	close(fd);
	if (!bad && same_file(path, pid))
		return 0;
	unlink(path);
	return -1;
}

/* 0: the interpreter has been told. */
static int ask(pid_t pid, char *interpreter, char *script)
{
	char number[16], link[64],
		code[] = "import sys; sys.remote_exec(int(sys.argv[1]), sys.argv[2])";
	char *argv[] = { interpreter, "-I", "-S", "-c", code, number, script, NULL };
	int status = -1, null;
	pid_t child;

	snprintf(number, sizeof(number), "%d", (int)pid);
	snprintf(link, sizeof(link), "/proc/%d/exe", (int)pid);
	child = fork();
	if (child == 0) {
		null = open("/dev/null", O_RDWR | O_CLOEXEC);
		for (int fd = 0; fd < 3; fd++)
			dup2(null, fd);
		unsetenv("LD_PRELOAD");
		execv(link, argv);
		_exit(127);
	}
	while (child > 0 && waitpid(child, &status, 0) < 0)
		;
	return child > 0 && status == 0 ? 0 : -1;
}

int inject_python(pid_t pid, const char *shim)
{
	char interpreter[PATH_MAX], script[PATH_MAX], why[512];
	struct target t;
	uint64_t until;
	int done = 0;

	if (!interpreter_of(pid, interpreter) ||
	    script_write(pid, shim, script, sizeof(script)) < 0)
		return 0;
	if (ask(pid, interpreter, script) < 0) {
		unlink(script);
		return 0;
	}
	for (until = now_ns() + PATIENCE_MS * 1000000ull; !done && now_ns() < until; sleep_ms(5)) {
		done = target_open(&t, pid, why, sizeof(why)) == REACHED;
		if (done)
			target_close(&t);
	}
	if (done)
		unlink(script);
	return done;
}
