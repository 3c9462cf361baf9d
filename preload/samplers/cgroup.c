/*
 * Usage, limit and OOM kills of the memory cgroup, version 1 or 2. The limit is the smallest one
 * over the ancestors that can be seen: a container's own may say "max" while the pod's does not.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "samplers/sampler.h"
#include "sys/fmt.h"
#include "sys/sys.h"

#define NO_LIMIT_V1 UINT64_C(0x7ffffffffffff000)

/* What differs between the versions. */
static const struct layout {
	const char *root, *usage, *limit, *events, *kills;
} layouts[] = {
	{ "/sys/fs/cgroup", "memory.current", "memory.max", "memory.events", "oom_kill" },
	{ "/sys/fs/cgroup/memory", "memory.usage_in_bytes", "memory.limit_in_bytes",
	  "memory.oom_control", "oom_kill" },
};

static const struct layout *layout; /* NULL: looked for and not found */
static char group[1024]; /* "/sys/fs/cgroup/...", without a trailing slash */
static uint64_t smallest_limit; /* 0: none */
static int looked;
static const char *prefix = ""; /* for tests: a folder with proc/ and sys/ in it */

static int read_file(const char *dir, const char *name, char *text, size_t size)
{
	char path[1200];

	mt_fmt(path, sizeof(path), "%s/%s", dir, name);
	return mt_sys_slurp(path, text, size) > 0;
}

/* The number a limit file holds; 0 for "max" and the like. */
static uint64_t parse_limit(const char *text)
{
	uint64_t v = *text >= '0' && *text <= '9' ? mt_parse_number(&text, 10) : 0;

	return v >= NO_LIMIT_V1 ? 0 : v;
}

/* The line of /proc/self/cgroup for the memory controller: "0::/path" or "N:...memory...:/path". */
static const char *own_path(const char *text, int version1)
{
	for (const char *line = text; line && *line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (!version1 && !strncmp(line, "0::", 3))
			return line + 3;
		if (version1) {
			const char *colon = strchr(line, ':');
			const char *second = colon ? strchr(colon + 1, ':') : NULL;
			const char *hit = colon ? strstr(colon, "memory") : NULL;

			if (second && hit && hit < second)
				return second + 1;
		}
	}
	return NULL;
}

static void find_limits(size_t root_length)
{
	char dir[sizeof(group)], text[64];

	memcpy(dir, group, sizeof(dir));
	for (;;) {
		char *slash;

		if (read_file(dir, layout->limit, text, sizeof(text))) {
			uint64_t limit = parse_limit(text);

			if (limit && (!smallest_limit || limit < smallest_limit))
				smallest_limit = limit;
		}
		slash = strrchr(dir, '/');
		if (!slash || (size_t)(slash - dir) < root_length)
			return;
		*slash = '\0';
	}
}

static void look(void)
{
	char text[4096], probe[64], name[512];

	looked = 1;
	mt_fmt(name, sizeof(name), "%s/proc/self/cgroup", prefix);
	if (mt_sys_slurp(name, text, sizeof(text)) <= 0)
		return;
	for (int v = 1; v >= 0 && !layout; v--) {
		const char *path = own_path(text, v);
		const char *end = path ? strchr(path, '\n') : NULL;
		size_t root = strlen(prefix) + strlen(layouts[v].root);
		size_t length = end ? (size_t)(end - path) : 0;

		if (!path || root + length + 1 > sizeof(group))
			continue;
		mt_fmt(group, sizeof(group), "%s%s", prefix, layouts[v].root);
		memcpy(group + root, path, length);
		group[root + length] = '\0';
		if (length == 1) /* "/": no trailing slash */
			group[root] = '\0';
		/* In a cgroup namespace the path is not ours to see: the mount's root is. */
		if (!read_file(group, layouts[v].usage, probe, sizeof(probe)))
			group[root] = '\0';
		if (read_file(group, layouts[v].usage, probe, sizeof(probe)))
			layout = &layouts[v];
	}
	if (layout)
		find_limits(strlen(prefix) + strlen(layout->root));
}

void mt_sampler_cgroup_at(const char *folder)
{
	prefix = folder;
	layout = NULL;
	smallest_limit = 0;
	looked = 0;
}

static void cgroup_sample(struct mt_ev_sample *s)
{
	char text[512];
	const char *p = text;
	int64_t kills;

	if (!looked)
		look();
	if (!layout)
		return;
	if (read_file(group, layout->usage, text, sizeof(text)))
		s->cgroup_usage = mt_parse_number(&p, 10) + 1;
	if (smallest_limit)
		s->cgroup_limit = smallest_limit + 1;
	if (read_file(group, layout->events, text, sizeof(text)) &&
	    (kills = mt_find_field(text, "oom_kill ")) >= 0)
		s->oom_kills = (uint64_t)kills + 1;
}

const struct mt_sampler mt_sampler_cgroup = { "cgroup", cgroup_sample, 100 };
