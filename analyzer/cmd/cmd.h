/*
 * The commands of memtrace-report. A command is a row of the table in commands.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_CMD_H
#define MEMTRACE_ANALYZER_CMD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "cli/options.h"

#ifdef __cplusplus
extern "C" {
#endif

enum exit_status {
	STATUS_DONE = 0,
	STATUS_FOUND = 1, /* a finding named by --fail-on is there */
	STATUS_USAGE = 2,
	STATUS_UNREADABLE = 3, /* a trace can't be read at all */
};

struct command {
	const char *name;
	/* opt->arguments are the traces. Returns an exit status. NULL: not built yet. */
	int (*run)(const struct command *self, const struct cli_options *opt);
	const char *help;
	const char *const *sections; /* of the report, for cmd_report; NULL: all */
};

/* Parses, chooses the command, runs it. */
int cmd_main(int argc, char *const *argv);

int cmd_report(const struct command *self, const struct cli_options *opt);
int cmd_check(const struct command *self, const struct cli_options *opt);
int cmd_watch(const struct command *self, const struct cli_options *opt);
int cmd_dump(const struct command *self, const struct cli_options *opt);
int cmd_export(const struct command *self, const struct cli_options *opt);

struct model;
struct pipeline_report;

/* Reads all traces. NULL: none could be read; *status then says why. */
struct model *cmd_read_traces(const struct cli_options *opt, struct pipeline_report *rep,
			      int *status);

/*
 * Where a command's text goes: standard output, or a file that is made when the first text comes.
 * A failure is said once, in one line; output_finish() then returns -1.
 */
struct output {
	const char *path; /* NULL: standard output */
	int fd; /* -1: not open yet */
	bool failed;
};

void output_init(struct output *out, const struct cli_options *opt);
int output_write(struct output *out, const char *text, size_t len); /* -1 once it has failed */
/* The same as a stream; NULL: no memory, said. To be fclose()d before output_finish(). */
FILE *output_stream(struct output *out);
int output_finish(struct output *out);
bool output_is_terminal(const struct output *out);

/* The progress bar; see progress.c. */
void progress_start(const struct cli_options *opt);
void progress_show(void *arg, uint64_t done, uint64_t total);
void progress_end(void);

#ifdef __cplusplus
}
#endif

#endif
