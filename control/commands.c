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
	{ "attach", command_attach, "attach PID [--tree] [OPTION...]",
	  "record a process that runs" },
	{ "detach", command_detach, "detach PID", "stop recording it; it runs on" },
	{ "status", command_status, "status [PID]", "what is being recorded" },
	{ "mark", command_mark, "mark PID LABEL", "put a mark on the timeline" },
	{ "top", command_top, "top PID|TRACE [--once] [--json]", "live view of a recording" },
};

#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

int command_help(void)
{
	printf("memtrace finds out where the memory of a training job goes.\n\n");
	for (size_t i = 0; i < COMMANDS; i++)
		if (commands[i].run)
			printf("  memtrace %-36s %s\n", commands[i].usage, commands[i].help);
	printf("\noptions of run and attach:\n");
	run_options_help();
	printf("\noptions of run:\n"
	       "  --on-threshold CMD                 run CMD when RAM or cgroup pass 70, 80, 90 "
	       "%%,\n"
	       "                                     a GPU 80, 90, 95 %% ($MEMTRACE_THRESHOLD)\n");
	printf("\noptions of attach:\n"
	       "  --tree                             its children, too, now and later\n"
	       "  --duration S                       stop after S seconds, and wait for it\n"
	       "  --wait S                           for a silent process to answer [30]\n");
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
