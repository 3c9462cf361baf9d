/*
 * What /proc tells of other processes: their tree, and what they hold. See page.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <ctype.h>
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control.h"
#include "page.h"

/* From the field behind the command, which may hold spaces and parentheses: field 3 is the first. */
static int stat_fields(pid_t pid, pid_t *parent, uint64_t *start)
{
	char path[64], text[2048];
	unsigned long long at22 = 0;
	int ppid = 0;
	const char *p;
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return -1;
	n = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[n] = '\0';
	p = strrchr(text, ')');
	if (!p || sscanf(p + 1,
			 " %*c %d %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s "
			 "%*s %llu",
			 &ppid, &at22) != 2)
		return -1;
	*parent = (pid_t)ppid;
	*start = at22;
	return 0;
}

uint64_t process_start(pid_t pid)
{
	uint64_t start;
	pid_t parent;

	return stat_fields(pid, &parent, &start) < 0 ? 0 : start;
}

pid_t process_parent(pid_t pid)
{
	uint64_t start;
	pid_t parent;

	return stat_fields(pid, &parent, &start) < 0 ? 0 : parent;
}

int process_is_gone(pid_t pid)
{
	char path[64], text[512];
	const char *p;
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return 1;
	n = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[n] = '\0';
	p = strrchr(text, ')');
	return !p || p[1] != ' ' || p[2] == 'Z' || p[2] == 'X';
}

struct pair {
	pid_t pid, parent;
};

static struct pair *all_processes(size_t *count)
{
	struct pair *all = NULL;
	struct dirent *entry;
	size_t n = 0, room = 0;
	DIR *dir = opendir("/proc");

	while (dir && (entry = readdir(dir))) {
		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		if (n == room) {
			struct pair *more = realloc(all, (room = 2 * room + 256) * sizeof(*all));

			if (!more)
				break;
			all = more;
		}
		all[n].pid = (pid_t)strtol(entry->d_name, NULL, 10);
		all[n].parent = process_parent(all[n].pid);
		n++;
	}
	if (dir)
		closedir(dir);
	*count = n;
	return all;
}

size_t process_tree(pid_t pid, pid_t **list)
{
	size_t count, n = 0;
	struct pair *all = all_processes(&count);
	pid_t *out = malloc((count + 1) * sizeof(*out));

	if (out)
		out[n++] = pid;
	for (size_t at = 0; out && at < n; at++)
		for (size_t i = 0; i < count && n <= count; i++)
			if (all[i].parent == out[at] && all[i].pid != pid)
				out[n++] = all[i].pid;
	free(all);
	*list = out;
	return n;
}

int64_t process_field(pid_t pid, const char *file, const char *key)
{
	char path[64], line[512];
	size_t length = strlen(key);
	int64_t value = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
	f = fopen(path, "re");
	while (f && value < 0 && fgets(line, sizeof(line), f))
		if (!strncmp(line, key, length) && line[length] == ':')
			value = strtoll(line + length + 1, NULL, 10);
	if (f)
		fclose(f);
	return value;
}

int process_argument(const char *verb, const char *text, pid_t *pid)
{
	char *end = NULL;
	long value = text ? strtol(text, &end, 10) : 0;

	if (text && end != text && !*end && value > 0 && value <= INT_MAX) {
		*pid = (pid_t)value;
		return 0;
	}
	complain(text ? "%s: %s is not a process id" : "%s: which process? See memtrace --help",
		 verb, text);
	return EXIT_USAGE;
}
