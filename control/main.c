/*
 * memtrace: the driver. One row per command; --help lists those that work.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "control.h"

static const struct command {
	const char *name;
	int (*run)(int argc, char **argv); /* NULL: in the contract, not built yet */
	const char *usage, *help;
} commands[] = {
	{ "run", command_run, "run [OPTION...] [--] CMD [ARG...]", "record CMD and all it starts" },
	{ "report", command_report, "report ...", "read a trace: hands over to memtrace-report" },
	{ "attach", NULL, "", "" },
	{ "detach", NULL, "", "" },
	{ "status", NULL, "", "" },
	{ "mark", NULL, "", "" },
	{ "top", NULL, "", "" },
	{ "doctor", NULL, "", "" },
};

#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

void complain(const char *format, ...)
{
	char line[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	fprintf(stderr, "memtrace: %s\n", line);
}

static int help(void)
{
	printf("memtrace finds out where the memory of a training job goes.\n\n");
	for (size_t i = 0; i < COMMANDS; i++)
		if (commands[i].run)
			printf("  memtrace %-36s %s\n", commands[i].usage, commands[i].help);
	printf("\noptions of run:\n");
	run_options_help();
	return fflush(stdout) ? EXIT_OWN_FAILURE : 0;
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		complain("which command? See memtrace --help");
		return EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help"))
		return help();
	if (!strcmp(argv[1], "--version")) {
		printf("memtrace 0.1\n");
		return 0;
	}
	for (size_t i = 0; i < COMMANDS; i++) {
		if (strcmp(argv[1], commands[i].name) != 0)
			continue;
		if (commands[i].run)
			return commands[i].run(argc - 1, argv + 1);
		complain("%s is not built yet", argv[1]);
		return EXIT_USAGE;
	}
	complain("%s: no such command; see memtrace --help", argv[1]);
	return EXIT_USAGE;
}
