/*
 * The commands that print sections of the report, and the check of a trace.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "analysis/analysis.h"
#include "analysis/suppress.h"
#include "cmd/cmd.h"
#include "pipeline/run.h"
#include "render/render.h"
#include "util/die.h"
#include "util/vec.h"

#define DEFAULT_TOP 10
#define DEFAULT_TOP_JSON 1000

/* 0: not known */
static int terminal_width(const struct output *out)
{
	const char *columns = getenv("COLUMNS");
	struct winsize ws;
	int width = columns ? atoi(columns) : 0;

	if (width <= 0 && out->fd >= 0 && ioctl(out->fd, TIOCGWINSZ, &ws) == 0)
		width = ws.ws_col;
	return width;
}

static bool wants_color(const struct cli_options *opt, const struct output *out)
{
	const char *term = getenv("TERM"), *no = getenv("NO_COLOR");

	if (opt->color != COLOR_AUTO)
		return opt->color == COLOR_ALWAYS;
	return output_is_terminal(out) && !(no && *no) && term && strcmp(term, "dumb") != 0;
}

static bool has_utf8(void)
{
	static const char *const names[] = { "LC_ALL", "LC_CTYPE", "LANG" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const char *value = getenv(names[i]);

		if (value && *value)
			return strcasestr(value, "utf-8") || strcasestr(value, "utf8");
	}
	return false;
}

struct model *cmd_read_traces(const struct cli_options *opt, struct pipeline_report *rep,
			      int *status)
{
	struct pipeline_options po = { .pid = (uint32_t)opt->pid,
				       .role = opt->role,
				       .from = opt->from,
				       .to = opt->to,
				       .progress = progress_show };
	struct model *m;

	progress_start(opt);
	m = pipeline_run(opt->arguments, opt->argument_count, &po, rep);
	progress_end();
	for (size_t i = 0; i < rep->error_count; i++)
		error("%s", rep->errors[i]);
	*status = rep->usage_error	   ? STATUS_USAGE
		  : rep->error_count || !m ? STATUS_UNREADABLE
					   : STATUS_DONE;
	return m;
}

static int finish(struct result *doc, const struct command *self, const struct cli_options *opt,
		  int status)
{
	struct output out;
	struct render_options ro;
	FILE *f;

	output_init(&out, opt);
	ro = (struct render_options){ .columns = terminal_width(&out),
				      .color = wants_color(opt, &out),
				      .utf8 = has_utf8(),
				      .full = self->sections || opt->top,
				      .only = self->sections ? self->name : NULL };
	f = output_stream(&out);
	if (f) {
		renderer_find(opt->json ? "json" : "terminal")->render(result_root(doc), &ro, f);
		fclose(f); /* a failed write was said by output_write() */
	}
	return output_finish(&out) < 0 ? STATUS_USAGE : status;
}

static bool has_failing_finding(const struct cli_options *opt, struct result *doc)
{
	r_for_each (f, r_get(result_root(doc), "findings"))
		if (cli_fails_on(opt, r_get_string(f, "kind")))
			return true;
	return false;
}

/* The command's sections, with findings where --fail-on asks for them. The caller's to free(). */
static const char **wanted_sections(const struct command *self, const struct cli_options *opt)
{
	VEC(const char *) v = VEC_INIT;

	if (!self->sections)
		return NULL;
	for (const char *const *s = self->sections; *s; s++)
		*vec_push(&v) = *s;
	if (opt->fail_on)
		*vec_push(&v) = "findings";
	*vec_push(&v) = NULL;
	return v.items;
}

/* A real training run has a million sites, each with a deep stack: no reader wants them all. */
static size_t sites_shown(const struct cli_options *opt)
{
	if (opt->top)
		return (size_t)opt->top;
	return opt->json ? DEFAULT_TOP_JSON : DEFAULT_TOP;
}

/* Those of --suppress, or NULL. A file that is no good ends the program. */
static struct suppressions *read_suppressions(const struct cli_options *opt)
{
	struct suppressions *s;
	char *problem = NULL;

	if (!opt->suppress)
		return NULL;
	s = suppressions_read(opt->suppress, &problem);
	if (!s)
		die("%s", problem);
	return s;
}

int cmd_report(const struct command *self, const struct cli_options *opt)
{
	struct symbolizer_options so = { .off = opt->no_symbols, .sysroot = opt->sysroot };
	struct suppressions *suppressions = read_suppressions(opt);
	struct pipeline_report rep;
	int status;
	struct model *m = cmd_read_traces(opt, &rep, &status);

	if (m) {
		struct symbolizer *symbols = symbolizer_new(&so);
		struct result *doc = result_new();
		const char **sections = wanted_sections(self, opt);

		struct analysis_options ao = { .top = sites_shown(opt),
					       .streamed = opt->json,
					       .sysroot = opt->sysroot,
					       .suppressions = suppressions,
					       .sections = sections };

		analysis_run(&ao, m, symbols, doc);
		if (!status && has_failing_finding(opt, doc))
			status = STATUS_FOUND;
		status = finish(doc, self, opt, status);
		free(sections);
		result_free(doc);
		symbolizer_free(symbols);
	}
	model_free(m);
	suppressions_free(suppressions);
	pipeline_report_release(&rep);
	return status;
}

/* check prints no findings, but --fail-on asks for them. */
static bool check_fails(const struct cli_options *opt, const struct model *m)
{
	struct symbolizer_options so = { .off = opt->no_symbols, .sysroot = opt->sysroot };
	struct suppressions *suppressions = read_suppressions(opt);
	const char *const sections[] = { "findings", NULL };
	struct analysis_options ao = { .sysroot = opt->sysroot,
				       .suppressions = suppressions,
				       .sections = sections };
	struct symbolizer *symbols;
	struct result *doc;
	bool fails;

	if (!opt->fail_on)
		return false;
	symbols = symbolizer_new(&so);
	doc = result_new();
	analysis_run(&ao, m, symbols, doc);
	fails = has_failing_finding(opt, doc);
	result_free(doc);
	symbolizer_free(symbols);
	suppressions_free(suppressions);
	return fails;
}

static void add_check(struct result *doc, struct rvalue *list, const struct pipeline_check *c)
{
	struct rvalue *o = r_push_object(doc, list), *counts;
	bool whole = true;

	for (int i = 0; i < COUNTS; i++)
		if (pipeline_count_rows[i].is_problem && c->counts[i])
			whole = false;
	r_string(doc, o, "file", c->path);
	r_int(doc, o, "bytes", (int64_t)c->bytes);
	r_bool(doc, o, "whole", whole);
	r_bool(doc, o, "running", c->running);
	counts = r_array(doc, o, "counts");
	for (int i = 0; i < COUNTS; i++) {
		const struct pipeline_count_row *row = &pipeline_count_rows[i];
		struct rvalue *v = r_push_object(doc, counts);

		r_string(doc, v, "name", row->key);
		r_string(doc, v, "text", row->text);
		r_bool(doc, v, "problem", row->is_problem);
		r_int(doc, v, "value", (int64_t)c->counts[i]);
	}
}

int cmd_check(const struct command *self, const struct cli_options *opt)
{
	struct pipeline_report rep;
	struct result *doc = result_new();
	struct model *m;
	int status;

	m = cmd_read_traces(opt, &rep, &status);
	if (m) {
		struct rvalue *list, *notes;

		r_string(doc, result_root(doc), "schema", "memtrace-report/1");
		list = r_array(doc, result_root(doc), "checks");
		for (size_t i = 0; i < rep.check_count; i++)
			add_check(doc, list, &rep.checks[i]);
		notes = r_array(doc, result_root(doc), "notes");
		for (size_t i = 0; i < m->note_count; i++)
			r_push_string(doc, notes, m->notes[i]);
		if (!status && check_fails(opt, m))
			status = STATUS_FOUND;
		status = finish(doc, self, opt, status);
	}
	result_free(doc);
	model_free(m);
	pipeline_report_release(&rep);
	return status;
}
