/*
 * memtrace run --on-threshold: a command of the user's when memory runs short. It is started by the
 * driver and never by the program that is recorded; the driver looks for itself, once a second, so it
 * works for any command. Thresholds are those of the shim's marks (preload/samplers/pressure.c).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control.h"

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

void pressure_look(const char *command)
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
}
