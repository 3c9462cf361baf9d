/*
 * Which frame of a stack a sentence names, and how. See stack.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "analysis/stack.h"
#include "util/alloc.h"
#include "util/pyfile.h"
#include "util/strbuf.h"

bool site_from_interpreter(const struct model *m, const struct site *s)
{
	const struct native_node *leaf = &m->native[s->native];

	return s->native && leaf->module != NO_ID &&
	       stack_is_interpreter(m->modules[leaf->module].path);
}

bool site_is_python_arena(const struct model *m, const struct site *s)
{
	return s->backing && s->kind == MT_KIND_MMAP && site_from_interpreter(m, s);
}

bool *stack_importing(const struct model *m)
{
	bool *importing = xcalloc(m->python_count, sizeof(*importing));
	bool *importer = xcalloc(m->code_count, sizeof(*importer));

	for (size_t i = 0; i < m->code_count; i++)
		importer[i] = !strncmp(m->codes[i].filename, "<frozen importlib", 17);
	/* A caller stands before those it calls. */
	for (size_t i = 1; i < m->python_count; i++) {
		const struct python_node *n = &m->python[i];

		importing[i] = importing[n->parent] || (n->code != NO_ID && importer[n->code]);
	}
	free(importer);
	return importing;
}

/* The C++ library's allocators and containers: never the place to look at. */
static bool is_library_function(const char *function)
{
	static const char *const names[] = {
		"operator new", "std::",  "void* std::",  "void std::",	 "__gnu_cxx::", "alloc::",
		"<alloc::",	"core::", "__rust_alloc", "__rdl_alloc", "__rg_alloc"
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strncmp(function, names[i], strlen(names[i])))
			return true;
	return false;
}

/* The C and C++ run-time: what starts, loads and allocates, on behalf of others. */
static bool is_runtime(const char *module)
{
	static const char *const names[] = { "libc.so", "libc-2.",	"ld-linux",  "ld-2.",
					     "ld-musl", "libstdc++.so", "libpthread" };
	const char *slash = module ? strrchr(module, '/') : NULL;
	const char *base = slash ? slash + 1 : module;

	for (size_t i = 0; base && i < sizeof(names) / sizeof(names[0]); i++)
		if (!strncmp(base, names[i], strlen(names[i])))
			return true;
	return false;
}

static bool is_own_native(const struct stack_frame *f)
{
	return !f->f.is_python && !f->plumbing && f->f.module && !is_runtime(f->f.module) &&
	       !is_library_function(f->f.function);
}

const struct stack_frame *stack_native_leaf(const struct stack *st)
{
	for (size_t i = 0; i < st->frames.count && !st->frames.items[i].f.is_python; i++)
		if (is_own_native(&st->frames.items[i]))
			return &st->frames.items[i];
	return NULL;
}

enum { USER_PYTHON, ANY_PYTHON, NATIVE_LINE, NATIVE, ANYTHING, CHOICES };

static bool fits(const struct stack_frame *f, int choice)
{
	switch (choice) {
	case USER_PYTHON:
		return f->f.is_python && f->f.line && pyfile_is_users(f->f.file);
	case ANY_PYTHON:
		return f->f.is_python && f->f.line && f->f.file &&
		       strncmp(f->f.file, "<frozen ", 8) != 0;
	case NATIVE_LINE:
		return is_own_native(f) && f->f.line;
	case NATIVE:
		return is_own_native(f);
	default:
		return true;
	}
}

const struct stack_frame *stack_place(const struct stack *st)
{
	for (int choice = 0; choice < CHOICES; choice++)
		for (size_t i = 0; i < st->frames.count; i++)
			if (fits(&st->frames.items[i], choice))
				return &st->frames.items[i];
	return NULL;
}

/* Length of "operator<<", "operator()" or the like at p; 0: none begins there. */
static size_t operator_length(const char *p)
{
	size_t n = strlen("operator");

	if (strncmp(p, "operator", n) != 0)
		return 0;
	if (!strncmp(p + n, "()", 2))
		return n + 2;
	return n + strspn(p + n, "<>=-+*/!&|^%~[],");
}

void stack_function_add(struct strbuf *sb, const struct stack_frame *f)
{
	static const char anonymous[] = "(anonymous namespace)";
	const char *name = f->f.function;
	size_t n = 0, skip;
	int depth = 0; /* of template arguments */

	if (f->f.is_python) {
		strbuf_addstr(sb, name);
		return;
	}
	while (name[n]) {
		skip = operator_length(name + n);
		if (!skip && !strncmp(name + n, anonymous, sizeof(anonymous) - 1))
			skip = sizeof(anonymous) - 1;
		if (!skip && name[n] == '(' && !depth)
			break;
		if (!skip)
			depth += (name[n] == '<') - (name[n] == '>');
		n += skip ? skip : 1;
	}
	strbuf_add(sb, name, n);
}

void stack_place_add(struct strbuf *sb, const struct stack_frame *f)
{
	const char *file = f->f.file, *inside, *slash;

	if (!file || !f->f.line) {
		stack_function_add(sb, f);
		return;
	}
	inside = pyfile_inside(file);
	slash = strrchr(file, '/');
	if (!inside)
		inside = slash ? slash + 1 : file;
	strbuf_addf(sb, "%s:%u", inside, f->f.line);
}
