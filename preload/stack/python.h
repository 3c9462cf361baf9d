/*
 * What interpreter.c (where the frames are), pylayout.c (how they are laid out), python.c (the walk)
 * and pycode.c (code objects and the numbers of Python stacks) share; used by these four only.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_PYTHON_H
#define MEMTRACE_PRELOAD_PYTHON_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "core/thread.h"
#include "memtrace/format.h"

enum mt_python_ip { MT_PYTHON_BYTES, MT_PYTHON_UNITS, MT_PYTHON_ADDRESS };
enum mt_python_entry { MT_PYTHON_ALWAYS, MT_PYTHON_FLAG, MT_PYTHON_OWNER };

/* Where things lie in the running interpreter, in bytes: from python_layout.def. */
struct mt_python_layout {
	uint16_t minor;
	uint16_t top;
	int16_t cframe;
	uint16_t thread, back, code;
	uint16_t ip;
	enum mt_python_ip ip_kind;
	uint16_t entry;
	enum mt_python_entry entry_kind;
	uint16_t file, name, first_line, lines;
	enum mt_line_kind lines_kind;
	uint16_t start;
	uint16_t
		copies; /* in a code object: its threads' own copies of the byte code; 0: has none */
	uint16_t ascii, compact; /* characters of a str, by kind */
	uint16_t str_state, str_length;
	uint16_t str_shift; /* in the state: first bit of the width; found at the first frame */
	uint16_t object_type, object_size; /* size: of variable-sized objects */
	uint16_t bytes_data;
	uint16_t type_name, type_dealloc;
	uint16_t free_threaded; /* a build without the GIL */
	uint16_t names, locals; /* in a code object: tuple of its locals' names; in a frame: they */
};

enum { MT_PYTHON_OWNER_SHIM = 3 }; /* and above: the frame is no Python function's */

/* A pointer to a code object may be tagged in its lowest bits (3.14 and later). */
#define MT_PYTHON_UNTAG (~(uintptr_t)3)

/*
 * The layout of CPython 3.`minor`, from the table or, from 3.13 on, from what the interpreter says of
 * itself in `words` (_PyRuntime: `count` words can be read; PY_VERSION_HEX is `version`). NULL, or
 * why there is none.
 */
const char *mt_python_layout_find(struct mt_python_layout *l, unsigned int minor, uint32_t version,
				  const uint64_t *words, size_t count);

/* The row of the table alone. 0 or -1. */
int mt_python_layout_row(struct mt_python_layout *l, unsigned int minor);

/* The bit of a str's state where the width of its characters begins, from the state of any compact
 * str; -1: this is none. */
int mt_python_str_shift(uint32_t state);

extern struct mt_python_layout mt_python_layout; /* constant once a stack has been asked for */

/* Moves on when a code object that has a number dies: its address may come back as another. */
extern uint32_t mt_pycode_epoch; /* atomic */

/* Reads of the interpreter's own objects, which the calling thread keeps alive. */
static inline uintptr_t mt_python_word(uintptr_t object, size_t offset)
{
	return *(const uintptr_t *)(object + offset);
}

static inline int32_t mt_python_int(uintptr_t object, size_t offset)
{
	return *(const int32_t *)(object + offset);
}

static inline uint8_t mt_python_byte(uintptr_t object, size_t offset)
{
	return *(const uint8_t *)(object + offset);
}

/* A Python frame as far as its caller is concerned. */
struct mt_pyframe {
	uintptr_t code;
	uintptr_t ip; /* raw, see ip_kind */
	uint32_t entry; /* 1: outermost of its eval loop */
};

/*
 * Stack "frame called from parent" (0: outermost). Writes STRING, CODE and PYNODE on first sight.
 * frame NULL: the mark for frames that were cut out. 0: could not be written, or tables are full.
 */
uint32_t mt_pynode_intern(struct mt_thread *t, uint32_t parent, const struct mt_pyframe *frame);

/* Makes the code type tell when one dies; before the first mt_pynode_intern. 0 or -1. */
int mt_pycode_watch(uintptr_t code_type);

/*
 * pyargs.c. A code object is met for the first time, of that file: if its arguments tell something,
 * mt_pyargs_code is it until a frame of it was read.
 */
extern uintptr_t mt_pyargs_code; /* atomic */
void mt_pyargs_met(uintptr_t code, const char *file, size_t length);
void mt_pyargs_read(struct mt_thread *t, uintptr_t frame, uintptr_t code);

/* In a forked child. */
void mt_pycode_child(void);
void mt_pycode_forget(void);

/* The innermost frame of the running thread; 0: no Python here, or none that can be read. */
uintptr_t mt_python_top(struct mt_thread *t);

/* From mt_stack_init and mt_stack_child. */
void mt_python_init(struct mt_thread *t, int wanted);
void mt_python_child(struct mt_thread *t);
void mt_python_forget(void);

#endif
