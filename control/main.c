/*
 * memtrace: the driver. It starts recordings and hands over to the analyzer.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <string.h>

#include "control.h"

int main(int argc, char **argv)
{
	if (argc < 2) {
		complain("which command? See memtrace --help");
		return EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help"))
		return command_help();
	if (!strcmp(argv[1], "--version")) {
		printf("memtrace 0.1\n");
		return 0;
	}
	return command_dispatch(argc - 1, argv + 1);
}
