/*
 * See stack.h. The interpreter runs one evaluation loop (a native frame) per run of Python frames
 * that ends, outwards, with a frame marked as entry; so the n-th loop ran the n-th run. Where the
 * counts differ because a stack was cut or could not be followed to its end, its two ends still
 * match from outside and inside. Where they differ for no known reason, both are shown apart.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "analysis/stack.h"

#include <string.h>

#include "symbols/python_lines.h"

struct run {
	size_t first, count; /* in python, innermost first */
};

struct merge {
	const struct model *m;
	struct symbolizer *s;
	VEC(struct symbol_frames) native; /* per node, innermost first */
	VEC(bool) is_eval;
	VEC(uint32_t) python; /* nodes, innermost first */
	VEC(struct run) runs; /* innermost first */
	size_t evals;
	size_t cut; /* the native node that stands for frames left out; or native.count */
	bool open_end; /* the outermost native frames are missing */
};

bool stack_is_eval_loop(const char *symbol)
{
	static const char *const names[] = { "_PyEval_EvalFrameDefault", "_TAIL_CALL_" };

	for (size_t i = 0; symbol && i < sizeof(names) / sizeof(names[0]); i++)
		if (!strncmp(symbol, names[i], strlen(names[i])))
			return true;
	return false;
}

/* The handler of an instruction where these are functions that call each other by jumps (3.14). */
static bool is_handler(const struct symbol_frame *f)
{
	return (f->raw && !strncmp(f->raw, "_TAIL_CALL_", 11)) ||
	       (f->function && !strncmp(f->function, "_TAIL_CALL_", 11));
}

static struct symbol_frames symbols_of(struct merge *g, const struct native_node *n)
{
	struct symbol_module module;

	if (n->module == NO_ID)
		return symbolizer_pseudo(g->s, n->offset);
	module.path = g->m->modules[n->module].path;
	module.build_id = g->m->modules[n->module].build_id;
	module.build_id_len = g->m->modules[n->module].build_id_len;
	return symbolizer_native(g->s, &module, n->offset, n->interrupted);
}

static void collect_native(struct merge *g, uint32_t node)
{
	bool has_cut = false, handler = false;

	for (; node; node = g->m->native[node].parent) {
		const struct native_node *n = &g->m->native[node];
		struct symbol_frames f = symbols_of(g, n);
		const struct symbol_frame *outer = &f.frames[f.count - 1];
		bool eval = stack_is_eval_loop(outer->raw) || stack_is_eval_loop(outer->function);

		if (n->module == NO_ID && n->offset == MT_FRAME_TRUNCATED && !has_cut) {
			has_cut = true;
			g->cut = g->native.count;
		}
		g->open_end = n->module == NO_ID && n->offset >= MT_FRAME_NO_UNWIND_INFO &&
			      n->offset <= MT_FRAME_LOST;
		/* The loop's own function called the first handler: the two are one loop. */
		if (eval && handler && !is_handler(outer)) {
			g->is_eval.items[g->is_eval.count - 1] = false;
			g->evals--;
		}
		handler = eval && is_handler(outer);
		*vec_push(&g->native) = f;
		*vec_push(&g->is_eval) = eval;
		g->evals += eval;
	}
	if (!has_cut)
		g->cut = g->native.count;
}

static void collect_python(struct merge *g, uint32_t node)
{
	bool inside = false;

	for (; node; node = g->m->python[node].parent) {
		*vec_push(&g->python) = node;
		if (!inside)
			*vec_push(&g->runs) = (struct run){ g->python.count - 1, 0 };
		g->runs.items[g->runs.count - 1].count++;
		inside = !g->m->python[node].entry;
	}
}

/* ---- putting together
 * ------------------------------------------------------------------------------ */

static void add_native(struct merge *g, struct stack *out, size_t i)
{
	for (size_t k = 0; k < g->native.items[i].count; k++)
		vec_push(&out->frames)->f = g->native.items[i].frames[k];
}

static void add_python(struct merge *g, struct stack *out, size_t first, size_t count)
{
	for (size_t i = first; i < first + count; i++) {
		const struct python_node *n = &g->m->python[g->python.items[i]];
		struct symbol_frame *f = &vec_push(&out->frames)->f;
		const struct code *c;

		f->is_python = true;
		if (n->code == NO_ID) {
			f->function = "[frames left out]";
			continue;
		}
		c = &g->m->codes[n->code];
		f->function = c->name;
		f->file = *c->filename ? c->filename : NULL;
		f->line = python_line(c->line_kind, c->lines, c->lines_len, c->first_line,
				      n->offset);
	}
}

static void add_runs(struct merge *g, struct stack *out, size_t first, size_t end)
{
	for (size_t i = first; i < end; i++)
		add_python(g, out, g->runs.items[i].first, g->runs.items[i].count);
}

/* Python's frames in one piece where the innermost loop is, or in front. */
static void show_apart(struct merge *g, struct stack *out)
{
	size_t at = 0;

	while (at < g->native.count && !g->is_eval.items[at])
		at++;
	if (at == g->native.count)
		at = 0;
	for (size_t i = 0; i < at; i++)
		add_native(g, out, i);
	add_python(g, out, 0, g->python.count);
	for (size_t i = at; i < g->native.count; i++)
		add_native(g, out, i);
	out->uncertain = true;
}

/* Loops inside the cut take runs from within, loops outside it from without, the rest is between.
 */
static void interleave(struct merge *g, struct stack *out, size_t inner, size_t outer)
{
	size_t next = 0, resume = g->runs.count - outer;

	for (size_t i = 0; i < g->native.count; i++) {
		if (i == g->cut) {
			add_native(g, out, i);
			add_runs(g, out, next, resume);
			next = resume;
		} else if (g->is_eval.items[i]) {
			add_runs(g, out, next, next + 1);
			next++;
		} else {
			add_native(g, out, i);
		}
	}
	if (inner + outer < g->runs.count && g->cut == g->native.count)
		add_runs(g, out, next, g->runs.count);
}

bool stack_is_interpreter(const char *module)
{
	const char *slash = module ? strrchr(module, '/') : NULL;
	const char *base = slash ? slash + 1 : module;

	if (!base)
		return false;
	return !strncmp(base, "libpython", 9) || !strncmp(base, "python3", 7) ||
	       !strcmp(base, "python");
}

/* Outside the first Python frame stand only the interpreter's start and the C library's. */
static void mark_plumbing(struct stack *st, size_t python_frames)
{
	size_t seen = 0;

	if (!python_frames)
		return;
	for (size_t i = 0; i < st->frames.count; i++) {
		struct stack_frame *f = &st->frames.items[i];

		if (f->f.is_python)
			seen++;
		else
			f->plumbing = stack_is_interpreter(f->f.module) || seen == python_frames;
	}
}

void stack_merge(const struct model *m, struct symbolizer *s, uint32_t native, uint32_t python,
		 struct stack *out)
{
	struct merge g = { .m = m, .s = s };
	size_t inner = 0, outer = 0;

	memset(out, 0, sizeof(*out));
	collect_native(&g, native);
	collect_python(&g, python);
	for (size_t i = 0; i < g.native.count; i++)
		*(i < g.cut ? &inner : &outer) += g.is_eval.items[i];
	if (g.evals == g.runs.count ||
	    (g.evals < g.runs.count && (g.cut < g.native.count || g.open_end)))
		interleave(&g, out, inner, outer);
	else
		show_apart(&g, out);
	mark_plumbing(out, g.python.count);
	vec_release(&g.native);
	vec_release(&g.is_eval);
	vec_release(&g.python);
	vec_release(&g.runs);
}

void stack_release(struct stack *st)
{
	vec_release(&st->frames);
}
