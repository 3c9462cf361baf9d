/*
 * A CPython 3.14 without the GIL, as far as a stack needs one: the symbols, what it says of its own
 * layout, and in memory a thread state, frames, code objects, strings and tables laid out as the
 * headers of 3.14.10 lay them out with Py_GIL_DISABLED. No interpreter of that kind can be had as a
 * package. pretend_python.c makes blocks while it stands in these frames.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PUBLIC __attribute__((visibility("default")))

enum {
	OBJECT = 32, /* bytes of an object's head; its type at 24, then the size of those that have one */
	THREAD_FRAME = 72,
	THREAD_ID = 152,
	FRAME_BACK = 8,
	FRAME_IP = 56,
	FRAME_COPY = 72,
	FRAME_OWNER = 78,
	CODE_FIRST_LINE = 84,
	CODE_FILE = 128,
	CODE_QUALNAME = 144,
	CODE_LINES = 152,
	CODE_COPIES = 224,
	CODE_BYTES = 232,
	UNITS = 16, /* instructions of a code object */
	OWNER_THREAD = 0,
	OWNER_INTERPRETER = 3,
};

typedef unsigned char image[320];

PUBLIC const unsigned long Py_Version = 0x030e0af0;
PUBLIC uint64_t _PyRuntime[128] = {
	8750607829840520312u, 51251952, 1, 365624, 784, 808, 249976, 7280, 7272, 7344, 7360, 7408, 7712,
	7696, 7704, 16, 7808, 0, 7832, 7824, 8024, 17300, 832, 0, 8, 16, 72, 152, 160, 232, 32, 88, 8, 0,
	56, 80, 78, 64, 72, 240, 128, 136, 144, 152, 84, 68, 112, 120, 232, 224, 32, 24, 432, 40, 104,
	184, 56, 48, 32, 56, 40, 32, 216, 40, 56, 48, 64, 48, 56, 40, 32, 48, 32, 40, 56, 32, 48, 80, 48,
	32, 56, 288, 192, 176, 40, 88, 83, 0, 8, 24, 304, 8108, 0, 4, 512,
};

static _Alignas(16) unsigned char code_type[432], str_type[432], bytes_type[432];
static _Alignas(16) unsigned char state[832];
static _Alignas(16) image codes[2], names[2], file_name, tables[2];
static _Alignas(16) unsigned char frames[4][96];
static _Alignas(16) unsigned char copy_of_inner[2 * UNITS]; /* this thread's own byte code */
static uintptr_t copies[3]; /* their number, then one by thread; the first is in the code object */

static void put(unsigned char *at, int offset, uintptr_t value)
{
	memcpy(at + offset, &value, sizeof(value));
}

static void type_fill(unsigned char *type, const char *name)
{
	put(type, 40, (uintptr_t)name);
	put(type, 64, (uintptr_t)type); /* tp_dealloc: never called here */
}

static void str_fill(unsigned char *s, const char *text)
{
	uint32_t bits = 1 | 1u << 8 | 1u << 11 | 1u << 12; /* interned; width 1, compact, ASCII */

	put(s, 24, (uintptr_t)str_type);
	put(s, OBJECT, strlen(text));
	memcpy(s + 48, &bits, sizeof(bits));
	memcpy(s + 56, text, strlen(text) + 1);
}

/* Instruction n stands on line first + n: entries of one unit each, forms 10 to 12 (line delta). */
static void code_fill(int which, const char *name, int first_line)
{
	unsigned char *table = tables[which], *code = codes[which];

	str_fill(names[which], name);
	put(table, 24, (uintptr_t)bytes_type);
	put(table, OBJECT, 3 * UNITS);
	for (int i = 0; i < UNITS; i++) {
		unsigned char entry[3] = { (unsigned char)(0x80 | (i ? 11 : 10) << 3), 0, 1 };

		memcpy(table + 48 + 3 * i, entry, 3);
	}
	put(code, 24, (uintptr_t)code_type);
	put(code, OBJECT, UNITS);
	memcpy(code + CODE_FIRST_LINE, &first_line, sizeof(first_line));
	put(code, CODE_FILE, (uintptr_t)file_name);
	put(code, CODE_QUALNAME, (uintptr_t)names[which]);
	put(code, CODE_LINES, (uintptr_t)table);
}

static void frame_fill(int which, int back, int code, uintptr_t ip, int owner)
{
	unsigned char *f = frames[which];

	/* The lowest bit: a deferred reference. None, of an interpreter's own frame, is one as well. */
	put(f, 0, (code >= 0 ? (uintptr_t)codes[code] : (uintptr_t)str_type) | 1);
	put(f, FRAME_BACK, back >= 0 ? (uintptr_t)frames[back] : 0);
	put(f, FRAME_IP, ip);
	f[FRAME_COPY] = 1;
	f[FRAME_OWNER] = (unsigned char)owner;
}

PUBLIC void pretend_start(void);
PUBLIC void pretend_at(int outer, int inner);
PUBLIC void *pretend_block(size_t size);
PUBLIC void *PyGILState_GetThisThreadState(void);
PUBLIC void *PyThreadState_GetUnchecked(void);
PUBLIC int Py_IsFinalizing(void);

/* Outer function's instruction, in the code object itself; inner's, in this thread's copy. */
PUBLIC void pretend_at(int outer, int inner)
{
	frame_fill(0, -1, -1, 0, OWNER_INTERPRETER);
	frame_fill(1, 0, 0, (uintptr_t)codes[0] + CODE_BYTES + 2 * (uintptr_t)outer, OWNER_THREAD);
	frame_fill(2, 1, -1, 0, OWNER_INTERPRETER);
	frame_fill(3, 2, 1, (uintptr_t)copy_of_inner + 2 * (uintptr_t)inner, OWNER_THREAD);
}

PUBLIC void pretend_start(void)
{
	type_fill(code_type, "code");
	type_fill(str_type, "str");
	type_fill(bytes_type, "bytes");
	str_fill(file_name, "/pretended/train.py");
	code_fill(0, "main", 100);
	code_fill(1, "Model.step", 200);
	copies[0] = 2;
	copies[1] = (uintptr_t)codes[1] + CODE_BYTES;
	copies[2] = (uintptr_t)copy_of_inner;
	put(codes[1], CODE_COPIES, (uintptr_t)copies);
	pretend_at(0, 0);
	put(state, THREAD_FRAME, (uintptr_t)frames[3]);
	put(state, THREAD_ID, (uintptr_t)pthread_self());
}

/* The interpreter is one when its code is seen to run: it allocates. */
PUBLIC void *pretend_block(size_t size)
{
	void *volatile block = malloc(size);

	return block;
}

PUBLIC void *PyGILState_GetThisThreadState(void)
{
	uintptr_t thread;

	memcpy(&thread, state + THREAD_ID, sizeof(thread));
	return thread == (uintptr_t)pthread_self() ? state : NULL;
}

PUBLIC void *PyThreadState_GetUnchecked(void)
{
	return PyGILState_GetThisThreadState();
}

PUBLIC int Py_IsFinalizing(void)
{
	return 0;
}
