/*
 * The memory cgroup as the driver sees it, version 1 or 2: what the shim's sampler
 * (preload/samplers/cgroup.c) reads inside a process, for times when no process is left to read it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control.h"

#define NO_LIMIT_V1 UINT64_C(0x7ffffffffffff000)

/* What differs between the versions. */
static const struct layout {
	const char *root, *usage, *limit, *events;
} layouts[] = {
	{ "/sys/fs/cgroup", "memory.current", "memory.max", "memory.events" },
	{ "/sys/fs/cgroup/memory", "memory.usage_in_bytes", "memory.limit_in_bytes",
	  "memory.oom_control" },
};

/* The number a file begins with; 0: "max", or it can't be read. */
static uint64_t number_in(const char *group, const char *name)
{
	char path[PATH_MAX + 64];
	uint64_t v = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", group, name);
	f = fopen(path, "re");
	if (f && fscanf(f, "%" SCNu64, &v) != 1)
		v = 0;
	if (f)
		fclose(f);
	return v >= NO_LIMIT_V1 ? 0 : v;
}

static int has(const char *group, const char *name)
{
	char path[PATH_MAX + 64];

	snprintf(path, sizeof(path), "%s/%s", group, name);
	return access(path, R_OK) == 0;
}

/* "0::/path" or "N:...,memory,...:/path": the path of that version's memory controller. */
static const char *path_in(char *line, int version1)
{
	char *controllers = strchr(line, ':');
	char *path = controllers ? strchr(controllers + 1, ':') : NULL, *save = NULL;

	line[strcspn(line, "\n")] = '\0';
	if (!path)
		return NULL;
	if (!version1)
		return strncmp(line, "0::", 3) ? NULL : path + 1;
	*path++ = '\0';
	for (char *c = strtok_r(controllers + 1, ",", &save); c; c = strtok_r(NULL, ",", &save))
		if (!strcmp(c, "memory"))
			return path;
	return NULL;
}

/* The folder of the process's group; 0: it has none of that version, with a memory controller. */
static int group_find(const char *prefix, int version1, char *group, size_t size)
{
	char line[PATH_MAX], name[PATH_MAX];
	const char *path = NULL;
	FILE *f;

	snprintf(name, sizeof(name), "%s/proc/self/cgroup", prefix);
	f = fopen(name, "re");
	while (f && !path && fgets(line, sizeof(line), f))
		path = path_in(line, version1);
	if (f)
		fclose(f);
	if (!path)
		return 0;
	snprintf(group, size, "%s%s%s", prefix, layouts[version1].root,
		 !strcmp(path, "/") ? "" : path);
	/* In a cgroup namespace the path is not ours to see: the mount's root is. */
	if (!has(group, layouts[version1].usage))
		snprintf(group, size, "%s%s", prefix, layouts[version1].root);
	return has(group, layouts[version1].usage);
}

static uint64_t kills_in(const char *group, const char *name)
{
	char path[PATH_MAX + 64], line[128];
	uint64_t kills = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", group, name);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, "oom_kill ", 9))
			kills = strtoull(line + 9, NULL, 10);
	if (f)
		fclose(f);
	return kills;
}

int cgroup_read(const char *prefix, struct cgroup *out)
{
	const struct layout *l;
	char group[PATH_MAX];
	size_t root;
	int version1 = 1;

	memset(out, 0, sizeof(*out));
	while (version1 >= 0 && !group_find(prefix, version1, group, sizeof(group)))
		version1--;
	if (version1 < 0)
		return -1;
	l = &layouts[version1];
	root = strlen(prefix) + strlen(l->root);
	out->usage = number_in(group, l->usage);
	out->kills = kills_in(group, l->events);
	/* The smallest limit over the ancestors that can be seen, with the use of that one. */
	for (char *slash = group; slash; *slash = '\0') {
		uint64_t limit = number_in(group, l->limit);

		if (limit && (!out->limit || limit < out->limit)) {
			out->limit = limit;
			out->limited_usage = number_in(group, l->usage);
		}
		slash = strrchr(group, '/');
		if (!slash || (size_t)(slash - group) < root)
			break;
	}
	return 0;
}
