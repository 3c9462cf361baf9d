/*
 * NVML, in a process of its own. See nvml.h for why. The helper closes everything but its pipe, so
 * that whoever waits for the end of our output does not wait for it, and is killed with us; one that
 * hangs inside a driver can't be killed, and nobody waits for it either.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "nvml.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CLIENTS 256 /* of a device; with more, none is told */
#define DEVICES 64
#define REST 20 /* the helper rests so many times as long as the questions took ... */
#define MOST_REST_NS (UINT64_C(10) << 30) /* ... up to some 10 s */
#define PATIENCE_NS (UINT64_C(30) << 30) /* some 30 s: nvmlInit may take a few on a large machine */
#define LAST_WAIT_MS 100 /* for it to end; longer takes what is stuck in a driver */
#define PIPE_FD 3 /* the only descriptor of the helper but for three of /dev/null */
#define NOT_AVAILABLE UINT64_MAX /* NVML_VALUE_NOT_AVAILABLE */
#define INITIAL_PID_NAMESPACE UINT64_C(0xeffffffc) /* inode, fixed by the kernel */

struct process_info { /* nvmlProcessInfo_t, of the calls with _v2 and _v3 */
	unsigned int pid;
	unsigned long long bytes;
	unsigned int instance, compute_instance;
};

static struct {
	int (*init)(void);
	int (*count)(unsigned int *devices);
	int (*by_index)(unsigned int index, void **device);
	int (*uuid)(void *device, char *text, unsigned int size);
	int (*memory)(void *device, unsigned long long *total_free_used);
	int (*processes)(void *device, unsigned int *count, struct process_info *list);
	int (*mig)(void *device, unsigned int *current, unsigned int *pending); /* NULL: too old */
} ask;

static uint64_t monotonic_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- the helper ------------------------------------------------------------------------------------ */

static void *look_up(void *library, const char *name)
{
	return dlsym(library, name);
}

static int load(void)
{
	void *library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);

	if (!library)
		return -1;
	*(void **)&ask.init = look_up(library, "nvmlInit_v2");
	*(void **)&ask.count = look_up(library, "nvmlDeviceGetCount_v2");
	*(void **)&ask.by_index = look_up(library, "nvmlDeviceGetHandleByIndex_v2");
	*(void **)&ask.uuid = look_up(library, "nvmlDeviceGetUUID");
	*(void **)&ask.memory = look_up(library, "nvmlDeviceGetMemoryInfo");
	*(void **)&ask.mig = look_up(library, "nvmlDeviceGetMigMode");
	*(void **)&ask.processes = look_up(library, "nvmlDeviceGetComputeRunningProcesses_v3");
	if (!ask.processes)
		*(void **)&ask.processes = look_up(library,
						   "nvmlDeviceGetComputeRunningProcesses_v2");
	return ask.init && ask.count && ask.by_index && ask.uuid && ask.memory && ask.processes &&
			       ask.init() == 0
		       ? 0
		       : -1;
}

/* "GPU-8-4-4-4-12" hexadecimal digits; of anything else there is no device in a trace. */
static int uuid_of(void *device, uint8_t out[16])
{
	char text[96] = "";
	int digits = 0;

	if (ask.uuid(device, text, sizeof(text)) != 0 || strncmp(text, "GPU-", 4) != 0)
		return -1;
	text[sizeof(text) - 1] = '\0';
	for (const char *p = text + 4; *p; p++) {
		int v = *p >= '0' && *p <= '9'	 ? *p - '0'
			: *p >= 'a' && *p <= 'f' ? *p - 'a' + 10
			: *p >= 'A' && *p <= 'F' ? *p - 'A' + 10
						 : -1;

		if (v < 0 && *p == '-')
			continue;
		if (v < 0 || digits == 32)
			return -1;
		out[digits / 2] = (uint8_t)(digits % 2 ? out[digits / 2] | v : v << 4);
		digits++;
	}
	return digits == 32 ? 0 : -1;
}

static uint64_t plus_one(uint64_t bytes)
{
	return bytes == NOT_AVAILABLE ? 0 : bytes + 1;
}

/* A process that NVML lists more than once uses the sum. Returns how many are left. */
static unsigned int put_together(struct process_info *list, unsigned int count)
{
	unsigned int kept = 0, k;

	for (unsigned int i = 0; i < count; i++) {
		for (k = 0; k < kept && list[k].pid != list[i].pid; k++)
			;
		if (k == kept)
			list[kept++] = list[i];
		else if (list[k].bytes == NOT_AVAILABLE || list[i].bytes == NOT_AVAILABLE)
			list[k].bytes = NOT_AVAILABLE;
		else
			list[k].bytes += list[i].bytes;
	}
	return kept;
}

/* 0; -1: nobody listens any more. */
static int tell_device(int fd, unsigned int index, uint64_t (*clock)(void))
{
	static struct process_info list[CLIENTS];
	struct nvml_answer a = { 0 };
	unsigned long long memory[3];
	unsigned int count = CLIENTS, mig = 0, pending;
	void *device;

	/* Of a device in slices NVML says nothing of a process, and CUDA knows the slice alone. */
	if (ask.by_index(index, &device) != 0 || uuid_of(device, a.uuid) < 0 ||
	    (ask.mig && ask.mig(device, &mig, &pending) == 0 && mig))
		return 0;
	a.asked = clock();
	if (ask.processes(device, &count, list) != 0 || count > CLIENTS)
		return 0;
	a.answered = clock();
	if (ask.memory(device, memory) == 0)
		a.all = plus_one(memory[2]);
	a.clients = count = put_together(list, count);
	for (unsigned int i = 0; i < count; i++) {
		a.pid = list[i].pid;
		a.own = plus_one(list[i].bytes);
		if (write(fd, &a, sizeof(a)) != (ssize_t)sizeof(a))
			return -1;
	}
	return 0;
}

static _Noreturn void help(int fd, uint64_t interval, uint64_t (*clock)(void))
{
	struct pollfd end = { .fd = fd };
	unsigned int devices;

	if (load() < 0)
		_exit(0);
	for (;;) {
		static const struct nvml_answer nobody; /* also says: not hung */
		uint64_t begin = monotonic_ns(), rest;

		if (ask.count(&devices) != 0)
			_exit(0);
		for (unsigned int i = 0; i < devices && i < DEVICES; i++)
			if (tell_device(fd, i, clock) < 0)
				_exit(0);
		rest = (monotonic_ns() - begin) * REST;
		rest = rest < MOST_REST_NS ? rest : MOST_REST_NS;
		rest = rest > interval ? rest : interval;
		rest = rest < PATIENCE_NS / 2 ? rest : PATIENCE_NS / 2;
		/* Ends at once when the other end is closed. */
		if (write(fd, &nobody, sizeof(nobody)) != (ssize_t)sizeof(nobody) ||
		    poll(&end, 1, (int)(rest / 1000000) + 1) > 0)
			_exit(0);
	}
}

/* What it has of us and must not keep: our output, the terminal, signals that are blocked, and the
 * shim, which a program that NVML starts (nvidia-modprobe) would load. */
static void be_helper(int fd, pid_t parent)
{
	sigset_t none;
	int null;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent || dup2(fd, PIPE_FD) != PIPE_FD)
		_exit(0);
	prctl(PR_SET_NAME, "memtrace-nvml");
	setsid();
	fcntl(PIPE_FD, F_SETFD, FD_CLOEXEC);
	if (syscall(SYS_close_range, PIPE_FD + 1u, ~0u, 0u) < 0)
		for (int i = PIPE_FD + 1; i < 65536; i++)
			close(i);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int i = 0; i < PIPE_FD; i++)
		if (null < 0 || (null != i && dup2(null, i) < 0))
			close(i);
	if (chdir("/") < 0)
		_exit(0);
	unsetenv("LD_PRELOAD");
	for (int i = 1; i < SIGRTMAX; i++)
		signal(i, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* ---- the driver's side ----------------------------------------------------------------------------- */

int nvml_start(struct nvml *n, uint64_t interval, uint64_t (*clock)(void))
{
	pid_t parent = getpid();
	int fds[2];

	n->over = 1;
	if (pipe2(fds, O_CLOEXEC) < 0)
		return -1;
	fcntl(fds[0], F_SETFL, O_NONBLOCK);
	n->helper = fork();
	if (n->helper == 0) {
		be_helper(fds[1], parent);
		help(PIPE_FD, interval, clock);
	}
	close(fds[1]);
	if (n->helper < 0) {
		n->helper = 0;
		close(fds[0]);
		return -1;
	}
	n->fd = fds[0];
	n->heard = monotonic_ns();
	n->over = 0;
	return 0;
}

int nvml_next(struct nvml *n, struct nvml_answer *out)
{
	ssize_t got;

	if (!n->helper || n->over)
		return 0;
	for (;;) { /* each in one piece: pipes don't split what is so small */
		got = read(n->fd, out, sizeof(*out));
		if (got == (ssize_t)sizeof(*out)) {
			n->heard = monotonic_ns();
			if (out->clients)
				return 1;
			n->rounds++;
		} else if (got >= 0 || errno != EINTR) {
			break;
		}
	}
	if (got >= 0 || errno != EAGAIN || monotonic_ns() - n->heard > PATIENCE_NS) {
		nvml_stop(n);
		n->over = 1;
	}
	return 0;
}

void nvml_stop(struct nvml *n)
{
	static const struct timespec ms = { .tv_nsec = 1000000 };

	if (!n->helper)
		return;
	close(n->fd);
	/* While it is not waited for, its number is its own. */
	if (waitpid(n->helper, NULL, WNOHANG) == 0) {
		kill(n->helper, SIGKILL);
		for (int i = 0; i < LAST_WAIT_MS && waitpid(n->helper, NULL, WNOHANG) == 0; i++)
			nanosleep(&ms, NULL);
	}
	n->helper = 0;
}

/* ---- whose number it is ---------------------------------------------------------------------------- */

static int in_initial_namespace(void)
{
	struct stat st;

	return stat("/proc/self/ns/pid", &st) == 0 && (uint64_t)st.st_ino == INITIAL_PID_NAMESPACE;
}

pid_t nvml_match(uint32_t client, int (*is_ours)(void *arg, pid_t number, pid_t in_proc), void *arg,
		 int *is_other)
{
	char path[64], text[8192];
	const char *p;
	ssize_t got;
	int fd;

	*is_other = 0;
	snprintf(path, sizeof(path), "/proc/%u/status", client);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	got = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (fd >= 0)
		close(fd);
	text[got > 0 ? got : 0] = '\0';
	p = strstr(text, "\nNSpid:");
	for (p = p ? p + 7 : ""; *p == '\t' || *p == ' ';) {
		char *end;
		pid_t number = (pid_t)strtoul(p, &end, 10);

		if (end == p)
			break;
		if (number > 0 && is_ours(arg, number, (pid_t)client))
			return number;
		p = end;
	}
	if (got <= 0 && is_ours(arg, (pid_t)client, (pid_t)client)) /* gone in the meantime */
		return (pid_t)client;
	/* In a container the number may be of the host, and this process have it by chance. */
	*is_other = got > 0 && in_initial_namespace();
	return 0;
}
