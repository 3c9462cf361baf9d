/*
 * Putting the shim into a running process: one thread of it is stopped at a safe moment, calls dlopen
 * and the shim's entry, and goes on as if nothing had been. All other threads run before, during and
 * after. See inject_parts.h for the parts.
 *
 * It is done by a child of ours: when that ends, however it ends, the kernel lets go of whatever it
 * had traced, and the code in the target needs nobody (inject_call.c).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "inject.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control.h"
#include "inject_parts.h"

#define WHY_BYTES 768

static int refused(pid_t pid, const char *why)
{
	complain("cannot attach to process %d: %s", pid, why);
	return -1;
}

#if defined(__x86_64__)

struct candidates {
	pid_t *tids;
	size_t count, room;
};

static void add(struct candidates *c, pid_t tid)
{
	if (c->count == c->room) {
		size_t room = c->room ? 2 * c->room : 64;
		pid_t *grown = realloc(c->tids, room * sizeof(*grown));

		if (!grown)
			return;
		c->tids = grown;
		c->room = room;
	}
	c->tids[c->count++] = tid;
}

/*
 * The threads that may be stopped, best first: those that wait, for nobody misses them meanwhile; then
 * the main thread if it waits; then those that run. A thread in a system call that can't be made anew
 * is not touched. Returns how many were left out.
 */
static size_t candidates_find(pid_t pid, struct candidates *c)
{
	char path[64];
	size_t left_out = 0;
	DIR *tasks;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	c->count = 0;
	for (int want = 0; want < 3; want++) {
		const struct dirent *e;

		tasks = opendir(path);
		while (tasks && (e = readdir(tasks))) {
			pid_t tid = (pid_t)atoi(e->d_name);
			long in = tid > 0 ? walk_waits_in(pid, tid) : -2;
			int rank = in == -1 ? 2 : tid == pid;

			if (tid <= 0)
				continue;
			if (!walk_may_interrupt(in))
				left_out += want == 0;
			else if (rank == want)
				add(c, tid);
		}
		if (tasks)
			closedir(tasks);
	}
	return left_out;
}

struct search {
	const struct tracee *target;
	const char *shim;
	struct inject_report *report;
	int stuck, held;
	char *why;
	size_t size;
};

/* 1: the call was made, and *result is what came of it; 0: not at this moment; -1: never. */
static int try_thread(struct search *search, pid_t tid, enum call_result *result)
{
	struct stopped s;
	double ms = 0;

	search->report->tries++;
	switch (thread_stop(tid, &s)) {
	case STOP_DENIED:
		thread_free(&s);
		if (inject_tracer(search->target->pid, tid)) {
			snprintf(search->why, search->size, "another process traces its thread %d",
				 tid);
			return 0;
		}
		inject_denied("/proc", search->target->pid, errno, search->why, search->size);
		return -1;
	case STOP_STUCK:
		search->stuck++;
		thread_free(&s);
		return 0;
	case STOP_HELD:
		search->held++;
		thread_free(&s);
		return 0;
	case STOP_GONE:
		thread_free(&s);
		return 0;
	case STOP_DONE:
		break;
	}
	if (!walk_is_safe(search->target, &s, search->why, search->size)) {
		thread_release(&s);
		return 0;
	}
	*result = call_make(search->target, &s, search->shim, &ms, search->why, search->size);
	thread_free(&s);
	search->report->tid = tid;
	search->report->stopped_ms = ms;
	return 1;
}

static void say_no_moment(struct search *search, size_t left_out, double wait_s)
{
	char last[WHY_BYTES / 2 + 1];

	snprintf(last, sizeof(last), "%.*s", WHY_BYTES / 2, search->why);
	if (search->held)
		snprintf(search->why, search->size,
			 "it is stopped; continue it first (kill -CONT %d)", search->target->pid);
	else if (search->stuck ||
		 (!*last && (!left_out || inject_state(search->target->pid) == 'D')))
		snprintf(search->why, search->size,
			 "it waits in the kernel and can't be stopped (state D); try again when "
			 "that "
			 "is over");
	else if (!*last)
		snprintf(search->why, search->size,
			 "all its %zu threads are in system calls that can't be made anew; try "
			 "again "
			 "when it is at work",
			 left_out);
	else
		snprintf(search->why, search->size,
			 "no safe moment within %.0f s: at the last look %s; try a longer --wait",
			 wait_s, last);
}

static int search_moment(struct search *search, double wait_s, enum call_result *result)
{
	double until = clock_ms() + wait_s * 1e3, pause = 1;
	struct candidates c = { 0 };
	size_t left_out = 0;
	int done = 0;

	*search->why = '\0';
	do {
		left_out = candidates_find(search->target->pid, &c);
		for (size_t i = 0; i < c.count && !done && clock_ms() < until; i++)
			done = try_thread(search, c.tids[i], result);
		if (done || search->stuck)
			break;
		if (inject_status(search->target->pid, "VmSize", 10, -1) < 0) {
			snprintf(search->why, search->size, "it has ended meanwhile");
			break;
		}
		nap_ms(pause);
		pause = pause < 50 ? pause * 1.5 : 50;
	} while (clock_ms() < until);
	free(c.tids);
	if (!done && strcmp(search->why, "it has ended meanwhile") != 0)
		say_no_moment(search, left_out, wait_s);
	return done > 0 ? 0 : -1;
}

/*
 * A memtrace that was killed traces its thread until it has ended, which may take a while on a busy
 * machine; one that is at work does so for a moment.
 */
static void wait_for_other(pid_t pid, double wait_s)
{
	double until = clock_ms() + wait_s * 1e3;
	char path[64], name[32] = "";
	pid_t tracer;
	FILE *f;

	while ((tracer = inject_tracer(pid, pid)) && clock_ms() < until) {
		snprintf(path, sizeof(path), "/proc/%d/comm", (int)tracer);
		f = fopen(path, "re");
		if (f && !fgets(name, sizeof(name), f))
			name[0] = '\0';
		if (f)
			fclose(f);
		if (f && strcmp(name, "memtrace\n") != 0)
			return; /* a debugger */
		nap_ms(10);
	}
}

static int inject_here(pid_t pid, double wait_s, struct inject_report *report)
{
	char shim[PATH_MAX], why[WHY_BYTES] = "";
	struct tracee target;
	struct search search = {
		.target = &target, .shim = shim, .report = report, .why = why, .size = sizeof(why)
	};
	enum call_result result = CALL_FAILED;

	if (find_part("libmemtrace.so", shim, sizeof(shim)) < 0)
		return -1;
	wait_for_other(pid, wait_s);
	if (inject_verdict(pid, shim, why, sizeof(why)) < 0)
		return refused(pid, why);
	if (inject_python(pid, shim))
		return 0;
	if (inject_shadow_verdict(pid, why, sizeof(why)) < 0 || walk_open(why, sizeof(why)) < 0 ||
	    tracee_open(&target, pid, why, sizeof(why)) < 0)
		return refused(pid, why);
	if (search_moment(&search, wait_s, &result) < 0 ||
	    (result != CALL_DONE && result != CALL_ALREADY))
		return refused(pid, why);
	tracee_close(&target);
	return 0;
}

int inject_shim(pid_t pid, double wait_s, struct inject_report *report)
{
	struct inject_report own = { 0 };
	int fds[2], status = -1;
	ssize_t n;
	pid_t child;

	if (pipe(fds) < 0 || (child = fork()) < 0)
		return refused(pid, strerror(errno));
	if (child == 0) {
		status = inject_here(pid, wait_s, &own);
		n = status == 0 ? write(fds[1], &own, sizeof(own)) : 0;
		_exit(status == 0 && n == (ssize_t)sizeof(own) ? 0 : 1);
	}
	close(fds[1]);
	n = read(fds[0], &own, sizeof(own));
	close(fds[0]);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFSIGNALED(status))
		return refused(
			pid, "the part of memtrace that does it has crashed; the process runs on");
	if (status || n != (ssize_t)sizeof(own))
		return -1;
	if (report)
		*report = own;
	return 0;
}

#else

int inject_shim(pid_t pid, double wait_s, struct inject_report *report)
{
	char why[WHY_BYTES];

	(void)wait_s;
	(void)report;
	inject_verdict(pid, "", why, sizeof(why));
	return refused(pid, why);
}

#endif
