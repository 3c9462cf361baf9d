/*
 * What a followed site is called: its innermost Python line, else its innermost native one.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "live/follow.h"
#include "symbols/python_lines.h"
#include "symbols/symbolizer.h"
#include "util/alloc.h"
#include "util/strbuf.h"

/* The entry, in the dictionary of the process or of the forefather that had it at the fork. */
static const void *lookup(const struct follow *f, const struct follow_proc *p, size_t table,
			  uint64_t id, size_t size, const struct follow_proc **owner)
{
	for (size_t depth = 0; depth <= f->procs.count; depth++) {
		const struct dict_table *t =
			(const struct dict_table *)((const char *)&p->dict + table);
		uint32_t parent = (uint32_t)p->ev.parent;
		const uint64_t *slot;

		if (id >= t->base) {
			*owner = p;
			return dict_entry(t, id, size);
		}
		slot = hashmap_get(&f->numbers, &parent, sizeof(parent));
		if (!slot || p->ev.reason != MT_PROCESS_FORK)
			return NULL;
		p = &f->procs.items[*slot];
	}
	return NULL;
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash && slash[1] ? slash + 1 : path;
}

static bool python_name(const struct follow *f, const struct follow_proc *p, uint32_t id,
			struct strbuf *sb)
{
	const struct follow_proc *o;
	const struct dict_pynode *n = lookup(f, p, offsetof(struct dict, pynodes), id, sizeof(*n),
					     &o);
	const struct dict_code *c;
	const struct dict_string *file, *name;

	if (!id || !n || !n->defined || !n->code)
		return false;
	c = lookup(f, p, offsetof(struct dict, codes), n->code, sizeof(*c), &o);
	if (!c || !c->defined)
		return false;
	file = lookup(f, p, offsetof(struct dict, strings), c->filename, sizeof(*file), &o);
	name = lookup(f, p, offsetof(struct dict, strings), c->name, sizeof(*name), &o);
	if (!file || !file->text || !name || !name->text)
		return false;
	strbuf_addf(sb, "%s:%u in %s", base_name(file->text),
		    python_line((enum mt_line_kind)c->kind, (const uint8_t *)c->lines, c->lines_len,
				c->first_line, n->offset),
		    name->text);
	return true;
}

static void native_name(const struct follow *f, const struct follow_proc *p, uint32_t id,
			struct symbolizer *symbols, struct strbuf *sb)
{
	const struct follow_proc *o, *of_module;
	const struct dict_node *n = lookup(f, p, offsetof(struct dict, nodes), id, sizeof(*n), &o);
	const struct dict_frame *frame = n ? lookup(f, p, offsetof(struct dict, frames), n->frame,
						    sizeof(*frame), &o)
					   : NULL;
	const struct dict_module *m = frame ? lookup(f, p, offsetof(struct dict, modules),
						     frame->module, sizeof(*m), &of_module)
					    : NULL;
	struct symbol_module module = { 0 };
	struct symbol_frames found;

	if (!frame || !frame->defined || !m || !m->canon) {
		strbuf_addstr(sb, "unknown");
		return;
	}
	module.path = of_module->modules.items[m->canon - 1].data;
	found = symbolizer_native(symbols, &module, frame->offset, frame->flags & 1);
	if (found.frames[0].file)
		strbuf_addf(sb, "%s:%u in %s", base_name(found.frames[0].file),
			    found.frames[0].line, found.frames[0].function);
	else
		strbuf_addf(sb, "%s in %s", found.frames[0].function, base_name(module.path));
}

char *site_name(struct follow *f, struct symbolizer *symbols, const struct follow_site *site)
{
	const struct follow_proc *p = &f->procs.items[site->proc];
	struct strbuf sb = STRBUF_INIT;
	char *name;

	if (!python_name(f, p, site->python, &sb))
		native_name(f, p, site->native, symbols, &sb);
	name = xstrdup(sb.buf);
	strbuf_release(&sb);
	return name;
}
