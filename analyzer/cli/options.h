/*
 * The options of memtrace-report: one table, from which the command line is parsed and the help is
 * printed.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_OPTIONS_H
#define MEMTRACE_ANALYZER_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/strbuf.h"

#ifdef __cplusplus
extern "C" {
#endif

enum color_mode { COLOR_AUTO, COLOR_ALWAYS, COLOR_NEVER };
enum progress_mode { PROGRESS_AUTO, PROGRESS_ON, PROGRESS_OFF };

/* Zeroed: no option given. Strings point into argv. */
struct cli_options {
	bool json;
	const char *output; /* -o or --json=FILE; NULL: standard output */
	int64_t pid; /* 0: all */
	const char *role, *from, *to;
	int64_t top; /* 0: not given */
	const char *sysroot;
	const char *format; /* of export; NULL: not given */
	bool no_symbols;
	int color, progress; /* enum color_mode, progress_mode */
	const char *suppress; /* a file; NULL: none */
	const char *fail_on; /* kinds of findings, separated by commas; checked */
	bool help, version;
	const char **arguments; /* what is no option, in order; free()d by cli_release() */
	size_t argument_count;
};

/*
 * Parses argv[1] and on. 0, or -1 with a sentence for the user in *problem (the caller's to
 * free()). To be released in either case.
 */
int cli_parse(int argc, char *const *argv, struct cli_options *opt, char **problem);
void cli_release(struct cli_options *opt);

/* The table of options, one per line, as --help shows it. */
void cli_describe(struct strbuf *out);

/* Is kind one of --fail-on's? */
bool cli_fails_on(const struct cli_options *opt, const char *kind);

/* The nearest of count names, or NULL: none is near. `next` yields the i-th, NULL to skip it. */
const char *cli_nearest(const char *word, size_t count, const char *(*next)(size_t i));

#ifdef __cplusplus
}
#endif

#endif
