/*
 * The live view: lines of text made of a document of `memtrace-report watch`, and the screen that
 * shows them.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_CONTROL_TOP_H
#define MEMTRACE_CONTROL_TOP_H

#include <stddef.h>

enum top_order { BY_PSS, BY_PRIVATE, BY_SWAP, BY_LIVE, TOP_ORDERS };

struct top_view {
	enum top_order order; /* of processes that have the same parent */
	int sites_by_live; /* else by rate */
	int focus; /* pid whose subtree is shown; 0: all */
	int with_ended;
};

struct top_lines {
	char (*text)[256];
	size_t count, room;
};

struct cJSON;

/* The document as lines of at most `width` columns; at most `height` of them, 0: all. */
void top_render(const struct cJSON *doc, const struct top_view *view, int width, int height,
		struct top_lines *out);

/* top_gpu.c: asks NVML for what the document does not tell of devices, and puts it there. wait: for
 * the first answer, a few seconds at most. */
void top_ask_nvml(struct cJSON *doc, int wait);
void top_end_nvml(void);

/* Pids of the document in order, for the key that moves the focus: the one after `pid`, or 0. */
int top_next_process(const struct cJSON *doc, int pid);

/* screen.c: 0: there is no terminal to draw on. */
int screen_open(void);
void screen_close(void);
void screen_size(int *width, int *height);
void screen_show(const struct top_lines *lines);
void screen_redraw(void); /* all of it, when it is shown next */
/* A key that was pressed within `ms`; 0: none; also when the terminal's size changed. */
int screen_key(int ms);

#endif
