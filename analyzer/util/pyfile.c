/*
 * See pyfile.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "util/pyfile.h"

#include <ctype.h>
#include <stddef.h>
#include <string.h>

/* What stands after one of these in a path is the name that people know. */
static const char *const package_roots[] = { "/site-packages/", "/dist-packages/" };

static const char *inside_package(const char *file)
{
	for (size_t i = 0; i < sizeof(package_roots) / sizeof(package_roots[0]); i++) {
		const char *at = strstr(file, package_roots[i]);

		if (at)
			return at + strlen(package_roots[i]);
	}
	return NULL;
}

/* ".../lib/python3.11/asyncio/events.py": what stands after the version; NULL: another file. */
static const char *inside_library(const char *file)
{
	const char *at = strstr(file, "/lib/python3");

	if (!at)
		at = strstr(file, "/lib64/python3");
	if (!at)
		return NULL;
	at = strstr(at, "python3") + strlen("python3");
	while (*at == '.' || isdigit((unsigned char)*at))
		at++;
	return *at == '/' ? at + 1 : NULL;
}

const char *pyfile_inside(const char *file)
{
	const char *inside = inside_package(file);

	return inside ? inside : inside_library(file);
}

bool pyfile_is_users(const char *file)
{
	return file && strncmp(file, "<frozen ", 8) != 0 && !pyfile_inside(file);
}
