/*
 * The layout of an interpreter's objects. See python.h and python_layout.def.
 *
 * What an interpreter says of itself is believed only if it hangs together: a version that inserts a
 * word, or a build that changes a structure, would shift meanings, and sizes would then turn up where
 * offsets belong. The last proof is the first frame, which is read with care (interpreter.c).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "stack/python.h"

#define NONE (-1)
#define MT_PYTHON(minor, top, cframe, thread, back, code, ip, ip_kind, entry, entry_kind, file,    \
		  name, first_line, lines, lines_kind, start, ascii, compact)                      \
	{ minor,                                                                                   \
	  top,                                                                                     \
	  cframe,                                                                                  \
	  thread,                                                                                  \
	  back,                                                                                    \
	  code,                                                                                    \
	  ip,                                                                                      \
	  MT_PYTHON_##ip_kind,                                                                     \
	  entry,                                                                                   \
	  MT_PYTHON_##entry_kind,                                                                  \
	  file,                                                                                    \
	  name,                                                                                    \
	  first_line,                                                                              \
	  lines,                                                                                   \
	  MT_LINES_##lines_kind,                                                                   \
	  start,                                                                                   \
	  0,                                                                                       \
	  ascii,                                                                                   \
	  compact,                                                                                 \
	  .str_state = 32,                                                                         \
	  .str_length = 16,                                                                        \
	  .str_shift = 2,                                                                          \
	  .object_type = 8,                                                                        \
	  .object_size = 16,                                                                       \
	  .bytes_data = 32,                                                                        \
	  .type_name = 24,                                                                         \
	  .type_dealloc = 48 },
static const struct mt_python_layout rows[] = {
#include "stack/python_layout.def"
};
#undef MT_PYTHON

/* Which words of _Py_DebugOffsets are meant, by minor version. */
struct places {
	uint8_t minor, words;
	struct {
		uint8_t size, top, thread;
	} state;
	struct {
		uint8_t size, back, code, ip, owner;
	} frame;
	struct {
		uint8_t size, file, name, lines, first_line, start;
		int8_t copies;
	} code;
	struct {
		uint8_t size, type;
	} object;
	struct {
		uint8_t size, name;
	} type;
	struct {
		uint8_t size, length, data;
	} bytes;
	struct {
		uint8_t size, state, length, ascii;
	} str;
};

#define BRACES(...)                                                                                \
	{                                                                                          \
		__VA_ARGS__                                                                        \
	}
#define MT_PYTHON_WORDS(minor, words, state, frame, code, object, type, bytes, str)                \
	{ minor,	 words,	      BRACES state, BRACES frame, BRACES code,                     \
	  BRACES object, BRACES type, BRACES bytes, BRACES str },
static const struct places places[] = {
#include "stack/python_layout.def"
};
#undef MT_PYTHON_WORDS
#undef BRACES
#undef NONE

enum { WORD_COOKIE, WORD_VERSION, WORD_FREE_THREADED };

/* ---- what the interpreter says --------------------------------------------------------------- */

/* A structure of which the words give the size, and whether all that was said of it fits. */
struct fields {
	const uint64_t *words;
	uint64_t size;
	int fit;
};

static struct fields fields_of(const uint64_t *words, unsigned int size_word, uint64_t least,
			       uint64_t most)
{
	uint64_t size = words[size_word];

	return (struct fields){ words, size, size >= least && size <= most };
}

/* The offset of a field of `bytes`. */
static uint16_t field(struct fields *f, unsigned int word, uint64_t bytes)
{
	uint64_t at = f->words[word];

	if (at % bytes || at + bytes > f->size)
		f->fit = 0;
	return (uint16_t)at;
}

static int read_frames(struct mt_python_layout *l, const uint64_t *w, const struct places *p)
{
	struct fields state = fields_of(w, p->state.size, 128, 16384);
	struct fields frame = fields_of(w, p->frame.size, 64, 256);

	l->top = field(&state, p->state.top, 8);
	l->cframe = -1;
	l->thread = field(&state, p->state.thread, 8);
	l->back = field(&frame, p->frame.back, 8);
	l->code = field(&frame, p->frame.code, 8);
	l->ip = field(&frame, p->frame.ip, 8);
	l->ip_kind = MT_PYTHON_ADDRESS;
	l->entry = field(&frame, p->frame.owner, 1);
	l->entry_kind = MT_PYTHON_OWNER;
	l->locals = field(&frame, p->frame.owner - 1u, 8); /* stand ahead of it in the list */
	return state.fit && frame.fit && l->back != l->code && l->back != l->ip &&
	       l->code != l->ip && l->entry > l->ip && l->top != l->thread;
}

static int read_code(struct mt_python_layout *l, const uint64_t *w, const struct places *p)
{
	struct fields code = fields_of(w, p->code.size, 128, 512);

	l->file = field(&code, p->code.file, 8);
	l->name = field(&code, p->code.name, 8);
	l->lines = field(&code, p->code.lines, 8);
	l->lines_kind = MT_LINES_311;
	l->first_line = field(&code, p->code.first_line, 4);
	l->start = field(&code, p->code.start, 1);
	l->names = field(&code, p->code.start - 2u, 8); /* then their kinds, then the byte code */
	if (p->code.copies >= 0)
		l->copies = field(&code, (unsigned int)p->code.copies, 8);
	/* The byte code is the last field, and a filename stands beside the names. */
	return code.fit && code.size - l->start <= 8 && l->name > l->file && l->lines > l->name &&
	       l->file > l->first_line;
}

/* Sizes and offsets of the basic types follow from each other: object, then their own fields. */
static int read_types(struct mt_python_layout *l, const uint64_t *w, const struct places *p)
{
	struct fields object = fields_of(w, p->object.size, 16, 64);
	struct fields type = fields_of(w, p->type.size, 256, 1024);
	struct fields bytes = fields_of(w, p->bytes.size, 40, 128);
	struct fields str = fields_of(w, p->str.size, 48, 128);

	l->object_type = field(&object, p->object.type, 8);
	l->type_name = field(&type, p->type.name, 8);
	l->type_dealloc = l->type_name + 24; /* name, two sizes, then the destructor */
	l->object_size = field(&bytes, p->bytes.length, 8);
	l->bytes_data = field(&bytes, p->bytes.data, 1);
	l->str_state = field(&str, p->str.state, 4);
	l->str_length = field(&str, p->str.length, 8);
	l->ascii = field(&str, p->str.ascii, 8);
	l->compact = l->ascii + 16; /* the text in UTF-8 and its length */
	return object.fit && type.fit && bytes.fit && str.fit && l->object_size == object.size &&
	       l->type_name == object.size + 8 && l->bytes_data == object.size + 16 &&
	       l->str_length == object.size && l->str_state == object.size + 16 &&
	       l->ascii == object.size + 24;
}

static const char *read_words(struct mt_python_layout *l, uint32_t version, const uint64_t *w,
			      const struct places *p)
{
	if (w[WORD_VERSION] != version || w[WORD_FREE_THREADED] > 1)
		return "CPython describes its frames as those of another version than";
	l->minor = p->minor;
	l->free_threaded = (uint16_t)w[WORD_FREE_THREADED];
	if (!read_frames(l, w, p) || !read_code(l, w, p) || !read_types(l, w, p))
		return "what CPython says of its frames does not hang together in";
	/* Only there has a thread byte code of its own. */
	if (!l->free_threaded && l->copies)
		return "what CPython says of its frames does not hang together in";
	return NULL;
}

/* ---- entry ----------------------------------------------------------------------------------- */

/* Where the table's versions keep locals: their names in a code object, they in a frame. */
static const struct {
	uint8_t minor;
	uint16_t names, locals;
} locals[] = {
	{ 7, 64, 360 }, { 8, 72, 360 }, { 9, 72, 360 }, { 10, 72, 352 },
	{ 11, 96, 72 }, { 12, 96, 72 }, { 13, 96, 72 },
};

int mt_python_layout_row(struct mt_python_layout *l, unsigned int minor)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (rows[i].minor == minor) {
			*l = rows[i];
			for (size_t k = 0; k < sizeof(locals) / sizeof(locals[0]); k++) {
				if (locals[k].minor != minor)
					continue;
				l->names = locals[k].names;
				l->locals = locals[k].locals;
			}
			return 0;
		}
	}
	return -1;
}

const char *mt_python_layout_find(struct mt_python_layout *l, unsigned int minor, uint32_t version,
				  const uint64_t *words, size_t count)
{
	static const char unknown[] = "no known layout for CPython";

	memset(l, 0, sizeof(*l));
	if (minor < places[0].minor)
		return mt_python_layout_row(l, minor) < 0 ? unknown : NULL;
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		if (places[i].minor != minor)
			continue;
		if (!words || count < places[i].words || memcmp(words, "xdebugpy", 8) != 0)
			return "CPython does not say how its frames are laid out in";
		return read_words(l, version, words, &places[i]);
	}
	return unknown;
}

int mt_python_str_shift(uint32_t state)
{
	/* After two bits of interning; a byte of it without the GIL (3.14); 16 bits in some 3.14. */
	static const uint8_t shifts[] = { 2, 8, 16 };

	for (size_t i = 0; i < sizeof(shifts); i++) {
		uint32_t width = state >> shifts[i] & 7, compact = state >> (shifts[i] + 3) & 1;

		if (compact && (width == 1 || width == 2 || width == 4))
			return shifts[i];
	}
	return -1;
}
