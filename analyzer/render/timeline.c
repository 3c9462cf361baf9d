/*
 * The terminal's curves and marks over time.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <string.h>

#include "render/terminal.h"

/* ---- timeline, marks, notes
 * ------------------------------------------------------------------------- */

static const char *process_label(const struct terminal *t, const struct rvalue *series,
				 struct strbuf *sb)
{
	strbuf_reset(sb);
	if (!r_has(series, "proc")) {
		strbuf_addstr(sb, "all processes");
		return sb->buf;
	}
	strbuf_addf(sb, "%" PRId64, r_get_int(series, "pid"));
	r_for_each (p, r_get(t->root, "processes"))
		if (r_get_int(p, "id") == r_get_int(series, "proc")) {
			strbuf_addch(sb, ' ');
			role_add(sb, p);
		}
	return sb->buf;
}

static void series_row(struct terminal *t, struct table *tab, const struct rvalue *series)
{
	const struct rvalue *values = r_get(series, "v"), *last = NULL, *high = NULL;
	struct strbuf who = STRBUF_INIT, top = STRBUF_INIT, end = STRBUF_INIT, curve = STRBUF_INIT;
	const char *row[5];

	r_for_each (v, values) {
		if (v->kind != R_INT)
			continue;
		last = v;
		if (!high || v->u.integer > high->u.integer)
			high = v;
	}
	text_size(&top, high);
	text_size(&end, last);
	text_spark(&curve, &t->text, values, t->text.columns / 2);
	row[0] = process_label(t, series, &who);
	row[1] = text_member(series, "name");
	row[2] = top.buf;
	row[3] = end.buf;
	row[4] = curve.buf;
	table_row(tab, row);
	strbuf_release(&who);
	strbuf_release(&top);
	strbuf_release(&end);
	strbuf_release(&curve);
}

void show_timeline(struct terminal *t, const struct rvalue *timeline)
{
	const struct rvalue *list = r_get(timeline, "series");
	struct table tab = { 0 };
	size_t shown = 0;

	text_head(&t->text, "Timeline");
	if (!list || !list->count) {
		text_line(&t->text, STYLE_NONE, "  nothing was sampled");
		return;
	}
	table_column(&tab, "process", 0);
	table_column(&tab, "what", 0);
	table_column(&tab, ">highest", 0);
	table_column(&tab, ">last", 1);
	table_column(&tab, "over time", 0);
	r_for_each (series, list) {
		const char *name = text_member(series, "name");

		/* At first sight: sums over processes; of these RSS counts shared pages again. */
		if (!t->full && (r_has(series, "proc") || !strcmp(name, "rss")))
			continue;
		series_row(t, &tab, series);
		shown++;
	}
	table_end(&tab, &t->text, NULL, NULL);
	more_line(t, shown, list->count, "timeline");
}

static void mark_line(struct terminal *t, const struct rvalue *m)
{
	struct strbuf sb = STRBUF_INIT;

	strbuf_addf(&sb, "  %10.3f s  %-6s %s", r_get_float(m, "t"), text_member(m, "kind"),
		    text_member(m, "label"));
	if (r_has(m, "step"))
		strbuf_addf(&sb, " %" PRId64, r_get_int(m, "step"));
	text_line(&t->text, STYLE_NONE, sb.buf);
	strbuf_release(&sb);
}

/* There are thousands of them, each as good as the other. */
static void steps_line(struct terminal *t, size_t count, double first, double last)
{
	struct strbuf sb = STRBUF_INIT;

	strbuf_addf(&sb, "  %zu steps from %.3f s to %.3f s", count, first, last);
	text_line(&t->text, STYLE_NONE, sb.buf);
	strbuf_release(&sb);
}

void show_marks(struct terminal *t, const struct rvalue *list)
{
	size_t shown = 0, others = 0, steps = 0;
	double first = 0, last = 0;

	if (!list->count)
		return;
	text_head(&t->text, "Marks");
	r_for_each (m, list) {
		if (!t->full && r_has(m, "step")) {
			last = r_get_float(m, "t");
			first = steps++ ? first : last;
			continue;
		}
		others++;
		if (shown == FIRST_ROWS && !t->full)
			continue;
		mark_line(t, m);
		shown++;
	}
	if (steps)
		steps_line(t, steps, first, last);
	more_line(t, shown, others, "timeline");
}
