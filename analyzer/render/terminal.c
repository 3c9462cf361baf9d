/*
 * The report for reading: findings on the first screen, then a table per section. Prints the
 * sections that the document has, in this file's order.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "render/text.h"

#define FIRST_ROWS 10 /* of a section, unless all of it was asked for */

typedef void section_fn(struct text *t, const struct rvalue *root, const struct rvalue *section,
			bool full);

static const char *or_dash(const char *s)
{
	return s && *s ? s : "-";
}

static void add_more(struct text *t, size_t shown, size_t count, const char *command)
{
	struct strbuf sb = STRBUF_INIT;

	if (shown >= count)
		return;
	strbuf_addf(&sb, "  %zu more: memtrace-report %s", count - shown, command);
	text_line(t, STYLE_DIM, sb.buf);
	strbuf_release(&sb);
}

/* ---- trace ----------------------------------------------------------------------------------------- */

static void add_state(struct strbuf *sb, const struct rvalue *trace)
{
	if (r_get_bool(trace, "running"))
		strbuf_addstr(sb, "still being written");
	else
		strbuf_addstr(sb, r_get_bool(trace, "complete") ? "complete" : "not complete");
	if (r_get_bool(trace, "recovered"))
		strbuf_addstr(sb, ", damaged and read as far as possible");
	if (r_get_int(trace, "lost_events")) {
		strbuf_addstr(sb, ", ");
		text_count(sb, r_get(trace, "lost_events"));
		strbuf_addstr(sb, " events lost");
	}
}

static void show_trace(struct text *t, const struct rvalue *root, const struct rvalue *trace,
		       bool full)
{
	struct strbuf sb = STRBUF_INIT;
	const struct rvalue *tree = r_get(root, "tree");

	(void)full;
	r_for_each(file, r_get(trace, "files"))
		strbuf_addf(&sb, "%s%s", sb.len ? ", " : "", file->u.string);
	strbuf_addf(&sb, ": %s, %.1f s from %s on %s", or_dash(r_get_string(trace, "mode")),
		    r_get_float(trace, "duration_s"), or_dash(r_get_string(trace, "start")),
		    or_dash(r_get_string(trace, "host")));
	text_wrap(t, STYLE_HEAD, 0, sb.buf);
	strbuf_reset(&sb);
	if (tree) {
		text_count(&sb, r_get(tree, "processes"));
		strbuf_addstr(&sb, r_get_int(tree, "processes") == 1 ? " process" : " processes");
		if (r_has(tree, "peak_pss_bytes")) {
			strbuf_addstr(&sb, " (at most ");
			text_size(&sb, r_get(tree, "peak_pss_bytes"));
			strbuf_addf(&sb, " in memory, at %.1f s)", r_get_float(tree, "peak_s"));
		}
		strbuf_addstr(&sb, ", ");
	}
	text_count(&sb, r_get(trace, "allocations"));
	strbuf_addstr(&sb, " allocations of ");
	text_size(&sb, r_get(trace, "bytes_allocated"));
	strbuf_addstr(&sb, "; trace ");
	text_size(&sb, r_get(trace, "trace_bytes"));
	strbuf_addstr(&sb, ", ");
	add_state(&sb, trace);
	text_wrap(t, STYLE_NONE, 0, sb.buf);
	strbuf_release(&sb);
}

/* ---- findings -------------------------------------------------------------------------------------- */

static enum text_style style_of(const char *severity)
{
	if (!severity || !strcmp(severity, "info"))
		return STYLE_NONE;
	return !strcmp(severity, "critical") ? STYLE_BAD : STYLE_WARN;
}

static void show_finding(struct text *t, const struct rvalue *f, size_t number)
{
	const char *severity = r_get_string(f, "severity");
	const char *detail = r_get_string(f, "detail"), *advice = r_get_string(f, "advice");
	struct strbuf sb = STRBUF_INIT;

	strbuf_addf(&sb, "%zu. [%s] %s: %s", number, or_dash(severity),
		    or_dash(r_get_string(f, "kind")), or_dash(r_get_string(f, "title")));
	text_wrap(t, style_of(severity), 2, sb.buf);
	if (detail && *detail)
		text_wrap(t, STYLE_NONE, 5, detail);
	if (advice && *advice) {
		strbuf_reset(&sb);
		strbuf_addf(&sb, "-> %s", advice);
		text_wrap(t, STYLE_DIM, 5, sb.buf);
	}
	strbuf_release(&sb);
}

static void show_findings(struct text *t, const struct rvalue *root, const struct rvalue *list,
			  bool full)
{
	size_t n = 0;

	(void)root;
	(void)full;
	text_head(t, "Findings");
	r_for_each(f, list)
		show_finding(t, f, ++n);
	if (!n)
		text_line(t, STYLE_NONE, "  none");
}

static void show_capacity(struct text *t, const struct rvalue *root, const struct rvalue *c,
			  bool full)
{
	struct strbuf sb = STRBUF_INIT;

	(void)root;
	(void)full;
	if (!r_has(c, "limit_bytes") || !r_has(c, "peak_share"))
		return;
	text_head(t, "Memory limit");
	strbuf_addf(&sb, "%.1f %% of ", r_get_float(c, "peak_share") * 100);
	text_size(&sb, r_get(c, "limit_bytes"));
	strbuf_addf(&sb, " (%s) in use at the peak",
		    !strcmp(or_dash(r_get_string(c, "limit_from")), "cgroup") ?
			    "the cgroup's limit" : "the machine's memory");
	text_wrap(t, STYLE_NONE, 2, sb.buf);
	strbuf_release(&sb);
}

/* ---- processes ------------------------------------------------------------------------------------- */

static void add_role(struct strbuf *sb, const struct rvalue *p)
{
	const struct rvalue *worker = r_get(p, "worker");

	strbuf_addstr(sb, or_dash(r_get_string(p, "role")));
	if (r_has(worker, "index"))
		strbuf_addf(sb, " %" PRId64, r_get_int(worker, "index"));
	else if (r_has(p, "rank"))
		strbuf_addf(sb, " %" PRId64, r_get_int(p, "rank"));
	if (r_get_int(p, "generation"))
		strbuf_addf(sb, " (generation %" PRId64 ")", r_get_int(p, "generation"));
}

static void add_end(struct strbuf *sb, const struct rvalue *p)
{
	const struct rvalue *end = r_get(p, "end");

	strbuf_addstr(sb, or_dash(r_get_string(end, "kind")));
	if (r_has(end, "code"))
		strbuf_addf(sb, " %" PRId64, r_get_int(end, "code"));
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
	strbuf_addf(&cells[n++], "%" PRId64, r_get_int(p, "pid"));
	add_role(&cells[n++], p);
	add_end(&cells[n++], p);
	text_count(&cells[n++], r_get(p, "allocations"));
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		text_size(&cells[n++], r_get(p, sizes[i]));
	strbuf_addstr(&cells[n++], or_dash(r_get_string(p, "command")));
	for (int i = 0; i < n; i++)
		row[i] = cells[i].buf;
	table_row(tab, row);
	for (int i = 0; i < TABLE_COLUMNS; i++)
		strbuf_release(&cells[i]);
}

static void show_processes(struct text *t, const struct rvalue *root, const struct rvalue *list,
			   bool full)
{
	static const char *const heads[] = { ">pid", "role", "end", ">allocations", ">allocated",
					     ">live at end", ">peak live", ">peak rss",
					     ">peak pss", "command" };
	struct table tab = { 0 };
	size_t shown = 0;

	(void)root;
	text_head(t, "Processes");
	for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++)
		table_column(&tab, heads[i]);
	r_for_each(p, list) {
		if (shown == FIRST_ROWS * 2 && !full)
			break;
		process_row(&tab, p);
		shown++;
	}
	table_end(&tab, t);
	add_more(t, shown, list->count, "processes");
}

/* ---- sites ----------------------------------------------------------------------------------------- */

static void add_place(struct strbuf *sb, const struct rvalue *s)
{
	const char *function = r_get_string(s, "place_function");

	strbuf_addstr(sb, or_dash(r_get_string(s, "place")));
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
	strbuf_addf(&cells[n++], "%s%s", or_dash(r_get_string(s, "kind")),
		    r_get_bool(s, "backing") ? "*" : "");
	add_place(&cells[n++], s);
	for (int i = 0; i < n; i++)
		row[i] = cells[i].buf;
	table_row(tab, row);
	for (int i = 0; i < TABLE_COLUMNS; i++)
		strbuf_release(&cells[i]);
}

static void site_table(struct table *tab)
{
	static const char *const heads[] = { ">live", ">blocks", ">peak", ">allocations",
					     ">allocated", "kind", "where" };

	for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++)
		table_column(tab, heads[i]);
}

static void show_stack(struct text *t, const struct rvalue *stack)
{
	struct strbuf sb = STRBUF_INIT;
	size_t hidden = 0;

	r_for_each(f, stack) {
		if (r_get_bool(f, "plumbing")) {
			hidden++;
			continue;
		}
		strbuf_reset(&sb);
		strbuf_addstr(&sb, or_dash(r_get_string(f, "function")));
		if (r_has(f, "line"))
			strbuf_addf(&sb, "  %s:%" PRId64, or_dash(r_get_string(f, "file")),
				    r_get_int(f, "line"));
		else if (r_has(f, "module"))
			strbuf_addf(&sb, "  [%s]", r_get_string(f, "module"));
		if (r_get_bool(f, "inlined"))
			strbuf_addstr(&sb, "  (inlined)");
		text_wrap(t, STYLE_NONE, 6, sb.buf);
	}
	if (hidden) {
		strbuf_reset(&sb);
		strbuf_addf(&sb, "(%zu frames of the interpreter are not shown)", hidden);
		text_wrap(t, STYLE_DIM, 6, sb.buf);
	}
	strbuf_release(&sb);
}

static void show_rest(struct text *t, const struct rvalue *rest)
{
	struct strbuf sb = STRBUF_INIT;

	if (!rest)
		return;
	text_count(&sb, r_get(rest, "sites"));
	strbuf_addstr(&sb, " more sites (see --top):");
	r_for_each(kind, r_get(rest, "by_kind")) {
		strbuf_addf(&sb, " %s ", kind->key);
		text_size(&sb, r_get(kind, "live_bytes"));
		strbuf_addstr(&sb, " live of ");
		text_size(&sb, r_get(kind, "bytes_allocated"));
		strbuf_addch(&sb, kind->next ? ',' : '.');
	}
	text_wrap(t, STYLE_DIM, 2, sb.buf);
	strbuf_release(&sb);
}

static void show_sites(struct text *t, const struct rvalue *root, const struct rvalue *list,
		       bool full)
{
	struct table tab = { 0 };
	bool backing = false;
	size_t shown = 0;

	text_head(t, "Sites, by memory live at the end");
	if (!full)
		site_table(&tab);
	r_for_each(s, list) {
		if (shown == FIRST_ROWS && !full)
			break;
		if (full)
			site_table(&tab);
		site_row(&tab, s);
		backing |= r_get_bool(s, "backing");
		shown++;
		if (full) {
			table_end(&tab, t);
			show_stack(t, r_get(s, "stack"));
		}
	}
	if (!full)
		table_end(&tab, t);
	if (backing)
		text_line(t, STYLE_DIM, "  * made inside an allocator: its blocks are counted already");
	add_more(t, shown, list->count, "sites");
	show_rest(t, r_get(root, "sites_not_listed"));
}

/* ---- timeline, marks, notes ------------------------------------------------------------------------- */

static const char *process_label(const struct rvalue *root, const struct rvalue *series,
				 struct strbuf *sb)
{
	strbuf_reset(sb);
	if (!r_has(series, "proc")) {
		strbuf_addstr(sb, "all processes");
		return sb->buf;
	}
	strbuf_addf(sb, "%" PRId64, r_get_int(series, "pid"));
	r_for_each(p, r_get(root, "processes"))
		if (r_get_int(p, "id") == r_get_int(series, "proc")) {
			strbuf_addch(sb, ' ');
			add_role(sb, p);
		}
	return sb->buf;
}

static void series_row(struct text *t, struct table *tab, const struct rvalue *root,
		       const struct rvalue *series)
{
	const struct rvalue *values = r_get(series, "v"), *last = NULL, *high = NULL;
	struct strbuf who = STRBUF_INIT, top = STRBUF_INIT, end = STRBUF_INIT, curve = STRBUF_INIT;
	const char *row[5];

	r_for_each(v, values) {
		if (v->kind != R_INT)
			continue;
		last = v;
		if (!high || v->u.integer > high->u.integer)
			high = v;
	}
	text_size(&top, high);
	text_size(&end, last);
	text_spark(&curve, t, values, t->columns / 2);
	row[0] = process_label(root, series, &who);
	row[1] = or_dash(r_get_string(series, "name"));
	row[2] = top.buf;
	row[3] = end.buf;
	row[4] = curve.buf;
	table_row(tab, row);
	strbuf_release(&who);
	strbuf_release(&top);
	strbuf_release(&end);
	strbuf_release(&curve);
}

static void show_timeline(struct text *t, const struct rvalue *root, const struct rvalue *timeline,
			  bool full)
{
	static const char *const heads[] = { "process", "what", ">highest", ">last", "over time" };
	const struct rvalue *list = r_get(timeline, "series");
	struct table tab = { 0 };
	size_t shown = 0;

	text_head(t, "Timeline");
	if (!list || !list->count) {
		text_line(t, STYLE_NONE, "  nothing was sampled");
		return;
	}
	for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++)
		table_column(&tab, heads[i]);
	r_for_each(series, list) {
		const char *name = or_dash(r_get_string(series, "name"));

		/* At first sight: sums over processes; of these RSS counts shared pages again. */
		if (!full && (r_has(series, "proc") || !strcmp(name, "rss")))
			continue;
		series_row(t, &tab, root, series);
		shown++;
	}
	table_end(&tab, t);
	add_more(t, shown, list->count, "timeline");
}

static void show_marks(struct text *t, const struct rvalue *root, const struct rvalue *list,
		       bool full)
{
	struct strbuf sb = STRBUF_INIT;
	size_t shown = 0;

	(void)root;
	if (!list->count)
		return;
	text_head(t, "Marks");
	r_for_each(m, list) {
		if (shown == FIRST_ROWS && !full)
			break;
		strbuf_reset(&sb);
		strbuf_addf(&sb, "  %10.3f s  %-6s %s", r_get_float(m, "t"),
			    or_dash(r_get_string(m, "kind")), or_dash(r_get_string(m, "label")));
		if (r_has(m, "step"))
			strbuf_addf(&sb, " %" PRId64, r_get_int(m, "step"));
		text_line(t, STYLE_NONE, sb.buf);
		shown++;
	}
	add_more(t, shown, list->count, "timeline");
	strbuf_release(&sb);
}

static void show_notes(struct text *t, const struct rvalue *root)
{
	const struct rvalue *notes = r_get(r_get(root, "trace"), "notes");
	struct strbuf sb = STRBUF_INIT;

	if (!notes || !notes->count)
		return;
	text_head(t, "Notes");
	r_for_each(note, notes) {
		strbuf_reset(&sb);
		strbuf_addf(&sb, "- %s", note->u.string);
		text_wrap(t, STYLE_NONE, 2, sb.buf);
	}
	strbuf_release(&sb);
}

static const struct {
	const char *key;
	section_fn *show;
} sections[] = {
	{ "trace", show_trace },	 { "findings", show_findings },
	{ "capacity", show_capacity },	 { "processes", show_processes },
	{ "sites", show_sites },	 { "timeline", show_timeline },
	{ "marks", show_marks },
};

void render_terminal(const struct rvalue *root, const struct render_options *opt, FILE *out)
{
	struct text t;

	text_init(&t, opt, out);
	for (size_t i = 0; i < sizeof(sections) / sizeof(sections[0]); i++) {
		const struct rvalue *section = r_get(root, sections[i].key);

		if (section)
			sections[i].show(&t, root, section, opt->full);
	}
	show_notes(&t, root);
}
