/*
 * The driver's parts. Commands return the exit status of the program; messages go to standard error
 * as one line that says what, where and what to do.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_CONTROL_H
#define MEMTRACE_CONTROL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { EXIT_USAGE = 2, EXIT_OWN_FAILURE = 125, EXIT_NOT_EXECUTABLE = 126, EXIT_NOT_FOUND = 127 };

/* argv[0] names the command. */
int command_dispatch(int argc, char **argv);
int command_run(int argc, char **argv);
int command_report(int argc, char **argv);
int command_doctor(int argc, char **argv);
int command_attach(int argc, char **argv);
int command_detach(int argc, char **argv);
int command_status(int argc, char **argv);
int command_mark(int argc, char **argv);
int command_top(int argc, char **argv);
int command_help(void);

/* The process id in `text`. 0, or after a message the status to leave with. */
int process_argument(const char *verb, const char *text, pid_t *pid);

/* "memtrace: ..." and a newline on standard error. */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Finds one of our files beside the driver or where it was installed; -1 and a message if nowhere.
 * name: "libmemtrace.so" or "memtrace-report". */
int find_part(const char *name, char *out, size_t size);

/* Looks `command` up as execvp would. 0, or the errno that execvp would end with. */
int find_program(const char *command, char *out, size_t size);

/* Why the loader would not load the shim into this program, as a clause ("it is statically
 * linked"), looking through #! lines; NULL: nothing is known against it. */
const char *why_not_traced(const char *path);

/* Puts the shim into LD_PRELOAD of our environment, before what stands there. 0, or -1 after a
 * message. */
int preload_shim(void);

/* Runs argv and stays its parent until it ends: signals forwarded, stops followed, orphans reaped.
 * on_threshold: NULL, or a shell's command to run each time that memory passes a threshold.
 * The status to leave with: the command's own, 128+N, 126, 127 or 125. */
int supervise(char *const argv[], const char *on_threshold);

/* Looks whether RAM or the cgroup's memory has passed 70, 80 or 90 % since the last look, or a GPU of
 * what `pid` records 80, 90 or 95 %, and if so starts `command` by /bin/sh, with MEMTRACE_THRESHOLD
 * ("RAM 80", "GPU0 90") in its environment. */
void pressure_look(const char *command, pid_t pid);

/* The driver's own memory cgroup, of version 1 or 2. */
struct cgroup {
	uint64_t usage; /* bytes */
	uint64_t limit,
		limited_usage; /* the smallest limit that can be seen, 0: none; the use there */
	uint64_t kills; /* by the kernel for want of memory, since the group was made */
};

/* prefix: "", or for tests a folder with proc/ and sys/ in it. 0; -1: there is none. */
int cgroup_read(const char *prefix, struct cgroup *out);

/* What the driver itself writes into the trace of `command` (watch.c). The first is to be called
 * every watch_ns(); the last when it has ended, with what waitpid gave. */
uint64_t watch_ns(void);
void watch_look(pid_t command);
void watch_end(pid_t command, int status);

/* A number of nanoseconds that a variable of options.def holds, or its default. */
int64_t option_seconds(const char *variable);

/*
 * Options of `memtrace run`, from options.def: argv[*at] is one; sets its variable in the
 * environment and moves *at past it. 0, or after a message the status to leave with.
 */
int run_option(int argc, char **argv, int *at);
void run_options_help(void);

/* The same, for a process that runs: *name of the variable without MEMTRACE_, and its value. */
int recording_option(const char *verb, int argc, char **argv, int *at, const char **name,
		     const char **value);

#endif
