/*
 * Says "interrupt" for every SIGINT, from the handler itself: two that come one after the other are
 * two lines. Ends when a file appears. Argument: the file.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <signal.h>
#include <unistd.h>

static volatile sig_atomic_t failed;

static void on_interrupt(int signo)
{
	(void)signo;
	if (write(1, "interrupt\n", 10) != 10)
		failed = 1;
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = on_interrupt };

	if (argc < 2 || sigaction(SIGINT, &action, NULL) < 0 || write(1, "ready\n", 6) != 6)
		return 3;
	while (access(argv[1], F_OK))
		usleep(2000);
	return failed;
}
