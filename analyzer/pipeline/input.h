/*
 * The traces of one run, opened, and what has to be known of them before they can be replayed:
 * which processes there are, and how fast the clock ran. Used by run.c and dump.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_INPUT_H
#define MEMTRACE_ANALYZER_INPUT_H

#include "model/build.h"
#include "pipeline/run.h"
#include "trace/merge.h"
#include "util/vec.h"

struct input_process {
	const struct trace_process *process;
	struct mt_ev_process ev;
	bool known; /* ev was found */
	uint64_t first_time; /* units: of its first chunk */
};

struct input {
	struct trace *trace;
	struct build_clock clock;
	VEC(struct input_process) processes; /* in order of number */
};

/* Takes the trace over. */
void input_init(struct input *in, struct trace *t);
void input_release(struct input *in);
struct build_trace input_info(const struct input *in);

typedef VEC(struct input) input_list;

/* Opens a file, or every trace in a folder; a reason for each that can't be read goes to rep. */
void inputs_open(input_list *list, const char *path, struct pipeline_report *rep);
void report_error(struct pipeline_report *rep, char *text); /* takes the text over */

/*
 * Seconds ("1.5") or the first mark of that label ("@label") in ns since the start. False: it is
 * neither; *error is then the caller's.
 */
bool input_time(input_list *list, const char *text, int64_t *ns, char **error);

#endif
