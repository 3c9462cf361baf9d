/*
 * A renderer prints a finished result document. It computes nothing: what is not in the document
 * is not in its output, so that all of them say the same.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_RENDER_H
#define MEMTRACE_ANALYZER_RENDER_H

#include <stdbool.h>
#include <stdio.h>

#include "result/result.h"

#ifdef __cplusplus
extern "C" {
#endif

struct render_options {
	int columns; /* of the terminal; <= 0: 100 */
	bool color; /* terminal: escape sequences for emphasis */
	bool utf8; /* terminal: may print more than ASCII */
	bool full; /* terminal: every row, and whole stacks; else what fits a first look */
	const char *only; /* terminal: key of the one section to print; NULL: all there are */
};

struct renderer {
	const char *name;
	const char *help;
	/* Errors of writing are left in the stream (ferror). */
	void (*render)(const struct rvalue *root, const struct render_options *opt, FILE *out);
};

extern const struct renderer renderers[]; /* ends with a NULL name */

const struct renderer *renderer_find(const char *name); /* NULL: there is none of that name */

void render_terminal(const struct rvalue *root, const struct render_options *opt, FILE *out);
void render_json(const struct rvalue *root, const struct render_options *opt, FILE *out);

#ifdef __cplusplus
}
#endif

#endif
