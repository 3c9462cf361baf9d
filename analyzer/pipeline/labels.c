/*
 * See labels.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "pipeline/labels.h"

#include <stdlib.h>
#include <string.h>

#include "symbols/python_lines.h"
#include "util/strbuf.h"

static char *loader_label(const struct model *m, uint32_t node)
{
	const struct python_node *n = &m->python[node];
	struct strbuf text = STRBUF_INIT;
	const struct code *c;
	const char *slash;
	uint32_t line;

	if (!node || n->code == NO_ID)
		return NULL;
	c = &m->codes[n->code];
	slash = strrchr(c->filename, '/');
	strbuf_addstr(&text, slash ? slash + 1 : c->filename);
	line = python_line(c->line_kind, c->lines, c->lines_len, c->first_line, n->offset);
	if (line)
		strbuf_addf(&text, ":%u", line);
	return strbuf_detach(&text);
}

void labels_fill(struct model *m)
{
	for (size_t i = 0; i < m->process_count; i++) {
		struct process *p = &m->processes[i];

		if (p->worker.is)
			p->worker.loader = loader_label(m, p->worker.node);
	}
}
