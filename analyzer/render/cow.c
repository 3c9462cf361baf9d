/*
 * The terminal's table of what forked workers copied.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <string.h>

#include "render/terminal.h"

static void worker_row(struct terminal *t, struct table *tab, const struct rvalue *w)
{
	struct strbuf cells[TABLE_COLUMNS];
	const char *row[TABLE_COLUMNS];
	int n = 0;

	for (int i = 0; i < TABLE_COLUMNS; i++)
		strbuf_init(&cells[i]);
	strbuf_addf(&cells[n++], "%" PRId64, r_get_int(w, "pid"));
	strbuf_addstr(&cells[n], "-");
	r_for_each (p, r_get(t->root, "processes")) {
		if (r_get_int(p, "id") != r_get_int(w, "proc"))
			continue;
		strbuf_reset(&cells[n]);
		role_add(&cells[n], p);
		break;
	}
	n++;
	text_size(&cells[n++], r_get(w, "shared_at_fork_bytes"));
	text_size(&cells[n++], r_get(w, "copied_bytes"));
	text_size(&cells[n++], r_get(w, "eager_bytes"));
	text_size(&cells[n++], r_get(w, "unknown_bytes"));
	strbuf_addstr(&cells[n++], text_member(w, "cause"));
	strbuf_addstr(&cells[n++], !r_has(w, "levelled_off")	   ? "-"
				   : r_get_bool(w, "levelled_off") ? "level"
								   : "rising");
	strbuf_addf(&cells[n++], "%.1f s", r_get_float(w, "scan_s"));
	for (int i = 0; i < n; i++)
		row[i] = cells[i].buf;
	table_row(tab, row);
	for (int i = 0; i < TABLE_COLUMNS; i++)
		strbuf_release(&cells[i]);
}

/* Largest error of what is listed, if pages were sampled. */
static void show_error(struct terminal *t, const struct rvalue *workers)
{
	const struct rvalue *most = NULL;
	struct strbuf sb = STRBUF_INIT;

	r_for_each (w, workers)
		if (r_get_int(w, "copied_error_bytes") >
		    (most ? r_get_int(most, "copied_error_bytes") : 0))
			most = w;
	if (!most)
		return;
	strbuf_addf(&sb,
		    "Of large processes a part of the pages is read; what pid %" PRId64
		    " copied is so known to within ",
		    r_get_int(most, "pid"));
	text_size(&sb, r_get(most, "copied_error_bytes"));
	strbuf_addstr(&sb, ", the others' more exactly.");
	text_wrap(&t->text, STYLE_DIM, 2, sb.buf);
	strbuf_release(&sb);
}

static void show_sums(struct terminal *t, const struct rvalue *cow)
{
	struct strbuf sb = STRBUF_INIT;

	if (r_has(cow, "extra_bytes")) {
		strbuf_addstr(&sb, "Held more than once at most: ");
		text_size(&sb, r_get(cow, "extra_bytes"));
	}
	if (r_has(cow, "forecast_bytes")) {
		strbuf_addstr(&sb, sb.len ? "; if every" : "If every");
		strbuf_addstr(&sb, " Python object that was shared were touched: ");
		text_size(&sb, r_get(cow, "forecast_bytes"));
	}
	strbuf_addch(&sb, '.');
	text_wrap(&t->text, STYLE_DIM, 2, sb.buf);
	strbuf_release(&sb);
}

/* Who touched what was copied, or why it is not known. */
static void show_touched(struct terminal *t, const struct rvalue *cow)
{
	struct strbuf sb = STRBUF_INIT;
	size_t shown = 0;

	if (r_has(cow, "touch_not_measured")) {
		strbuf_addf(&sb, "Which line touched it was not measured%s: %s.",
			    r_has(cow, "touched_by") ? " everywhere" : "",
			    r_get_string(cow, "touch_not_measured"));
		text_wrap(&t->text, STYLE_DIM, 2, sb.buf);
	}
	r_for_each (row, r_get(cow, "touched_by")) {
		if (shown++ == FIRST_ROWS && !t->full)
			break;
		if (shown == 1)
			text_wrap(&t->text, STYLE_NONE, 2, "First touched by:");
		strbuf_reset(&sb);
		text_size(&sb, r_get(row, "bytes"));
		strbuf_addf(&sb, " (%.0f %%) %s", 100 * r_get_float(row, "share"),
			    text_member(row, "place"));
		if (r_has(row, "function"))
			strbuf_addf(&sb, " in %s", r_get_string(row, "function"));
		text_wrap(&t->text, STYLE_NONE, 4, sb.buf);
	}
	strbuf_release(&sb);
}

static void show_copied_sites(struct terminal *t, const struct rvalue *list)
{
	struct strbuf sb = STRBUF_INIT;
	size_t shown = 0;

	r_for_each (c, list) {
		const struct rvalue *site = NULL;

		r_for_each (s, r_get(t->root, "sites"))
			if (r_get_int(s, "id") == r_get_int(c, "site"))
				site = s;
		if (!site || shown++ == FIRST_ROWS)
			continue;
		strbuf_reset(&sb);
		text_size(&sb, r_get(c, "copied_bytes"));
		strbuf_addf(&sb, " in %" PRId64 " of them: %s%s", r_get_int(c, "workers"),
			    text_member(site, "place"),
			    r_get_bool(site, "backing") ? " (Python's arenas: likely line)" : "");
		text_wrap(&t->text, STYLE_NONE, 4, sb.buf);
	}
	strbuf_release(&sb);
}

void show_cow(struct terminal *t, const struct rvalue *cow)
{
	const struct rvalue *list = r_get(cow, "workers");
	struct table tab = { 0 };
	size_t shown = 0;

	if (!list || !list->first)
		return;
	text_head(&t->text, "Copied by forked processes of what they shared");
	table_column(&tab, ">pid", 0);
	table_column(&tab, "role", 0);
	table_column(&tab, ">shared at fork", 1);
	table_column(&tab, ">copied", 0);
	table_column(&tab, ">by the fork", 3);
	table_column(&tab, ">swapped", 4);
	table_column(&tab, "cause", 0);
	table_column(&tab, "course", 5);
	table_column(&tab, ">looked at", 2);
	r_for_each (w, list) {
		if (shown == FIRST_ROWS && !t->full)
			break;
		worker_row(t, &tab, w);
		shown++;
	}
	table_end(&tab, &t->text, NULL, NULL);
	more_line(t, shown, list->count, "cow");
	show_error(t, list);
	show_sums(t, cow);
	show_touched(t, cow);
	if (t->full)
		show_copied_sites(t, r_get(cow, "sites"));
}
