/*
 * The terminal's table of processes.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <string.h>

#include "render/terminal.h"

void role_add(struct strbuf *sb, const struct rvalue *p)
{
	const struct rvalue *worker = r_get(p, "worker");

	strbuf_addstr(sb, text_member(p, "role"));
	if (r_has(worker, "index"))
		strbuf_addf(sb, " %" PRId64, r_get_int(worker, "index"));
	else if (r_has(p, "rank"))
		strbuf_addf(sb, " %" PRId64, r_get_int(p, "rank"));
	if (r_get_int(p, "generation"))
		strbuf_addf(sb, " gen %" PRId64, r_get_int(p, "generation"));
}

static void add_end(struct strbuf *sb, const struct rvalue *p)
{
	const struct rvalue *end = r_get(p, "end");

	strbuf_addstr(sb, text_member(end, "kind"));
	if (r_has(end, "code"))
		strbuf_addf(sb, " %" PRId64, r_get_int(end, "code"));
}

static void add_group_role(struct strbuf *sb, const struct rvalue *g)
{
	if (r_get_int(g, "count") > 1)
		strbuf_addf(sb, "%" PRId64 " x ", r_get_int(g, "count"));
	strbuf_addstr(sb, text_member(g, "role"));
	if (r_has(g, "index"))
		strbuf_addf(sb, " %" PRId64, r_get_int(g, "index"));
	if (r_has(g, "rank"))
		strbuf_addf(sb, "%s %" PRId64,
			    strcmp(text_member(g, "role"), "rank") != 0 ? " of rank" : "",
			    r_get_int(g, "rank"));
	if (r_get_int(g, "generation"))
		strbuf_addf(sb, " gen %" PRId64, r_get_int(g, "generation"));
}

static void process_row(struct table *tab, const struct rvalue *p)
{
	static const char *const sizes[] = { "bytes_allocated", "live_at_end_bytes",
					     "peak_live_bytes", "peak_rss_bytes",
					     "peak_pss_bytes" };
	struct strbuf cells[TABLE_COLUMNS];
	const char *row[TABLE_COLUMNS];
	int n = 0;

	for (int i = 0; i < TABLE_COLUMNS; i++)
		strbuf_init(&cells[i]);
	if (r_has(p, "count")) {
		strbuf_addf(&cells[n], "%" PRId64, r_get_int(p, "first_pid"));
		if (r_get_int(p, "count") > 1)
			strbuf_addf(&cells[n], "..%" PRId64, r_get_int(p, "last_pid"));
		n++;
		add_group_role(&cells[n++], p);
	} else {
		strbuf_addf(&cells[n++], "%" PRId64, r_get_int(p, "pid"));
		role_add(&cells[n++], p);
	}
	add_end(&cells[n++], p);
	text_count(&cells[n++], r_get(p, "allocations"));
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		text_size(&cells[n++], r_get(p, sizes[i]));
	strbuf_addstr(&cells[n++], text_member(p, "command"));
	for (int i = 0; i < n; i++)
		row[i] = cells[i].buf;
	table_row(tab, row);
	for (int i = 0; i < TABLE_COLUMNS; i++)
		strbuf_release(&cells[i]);
}

void show_processes(struct terminal *t, const struct rvalue *list)
{
	const struct rvalue *groups = t->full ? NULL : r_get(t->root, "process_groups");
	static const struct column columns[] = {
		{ ">pid", 0 },	       { "role", 0 },	    { "end", 1 },
		{ ">allocations", 6 }, { ">allocated", 5 }, { ">live at end", 2 },
		{ ">peak live", 7 },   { ">peak rss", 4 },  { ">peak pss", 3 },
		{ "command", 8 },
	};
	struct table tab = { 0 };
	size_t shown = 0;

	text_head(&t->text, "Processes");
	table_columns(&tab, columns, sizeof(columns) / sizeof(columns[0]));
	if (groups && !groups->count)
		groups = NULL;
	if (groups)
		list = groups;
	r_for_each (p, list) {
		if (shown == FIRST_ROWS * 2 && !t->full)
			break;
		process_row(&tab, p);
		shown++;
	}
	table_end(&tab, &t->text, NULL, NULL);
	more_line(t, shown, list->count, "processes");
	if (groups)
		text_wrap(
			&t->text, STYLE_DIM, 2,
			"Of processes that are alike: sums, but for peak rss and peak live, which "
			"are of the largest; each one: memtrace-report processes.");
}
