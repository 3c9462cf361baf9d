/*
 * The parts of the terminal's report, one function per section; terminal.c has their table.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_TERMINAL_H
#define MEMTRACE_ANALYZER_TERMINAL_H

#include "render/text.h"

struct terminal {
	struct text text;
	const struct rvalue *root;
	bool full;
	const char *only; /* the command whose section was asked for; NULL: all */
};

#define FIRST_ROWS 10 /* of a section, unless all of it was asked for */

typedef void section_fn(struct terminal *t, const struct rvalue *section);

void show_gpu(struct terminal *t, const struct rvalue *list); /* gpu.c */
void show_shm(struct terminal *t, const struct rvalue *list); /* shm.c */
void show_processes(struct terminal *t, const struct rvalue *list);
void show_places(struct terminal *t, const struct rvalue *list);
void show_sites(struct terminal *t, const struct rvalue *list);
void show_growth(struct terminal *t, const struct rvalue *list);
void show_phases(struct terminal *t, const struct rvalue *list);
void show_cow(struct terminal *t, const struct rvalue *cow);
void show_rss(struct terminal *t, const struct rvalue *list);
void show_fragmentation(struct terminal *t, const struct rvalue *list);
void show_timeline(struct terminal *t, const struct rvalue *timeline);
void show_marks(struct terminal *t, const struct rvalue *list);

/* The text of a member, or "-" */
const char *text_member(const struct rvalue *object, const char *key);
/* "dataloader-worker 0 gen 1" */
void role_add(struct strbuf *sb, const struct rvalue *process);
/* "12 more: memtrace-report sites", unless all are shown */
void more_line(struct terminal *t, size_t shown, size_t count, const char *command);

#endif
