/*
 * The terminal's table of GPU memory.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>

#include "render/terminal.h"

#define CELLS 9

static void row(struct table *tab, const char *label, const struct rvalue *o)
{
	static const char *const sizes[CELLS - 1] = {
		"reserved_bytes",    "allocated_bytes",	    "cached_free_bytes",
		"unusable_bytes",    "peak_reserved_bytes", "peak_allocated_bytes",
		"pinned_host_bytes", "unattributed_bytes",
	};
	struct strbuf cells[CELLS];
	const char *text[CELLS];

	strbuf_init(&cells[0]);
	strbuf_addstr(&cells[0], label);
	for (int i = 1; i < CELLS; i++) {
		strbuf_init(&cells[i]);
		if (r_has(o, sizes[i - 1]))
			text_size(&cells[i], r_get(o, sizes[i - 1]));
		else
			strbuf_addch(&cells[i], '-');
	}
	for (int i = 0; i < CELLS; i++)
		text[i] = cells[i].buf;
	table_row(tab, text);
	for (int i = 0; i < CELLS; i++)
		strbuf_release(&cells[i]);
}

/* Contexts, kernels' images: no call takes them, so who told of them is said. */
static void hidden(struct terminal *t, const struct rvalue *processes)
{
	struct strbuf line = STRBUF_INIT;

	r_for_each (p, processes) {
		strbuf_reset(&line);
		strbuf_addf(&line, "  pid %" PRId64 ": ", r_get_int(p, "pid"));
		if (r_has(p, "unattributed_bytes")) {
			text_size(&line, r_get(p, "unattributed_bytes"));
			strbuf_addf(&line, " that no call shows (NVML, asked by %s)",
				    text_member(p, "unattributed_from"));
		} else {
			strbuf_addstr(&line, "what no call shows was not measured");
		}
		text_line(&t->text, STYLE_NONE, line.buf);
	}
	strbuf_release(&line);
}

void show_gpu(struct terminal *t, const struct rvalue *list)
{
	static const char *const heads[CELLS] = {
		"device",	  ">reserved",	     ">allocated",   ">free",	     ">unusable",
		">peak reserved", ">peak allocated", ">pinned host", ">unattributed"
	};
	static const int drops[CELLS] = { 0, 0, 0, 2, 1, 3, 4, 5, 6 };
	struct strbuf label = STRBUF_INIT;
	struct table tab = { 0 };

	if (!list->count && !t->full)
		return;
	text_head(&t->text, "GPU memory");
	if (!list->count) {
		text_line(&t->text, STYLE_NONE, "  none was taken");
		return;
	}
	for (int i = 0; i < CELLS; i++)
		table_column(&tab, heads[i], drops[i]);
	r_for_each (d, list) {
		strbuf_reset(&label);
		if (r_has(d, "device"))
			strbuf_addf(&label, "%" PRId64 " ", r_get_int(d, "device"));
		strbuf_addstr(&label, text_member(d, "name"));
		row(&tab, label.buf, d);
		r_for_each (p, r_get(d, "processes")) {
			strbuf_reset(&label);
			strbuf_addf(&label, "  pid %" PRId64, r_get_int(p, "pid"));
			if (t->full || r_get(d, "processes")->count > 1)
				row(&tab, label.buf, p);
		}
	}
	table_end(&tab, &t->text, NULL, NULL);
	r_for_each (d, list)
		if (t->full)
			hidden(t, r_get(d, "processes"));
	strbuf_release(&label);
}
