/*
 * The report for reading: findings on the first screen, then a table per section. Prints the
 * sections that the document has, in this file's order.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "render/terminal.h"

const char *text_member(const struct rvalue *object, const char *key)
{
	const char *s = r_get_string(object, key);

	return s && *s ? s : "-";
}

void more_line(struct terminal *t, size_t shown, size_t count, const char *command)
{
	struct strbuf sb = STRBUF_INIT;

	if (shown >= count)
		return;
	strbuf_addf(&sb, "  %zu more: memtrace-report %s", count - shown, command);
	text_line(&t->text, STYLE_DIM, sb.buf);
	strbuf_release(&sb);
}

/* ---- trace
 * ----------------------------------------------------------------------------------------- */

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

static void show_older(struct terminal *t, const struct rvalue *trace)
{
	struct strbuf sb = STRBUF_INIT;

	if (!r_get_bool(trace, "began_late"))
		return;
	strbuf_addstr(&sb, "Recording began in mid-run: ");
	if (r_has(trace, "predates_attach_bytes"))
		text_size(&sb, r_get(trace, "predates_attach_bytes"));
	else
		strbuf_addstr(&sb, "what could not be measured");
	strbuf_addstr(&sb, " of memory are older and have no stacks here; ");
	text_count(&sb, r_get(trace, "predating_frees"));
	strbuf_addstr(&sb, " blocks of it were freed since");
	text_wrap(&t->text, STYLE_WARN, 0, sb.buf);
	strbuf_release(&sb);
}

static void show_trace(struct terminal *t, const struct rvalue *trace)
{
	struct strbuf sb = STRBUF_INIT;
	const struct rvalue *tree = r_get(t->root, "tree");

	r_for_each (file, r_get(trace, "files"))
		strbuf_addf(&sb, "%s%s", sb.len ? ", " : "", file->u.string);
	strbuf_addf(&sb, ": %s, %.1f s from %s on %s", text_member(trace, "mode"),
		    r_get_float(trace, "duration_s"), text_member(trace, "start"),
		    text_member(trace, "host"));
	text_wrap(&t->text, STYLE_HEAD, 0, sb.buf);
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
	text_wrap(&t->text, STYLE_NONE, 0, sb.buf);
	show_older(t, trace);
	strbuf_release(&sb);
}

/* ---- findings
 * -------------------------------------------------------------------------------------- */

static enum text_style style_of(const char *severity)
{
	if (!severity || !strcmp(severity, "info"))
		return STYLE_NONE;
	return !strcmp(severity, "critical") ? STYLE_BAD : STYLE_WARN;
}

static void show_finding(struct terminal *t, const struct rvalue *f, size_t number)
{
	const char *severity = r_get_string(f, "severity");
	const char *detail = r_get_string(f, "detail"), *advice = r_get_string(f, "advice");
	struct strbuf sb = STRBUF_INIT;

	strbuf_addf(&sb, "%zu. [%s] %s: %s", number, text_member(f, "severity"),
		    text_member(f, "kind"), text_member(f, "title"));
	text_wrap(&t->text, style_of(severity), 2, sb.buf);
	if (detail && *detail)
		text_wrap(&t->text, STYLE_NONE, 5, detail);
	if (advice && *advice) {
		strbuf_reset(&sb);
		strbuf_addf(&sb, "-> %s", advice);
		text_wrap(&t->text, STYLE_DIM, 5, sb.buf);
	}
	strbuf_release(&sb);
}

static void show_findings(struct terminal *t, const struct rvalue *list)
{
	size_t n = 0;

	text_head(&t->text, "Findings");
	r_for_each (f, list)
		if (!t->only || strcmp(t->only, "leaks") != 0 ||
		    !strcmp(text_member(f, "kind"), "leak"))
			show_finding(t, f, ++n);
	if (!n)
		text_line(&t->text, STYLE_NONE, "  none");
}

static void show_capacity(struct terminal *t, const struct rvalue *c)
{
	struct strbuf sb = STRBUF_INIT;

	if (!r_has(c, "limit_bytes") || !r_has(c, "peak_share"))
		return;
	text_head(&t->text, "Memory limit");
	strbuf_addf(&sb, "%.1f %% of ", r_get_float(c, "peak_share") * 100);
	text_size(&sb, r_get(c, "limit_bytes"));
	strbuf_addf(&sb, " (%s) in use at the peak",
		    !strcmp(text_member(c, "limit_from"), "cgroup") ? "the cgroup's limit"
								    : "the machine's memory");
	text_wrap(&t->text, STYLE_NONE, 2, sb.buf);
	strbuf_release(&sb);
}

/* ---- the check of a trace
 * ------------------------------------------------------------------------- */

static void show_check(struct terminal *t, const struct rvalue *c)
{
	bool whole = r_get_bool(c, "whole");
	struct strbuf sb = STRBUF_INIT;
	struct table tab = { 0 };

	strbuf_addf(&sb, "%s (", text_member(c, "file"));
	text_size(&sb, r_get(c, "bytes"));
	strbuf_addf(&sb, "): %s%s", whole ? "whole" : "not whole",
		    r_get_bool(c, "running") ? ", still being written" : "");
	text_line(&t->text, whole ? STYLE_HEAD : STYLE_BAD, sb.buf);
	table_column(&tab, ">count", 0);
	table_column(&tab, "of what", 0);
	r_for_each (v, r_get(c, "counts")) {
		const char *row[2];

		if (r_get_bool(v, "problem") && !r_get_int(v, "value"))
			continue;
		strbuf_reset(&sb);
		text_count(&sb, r_get(v, "value"));
		row[0] = sb.buf;
		row[1] = text_member(v, "text");
		table_row(&tab, row);
	}
	table_end(&tab, &t->text, NULL, NULL);
	strbuf_release(&sb);
}

static void show_checks(struct terminal *t, const struct rvalue *list)
{
	r_for_each (c, list)
		show_check(t, c);
}

/* ---- all
 * --------------------------------------------------------------------------------------------- */

static void show_notes(struct terminal *t)
{
	const struct rvalue *notes = r_get(r_get(t->root, "trace"), "notes");
	struct strbuf sb = STRBUF_INIT;

	if (!notes)
		notes = r_get(t->root, "notes");
	if (!notes || !notes->count)
		return;
	text_head(&t->text, "Notes");
	r_for_each (note, notes) {
		strbuf_reset(&sb);
		strbuf_addf(&sb, "- %s", note->u.string);
		text_wrap(&t->text, STYLE_NONE, 2, sb.buf);
	}
	strbuf_release(&sb);
}

static const struct {
	const char *key;
	section_fn *show;
	const char *with; /* shown whenever this section is asked for; "": with any */
} sections[] = {
	{ "trace", show_trace, "" },
	{ "checks", show_checks, "" },
	{ "findings", show_findings, "leaks" },
	{ "places", show_places, "sites" },
	{ "capacity", show_capacity, NULL },
	{ "growth", show_growth, "leaks" },
	{ "phases", show_phases, NULL },
	{ "processes", show_processes, NULL },
	{ "shm", show_shm, "processes" },
	{ "cow", show_cow, NULL },
	{ "rss", show_rss, "fragmentation" },
	{ "fragmentation", show_fragmentation, NULL },
	{ "sites", show_sites, NULL },
	{ "gpu", show_gpu, NULL },
	{ "timeline", show_timeline, NULL },
	{ "marks", show_marks, "timeline" },
};

static bool is_wanted(size_t i, const char *only)
{
	const char *with = sections[i].with;

	return !only || !strcmp(sections[i].key, only) || (with && (!*with || !strcmp(with, only)));
}

void render_terminal(const struct rvalue *root, const struct render_options *opt, FILE *out)
{
	struct terminal t = { .root = root, .full = opt->full, .only = opt->only };

	text_init(&t.text, opt, out);
	for (size_t i = 0; i < sizeof(sections) / sizeof(sections[0]); i++) {
		const struct rvalue *section = r_get(root, sections[i].key);

		if (section && is_wanted(i, opt->only))
			sections[i].show(&t, section);
	}
	show_notes(&t);
}
