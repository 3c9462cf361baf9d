/*
 * memtrace run: LD_PRELOAD and MEMTRACE_… for one command. memtrace report: exec of the analyzer.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control.h"

/* Ours goes first: wrapping whatever allocator the user preloads is the point. */
int preload_shim(void)
{
	const char *others = getenv("LD_PRELOAD");
	char ours[PATH_MAX], *value;
	int result;

	if (find_part("libmemtrace.so", ours, sizeof(ours)) < 0)
		return -1;
	if (strchr(ours, ':') || strchr(ours, ' ')) {
		complain("the loader can't preload from a path with ':' or ' ' in it: %s", ours);
		return -1;
	}
	if (asprintf(&value, "%s%s%s", ours, others && *others ? ":" : "", others ? others : "") <
	    0)
		return -1;
	result = setenv("LD_PRELOAD", value, 1);
	free(value);
	return result;
}

/* No trace will tell of it: nobody should look for one. */
static void say_dormant(void)
{
	const char *mode = getenv("MEMTRACE_MODE"), *quiet = getenv("MEMTRACE_QUIET");

	if (mode && !strcmp(mode, "dormant") && (!quiet || !strcmp(quiet, "0")))
		complain("dormant: the shim is loaded and records nothing; no trace is written");
}

int command_run(int argc, char **argv)
{
	char path[PATH_MAX];
	const char *why, *on_threshold = NULL;
	int at = 1, err;

	while (at < argc && argv[at][0] == '-' && argv[at][1]) {
		if (!strcmp(argv[at], "--")) {
			at++;
			break;
		}
		if (!strcmp(argv[at], "--help") || !strcmp(argv[at], "-h"))
			return command_help();
		if (!strcmp(argv[at], "--on-threshold") && at + 1 < argc) {
			on_threshold = argv[at + 1];
			at += 2;
			continue;
		}
		err = run_option(argc, argv, &at);
		if (err)
			return err;
	}
	if (at >= argc) {
		complain("run: what? See memtrace --help");
		return EXIT_OWN_FAILURE;
	}
	unsetenv("MEMTRACE_TRACE"); /* a trace of its own, also inside one that is recorded */
	err = find_program(argv[at], path, sizeof(path));
	if (err) {
		complain("%s: %s", argv[at], err == ENOENT ? "command not found" : strerror(err));
		return err == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
	}
	why = why_not_traced(path);
	if (why)
		complain("%s cannot be recorded: %s; running it as it is", path, why);
	else if (preload_shim() < 0)
		return EXIT_OWN_FAILURE;
	say_dormant();
	return supervise(argv + at, on_threshold);
}

int command_report(int argc, char **argv)
{
	char path[PATH_MAX];

	(void)argc;
	if (find_part("memtrace-report", path, sizeof(path)) < 0)
		return EXIT_USAGE;
	argv[0] = path;
	execv(path, argv);
	complain("%s: %s", path, strerror(errno));
	return EXIT_USAGE;
}
