/*
 * Getting to a process's control page: it is there, or the shim is put into the process first.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "control.h"
#include "inject.h"
#include "page.h"

#define TRIES 60
#define PAUSE_MS 50

static int tells_more(void)
{
	const char *log = getenv("MEMTRACE_LOG");

	return log && (!strcmp(log, "info") || !strcmp(log, "debug"));
}

int reach(struct target *t, pid_t pid, double wait_s)
{
	struct inject_report report = { 0 };
	char why[512];
	enum reach got;

	for (int tries = 0;; tries++) {
		got = target_open(t, pid, why, sizeof(why));
		if ((got != NO_SHIM && got != NO_PAGE) || tries == TRIES)
			break;
		/* The thread that a killed memtrace diverted may just be at that. */
		if (tries % 2) {
			sleep_ms(PAUSE_MS);
			continue;
		}
		if (inject_shim(pid, wait_s, &report) < 0)
			return -1;
		if (tells_more() && !report.tid)
			complain("the interpreter of process %d has loaded the shim", (int)pid);
		else if (tells_more())
			complain("put the shim into process %d; one thread (%d) was held up for "
				 "%.1f ms, %u looked at",
				 (int)pid, (int)report.tid, report.stopped_ms, report.tries);
	}
	if (got != REACHED)
		complain("cannot attach to process %d: %s", (int)pid, why);
	return got == REACHED ? 0 : -1;
}

void say_took(const struct target *t, const char *what)
{
	if (tells_more())
		complain("process %d: one thread was held up for %.1f ms %s", (int)t->pid,
			 (double)t->page->self.took_ns / 1e6, what);
}
