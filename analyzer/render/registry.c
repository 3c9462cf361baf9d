/*
 * The list of renderers.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "render/render.h"

const struct renderer renderers[] = {
	{ "terminal", "for reading", render_terminal },
	{ "json", "for programs: schema memtrace-report/1", render_json },
	{ NULL, NULL, NULL },
};

const struct renderer *renderer_find(const char *name)
{
	for (const struct renderer *r = renderers; r->name; r++)
		if (!strcmp(r->name, name))
			return r;
	return NULL;
}
