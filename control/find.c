/*
 * Finding things: our own parts, and the program to run.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control.h"

#ifndef MT_PREFIX
#define MT_PREFIX "/usr/local"
#endif

/* DIR/NAME, DIR/../lib/memtrace/NAME, DIR/../bin/NAME: a build folder, or an installed tree. */
static int try_place(const char *dir, const char *between, const char *name, char *out, size_t size)
{
	char raw[2 * PATH_MAX];
	char *real;
	int found;

	snprintf(raw, sizeof(raw), "%s/%s%s", dir, between, name);
	real = realpath(raw, NULL);
	found = real && strlen(real) < size;
	if (found)
		memcpy(out, real, strlen(real) + 1);
	free(real);
	return found;
}

int find_part(const char *name, char *out, size_t size)
{
	static const char *const places[] = { "", "../lib/memtrace/", "../bin/" };
	char dir[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", dir, sizeof(dir) - 1);

	dir[n < 0 ? 0 : n] = '\0';
	if (strrchr(dir, '/')) {
		*strrchr(dir, '/') = '\0';
		for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
			if (try_place(dir, places[i], name, out, size))
				return 0;
	}
	if (try_place(MT_PREFIX, "lib/memtrace/", name, out, size) ||
	    try_place(MT_PREFIX, "bin/", name, out, size))
		return 0;
	complain("%s is neither beside this program nor under %s; build or install it", name,
		 MT_PREFIX);
	return -1;
}

static int try_program(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return errno;
	if (S_ISDIR(st.st_mode) || access(path, X_OK) < 0)
		return EACCES;
	return 0;
}

int find_program(const char *command, char *out, size_t size)
{
	const char *path = getenv("PATH");
	int result = ENOENT;

	if (strchr(command, '/')) {
		if ((size_t)snprintf(out, size, "%s", command) >= size)
			return ENAMETOOLONG;
		return try_program(out);
	}
	if (!*command)
		return ENOENT;
	for (path = path ? path : "/bin:/usr/bin"; path;) {
		const char *colon = strchr(path, ':');
		int length = colon ? (int)(colon - path) : (int)strlen(path);
		int err;

		snprintf(out, size, "%.*s%s%s", length, path, length ? "/" : "./", command);
		err = try_program(out);
		if (!err)
			return 0;
		if (err == EACCES)
			result = EACCES;
		path = colon ? colon + 1 : NULL;
	}
	return result;
}
