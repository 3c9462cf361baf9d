/*
 * The terminal's table of shared memory.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>

#include "render/terminal.h"

static void object_row(struct table *tab, const struct rvalue *o)
{
	const struct rvalue *pids = r_get(o, "pids");
	struct strbuf cells[7];
	const char *row[7];
	size_t shown = 0;

	for (int i = 0; i < 7; i++)
		strbuf_init(&cells[i]);
	text_size(&cells[0], r_get(o, "bytes"));
	strbuf_addstr(&cells[1], text_member(o, "name"));
	if (r_has(o, "creator_pid"))
		strbuf_addf(&cells[2], "%" PRId64, r_get_int(o, "creator_pid"));
	r_for_each (pid, pids) {
		if (shown++ == 3) {
			strbuf_addf(&cells[3], " and %zu more", pids->count - 3);
			break;
		}
		strbuf_addf(&cells[3], "%s%" PRId64, shown > 1 ? " " : "", pid->u.integer);
	}
	if (r_has(o, "descriptors"))
		strbuf_addf(&cells[4], "%" PRId64, r_get_int(o, "descriptors"));
	strbuf_addstr(&cells[5], r_get_bool(o, "in_flight") ? "on its way"
				 : r_get_bool(o, "at_end")  ? "at the end"
							    : "at the peak");
	strbuf_addstr(&cells[6], text_member(o, "place"));
	for (int i = 0; i < 7; i++)
		row[i] = cells[i].len ? cells[i].buf : "-";
	table_row(tab, row);
	for (int i = 0; i < 7; i++)
		strbuf_release(&cells[i]);
}

static void show_flights(struct terminal *t)
{
	struct strbuf sb = STRBUF_INIT;

	r_for_each (f, r_get(t->root, "shm_in_flight")) {
		strbuf_reset(&sb);
		text_count(&sb, r_get(f, "workers"));
		strbuf_addf(&sb, " workers of %s had up to ", text_member(f, "loader"));
		text_size(&sb, r_get(f, "peak_bytes"));
		strbuf_addstr(&sb, " prefetched and not taken yet: ");
		text_count(&sb, r_get(f, "peak_objects"));
		strbuf_addstr(&sb, " tensors of ");
		text_size(&sb, r_get(f, "object_bytes"));
		strbuf_addf(&sb, " on average, at %.1f s; in no process's RSS.",
			    r_get_float(f, "peak_s"));
		text_wrap(&t->text, STYLE_NONE, 2, sb.buf);
	}
	strbuf_release(&sb);
}

void show_shm(struct terminal *t, const struct rvalue *list)
{
	struct table tab = { 0 };
	size_t shown = 0;

	if (!list->count && !r_get(t->root, "shm_in_flight"))
		return;
	if (!list->count && !r_get(t->root, "shm_in_flight")->count)
		return;
	text_head(&t->text, "Shared memory, when most of it was there");
	table_column(&tab, ">bytes", 0);
	table_column(&tab, "name", 4);
	table_column(&tab, ">made by", 2);
	table_column(&tab, "held by", 0);
	table_column(&tab, ">descriptors", 3);
	table_column(&tab, "when", 1);
	table_column(&tab, "made in", 0);
	r_for_each (o, list) {
		if (shown == FIRST_ROWS / 2 && !t->full)
			break;
		object_row(&tab, o);
		shown++;
	}
	table_end(&tab, &t->text, NULL, NULL);
	more_line(t, shown, list->count, "processes");
	show_flights(t);
}
