/*
 * What interpreter.c (where the frames are), python.c (the walk) and pycode.c (code objects and the
 * numbers of Python stacks) share; used by these three only.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_PYTHON_H
#define MEMTRACE_PRELOAD_PYTHON_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "core/thread.h"

enum mt_python_ip { MT_PYTHON_BYTES, MT_PYTHON_UNITS, MT_PYTHON_ADDRESS };
enum mt_python_entry { MT_PYTHON_ALWAYS, MT_PYTHON_FLAG, MT_PYTHON_OWNER };

/* A row of python_layout.def. */
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
	uint16_t start, ascii, compact;
};

/* The same in all versions of the table, builds with the GIL. */
enum {
	MT_PYTHON_OBJECT_TYPE = 8,
	MT_PYTHON_OBJECT_SIZE = 16, /* of variable-sized objects; of a str: its length */
	MT_PYTHON_TYPE_NAME = 24,
	MT_PYTHON_TYPE_DEALLOC = 48,
	MT_PYTHON_STR_STATE = 32,
	MT_PYTHON_BYTES_DATA = 32,
	MT_PYTHON_OWNER_SHIM = 3,
};

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
