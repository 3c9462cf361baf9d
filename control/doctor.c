/*
 * memtrace doctor: can this machine and this program be recorded, and how well? Every line is
 * something that was tried or read just now; what could not be found out is not said.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <gnu/libc-version.h>
#include <limits.h>
#include <linux/perf_event.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control.h"

enum level { OK, NOTE, BAD };

/* One line of the answer; returns `level`, for the exit status. */
static enum level say(enum level level, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static enum level say(enum level level, const char *format, ...)
{
	static const char *const words[] = { "ok  ", "note", "BAD " };
	char line[PATH_MAX + 256];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	printf("%s  %s\n", words[level], line);
	return level;
}

/* First line of a file; 0, or -1. */
static int read_line(const char *path, char *out, size_t size)
{
	FILE *f = fopen(path, "re");
	char *got = f ? fgets(out, (int)size, f) : NULL;

	if (f)
		fclose(f);
	if (!got)
		return -1;
	out[strcspn(out, "\n")] = '\0';
	return 0;
}

static enum level check_system(void)
{
	struct utsname u;

	if (uname(&u) < 0)
		return OK;
	return say(OK, "%s %s, %s, glibc %s", u.sysname, u.release, u.machine,
		   gnu_get_libc_version());
}

/* Runs ourselves as `memtrace --version` under the shim, quietly. 0: it ended well. */
static int run_traced(const char *trace)
{
	int status = -1;
	pid_t pid = fork();

	if (pid == 0) {
		int null = open("/dev/null", O_RDWR | O_CLOEXEC);

		if (null < 0 || dup2(null, STDOUT_FILENO) < 0 || preload_shim() < 0 ||
		    setenv("MEMTRACE_OUT", trace, 1) < 0 || setenv("MEMTRACE_QUIET", "1", 1) < 0)
			_exit(1);
		unsetenv("MEMTRACE_TRACE");
		unsetenv("MEMTRACE_MODE");
		execl("/proc/self/exe", "memtrace", "--version", (char *)NULL);
		_exit(1);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -1;
	return status;
}

/* The whole way: the loader takes the shim and a trace lies in the folder afterwards. */
static enum level check_preload(void)
{
	char shim[PATH_MAX], folder[] = "memtrace-doctor-XXXXXX", trace[64];
	struct stat st;
	int status, made;

	if (find_part("libmemtrace.so", shim, sizeof(shim)) < 0)
		return say(BAD, "libmemtrace.so was not found");
	if (!mkdtemp(folder))
		return say(BAD, "a trace can't be written to this folder (%s); see --out",
			   strerror(errno));
	snprintf(trace, sizeof(trace), "%s/t", folder);
	status = run_traced(trace);
	made = stat(trace, &st) == 0 && st.st_size > 0;
	unlink(trace);
	rmdir(folder);
	if (status)
		return say(BAD, "a program under %s does not end well (status %#x)", shim, status);
	if (!made)
		return say(BAD, "a program under %s leaves no trace in this folder", shim);
	return say(OK, "a program was recorded with %s", shim);
}

static enum level check_space(void)
{
	struct statvfs fs;
	unsigned long long mib;

	if (statvfs(".", &fs) < 0)
		return OK;
	mib = (unsigned long long)fs.f_bavail * fs.f_frsize >> 20;
	return say(mib < 1024 ? NOTE : OK, "%llu MiB free in this folder for the trace", mib);
}

static enum level check_clock(void)
{
	char clock[64];

	if (read_line("/sys/devices/system/clocksource/clocksource0/current_clocksource", clock,
		      sizeof(clock)) < 0)
		return OK;
	if (!strcmp(clock, "tsc"))
		return OK;
	return say(NOTE,
		   "the kernel's clock is %s: if the cpu's counter is not steady here, each "
		   "event is stamped by the slower system clock",
		   clock);
}

static enum level check_proc(void)
{
	if (access("/proc/self/smaps_rollup", R_OK) == 0)
		return OK;
	return say(NOTE, "no /proc/self/smaps_rollup: PSS will not be measured");
}

/* What --cow-touch needs, as preload/record/touch.c asks for it. */
static enum level check_touch(void)
{
	struct perf_event_attr attr = { .type = PERF_TYPE_SOFTWARE,
					.size = sizeof(attr),
					.config = PERF_COUNT_SW_PAGE_FAULTS_MIN,
					.sample_period = 1,
					.sample_type = PERF_SAMPLE_ADDR,
					.disabled = 1,
					.inherit = 1,
					.exclude_kernel = 1,
					.exclude_hv = 1,
					.inherit_thread = 1,
					.remove_on_exec = 1,
					.sigtrap = 1 };
	int major = 0, minor = 0, fd;
	struct utsname u;

	if (uname(&u) < 0 || sscanf(u.release, "%d.%d", &major, &minor) != 2 ||
	    major * 100 + minor < 601)
		return say(NOTE, "--cow-touch can't be used: it needs Linux 6.1");
	fd = (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
	if (fd < 0)
		return say(NOTE,
			   "--cow-touch can't be used: perf_event_open: %s (perf_event_paranoid, "
			   "or a container's filter)",
			   strerror(errno));
	close(fd);
	return say(OK, "--cow-touch: page-fault events are allowed");
}

static enum level (*const machine_checks[])(void) = {
	check_system, check_preload, check_space, check_clock, check_proc, check_touch,
};

/* By the name of the file that a link like python3 leads to: no interpreter is started. */
static enum level check_python(const char *path)
{
	char *real = realpath(path, NULL);
	const char *base = real && strrchr(real, '/') ? strrchr(real, '/') + 1 : "";
	enum level level = OK;
	int minor;

	if (sscanf(base, "python3.%d", &minor) == 1) {
		if (minor >= 8 && minor <= 13)
			level = say(OK, "Python 3.%d: files, functions and lines in stacks", minor);
		else
			level = say(NOTE,
				    "Python 3.%d is not one of those tested (3.8 to 3.13): "
				    "stacks may lack Python lines",
				    minor);
	}
	free(real);
	return level;
}

static enum level check_program(const char *path)
{
	const char *why = why_not_traced(path);

	if (why)
		return say(BAD, "%s cannot be recorded: %s", path, why);
	say(OK, "%s: the loader will take the shim", path);
	return check_python(path);
}

/* A running process: recorded from its start or not at all. */
static enum level check_process(const char *pid)
{
	char path[64], line[PATH_MAX + 256], exe[PATH_MAX];
	int found = 0;
	ssize_t n;
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%s/exe", pid);
	n = readlink(path, exe, sizeof(exe) - 1);
	snprintf(path, sizeof(path), "/proc/%s/maps", pid);
	maps = fopen(path, "re");
	if (n < 0 || !maps) {
		if (maps)
			fclose(maps);
		return say(BAD, "process %s: %s", pid, strerror(errno));
	}
	exe[n] = '\0';
	while (!found && fgets(line, sizeof(line), maps))
		found = strstr(line, "/libmemtrace.so") != NULL;
	fclose(maps);
	if (found)
		return say(OK, "process %s (%s) has the shim and is being recorded", pid, exe);
	say(BAD, "process %s (%s) was started without the shim; start it by `memtrace run`", pid,
	    exe);
	check_program(exe);
	return BAD;
}

int command_doctor(int argc, char **argv)
{
	char path[PATH_MAX];
	enum level worst = OK, level;
	int at = argc > 1 && !strcmp(argv[1], "--") ? 2 : 1;

	for (size_t i = 0; i < sizeof(machine_checks) / sizeof(machine_checks[0]); i++) {
		level = machine_checks[i]();
		worst = level > worst ? level : worst;
	}
	if (at < argc) {
		int err = find_program(argv[at], path, sizeof(path));

		if (err && argv[at][strspn(argv[at], "0123456789")] == '\0')
			level = check_process(argv[at]);
		else if (err)
			level = say(BAD, "%s: %s", argv[at], strerror(err));
		else
			level = check_program(path);
		worst = level > worst ? level : worst;
	}
	return fflush(stdout) || worst == BAD;
}
