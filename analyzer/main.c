/*
 * memtrace-report: reads traces, prints what they say.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "cmd/cmd.h"

/* A file that we open must not become standard output or error because those were closed. */
static void fill_standard_descriptors(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDONLY); /* writing there fails, and is said to */
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd > STDERR_FILENO)
		close(fd);
}

int main(int argc, char **argv)
{
	fill_standard_descriptors();
	signal(SIGPIPE, SIG_IGN); /* a closed pipe is a failed write, see cmd/output.c */
	return cmd_main(argc, argv);
}
