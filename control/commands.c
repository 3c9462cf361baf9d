/*
 * The commands of the driver, one row each; --help lists those that work.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
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
	{ "doctor", command_doctor, "doctor [PID|CMD]",
	  "can this machine and program be recorded?" },
	{ "attach", NULL, "", "" },
	{ "detach", NULL, "", "" },
	{ "status", NULL, "", "" },
	{ "mark", NULL, "", "" },
	{ "top", NULL, "", "" },
};

#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

int command_help(void)
{
	printf("memtrace finds out where the memory of a training job goes.\n\n");
	for (size_t i = 0; i < COMMANDS; i++)
		if (commands[i].run)
			printf("  memtrace %-36s %s\n", commands[i].usage, commands[i].help);
	printf("\noptions of run:\n");
	run_options_help();
	return fflush(stdout) ? EXIT_OWN_FAILURE : 0;
}

int command_dispatch(int argc, char **argv)
{
	for (size_t i = 0; i < COMMANDS; i++) {
		if (strcmp(argv[0], commands[i].name) != 0)
			continue;
		if (commands[i].run)
			return commands[i].run(argc, argv);
		complain("%s is not built yet", argv[0]);
		return EXIT_USAGE;
	}
	complain("%s: no such command; see memtrace --help", argv[0]);
	return EXIT_USAGE;
}
