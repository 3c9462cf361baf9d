/*
 * See symbolizer.h. One entry per module that a frame was asked for, one per frame looked up.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "symbols/symbolizer.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "symbols/demangle.h"
#include "symbols/dwarf.h"
#include "symbols/elf.h"
#include "util/arena.h"
#include "util/hashmap.h"
#include "util/strbuf.h"
#include "util/vec.h"

struct opened {
	const char *path; /* the arena's */
	const char *base; /* last part of it */
	struct elf_file *elf; /* NULL: no symbols */
	struct dwarf_index *dwarf; /* NULL: none */
	uint64_t dwarf_bias;
};

struct symbolizer {
	bool off;
	char *sysroot;
	struct arena arena;
	struct hashmap module_set; /* build-id and path: index in modules */
	struct hashmap frame_set; /* module and address: index in results */
	struct hashmap name_set; /* mangled: index in names */
	VEC(struct opened) modules;
	VEC(struct symbol_frames) results;
	VEC(const char *) names;
	VEC(const char *) notes;
};

struct symbolizer *symbolizer_new(const struct symbolizer_options *options)
{
	struct symbolizer *s = xcalloc(1, sizeof(*s));

	s->off = options && options->off;
	if (options && options->sysroot)
		s->sysroot = xstrdup(options->sysroot);
	return s;
}

void symbolizer_free(struct symbolizer *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->modules.count; i++) {
		dwarf_index_free(s->modules.items[i].dwarf);
		elf_close(s->modules.items[i].elf);
	}
	vec_release(&s->modules);
	vec_release(&s->results);
	vec_release(&s->names);
	vec_release(&s->notes);
	hashmap_release(&s->module_set);
	hashmap_release(&s->frame_set);
	hashmap_release(&s->name_set);
	arena_release(&s->arena);
	free(s->sysroot);
	free(s);
}

const char *symbolizer_note(const struct symbolizer *s, size_t index)
{
	return index < s->notes.count ? s->notes.items[index] : NULL;
}

/* ---- modules
 * --------------------------------------------------------------------------------------- */

static void open_module(struct symbolizer *s, struct opened *o, const struct symbol_module *m)
{
	Dwarf *dw;

	switch (elf_open(m->path, m->build_id, m->build_id_len, s->sysroot, &o->elf)) {
	case ELF_OK:
		dw = elf_dwarf(o->elf, &o->dwarf_bias);
		if (dw)
			o->dwarf = dwarf_index_new(dw);
		return;
	case ELF_OTHER:
		*vec_push(&s->notes) = arena_printf(
			&s->arena,
			"%s has another build-id than when it was traced: its frames are "
			"shown by offset",
			m->path);
		return;
	case ELF_MISSING:
		if (*m->path == '/')
			*vec_push(&s->notes) =
				arena_printf(&s->arena,
					     "%s is not here: its frames are shown by offset (see "
					     "--sysroot)",
					     m->path);
		return;
	}
}

static struct opened *find_module(struct symbolizer *s, const struct symbol_module *m, uint32_t *id)
{
	struct strbuf key = STRBUF_INIT;
	struct opened *o;
	uint64_t *slot;
	const char *slash;
	bool is_new;

	strbuf_add(&key, m->build_id, m->build_id_len);
	strbuf_addch(&key, (char)m->build_id_len);
	strbuf_addstr(&key, m->path);
	slot = hashmap_slot(&s->module_set, key.buf, key.len, &is_new);
	strbuf_release(&key);
	if (is_new) {
		*slot = s->modules.count;
		o = vec_push(&s->modules);
		o->path = arena_strdup(&s->arena, m->path);
		slash = strrchr(o->path, '/');
		o->base = slash && slash[1] ? slash + 1 : o->path;
		if (!s->off)
			open_module(s, o, m);
	}
	*id = (uint32_t)*slot;
	return &s->modules.items[*slot];
}

/* ---- frames
 * ---------------------------------------------------------------------------------------- */

/* The readable form of a symbol; each is demangled once. */
static const char *readable(struct symbolizer *s, const char *name)
{
	bool is_new;
	uint64_t *slot = hashmap_slot(&s->name_set, name, strlen(name), &is_new);
	char *text;

	if (is_new) {
		*slot = s->names.count;
		text = demangle(name);
		*vec_push(&s->names) = arena_strdup(&s->arena, text ? text : name);
		free(text);
	}
	return s->names.items[*slot];
}

static bool is_mangled(const char *name)
{
	return name[0] == '_' && (name[1] == 'Z' || name[1] == 'R');
}

static const char *absolute(struct symbolizer *s, const struct dwarf_frame *f)
{
	if (!f->file || *f->file == '/' || !f->dir)
		return f->file;
	return arena_printf(&s->arena, "%s/%s", f->dir, f->file);
}

static size_t look_up(struct symbolizer *s, struct opened *o, uint64_t pc,
		      struct symbol_frame frames[DWARF_DEPTH])
{
	struct dwarf_frame found[DWARF_DEPTH];
	const char *symbol;
	size_t n = 0;

	if (!o->elf)
		return 0;
	symbol = elf_symbol(o->elf, pc);
	if (o->dwarf)
		n = dwarf_find(o->dwarf, pc - o->dwarf_bias, found);
	if (!n && symbol) {
		found[0] = (struct dwarf_frame){ .name = NULL };
		n = 1;
	}
	for (size_t i = 0; i < n; i++) {
		bool outermost = i + 1 == n;
		const char *name = found[i].name;

		/* C++'s local functions have their full name in the symbol table alone. */
		if (outermost && symbol && (!name || (found[i].is_plain && is_mangled(symbol))))
			name = symbol;
		frames[i] = (struct symbol_frame){ .function = name ? readable(s, name) : NULL,
						   .raw = outermost && symbol ? symbol : name,
						   .file = absolute(s, &found[i]),
						   .line = found[i].line,
						   .module = o->path,
						   .inlined = !outermost };
	}
	return n;
}

struct symbol_frames symbolizer_native(struct symbolizer *s, const struct symbol_module *module,
				       uint64_t address, bool interrupted)
{
	struct {
		uint64_t address;
		uint32_t module, interrupted;
	} key = { .address = address, .interrupted = interrupted };
	struct symbol_frame frames[DWARF_DEPTH], *kept;
	struct opened *o = find_module(s, module, &key.module);
	bool is_new;
	uint64_t *slot = hashmap_slot(&s->frame_set, &key, sizeof(key), &is_new);
	size_t n;

	if (!is_new)
		return s->results.items[*slot];
	*slot = s->results.count;
	n = look_up(s, o, interrupted || !address ? address : address - 1, frames);
	if (!n) {
		frames[0] = (struct symbol_frame){ .module = *o->path ? o->path : NULL };
		n = 1;
	}
	for (size_t i = 0; i < n; i++)
		if (!frames[i].function)
			frames[i].function = arena_printf(&s->arena, "%s+0x%" PRIx64,
							  *o->base ? o->base : "[unknown module]",
							  address);
	kept = arena_alloc(&s->arena, n * sizeof(*kept));
	memcpy(kept, frames, n * sizeof(*kept));
	*vec_push(&s->results) = (struct symbol_frames){ kept, n };
	return s->results.items[s->results.count - 1];
}

static const struct {
	uint64_t address;
	const char *text;
} pseudo_frames[] = {
	{ MT_FRAME_TRUNCATED, "[frames left out]" },
	{ MT_FRAME_NO_UNWIND_INFO, "[no unwind information beyond here]" },
	{ MT_FRAME_BAD_STACK, "[stack cannot be followed beyond here]" },
	{ MT_FRAME_LOST, "[lost]" },
};

struct symbol_frames symbolizer_pseudo(struct symbolizer *s, uint64_t address)
{
	struct symbol_frame *f = arena_alloc(&s->arena, sizeof(*f));

	for (size_t i = 0; i < sizeof(pseudo_frames) / sizeof(pseudo_frames[0]); i++)
		if (pseudo_frames[i].address == address)
			f->function = pseudo_frames[i].text;
	if (!f->function)
		f->function = arena_printf(&s->arena, "0x%" PRIx64, address);
	return (struct symbol_frames){ f, 1 };
}
