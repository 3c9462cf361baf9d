/*
 * The terminal's tables of where memory was allocated: by line, and by stack.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <string.h>

#include "render/terminal.h"

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
	text_size(&cells[n++], r_get(s, "at_peak_bytes"));
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
		{ ">at peak", 0 },     { ">at end", 1 },    { ">blocks", 2 }, { ">own peak", 4 },
		{ ">allocations", 5 }, { ">allocated", 6 }, { "kind", 3 },    { "where", 0 },
	};
	struct site_list l = { t, list->first };
	struct table tab = { 0 };

	if (!t->full) /* show_places() has said what is worth a summary */
		return;
	text_head(&t->text, "Sites, by what they held when each process held most");
	table_columns(&tab, columns, sizeof(columns) / sizeof(columns[0]));
	r_for_each (s, list)
		site_row(&tab, s);
	table_end(&tab, &t->text, after_row, &l);
	show_rest(t, r_get(t->root, "sites_not_listed"));
	show_backing(t, r_get(t->root, "backing_store"));
}

/* ---- by line ---------------------------------------------------------------------------------- */

static void place_row(struct table *tab, const struct rvalue *p)
{
	struct strbuf cells[TABLE_COLUMNS];
	const char *row[TABLE_COLUMNS];
	int n = 0;

	for (int i = 0; i < TABLE_COLUMNS; i++)
		strbuf_init(&cells[i]);
	text_size(&cells[n++], r_get(p, "at_peak_bytes"));
	text_size(&cells[n++], r_get(p, "live_bytes"));
	text_count(&cells[n++], r_get(p, "allocations"));
	text_size(&cells[n++], r_get(p, "bytes_allocated"));
	strbuf_addstr(&cells[n++],
		      r_get_bool(p, "python_arenas") ? "arenas" : text_member(p, "kind"));
	if (r_get_bool(p, "imports"))
		strbuf_addstr(&cells[n], "imports, from ");
	add_place(&cells[n++], p);
	for (int i = 0; i < n; i++)
		row[i] = cells[i].buf;
	table_row(tab, row);
	for (int i = 0; i < TABLE_COLUMNS; i++)
		strbuf_release(&cells[i]);
}

static void show_other_places(struct terminal *t, const struct rvalue *rest)
{
	struct strbuf sb = STRBUF_INIT;

	if (!rest)
		return;
	text_count(&sb, r_get(rest, "places"));
	strbuf_addstr(&sb, " more lines: ");
	text_size(&sb, r_get(rest, "at_peak_bytes"));
	strbuf_addstr(&sb, " at the peak, ");
	text_size(&sb, r_get(rest, "live_bytes"));
	strbuf_addstr(&sb, " at the end.");
	if (!t->full)
		strbuf_addstr(&sb, " With stacks: memtrace-report sites");
	text_wrap(&t->text, STYLE_DIM, 2, sb.buf);
	strbuf_release(&sb);
}

void show_places(struct terminal *t, const struct rvalue *list)
{
	static const struct column columns[] = {
		{ ">at peak", 0 },   { ">at end", 0 }, { ">allocations", 2 },
		{ ">allocated", 3 }, { "kind", 1 },    { "where", 0 },
	};
	struct table tab = { 0 };
	bool arenas = false, mmap = false;

	text_head(&t->text, "Memory by line, when each process held most");
	table_columns(&tab, columns, sizeof(columns) / sizeof(columns[0]));
	r_for_each (p, list) {
		arenas |= r_get_bool(p, "python_arenas");
		mmap |= !strcmp(text_member(p, "kind"), "mmap") && !r_get_bool(p, "python_arenas");
		place_row(&tab, p);
	}
	table_end(&tab, &t->text, NULL, NULL);
	show_other_places(t, r_get(t->root, "places_not_listed"));
	if (arenas)
		text_wrap(
			&t->text, STYLE_DIM, 2,
			"arenas: Python keeps its small objects in them; the line is the one that "
			"ran when it asked for one.");
	if (mmap)
		text_wrap(
			&t->text, STYLE_DIM, 2,
			"mmap: as much as was asked for; what was never touched takes no memory.");
}
