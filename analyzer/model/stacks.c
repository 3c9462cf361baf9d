/*
 * From the ids of one process to stacks that are the same for equal stacks of all processes:
 * modules by path and build-id, frames by module and offset, Python code by what it says of itself.
 * Ids below a process's bases are its parent's. What is not there becomes a frame that says so.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "model/internal.h"
#include "util/strbuf.h"

#define LOOKING 1u /* dict_node.canon: a ring in damaged data would come back here */
#define FOUND 2u /* canonical id + 2 */
#define LONGEST_STACK 100000

uint32_t stack_module(struct builder *b, struct mt_str path, struct mt_str build_id)
{
	struct strbuf key = STRBUF_INIT;
	struct module *m;
	uint64_t *slot;
	bool is_new;

	if (build_id.len > sizeof(m->build_id))
		build_id.len = sizeof(m->build_id);
	strbuf_add(&key, build_id.data, build_id.len);
	strbuf_addch(&key, (char)build_id.len);
	strbuf_add(&key, path.data, path.len);
	slot = hashmap_slot(&b->module_set, key.buf, key.len, &is_new);
	strbuf_release(&key);
	if (is_new) {
		*slot = b->modules.count;
		m = vec_push(&b->modules);
		m->path = text_of(path);
		m->build_id_len = build_id.len;
		if (build_id.len)
			memcpy(m->build_id, build_id.data, build_id.len);
	}
	return (uint32_t)*slot;
}

/* The process that defines an id: this one, or an ancestor when it is below the base. */
static struct proc *home_of(struct builder *b, struct proc *p, uint64_t id, size_t table)
{
	while (p) {
		const struct dict_table *t = (const void *)((const char *)&p->dict + table);

		if (id >= t->base)
			return p;
		p = p->inherits == NO_ID ? NULL : &b->procs.items[p->inherits];
	}
	return NULL;
}

#define FIND(b, p, table, id, type)                                                                \
	((type *)find(b, p, id, offsetof(struct dict, table), sizeof(type)))

static void *find(struct builder *b, struct proc *p, uint64_t id, size_t table, size_t size)
{
	struct proc *home = home_of(b, p, id, table);

	if (!home)
		return NULL;
	return dict_entry((const void *)((const char *)&home->dict + table), id, size);
}

static uint32_t native_intern(struct builder *b, const struct native_node *n)
{
	struct native_node key;
	uint64_t hash;

	memset(&key, 0, sizeof(key)); /* nodes are compared by their bytes, padding too */
	key.parent = n->parent;
	key.module = n->module;
	key.offset = n->offset;
	key.interrupted = n->interrupted;
	hash = hash_bytes(&key, sizeof(key));
	index_each (&b->native_set, hash, i)
		if (!memcmp(&b->native.items[i], &key, sizeof(key)))
			return (uint32_t)i;
	if (!b->native.count)
		(void)vec_push(&b->native); /* [0]: the empty stack */
	index_add(&b->native_set, hash, (uint32_t)b->native.count);
	memcpy(vec_push(&b->native), &key, sizeof(key));
	return (uint32_t)b->native.count - 1;
}

static void count_missing(struct builder *b, struct proc *p)
{
	b->counts.items[p->trace].missing_entries++;
}

static uint32_t native_lost(struct builder *b, struct proc *p, uint32_t parent)
{
	struct native_node n = { .parent = parent, .module = NO_ID, .offset = MT_FRAME_LOST };

	count_missing(b, p);
	return native_intern(b, &n);
}

static uint32_t native_frame(struct builder *b, struct proc *p, uint32_t parent, uint32_t id)
{
	const struct dict_frame *f = FIND(b, p, frames, id, struct dict_frame);
	const struct dict_module *m = NULL;
	struct native_node n = { .parent = parent, .module = NO_ID };

	if (!f || !f->defined)
		return native_lost(b, p, parent);
	n.offset = f->offset;
	n.interrupted = f->flags & 1;
	if (f->module) {
		m = FIND(b, p, modules, f->module, struct dict_module);
		if (!m || !m->canon)
			return native_lost(b, p, parent);
		n.module = m->canon - 1;
	}
	return native_intern(b, &n);
}

/* What a walk up a stack of ids has collected: outermost last. */
struct chain {
	struct dict_node *node;
	struct proc *home;
};

uint32_t stack_native(struct builder *b, struct proc *p, uint64_t id)
{
	VEC(struct chain) chain = VEC_INIT;
	uint32_t canon = 0;

	if (!b->native.count)
		(void)vec_push(&b->native);
	while (id) {
		struct proc *home = home_of(b, p, id, offsetof(struct dict, nodes));
		struct dict_node *n = home ? dict_entry(&home->dict.nodes, id, sizeof(*n)) : NULL;
		struct chain *link;

		if (!n || !n->frame || n->canon == LOOKING || chain.count == LONGEST_STACK) {
			canon = native_lost(b, p, 0);
			break;
		}
		if (n->canon) {
			canon = n->canon - FOUND;
			break;
		}
		n->canon = LOOKING;
		link = vec_push(&chain);
		link->node = n;
		link->home = home;
		p = home;
		id = n->parent;
	}
	while (chain.count) {
		struct chain *link = &chain.items[--chain.count];

		canon = native_frame(b, link->home, canon, link->node->frame);
		link->node->canon = canon + FOUND;
	}
	vec_release(&chain);
	return canon;
}

/* ---- Python ---------------------------------------------------------------------------------- */

static void key_add_text(struct strbuf *key, const struct dict_string *s)
{
	uint32_t len = s ? s->len : 0;

	strbuf_add(key, &len, sizeof(len));
	if (s && s->text)
		strbuf_add(key, s->text, s->len);
}

static char *string_copy(const struct dict_string *s)
{
	if (!s || !s->text)
		return xstrdup("[lost]");
	return text_of((struct mt_str){ s->text, s->len });
}

static uint32_t code_lost(struct builder *b)
{
	uint64_t *slot;
	bool is_new;
	struct code *c;

	slot = hashmap_slot(&b->code_set, "", 0, &is_new);
	if (is_new) {
		*slot = b->codes.count;
		c = vec_push(&b->codes);
		c->filename = xstrdup("");
		c->name = xstrdup("[lost]");
	}
	return (uint32_t)*slot;
}

static uint32_t code_canon(struct builder *b, struct proc *p, uint32_t id)
{
	struct dict_code *c = id ? FIND(b, p, codes, id, struct dict_code) : NULL;
	const struct dict_string *file, *name;
	struct strbuf key = STRBUF_INIT;
	struct code *out;
	uint64_t *slot;
	bool is_new;

	if (!id)
		return NO_ID; /* frames were left out here */
	if (!c || !c->defined) {
		count_missing(b, p);
		return code_lost(b);
	}
	if (c->canon)
		return c->canon - 1;
	p = home_of(b, p, id, offsetof(struct dict, codes));
	file = FIND(b, p, strings, c->filename, struct dict_string);
	name = FIND(b, p, strings, c->name, struct dict_string);
	if (!file || !file->text || !name || !name->text)
		count_missing(b, p);
	key_add_text(&key, file);
	key_add_text(&key, name);
	strbuf_add(&key, &c->first_line, sizeof(c->first_line));
	strbuf_addch(&key, (char)c->kind);
	strbuf_add(&key, c->lines, c->lines_len);
	slot = hashmap_slot(&b->code_set, key.buf, key.len, &is_new);
	strbuf_release(&key);
	if (is_new) {
		*slot = b->codes.count;
		out = vec_push(&b->codes);
		out->filename = string_copy(file);
		out->name = string_copy(name);
		out->first_line = c->first_line;
		out->line_kind = (enum mt_line_kind)c->kind;
		out->lines = (uint8_t *)xstrndup(c->lines, c->lines_len);
		out->lines_len = c->lines_len;
	}
	c->canon = (uint32_t)*slot + 1;
	return (uint32_t)*slot;
}

static uint32_t python_intern(struct builder *b, uint32_t parent, uint32_t code, uint32_t offset,
			      bool entry)
{
	struct python_node key;
	uint64_t hash;

	memset(&key, 0, sizeof(key));
	key.parent = parent;
	key.code = code;
	key.offset = offset;
	key.entry = entry;
	hash = hash_bytes(&key, sizeof(key));
	index_each (&b->python_set, hash, i)
		if (!memcmp(&b->python.items[i], &key, sizeof(key)))
			return (uint32_t)i;
	index_add(&b->python_set, hash, (uint32_t)b->python.count);
	memcpy(vec_push(&b->python), &key, sizeof(key));
	return (uint32_t)b->python.count - 1;
}

struct python_chain {
	struct dict_pynode *node;
	struct proc *home;
};

uint32_t stack_python(struct builder *b, struct proc *p, uint64_t id)
{
	VEC(struct python_chain) chain = VEC_INIT;
	uint32_t canon = 0;

	if (!b->python.count)
		(void)vec_push(&b->python);
	while (id) {
		struct proc *home = home_of(b, p, id, offsetof(struct dict, pynodes));
		struct dict_pynode *n = home ? dict_entry(&home->dict.pynodes, id, sizeof(*n))
					     : NULL;
		struct python_chain *link;

		if (!n || !n->defined || n->canon == LOOKING || chain.count == LONGEST_STACK) {
			count_missing(b, p);
			canon = python_intern(b, 0, code_lost(b), 0, false);
			break;
		}
		if (n->canon) {
			canon = n->canon - FOUND;
			break;
		}
		n->canon = LOOKING;
		link = vec_push(&chain);
		link->node = n;
		link->home = home;
		p = home;
		id = n->parent;
	}
	while (chain.count) {
		struct python_chain *link = &chain.items[--chain.count];

		canon = python_intern(b, canon, code_canon(b, link->home, link->node->code),
				      link->node->offset, link->node->entry);
		link->node->canon = canon + FOUND;
	}
	vec_release(&chain);
	return canon;
}

bool stack_python_is_in(struct builder *b, struct proc *p, uint64_t id, const char *file_end)
{
	size_t length = strlen(file_end);

	for (size_t depth = 0; id && depth < LONGEST_STACK; depth++) {
		struct proc *home = home_of(b, p, id, offsetof(struct dict, pynodes));
		struct dict_pynode *n = home ? dict_entry(&home->dict.pynodes, id, sizeof(*n))
					     : NULL;
		const struct dict_code *c;
		const struct dict_string *file;

		if (!n || !n->defined)
			return false;
		c = n->code ? FIND(b, home, codes, n->code, struct dict_code) : NULL;
		file = c && c->defined ? FIND(b, home, strings, c->filename, struct dict_string)
				       : NULL;
		if (file && file->text && file->len >= length &&
		    !memcmp(file->text + file->len - length, file_end, length))
			return true;
		p = home;
		id = n->parent;
	}
	return false;
}
