/*
 * One stack of functions from the two that an event has: native frames and Python frames.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_STACK_H
#define MEMTRACE_ANALYZER_STACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/model.h"
#include "symbols/symbolizer.h"
#include "util/vec.h"

struct stack_frame {
	struct symbol_frame f;
	bool plumbing; /* the interpreter's own C functions, beside Python frames */
};

struct stack {
	VEC(struct stack_frame) frames; /* innermost first */
	bool uncertain; /* the two could not be matched: Python's frames stand together */
};

/*
 * Replaces each native frame of CPython's evaluation loop by the Python frames that it ran. The
 * caller releases it; names in it belong to the symbolizer and the model.
 */
void stack_merge(const struct model *m, struct symbolizer *s, uint32_t native, uint32_t python,
		 struct stack *out);
void stack_release(struct stack *st);

/* Is it the interpreter's evaluation loop, in any of the parts that compilers split it into? */
bool stack_is_eval_loop(const char *symbol);

/* The path of a module that holds CPython: libpython3.11.so.1.0, python3.11 */
bool stack_is_interpreter(const char *module);

/* The innermost function is the interpreter's own. */
bool site_from_interpreter(const struct model *m, const struct site *s);

/* The site maps what CPython keeps its small objects in. */
bool site_is_python_arena(const struct model *m, const struct site *s);

/*
 * By Python stack: was a module being imported then? A module is imported once, so what that
 * allocates is there to stay and not a leak. The caller's to free().
 */
bool *stack_importing(const struct model *m);

/*
 * The frame to name when a stack is to be told in one line: the nearest Python line of the user's,
 * else the nearest Python line, else the nearest native function with a line that is not the C++
 * library's, else the nearest function. NULL: an empty stack.
 */
const struct stack_frame *stack_place(const struct stack *st);

/* The innermost native frame that is neither plumbing nor the C++ library's; NULL: none. */
const struct stack_frame *stack_native_leaf(const struct stack *st);

struct strbuf;
struct result;
struct rvalue;

/* A frame as the report has it, to a list of them. */
void stack_put_frame(struct result *doc, struct rvalue *list, const struct stack_frame *f);

/* The function's name without its parameters. */
void stack_function_add(struct strbuf *sb, const struct stack_frame *f);

/* "train.py:42", "torch/nn/modules/linear.py:114", "leak.c:7", or the function without a line. */
void stack_place_add(struct strbuf *sb, const struct stack_frame *f);

#endif
