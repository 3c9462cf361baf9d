/*
 * Code objects, their texts, and the trie of Python stacks. See python.h.
 *
 * A code object is known by its address only while it lives; 97 % of the addresses come back in
 * programs that exec a lot. So the type's destructor is wrapped: exact, and not on the hot path.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core/guard.h"
#include "core/ids.h"
#include "core/mem.h"
#include "out/stream.h"
#include "stack/bounds.h"
#include "stack/intern.h"
#include "stack/python.h"

enum {
	TEXT_MAX = 16 << 10, /* longer names are cut */
	LINES_MAX = 512 << 10, /* a longer table is left out: it would not fit a record */
	COPIES_MAX = 1 << 16, /* of a code object's byte code, one per thread */
};

#define LEFT_OUT 0xffffffffu /* the frame that stands for those cut out */

uint32_t mt_pycode_epoch = 1;

static struct mt_map strings = { .first_bits = 9, .limit = 4u << 20 }; /* hash of text -> id */
static struct mt_map codes = { .first_bits = 9, .limit = 4u << 20 }; /* address -> id */
static struct mt_map frames = { .first_bits = 10,
				.limit = 8u << 20 }; /* code id, offset -> number */
static struct mt_map nodes = { .first_bits = 10, .limit = 16u << 20 }; /* parent, frame -> id */
static uint32_t next_frame = 1; /* atomic */

static void (*real_dealloc)(void *code);
static uintptr_t *watched; /* the slot of the type that leads to code_dealloc */

/* ---- death of code objects ------------------------------------------------------------------- */

static void code_dealloc(void *code)
{
	struct mt_thread *t = mt_enter(); /* the table is there as long as we are in */

	if ((t || mt_tls.guard) && mt_map_find(&codes, (uintptr_t)code)) {
		mt_map_remove(&codes, (uintptr_t)code);
		/* Release: the removal is seen with the epoch. */
		__atomic_fetch_add(&mt_pycode_epoch, 1, __ATOMIC_RELEASE);
	}
	if (t)
		mt_leave(t);
	real_dealloc(code);
}

int mt_pycode_watch(uintptr_t code_type)
{
	uintptr_t *slot = (uintptr_t *)(code_type + mt_python_layout.type_dealloc);
	uintptr_t old = __atomic_load_n(slot, __ATOMIC_ACQUIRE);

	if (old == (uintptr_t)code_dealloc)
		return 0;
	if (!old || (real_dealloc && (uintptr_t)real_dealloc != old))
		return -1;
	real_dealloc = (void (*)(void *))old;
	watched = slot;
	__atomic_store_n(slot, (uintptr_t)code_dealloc, __ATOMIC_RELEASE);
	return 0;
}

/* ---- texts ----------------------------------------------------------------------------------- */

static size_t utf8_put(char *p, uint32_t c)
{
	if (c < 0x80) {
		p[0] = (char)c;
		return 1;
	}
	if (c < 0x800) {
		p[0] = (char)(0xc0 | c >> 6);
		p[1] = (char)(0x80 | (c & 0x3f));
		return 2;
	}
	if (c < 0x10000) {
		p[0] = (char)(0xe0 | c >> 12);
		p[1] = (char)(0x80 | (c >> 6 & 0x3f));
		p[2] = (char)(0x80 | (c & 0x3f));
		return 3;
	}
	p[0] = (char)(0xf0 | (c >> 18 & 7));
	p[1] = (char)(0x80 | (c >> 12 & 0x3f));
	p[2] = (char)(0x80 | (c >> 6 & 0x3f));
	p[3] = (char)(0x80 | (c & 0x3f));
	return 4;
}

/* The text of a str in its compact forms, at most TEXT_MAX bytes in buf; the length. */
static uint32_t text_read(uintptr_t str, char *buf)
{
	const struct mt_python_layout *l = &mt_python_layout;
	uint32_t state = (uint32_t)mt_python_int(str, l->str_state) >> l->str_shift;
	uint32_t width = state & 7; /* bytes per character: 1, 2, 4 */
	uint32_t compact = state & 1u << 3, ascii = state & 1u << 4;
	size_t length = mt_python_word(str, l->str_length), n = 0;
	uintptr_t p = str + (ascii ? l->ascii : l->compact);
	uint32_t c = 0;

	if (!compact || (width != 1 && width != 2 && width != 4))
		return 0;
	if (ascii) {
		n = length < TEXT_MAX ? length : TEXT_MAX;
		memcpy(buf, (const void *)p, n);
		return (uint32_t)n;
	}
	for (size_t i = 0; i < length && n <= TEXT_MAX - 4; i++) {
		memcpy(&c, (const void *)(p + i * width), width);
		n += utf8_put(buf + n, c);
	}
	return (uint32_t)n;
}

static uint64_t text_hash(const char *p, uint32_t n)
{
	uint64_t h = UINT64_C(0x2545f4914f6cdd1d) ^ n;

	for (; n; n--)
		h = (h ^ (uint8_t)*p++) * UINT64_C(0x100000001b3);
	return h ^ h >> 29;
}

static uint32_t string_intern(struct mt_thread *t, uintptr_t str, char *buf)
{
	uint32_t n = text_read(str, buf);
	uint64_t hash = text_hash(buf, n);
	uint32_t id = mt_map_find(&strings, hash);

	if (id)
		return id;
	id = mt_id_new(t, MT_ID_STRING);
	if (!MT_EMIT(t, string, .id = id, .text = { buf, n }))
		return 0;
	mt_map_insert(&strings, hash, id); /* when full: written again next time */
	return id;
}

/* ---- code objects ---------------------------------------------------------------------------- */

static uint32_t code_emit(struct mt_thread *t, uintptr_t code, char *buf)
{
	const struct mt_python_layout *l = &mt_python_layout;
	uint32_t file = string_intern(t, mt_python_word(code, l->file), buf);
	uint32_t name = string_intern(t, mt_python_word(code, l->name), buf);
	uintptr_t lines = mt_python_word(code, l->lines);
	size_t size = mt_python_word(lines, l->object_size);
	uint32_t id = mt_id_new(t, MT_ID_CODE);
	uint32_t length;
	int whole = size <=
		    LINES_MAX; /* an empty one is whole too: all code is on the first line */

	if (!file || !name)
		return 0;
	if (!whole)
		size = 0;
	if (!MT_EMIT(t, code, .id = id, .filename = file, .name = name,
		     .first_line = (uint64_t)mt_python_int(code, l->first_line),
		     .kind = whole ? l->lines_kind : MT_LINES_NONE,
		     .lines = { (const char *)lines + l->bytes_data, (uint32_t)size }))
		return 0;
	length = text_read(mt_python_word(code, l->file), buf);
	mt_pyargs_met(code, buf, length);
	return id;
}

static uint32_t code_intern(struct mt_thread *t, uintptr_t code)
{
	uint32_t id = mt_map_find(&codes, code);
	char *buf;

	if (id)
		return id;
	buf = mt_mem_map(TEXT_MAX);
	if (!buf)
		return 0;
	id = code_emit(t, code, buf);
	mt_mem_unmap(buf, TEXT_MAX);
	return id ? mt_map_insert(&codes, code, id) : 0;
}

/* ---- stacks ---------------------------------------------------------------------------------- */

/*
 * Where the byte code begins that an instruction pointer points into. Without the GIL (3.14) each
 * thread may run a copy of its own, because instructions specialise themselves. The array of copies
 * may be replaced by another thread; what it held stays readable until this thread passes a point
 * of rest of the interpreter, or has given up its claim to run: then a read is worth a check.
 */
static uintptr_t code_start(uintptr_t code, uintptr_t ip)
{
	const struct mt_python_layout *l = &mt_python_layout;
	uintptr_t start = code + l->start, copies = l->copies ? mt_python_word(code, l->copies) : 0;
	size_t bytes = mt_python_word(code, l->object_size) * 2, count;

	if (!copies || ip - start < bytes || !mt_bounds_readable(copies, 8))
		return start;
	count = mt_python_word(copies, 0);
	if (count > COPIES_MAX || !mt_bounds_readable(copies, (count + 1) * 8))
		return start;
	for (size_t i = 1; i <= count; i++)
		if (ip - mt_python_word(copies, i * 8) < bytes)
			return mt_python_word(copies, i * 8);
	return start;
}

/* Byte offset of the instruction; a frame that has not begun stands at the first one. */
static uint32_t frame_offset(const struct mt_pyframe *frame)
{
	const struct mt_python_layout *l = &mt_python_layout;
	int64_t offset = (int32_t)frame->ip;

	if (l->ip_kind == MT_PYTHON_UNITS)
		offset *= 2;
	else if (l->ip_kind == MT_PYTHON_ADDRESS)
		offset = (int64_t)(frame->ip - code_start(frame->code, frame->ip));
	return offset > 0 && offset < INT32_MAX ? (uint32_t)offset & ~1u : 0;
}

/* The internal number of (code, offset, entry), which keeps the trie's keys in one word. */
static uint32_t frame_number(uint32_t code, uint32_t offset, uint32_t entry)
{
	uint64_t key = (uint64_t)code << 32 | offset | entry;
	uint32_t number = mt_map_find(&frames, key);

	if (number)
		return number;
	number = __atomic_fetch_add(&next_frame, 1, __ATOMIC_RELAXED);
	return mt_map_insert(&frames, key, number);
}

uint32_t mt_pynode_intern(struct mt_thread *t, uint32_t parent, const struct mt_pyframe *frame)
{
	uint32_t code = 0, offset = 0, entry = 0, number = LEFT_OUT, id;
	uint64_t key;

	if (frame) {
		code = code_intern(t, frame->code);
		offset = frame_offset(frame);
		entry = frame->entry;
		number = code ? frame_number(code, offset, entry) : 0;
		if (!number)
			return 0;
	}
	key = (uint64_t)parent << 32 | number;
	id = mt_map_find(&nodes, key);
	if (id)
		return id;
	id = mt_id_new(t, MT_ID_PYNODE);
	if (!MT_EMIT(t, pynode, .id = id, .parent = parent, .code = code, .offset = offset,
		     .flags = entry ? MT_PYNODE_ENTRY : 0))
		return 0;
	return mt_map_insert(&nodes, key, id);
}

void mt_pycode_child(void)
{
	mt_map_child(&strings);
	mt_map_child(&codes);
	mt_map_child(&frames);
	mt_map_child(&nodes);
}

void mt_pycode_forget(void)
{
	uintptr_t here = (uintptr_t)code_dealloc;

	/* A thread that is just in code_dealloc goes on to real_dealloc. */
	if (watched)
		__atomic_compare_exchange_n(watched, &here, (uintptr_t)real_dealloc, 0,
					    __ATOMIC_RELEASE, __ATOMIC_RELAXED);
	mt_map_forget(&strings);
	mt_map_forget(&codes);
	mt_map_forget(&frames);
	mt_map_forget(&nodes);
	next_frame = 1;
	__atomic_fetch_add(&mt_pycode_epoch, 1, __ATOMIC_RELEASE);
}
