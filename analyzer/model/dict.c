/*
 * See dict.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "model/dict.h"

#include <string.h>

#include "util/vec.h"

/*
 * Ids are handed out densely, to threads in ranges of up to 64. A number far above all seen so far
 * is a damaged one; believing it would cost its size in memory.
 */
#define ID_SLACK 65536
#define ID_SLACK_PER_ENTRY 1024

static void *dict_define(struct dict_table *t, uint64_t id, size_t size)
{
	uint64_t at = id - t->base;

	if (!id || id < t->base || id >= UINT32_MAX - 2 ||
	    at >= ID_SLACK + ID_SLACK_PER_ENTRY * (uint64_t)t->filled)
		return NULL;
	t->items = vec_room(t->items, &t->room, at + 1, size);
	if (at >= t->count)
		t->count = at + 1;
	t->filled++;
	return t->items + at * size;
}

void dict_init(struct dict *d, const struct mt_ev_process *bases)
{
	memset(d, 0, sizeof(*d));
	if (!bases || bases->reason != MT_PROCESS_FORK)
		return;
	d->nodes.base = bases->node_base;
	d->frames.base = bases->frame_base;
	d->modules.base = bases->module_base;
	d->strings.base = bases->string_base;
	d->codes.base = bases->code_base;
	d->pynodes.base = bases->pynode_base;
}

void dict_release(struct dict *d)
{
	free(d->nodes.items);
	free(d->frames.items);
	free(d->modules.items);
	free(d->strings.items);
	free(d->codes.items);
	free(d->pynodes.items);
	memset(d, 0, sizeof(*d));
}

bool dict_add_node(struct dict *d, const struct mt_ev_node *e)
{
	struct dict_node *n;

	if (!e->frame || e->frame > UINT32_MAX || e->parent >= UINT32_MAX)
		return false;
	n = dict_define(&d->nodes, e->id, sizeof(*n));
	if (!n)
		return false;
	n->parent = (uint32_t)e->parent;
	n->frame = (uint32_t)e->frame;
	return true;
}

bool dict_add_frame(struct dict *d, const struct mt_ev_frame *e)
{
	struct dict_frame *f;

	if (e->module > UINT32_MAX)
		return false;
	f = dict_define(&d->frames, e->id, sizeof(*f));
	if (!f)
		return false;
	f->module = (uint32_t)e->module;
	f->offset = e->offset;
	f->flags = (uint8_t)e->flags;
	f->defined = true;
	return true;
}

bool dict_add_module(struct dict *d, uint64_t id, uint32_t canon)
{
	struct dict_module *m = dict_define(&d->modules, id, sizeof(*m));

	if (m)
		m->canon = canon + 1;
	return m != NULL;
}

bool dict_add_string(struct dict *d, const struct mt_ev_string *e, struct arena *strings)
{
	struct dict_string *s = dict_define(&d->strings, e->id, sizeof(*s));

	if (!s)
		return false;
	s->text = arena_strndup(strings, e->text.data, e->text.len);
	s->len = e->text.len;
	return true;
}

bool dict_add_code(struct dict *d, const struct mt_ev_code *e, struct arena *strings)
{
	struct dict_code *c;

	if (e->filename > UINT32_MAX || e->name > UINT32_MAX || e->first_line > INT32_MAX)
		return false;
	c = dict_define(&d->codes, e->id, sizeof(*c));
	if (!c)
		return false;
	c->filename = (uint32_t)e->filename;
	c->name = (uint32_t)e->name;
	c->first_line = (uint32_t)e->first_line;
	c->kind = e->kind <= MT_LINES_311 ? (uint8_t)e->kind : MT_LINES_NONE;
	c->lines = arena_strndup(strings, e->lines.data, e->lines.len);
	c->lines_len = e->lines.len;
	c->defined = true;
	return true;
}

bool dict_add_pynode(struct dict *d, const struct mt_ev_pynode *e)
{
	struct dict_pynode *n;

	if (e->code > UINT32_MAX || e->parent >= UINT32_MAX || e->offset > INT32_MAX)
		return false;
	n = dict_define(&d->pynodes, e->id, sizeof(*n));
	if (!n)
		return false;
	n->parent = (uint32_t)e->parent;
	n->code = (uint32_t)e->code;
	n->offset = (uint32_t)e->offset;
	n->entry = e->flags & MT_PYNODE_ENTRY;
	n->defined = true;
	return true;
}
