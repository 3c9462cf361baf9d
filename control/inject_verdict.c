/*
 * What speaks against putting the shim into a running process, as far as /proc tells without touching
 * it. Each refusal is one clause and what to do about it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control.h"
#include "inject_parts.h"

#if defined(__x86_64__)
#define OWN_MACHINE EM_X86_64
#else
#define OWN_MACHINE EM_NONE
#endif

#define STATUS_MAX 8192
#define PF_KTHREAD 0x00200000u /* of the flags in /proc/PID/stat */

#define REFUSE(...) (snprintf(why, size, __VA_ARGS__), -1)

static ssize_t slurp(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -1;
	n = read(fd, text, size - 1);
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	return n;
}

/* What stands behind "Name:" in a text of such lines; NULL if there is none. */
static const char *field(const char *text, const char *name)
{
	size_t length = strlen(name);

	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (!strncmp(line, name, length) && line[length] == ':')
			return line + length + 1 + strspn(line + length + 1, " \t");
	}
	return NULL;
}

static int status_read(pid_t pid, char text[STATUS_MAX])
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	return slurp(path, text, STATUS_MAX) > 0 ? 0 : -1;
}

static long number(const char *text, const char *name, int base, long missing)
{
	const char *value = field(text, name);

	return value ? strtol(value, NULL, base) : missing;
}

long inject_status(pid_t pid, const char *name, int base, long missing)
{
	char text[STATUS_MAX];

	return status_read(pid, text) < 0 ? missing : number(text, name, base, missing);
}

pid_t inject_tracer(pid_t pid, pid_t tid)
{
	char path[64], text[STATUS_MAX];

	snprintf(path, sizeof(path), "/proc/%d/task/%d/status", (int)pid, (int)tid);
	return slurp(path, text, sizeof(text)) > 0 ? (pid_t)number(text, "TracerPid", 10, 0) : 0;
}

char inject_state(pid_t tid)
{
	char text[STATUS_MAX];
	const char *state = status_read(tid, text) < 0 ? NULL : field(text, "State");

	return state ? *state : '\0';
}

/* /proc/PID/status says so since Linux 6.8; before, only the flags of /proc/PID/stat do. */
static int is_kernel_thread(pid_t pid, const char *status)
{
	long said = number(status, "Kthread", 10, -1);
	char path[64], text[STATUS_MAX];
	const char *after;
	unsigned int flags;

	if (said >= 0)
		return said == 1;
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	after = slurp(path, text, sizeof(text)) > 0 ? strrchr(text, ')') : NULL;
	return after && sscanf(after, ") %*c %*d %*d %*d %*d %*d %u", &flags) == 1 &&
	       flags & PF_KTHREAD;
}

/* Is there a process at all, and one that can be spoken to? */
static int state_verdict(pid_t pid, const char *status, char *why, size_t size)
{
	const char *state = field(status, "State");
	long group = number(status, "Tgid", 10, pid), tracer = number(status, "TracerPid", 10, 0);
	char name[64] = "", path[64];

	if (group != pid)
		return REFUSE("it is a thread of process %ld; give that number", group);
	if (state && (*state == 'Z' || *state == 'X'))
		return REFUSE("it has ended (its parent has not waited for it)");
	if (is_kernel_thread(pid, status))
		return REFUSE("it is a thread of the kernel");
	if (!field(status, "VmSize")) /* its memory is gone, its state not yet that of a zombie */
		return REFUSE("it has ended (its parent has not waited for it)");
	if (tracer) {
		snprintf(path, sizeof(path), "/proc/%ld/comm", tracer);
		if (slurp(path, name, sizeof(name)) > 0)
			name[strcspn(name, "\n")] = '\0';
		return REFUSE("process %ld (%s) traces it already; end that debugger or strace "
			      "first",
			      tracer, name);
	}
	if (state && (*state == 'T' || *state == 't'))
		return REFUSE("it is stopped; continue it first (kill -CONT %d)", pid);
	return 0;
}

/* /proc/PID/status has real, effective, saved and file system ids. */
static int owner_verdict(pid_t pid, const char *status, char *why, size_t size)
{
	unsigned int real, effective, saved;
	const char *ids = field(status, "Uid");
	struct passwd *user;
	char path[64];

	if (geteuid() == 0 || !ids || sscanf(ids, "%u %u %u", &real, &effective, &saved) != 3)
		return 0;
	if (real == effective && real == saved && real != geteuid()) {
		user = getpwuid(real);
		return REFUSE("it belongs to %s; run memtrace as that user or as root",
			      user ? user->pw_name : "another user");
	}
	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	if (real != effective || real != saved || access(path, R_OK) < 0)
		return REFUSE("it has changed its privileges (setuid program, or one that forbids "
			      "being looked at); run memtrace as root");
	return 0;
}

/*
 * Filters that we are under as well were set around the whole container: what they let us do they
 * let the target do. Those of its own may kill it for opening a file.
 */
static int seccomp_verdict(const char *status, char *why, size_t size)
{
	long mode = number(status, "Seccomp", 10, 0);
	long filters = number(status, "Seccomp_filters", 10, mode == 2);

	if (mode == 1 || (mode == 2 && filters > inject_status(getpid(), "Seccomp_filters", 10, 0)))
		return REFUSE("it runs under a seccomp filter, which may kill it for opening a "
			      "file; start it with memtrace run, or run memtrace inside its "
			      "container if the filter is the container's");
	return 0;
}

static int interpreter_verdict(int fd, const Elf64_Ehdr *e, char *why, size_t size)
{
	char name[256] = "";
	Elf64_Phdr p;

	for (unsigned int i = 0; i < e->e_phnum; i++) {
		if (pread(fd, &p, sizeof(p), (off_t)(e->e_phoff + i * sizeof(p))) !=
		    (ssize_t)sizeof(p))
			break;
		if (p.p_type != PT_INTERP)
			continue;
		if (pread(fd, name, sizeof(name) - 1, (off_t)p.p_offset) > 0 &&
		    strstr(name, "ld-musl"))
			return REFUSE("it uses another C library than glibc (musl)");
		return 0;
	}
	return REFUSE("it is statically linked: there is no loader in it that could load anything");
}

static int program_verdict(pid_t pid, char *why, size_t size)
{
	char path[64], name[PATH_MAX] = "";
	Elf64_Ehdr e = { 0 };
	const char *base;
	int fd, result = 0;

	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	if (readlink(path, name, sizeof(name) - 1) < 0)
		name[0] = '\0';
	base = strrchr(name, '/');
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return REFUSE("its program can't be read: %s; %s", strerror(errno),
			      geteuid() ? "run memtrace as root"
					: "this root may not look at it (CAP_SYS_PTRACE)");
	if (pread(fd, &e, sizeof(e), 0) == (ssize_t)sizeof(e) &&
	    (e.e_ident[EI_CLASS] != ELFCLASS64 || e.e_machine != OWN_MACHINE))
		result = REFUSE("it is for another architecture than the shim (%s)",
				e.e_ident[EI_CLASS] == ELFCLASS32 ? "32 bits" : "not x86-64");
	else if (!base || strncmp(base, "/ld-linux", 9) != 0) /* started through the loader */
		result = interpreter_verdict(fd, &e, why, size);
	close(fd);
	return result;
}

/* Not a copy in the target's file system: it would stay there, and it may be read-only. */
static int place_verdict(pid_t pid, const char *shim, char *why, size_t size)
{
	char path[PATH_MAX + 32];
	struct stat ours, theirs;

	snprintf(path, sizeof(path), "/proc/%d/root%s", pid, shim);
	if (stat(shim, &ours) == 0 && stat(path, &theirs) == 0 && ours.st_dev == theirs.st_dev &&
	    ours.st_ino == theirs.st_ino)
		return 0;
	return REFUSE("it sees other files than we do (a container or chroot), and not %s; run "
		      "memtrace in there, or mount that file at the same place",
		      shim);
}

int inject_has_shadow_stack(const char *status)
{
	const char *features = field(status, "x86_Thread_features");
	const char *found = features ? strstr(features, "shstk") : NULL;

	return found && !memchr(features, '\n', (size_t)(found - features));
}

int inject_shadow_verdict(pid_t pid, char *why, size_t size)
{
	char status[STATUS_MAX];

	if (status_read(pid, status) < 0 || !inject_has_shadow_stack(status))
		return 0;
	return REFUSE(
		"it runs with a shadow stack (CET), which a diverted thread could not return by; "
		"start it with memtrace run, or without that (GLIBC_TUNABLES="
		"glibc.cpu.x86_shstk=off)");
}

int inject_verdict(pid_t pid, const char *shim, char *why, size_t size)
{
	char status[STATUS_MAX];

	if (OWN_MACHINE == EM_NONE)
		return REFUSE("attaching to a program that was started without the shim works on "
			      "x86-64 only; start it with memtrace run --mode dormant");
	if (pid <= 0 || status_read(pid, status) < 0)
		return REFUSE("there is no such process");
	if (pid == getpid() || pid == getppid())
		return REFUSE("that is memtrace itself");
	if (state_verdict(pid, status, why, size) < 0 ||
	    owner_verdict(pid, status, why, size) < 0 || program_verdict(pid, why, size) < 0 ||
	    seccomp_verdict(status, why, size) < 0 || place_verdict(pid, shim, why, size) < 0)
		return -1;
	return 0;
}

void inject_denied(const char *proc, pid_t pid, int error, char *why, size_t size)
{
	char path[PATH_MAX], text[64] = "";
	int scope = 0;

	snprintf(path, sizeof(path), "%s/sys/kernel/yama/ptrace_scope", proc);
	if (slurp(path, text, sizeof(text)) > 0)
		scope = atoi(text);
	if (error == ESRCH || inject_status(pid, "VmSize", 10, -1) < 0)
		snprintf(why, size, "it has ended");
	else if (error != EPERM && error != EACCES)
		snprintf(why, size, "ptrace: %s", strerror(error));
	else if (scope == 3)
		snprintf(why, size,
			 "this machine allows no ptrace until it is restarted "
			 "(kernel.yama.ptrace_scope=3); start the program with memtrace run");
	else if (scope && geteuid() != 0)
		snprintf(why, size,
			 "this machine lets only root trace a running process "
			 "(kernel.yama.ptrace_scope=%d); run memtrace as root, or: sudo sysctl "
			 "kernel.yama.ptrace_scope=0",
			 scope);
	else
		snprintf(why, size,
			 "the kernel does not allow tracing process %d; run memtrace as root, in a "
			 "container with --cap-add SYS_PTRACE",
			 pid);
}
