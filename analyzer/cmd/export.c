/*
 * export: the trace in forms that other tools read. A format is a row of the table at the end.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "cmd/cmd.h"
#include "cmd/export.h"
#include "pipeline/run.h"
#include "util/die.h"

static const struct format {
	const char *name;
	/* -1: there is nothing to export, said. NULL: not built yet. */
	int (*write)(const struct cli_options *opt, const struct model *m,
		     struct symbolizer *symbols, FILE *out);
} formats[] = {
	{ "memory-viz", export_memory_viz },
	{ "pprof", NULL },
	{ "speedscope", NULL },
	{ "collapsed", NULL },
	{ "perfetto", NULL },
	{ "csv", NULL },
	{ "openmetrics", NULL },
	{ "parquet", NULL },
	{ "arrow", NULL },
};

#define FORMATS (sizeof(formats) / sizeof(formats[0]))

static const char *built_name(size_t i)
{
	return formats[i].write ? formats[i].name : NULL;
}

static const struct format *format_of(const char *name)
{
	const char *near;

	if (!name)
		die("export needs a format; try: --format memory-viz");
	for (size_t i = 0; i < FORMATS; i++) {
		if (strcmp(formats[i].name, name) != 0)
			continue;
		if (!formats[i].write)
			die("export --format %s is not built yet", name);
		return &formats[i];
	}
	near = cli_nearest(name, FORMATS, built_name);
	die("there is no format '%s'; did you mean '%s'?", name, near ? near : formats[0].name);
}

int cmd_export(const struct command *self, const struct cli_options *opt)
{
	struct symbolizer_options so = { .off = opt->no_symbols, .sysroot = opt->sysroot };
	const struct format *format = format_of(opt->format);
	struct pipeline_report rep;
	struct output out;
	struct model *m;
	FILE *f = NULL;
	int status;

	(void)self;
	output_init(&out, opt);
	if (output_is_terminal(&out))
		die("%s is no text: give a file with -o FILE", format->name);
	m = cmd_read_traces(opt, &rep, &status);
	if (m)
		f = output_stream(&out);
	if (f) {
		struct symbolizer *symbols = symbolizer_new(&so);

		if (format->write(opt, m, symbols, f) < 0)
			status = STATUS_USAGE;
		fclose(f); /* a failed write was said by output_write() */
		symbolizer_free(symbols);
	}
	if (output_finish(&out) < 0)
		status = STATUS_USAGE;
	model_free(m);
	pipeline_report_release(&rep);
	return status;
}
