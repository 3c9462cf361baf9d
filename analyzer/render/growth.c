/*
 * The terminal's tables of verdicts and of phases.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <string.h>

#include "render/terminal.h"

#define CELLS 8

static void cells_init(struct strbuf *cells)
{
	for (int i = 0; i < CELLS; i++)
		strbuf_init(&cells[i]);
}

static void put_cells(struct table *tab, struct strbuf *cells)
{
	const char *row[CELLS];

	for (int i = 0; i < CELLS; i++)
		row[i] = cells[i].buf;
	table_row(tab, row);
	for (int i = 0; i < CELLS; i++)
		strbuf_release(&cells[i]);
}

static void add_rate(struct strbuf *sb, const struct rvalue *range)
{
	struct rvalue v = { .kind = R_INT };

	if (!range || range->kind != R_OBJECT) {
		strbuf_addch(sb, '-');
		return;
	}
	v.u.integer = (int64_t)r_get_float(range, "value");
	if (v.u.integer < 0) {
		strbuf_addch(sb, '-');
		v.u.integer = -v.u.integer;
	}
	text_size(sb, &v);
}

static const struct rvalue *by_id(const struct rvalue *list, int64_t id)
{
	r_for_each (o, list)
		if (r_get_int(o, "id") == id)
			return o;
	return NULL;
}

static void add_pids(struct strbuf *sb, const struct rvalue *pids)
{
	if (pids && pids->first)
		strbuf_addf(sb, "%" PRId64, pids->first->u.integer);
	if (pids && pids->count > 1)
		strbuf_addf(sb, " +%zu", pids->count - 1);
}

static void growth_row(struct terminal *t, struct table *tab, const struct rvalue *g)
{
	struct strbuf cells[CELLS];

	cells_init(cells);
	strbuf_addstr(&cells[0], text_member(g, "verdict"));
	text_size(&cells[1], r_get(g, "bytes"));
	add_rate(&cells[2], r_get(g, "bytes_per_s"));
	add_rate(&cells[3], r_get(g, "bytes_per_step"));
	if (r_has(g, "level_bytes_low")) {
		text_size(&cells[4], r_get(g, "level_bytes_low"));
		strbuf_addstr(&cells[4], " to ");
		text_size(&cells[4], r_get(g, "level_bytes_high"));
	} else if (r_has(g, "level_bytes"))
		text_size(&cells[4], r_get(g, "level_bytes"));
	else
		strbuf_addch(&cells[4], '-');
	if (r_has(g, "run_longer_s"))
		strbuf_addf(&cells[5], "%.0f s", r_get_float(g, "run_longer_s"));
	else
		strbuf_addch(&cells[5], '-');
	add_pids(&cells[6], r_get(g, "pids"));
	text_place(&cells[7], by_id(r_get(t->root, "sites"), r_get_int(g, "site")));
	put_cells(tab, cells);
}

static bool is_shown(const struct terminal *t, const struct rvalue *g)
{
	const char *verdict = text_member(g, "verdict");

	if (t->only && !strcmp(t->only, "leaks"))
		return !strcmp(verdict, "leak");
	return t->full || strcmp(verdict, "bounded") != 0;
}

void show_growth(struct terminal *t, const struct rvalue *list)
{
	bool leaks = t->only && !strcmp(t->only, "leaks");
	struct table tab = { 0 };
	size_t shown = 0, count = 0;

	r_for_each (g, list)
		count += is_shown(t, g);
	if (!count && !t->only)
		return;
	text_head(&t->text, leaks ? "Leaks" : "Growth");
	if (!count) {
		text_line(&t->text, STYLE_NONE, "  none");
		return;
	}
	table_column(&tab, "verdict", 0);
	table_column(&tab, ">bytes", 0);
	table_column(&tab, ">per second", 2);
	table_column(&tab, ">per step", 4);
	table_column(&tab, ">level", 3);
	table_column(&tab, ">run longer", 5);
	table_column(&tab, "pid", 1);
	table_column(&tab, "where", 0);
	r_for_each (g, list) {
		if (!is_shown(t, g))
			continue;
		if (shown == FIRST_ROWS && !t->full && !t->only)
			break;
		growth_row(t, &tab, g);
		shown++;
	}
	table_end(&tab, &t->text, NULL, NULL);
	more_line(t, shown, count, "growth");
}

static void phase_row(struct table *tab, const struct rvalue *p)
{
	struct strbuf cells[CELLS];

	cells_init(cells);
	strbuf_addf(&cells[0], "%" PRId64, r_get_int(p, "pid"));
	strbuf_addf(&cells[1], "%.1f", r_get_float(p, "start_s"));
	strbuf_addf(&cells[2], "%.1f", r_get_float(p, "end_s"));
	text_size(&cells[3], r_get(p, "peak_bytes"));
	text_size(&cells[4], r_get(p, "held_at_end_bytes"));
	text_size(&cells[5], r_get(p, "kept_bytes"));
	strbuf_addstr(&cells[6], r_get_bool(p, "open") ? "goes on" : "");
	strbuf_addstr(&cells[7], text_member(p, "name"));
	put_cells(tab, cells);
}

void show_phases(struct terminal *t, const struct rvalue *list)
{
	struct table tab = { 0 };
	size_t shown = 0;

	if (!list->count && !t->only)
		return;
	text_head(&t->text, "Phases");
	if (!list->count) {
		text_line(&t->text, STYLE_NONE,
			  "  the program named none (memtrace_phase, memtrace_marks.phase), and no "
			  "DataLoader had workers");
		return;
	}
	table_column(&tab, ">pid", 1);
	table_column(&tab, ">from s", 2);
	table_column(&tab, ">to s", 2);
	table_column(&tab, ">peak live", 0);
	table_column(&tab, ">held at its end", 4);
	table_column(&tab, ">kept", 0);
	table_column(&tab, "", 5);
	table_column(&tab, "phase", 0);
	r_for_each (p, list) {
		if (shown == FIRST_ROWS && !t->full && !t->only)
			break;
		phase_row(&tab, p);
		shown++;
	}
	table_end(&tab, &t->text, NULL, NULL);
	more_line(t, shown, list->count, "phases");
}
