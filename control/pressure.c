/*
 * memtrace run --on-threshold: a command of the user's when memory runs short. It is started by the
 * driver and never by the program that is recorded. For RAM and cgroup the driver looks for itself, once
 * a second, so it works for any command; what GPUs have passed it reads in the trace's header.
 * Thresholds are those of the shim's marks (preload/samplers/pressure.c).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control.h"
#include "page.h"

#define FALL 5 /* per cent below a threshold, when passing it counts anew */

struct limit {
	const char *name;
	int level; /* how many thresholds are passed */
	uint64_t used, most;
};

static void machine(struct limit *l)
{
	uint64_t total = 0, available = 0;
	char line[256];
	FILE *f = fopen("/proc/meminfo", "re");

	while (f && fgets(line, sizeof(line), f)) {
		sscanf(line, "MemTotal: %" SCNu64, &total);
		sscanf(line, "MemAvailable: %" SCNu64, &available);
	}
	if (f)
		fclose(f);
	l->most = total * 1024;
	l->used = total > available ? (total - available) * 1024 : 0;
}

static void cgroup(struct limit *l)
{
	struct cgroup c;

	cgroup_read("", &c);
	l->most = c.limit;
	l->used = c.limited_usage;
}

static int level_of(const struct limit *l)
{
	static const unsigned int at[] = { 70, 80, 90 };
	int level = 0;

	for (int i = 0; i < 3 && l->most; i++)
		level += (double)l->used >=
			 (double)l->most * (at[i] - (l->level > i ? FALL : 0)) / 100;
	return level;
}

/* Not waited for here: the driver reaps all its children. */
static void start(const char *command, const char *what)
{
	sigset_t none;

	if (fork() != 0)
		return;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	unsetenv("LD_PRELOAD");
	setenv("MEMTRACE_THRESHOLD", what, 1);
	execl("/bin/sh", "sh", "-c", command, (char *)NULL);
	_exit(127);
}

/* What the trace says has been passed; 0 where there is none to be read. */
static uint32_t passed_in_trace(pid_t pid)
{
	char why[256], path[PATH_MAX], full[PATH_MAX + 32];
	uint32_t warned = 0;
	struct target t;
	FILE *f;

	if (target_open(&t, pid, why, sizeof(why)) != REACHED)
		return 0;
	target_trace(&t, path, sizeof(path));
	target_close(&t);
	snprintf(full, sizeof(full), "/proc/%d/root%s", (int)pid, path);
	f = path[0] ? fopen(full, "re") : NULL;
	if (f && (fseek(f, offsetof(struct mt_file_header, warned), SEEK_SET) < 0 ||
		  fread(&warned, sizeof(warned), 1, f) != 1))
		warned = 0;
	if (f)
		fclose(f);
	return warned;
}

static void look_at_devices(const char *command, pid_t pid)
{
	static const unsigned int at[] = { 0, 80, 90, 95 };
	static uint32_t before;
	uint32_t now = passed_in_trace(pid);
	char what[64];

	for (unsigned int i = 0; i < 8; i++) {
		uint32_t level = now >> (16 + 2 * i) & 3;

		if (level > (before >> (16 + 2 * i) & 3)) {
			snprintf(what, sizeof(what), "GPU%u %u", i, at[level]);
			start(command, what);
		}
	}
	before = now;
}

void pressure_look(const char *command, pid_t pid)
{
	static struct limit limits[] = { { .name = "RAM" }, { .name = "cgroup" } };
	char what[64];
	int level;

	machine(&limits[0]);
	cgroup(&limits[1]);
	for (size_t i = 0; i < 2; i++) {
		level = level_of(&limits[i]);
		if (level > limits[i].level) {
			snprintf(what, sizeof(what), "%s %d", limits[i].name, 60 + 10 * level);
			start(command, what);
		}
		limits[i].level = level;
	}
	look_at_devices(command, pid);
}
