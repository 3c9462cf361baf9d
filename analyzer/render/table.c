/*
 * Tables as wide as their content, up to the terminal's width. See text.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "render/text.h"
#include "util/alloc.h"
#include "util/vec.h"

#define INDENT 2
#define GAP 2
#define LAST_LEAST 24 /* the last column is cut to this before others are left out */

struct layout {
	int widths[TABLE_COLUMNS];
	bool hidden[TABLE_COLUMNS];
	int last; /* that is not hidden */
};

void table_column(struct table *tab, const char *head, int drop)
{
	tab->column[tab->columns].right = *head == '>';
	tab->column[tab->columns].head = *head == '>' ? head + 1 : head;
	tab->column[tab->columns++].drop = drop;
}

void table_columns(struct table *tab, const struct column *columns, size_t count)
{
	for (size_t i = 0; i < count; i++)
		table_column(tab, columns[i].head, columns[i].drop);
}

void table_row(struct table *tab, const char *const *cells)
{
	size_t at = tab->rows * (size_t)tab->columns;

	tab->cells = vec_room(tab->cells, &tab->room, at + (size_t)tab->columns,
			      sizeof(*tab->cells));
	for (int i = 0; i < tab->columns; i++)
		tab->cells[at + (size_t)i] = xstrdup(cells[i]);
	tab->rows++;
}

static const char *cell(const struct table *tab, size_t row, int column)
{
	return tab->cells[row * (size_t)tab->columns + (size_t)column];
}

static int least_width(const struct layout *l, int column)
{
	if (column == l->last && l->widths[column] > LAST_LEAST)
		return LAST_LEAST;
	return l->widths[column];
}

static int total_width(const struct table *tab, const struct layout *l)
{
	int total = INDENT - GAP;

	for (int i = 0; i < tab->columns; i++)
		if (!l->hidden[i])
			total += GAP + least_width(l, i);
	return total;
}

/* Hides the column that matters least; false: all that are left matter. */
static bool hide_one(const struct table *tab, struct layout *l)
{
	int worst = -1;

	for (int i = 0; i < tab->columns; i++)
		if (!l->hidden[i] && tab->column[i].drop &&
		    (worst < 0 || tab->column[i].drop > tab->column[worst].drop))
			worst = i;
	if (worst < 0)
		return false;
	l->hidden[worst] = true;
	while (l->hidden[l->last])
		l->last--;
	return true;
}

static void lay_out(const struct table *tab, struct layout *l, int room)
{
	int rest;

	memset(l, 0, sizeof(*l));
	l->last = tab->columns - 1;
	for (int i = 0; i < tab->columns; i++) {
		l->widths[i] = text_width(tab->column[i].head);
		for (size_t r = 0; r < tab->rows; r++) {
			int w = text_width(cell(tab, r, i));

			l->widths[i] = w > l->widths[i] ? w : l->widths[i];
		}
	}
	while (total_width(tab, l) > room && hide_one(tab, l))
		;
	rest = room - (total_width(tab, l) - least_width(l, l->last));
	if (l->widths[l->last] > rest)
		l->widths[l->last] = rest > LAST_LEAST ? rest : least_width(l, l->last);
}

/* Bytes of s that take at most `width` columns. */
static size_t bytes_within(const char *s, int width)
{
	size_t i = 0;

	for (int n = 0; s[i]; i++) {
		n += ((unsigned char)s[i] & 0xc0) != 0x80;
		if (n > width)
			break;
	}
	return i;
}

static void put_cell(struct text *t, enum text_style style, const char *s, int width, bool right,
		     bool last)
{
	int pad = width - text_width(s);

	if (right && pad > 0)
		fprintf(t->out, "%*s", pad, "");
	if (pad < 0) {
		text_put(t, style, s, bytes_within(s, width - 3));
		fputs("...", t->out);
	} else {
		text_put(t, style, s, strlen(s));
	}
	if (!right && pad > 0 && !last)
		fprintf(t->out, "%*s", pad, "");
	if (!last)
		fprintf(t->out, "%*s", GAP, "");
}

/* row -1: the heads */
static void put_row(const struct table *tab, const struct layout *l, struct text *t, long row)
{
	fprintf(t->out, "%*s", INDENT, "");
	for (int i = 0; i < tab->columns; i++)
		if (!l->hidden[i])
			put_cell(t, row < 0 ? STYLE_DIM : STYLE_NONE,
				 row < 0 ? tab->column[i].head : cell(tab, (size_t)row, i),
				 l->widths[i], tab->column[i].right, i == l->last);
	fputc('\n', t->out);
}

void table_end(struct table *tab, struct text *t, void (*after)(void *arg, size_t row), void *arg)
{
	struct layout l;

	lay_out(tab, &l, t->columns);
	put_row(tab, &l, t, -1);
	for (size_t r = 0; r < tab->rows; r++) {
		put_row(tab, &l, t, (long)r);
		if (after)
			after(arg, r);
	}
	for (size_t i = 0; i < tab->rows * (size_t)tab->columns; i++)
		free(tab->cells[i]);
	free(tab->cells);
	memset(tab, 0, sizeof(*tab));
}
