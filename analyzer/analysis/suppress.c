/*
 * See suppress.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "analysis/suppress.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/stack.h"
#include "util/strbuf.h"

struct rule {
	char *kind, *pattern;
};

struct suppressions {
	char *path;
	VEC(struct rule) rules;
};

static const char *base_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* "KIND PATTERN", both without spaces around them; false: the line has one word only. */
static bool parse_line(struct suppressions *s, char *line)
{
	char *kind, *pattern, *end = strchr(line, '#');

	if (end && (end == line || end[-1] == ' ' || end[-1] == '\t'))
		*end = '\0';
	end = line + strlen(line);
	while (end > line && strchr(" \t\r\n", end[-1]))
		*--end = '\0';
	kind = line + strspn(line, " \t");
	if (!*kind)
		return true;
	pattern = kind + strcspn(kind, " \t");
	if (!*pattern)
		return false;
	*pattern++ = '\0';
	pattern += strspn(pattern, " \t");
	*vec_push(&s->rules) = (struct rule){ xstrdup(kind), xstrdup(pattern) };
	return true;
}

__attribute__((format(printf, 1, 2))) static char *sentence(const char *fmt, ...)
{
	struct strbuf sb = STRBUF_INIT;
	va_list ap;

	va_start(ap, fmt);
	strbuf_vaddf(&sb, fmt, ap);
	va_end(ap);
	return strbuf_detach(&sb);
}

struct suppressions *suppressions_read(const char *path, char **problem)
{
	FILE *f = fopen(path, "re");
	struct suppressions *s;
	char *line = NULL;
	size_t room = 0, number = 0;
	bool good = true;

	if (!f) {
		*problem = sentence("--suppress: cannot read %s: %s", path, strerror(errno));
		return NULL;
	}
	s = xcalloc(1, sizeof(*s));
	s->path = xstrdup(path);
	while (good && getline(&line, &room, f) >= 0) {
		number++;
		good = parse_line(s, line);
	}
	if (!good)
		*problem = sentence("--suppress: line %zu of %s is not 'KIND PATTERN'", number,
				    path);
	else if (ferror(f))
		*problem = sentence("--suppress: cannot read %s: %s", path, strerror(errno));
	good = good && !ferror(f);
	free(line);
	fclose(f);
	if (good)
		return s;
	suppressions_free(s);
	return NULL;
}

void suppressions_free(struct suppressions *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->rules.count; i++) {
		free(s->rules.items[i].kind);
		free(s->rules.items[i].pattern);
	}
	vec_release(&s->rules);
	free(s->path);
	free(s);
}

const char *suppressions_path(const struct suppressions *s)
{
	return s->path;
}

static bool matches(const char *pattern, const char *text)
{
	return text && (!fnmatch(pattern, text, 0) || !fnmatch(pattern, base_of(text), 0));
}

static bool matches_frame(const char *pattern, const struct stack_frame *f)
{
	struct strbuf line = STRBUF_INIT;
	bool yes = (f->f.function && !fnmatch(pattern, f->f.function, 0)) ||
		   matches(pattern, f->f.file) || matches(pattern, f->f.module);

	if (!yes && f->f.file && f->f.line) {
		strbuf_addf(&line, "%s:%u", f->f.file, (unsigned int)f->f.line);
		yes = matches(pattern, line.buf);
	}
	strbuf_release(&line);
	return yes;
}

bool suppressions_match(const struct suppressions *s, const char *kind, const char *title,
			const struct stack *st)
{
	for (size_t i = 0; i < s->rules.count; i++) {
		const struct rule *r = &s->rules.items[i];

		if (strcmp(r->kind, "*") != 0 && strcmp(r->kind, kind) != 0)
			continue;
		if (!st && !fnmatch(r->pattern, title, 0))
			return true;
		for (size_t k = 0; st && k < st->frames.count; k++)
			if (matches_frame(r->pattern, &st->frames.items[k]))
				return true;
	}
	return false;
}
