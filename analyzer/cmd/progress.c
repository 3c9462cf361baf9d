/*
 * A bar on standard error for readings that take long. It appears after half a second, and is
 * wiped before anything else is written there.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "util/die.h"

#define FIRST_S 0.5
#define NEXT_S 0.1
#define BAR_WIDTH 30

static struct {
	bool on, shown;
	double start, last;
} bar;

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void wipe(void)
{
	if (!bar.shown)
		return;
	fputs("\r\033[K", stderr);
	fflush(stderr);
	bar.shown = false;
}

void progress_start(const struct cli_options *opt)
{
	bar.on = opt->progress == PROGRESS_ON ||
		 (opt->progress == PROGRESS_AUTO && isatty(STDERR_FILENO));
	bar.start = bar.last = now();
	die_before_line = wipe;
}

void progress_show(void *arg, uint64_t done, uint64_t total)
{
	char cells[BAR_WIDTH + 1];
	double t, share = total ? (double)done / (double)total : 0;
	size_t full;

	(void)arg;
	if (!bar.on)
		return;
	t = now();
	if (t - bar.start < FIRST_S || (bar.shown && t - bar.last < NEXT_S))
		return;
	bar.last = t;
	if (share > 1)
		share = 1;
	full = (size_t)(share * BAR_WIDTH);
	memset(cells, '#', full);
	memset(cells + full, '.', BAR_WIDTH - full);
	cells[BAR_WIDTH] = '\0';
	fprintf(stderr, "\rreading [%s] %3d %%  %.1f of %.1f MiB", cells, (int)(share * 100),
		(double)done / 1048576, (double)total / 1048576);
	fflush(stderr);
	bar.shown = true;
}

void progress_end(void)
{
	wipe();
	bar.on = false;
}
