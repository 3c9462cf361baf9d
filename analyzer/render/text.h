/*
 * Text for people: tables, wrapped paragraphs, sizes, colour. Texts of a trace may hold anything;
 * whatever could command a terminal is printed as '?'.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_TEXT_H
#define MEMTRACE_ANALYZER_TEXT_H

#include <stddef.h>
#include <stdint.h>

#include "render/render.h"
#include "util/strbuf.h"

enum text_style { STYLE_NONE, STYLE_HEAD, STYLE_BAD, STYLE_WARN, STYLE_DIM };

struct text {
	FILE *out;
	int columns;
	bool color, utf8;
};

void text_init(struct text *t, const struct render_options *opt, FILE *out);

/* The first len bytes of s. */
void text_put(struct text *t, enum text_style style, const char *s, size_t len);
/* A line; s may be longer than the terminal. */
void text_line(struct text *t, enum text_style style, const char *s);
void text_head(struct text *t, const char *title); /* with an empty line above */
/* Words of s in lines of the terminal's width, each indented. */
void text_wrap(struct text *t, enum text_style style, int indent, const char *s);

/* "12.3 MiB"; NULL or no number: "-" */
void text_size(struct strbuf *sb, const struct rvalue *v);
/* "1,234,567" */
void text_count(struct strbuf *sb, const struct rvalue *v);

int text_width(const char *s); /* columns it takes */

#define TABLE_COLUMNS 12

/* Rows are collected and printed by table_end(), when the widths are known. */
struct table {
	struct {
		const char *head;
		bool right; /* aligned to the right */
		int drop; /* on a narrow terminal the highest is left out first; 0: never */
	} column[TABLE_COLUMNS];
	int columns;
	char **cells;
	size_t rows, room;
};

/* Adds a column; a head that begins with '>' is aligned to the right. */
void table_column(struct table *tab, const char *head, int drop);

struct column {
	const char *head;
	int drop;
};
void table_columns(struct table *tab, const struct column *columns, size_t count);
/* Adds a row of as many texts as there are columns; they are copied. */
void table_row(struct table *tab, const char *const *cells);
/*
 * Prints it and frees it. Where it is too wide, columns are left out, then the last one is cut.
 * after(arg, row) is called behind each row; NULL: nothing.
 */
void table_end(struct table *tab, struct text *t, void (*after)(void *arg, size_t row), void *arg);

/* A curve of `width` characters of an array of numbers and nulls, from 0 to its maximum. */
void text_spark(struct strbuf *sb, const struct text *t, const struct rvalue *values, int width);

#endif
