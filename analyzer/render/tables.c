/*
 * The terminal's tables of processes and sites.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <string.h>

#include "render/terminal.h"

struct column {
	const char *head;
	int drop;
};

static void add_columns(struct table *tab, const struct column *columns, size_t count)
{
	for (size_t i = 0; i < count; i++)
		table_column(tab, columns[i].head, columns[i].drop);
}

/* ---- processes
 * ------------------------------------------------------------------------------------- */

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
	add_columns(&tab, columns, sizeof(columns) / sizeof(columns[0]));
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

/* ---- sites
 * ----------------------------------------------------------------------------------------- */

static void add_place(struct strbuf *sb, const struct rvalue *s)
{
	const char *function = r_get_string(s, "place_function");

	strbuf_addstr(sb, text_member(s, "place"));
	if (function)
		strbuf_addf(sb, " in %s", function);
}

static void site_row(struct table *tab, const struct rvalue *s)
{
	struct strbuf cells[TABLE_COLUMNS];
	const char *row[TABLE_COLUMNS];
	int n = 0;

	for (int i = 0; i < TABLE_COLUMNS; i++)
		strbuf_init(&cells[i]);
	text_size(&cells[n++], r_get(s, "live_bytes"));
	text_count(&cells[n++], r_get(s, "live_count"));
	text_size(&cells[n++], r_get(s, "peak_bytes"));
	text_count(&cells[n++], r_get(s, "allocations"));
	text_size(&cells[n++], r_get(s, "bytes_allocated"));
	strbuf_addf(&cells[n++], "%s%s", text_member(s, "kind"),
		    r_get_bool(s, "backing") ? "*" : "");
	add_place(&cells[n++], s);
	for (int i = 0; i < n; i++)
		row[i] = cells[i].buf;
	table_row(tab, row);
	for (int i = 0; i < TABLE_COLUMNS; i++)
		strbuf_release(&cells[i]);
}

static void show_stack(struct terminal *t, const struct rvalue *stack)
{
	struct strbuf sb = STRBUF_INIT;
	size_t hidden = 0;

	r_for_each (f, stack) {
		if (r_get_bool(f, "plumbing")) {
			hidden++;
			continue;
		}
		strbuf_reset(&sb);
		strbuf_addstr(&sb, text_member(f, "function"));
		if (r_has(f, "line"))
			strbuf_addf(&sb, "  %s:%" PRId64, text_member(f, "file"),
				    r_get_int(f, "line"));
		else if (r_has(f, "module"))
			strbuf_addf(&sb, "  [%s]", r_get_string(f, "module"));
		if (r_get_bool(f, "inlined"))
			strbuf_addstr(&sb, "  (inlined)");
		text_wrap(&t->text, STYLE_NONE, 6, sb.buf);
	}
	if (hidden) {
		strbuf_reset(&sb);
		strbuf_addf(&sb, "(%zu frames of the interpreter are not shown)", hidden);
		text_wrap(&t->text, STYLE_DIM, 6, sb.buf);
	}
	text_line(&t->text, STYLE_NONE, "");
	strbuf_release(&sb);
}

static void show_rest(struct terminal *t, const struct rvalue *rest)
{
	struct strbuf sb = STRBUF_INIT;

	if (!rest)
		return;
	text_count(&sb, r_get(rest, "sites"));
	strbuf_addstr(&sb, " more sites (see --top):");
	r_for_each (kind, r_get(rest, "by_kind")) {
		strbuf_addf(&sb, " %s ", kind->key);
		text_size(&sb, r_get(kind, "live_bytes"));
		strbuf_addstr(&sb, " live of ");
		text_size(&sb, r_get(kind, "bytes_allocated"));
		strbuf_addch(&sb, kind->next ? ',' : '.');
	}
	text_wrap(&t->text, STYLE_DIM, 2, sb.buf);
	strbuf_release(&sb);
}

static void show_backing(struct terminal *t, const struct rvalue *backing)
{
	struct strbuf sb = STRBUF_INIT;

	if (!r_get_int(backing, "sites"))
		return;
	strbuf_addstr(&sb, "Python's arenas and other allocators' own mappings: ");
	text_size(&sb, r_get(backing, "live_bytes"));
	strbuf_addstr(&sb, " from ");
	text_count(&sb, r_get(backing, "sites"));
	strbuf_addstr(&sb, " sites; blocks in them that are recorded are counted above.");
	text_wrap(&t->text, STYLE_DIM, 2, sb.buf);
	strbuf_release(&sb);
}

struct site_list {
	struct terminal *t;
	const struct rvalue *next; /* the site of the row that comes next */
};

static void after_row(void *arg, size_t row)
{
	struct site_list *l = arg;

	(void)row;
	show_stack(l->t, r_get(l->next, "stack"));
	l->next = l->next->next;
}

void show_sites(struct terminal *t, const struct rvalue *list)
{
	static const struct column columns[] = {
		{ ">live", 0 },	     { ">blocks", 1 }, { ">peak", 3 }, { ">allocations", 4 },
		{ ">allocated", 5 }, { "kind", 2 },    { "where", 0 },
	};
	struct site_list l = { t, list->first };
	struct table tab = { 0 };
	size_t shown = 0, count = 0;

	text_head(&t->text, "Sites, by memory live at the end");
	add_columns(&tab, columns, sizeof(columns) / sizeof(columns[0]));
	r_for_each (s, list) {
		if (r_get_bool(s, "backing") && !t->full)
			continue;
		count++;
		if (shown == FIRST_ROWS && !t->full)
			continue;
		site_row(&tab, s);
		shown++;
	}
	table_end(&tab, &t->text, t->full ? after_row : NULL, &l);
	more_line(t, shown, count, "sites");
	show_rest(t, r_get(t->root, "sites_not_listed"));
	show_backing(t, r_get(t->root, "backing_store"));
}
