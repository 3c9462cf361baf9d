/*
 * See text.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "render/text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "util/alloc.h"

#define DEFAULT_COLUMNS 100
#define MIN_COLUMNS 40

static const char *const styles[] = {
	[STYLE_NONE] = "",	   [STYLE_HEAD] = "\033[1m", [STYLE_BAD] = "\033[1;31m",
	[STYLE_WARN] = "\033[33m", [STYLE_DIM] = "\033[2m",
};

void text_init(struct text *t, const struct render_options *opt, FILE *out)
{
	t->out = out;
	t->columns = opt->columns > 0 ? opt->columns : DEFAULT_COLUMNS;
	if (t->columns < MIN_COLUMNS)
		t->columns = MIN_COLUMNS;
	t->color = opt->color;
	t->utf8 = opt->utf8;
}

/* Control characters, also U+0080 to U+009F, and without UTF-8 all others, become '?'. */
static void put_safe(struct text *t, const char *s, size_t len)
{
	const unsigned char *p = (const unsigned char *)s;

	for (size_t i = 0; i < len; i++) {
		bool c1 = p[i] == 0xc2 && i + 1 < len && p[i + 1] < 0xa0;

		if (p[i] < ' ' || p[i] == 0x7f || c1) {
			fputc('?', t->out);
			i += c1;
		} else if (p[i] < 0x80 || t->utf8) {
			fputc(p[i], t->out);
		} else if ((p[i] & 0xc0) != 0x80) {
			fputc('?', t->out);
		}
	}
}

void text_put(struct text *t, enum text_style style, const char *s, size_t len)
{
	if (t->color && style != STYLE_NONE)
		fputs(styles[style], t->out);
	put_safe(t, s, len);
	if (t->color && style != STYLE_NONE)
		fputs("\033[0m", t->out);
}

void text_line(struct text *t, enum text_style style, const char *s)
{
	text_put(t, style, s, strlen(s));
	fputc('\n', t->out);
}

void text_head(struct text *t, const char *title)
{
	fputc('\n', t->out);
	text_line(t, STYLE_HEAD, title);
}

static int width_of(const char *s, size_t len)
{
	int n = 0;

	for (size_t i = 0; i < len; i++)
		n += ((unsigned char)s[i] & 0xc0) != 0x80;
	return n;
}

int text_width(const char *s)
{
	return width_of(s, strlen(s));
}

/* A number and its unit stay together. */
static bool is_unit(const char *word)
{
	return *word && !strncmp(word + 1, "iB", 2);
}

void text_wrap(struct text *t, enum text_style style, int indent, const char *s)
{
	int room = t->columns - indent;

	while (*s) {
		size_t end = 0, next = 0;

		while (s[next]) { /* word by word, as long as they fit */
			size_t word = next + strcspn(s + next, " ");

			if (s[word] && is_unit(s + word + 1))
				word += 1 + strcspn(s + word + 1, " ");
			if (end && width_of(s, word) > room)
				break;
			end = word;
			next = word + strspn(s + word, " ");
		}
		fprintf(t->out, "%*s", indent, "");
		text_put(t, style, s, end);
		fputc('\n', t->out);
		s += next;
	}
}

/* Half the interval of an estimate, relative to it: its neighbours are KEY_low and KEY_high. */
static void add_uncertainty(struct strbuf *sb, const struct rvalue *v)
{
	const struct rvalue *low = v->next, *high = low ? low->next : NULL;
	size_t n = v->key ? strlen(v->key) : 0;
	double half;

	if (!n || !high || !low->key || strncmp(low->key, v->key, n) != 0 ||
	    strcmp(low->key + n, "_low") != 0 || high->u.integer <= low->u.integer)
		return;
	half = ((double)high->u.integer - (double)low->u.integer) / 2;
	if (v->u.integer <= 0 || half >= (double)v->u.integer)
		strbuf_addstr(sb, " (rough)");
	else
		strbuf_addf(sb, " ±%.0f%%", half * 100 / (double)v->u.integer);
}

void text_size(struct strbuf *sb, const struct rvalue *v)
{
	static const char *const units[] = { "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double size;
	size_t i = 0;

	if (!v || v->kind != R_INT) {
		strbuf_addch(sb, '-');
		return;
	}
	if (v->u.integer < 1024) {
		strbuf_addf(sb, "%" PRId64 " B", v->u.integer);
		add_uncertainty(sb, v);
		return;
	}
	for (size = (double)v->u.integer / 1024; size >= 1023.95; i++)
		size /= 1024;
	strbuf_addf(sb, "%.1f %s", size, units[i]);
	add_uncertainty(sb, v);
}

void text_count(struct strbuf *sb, const struct rvalue *v)
{
	char digits[24];
	size_t n;

	if (!v || v->kind != R_INT) {
		strbuf_addch(sb, '-');
		return;
	}
	snprintf(digits, sizeof(digits), "%" PRId64, v->u.integer);
	n = strlen(digits);
	for (size_t i = 0; i < n; i++) {
		if (i && (n - i) % 3 == 0 && digits[i - 1] != '-')
			strbuf_addch(sb, ',');
		strbuf_addch(sb, digits[i]);
	}
	add_uncertainty(sb, v);
}

/* ---- curves
 * ---------------------------------------------------------------------------------------- */

static const char *const bars_utf8[] = { "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█" };
static const char *const bars_ascii[] = { "_", ".", ":", "-", "=", "+", "*", "#" };

/* The highest value of the part; -1: none known. */
static int64_t highest(const int64_t *v, size_t from, size_t to)
{
	int64_t high = -1;

	for (size_t i = from; i < to; i++)
		high = v[i] > high ? v[i] : high;
	return high;
}

void text_spark(struct strbuf *sb, const struct text *t, const struct rvalue *values, int width)
{
	size_t n = values->count, i = 0, w = width > 0 ? (size_t)width : 1;
	int64_t *v = xcalloc(n, sizeof(*v)), top;

	r_for_each (value, values)
		v[i++] = value->kind == R_INT ? value->u.integer : -1;
	top = highest(v, 0, n);
	if (w > n)
		w = n;
	for (i = 0; i < w; i++) {
		int64_t high = highest(v, i * n / w, (i + 1) * n / w);
		int level = top > 0 ? (int)((double)high / (double)top * 7 + 0.5) : 0;

		strbuf_addstr(sb, high < 0 ? " " : t->utf8 ? bars_utf8[level] : bars_ascii[level]);
	}
	free(v);
}
