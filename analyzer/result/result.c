/*
 * See result.h. Values are linked in the order they were added.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "result/result.h"

#include <stdlib.h>
#include <string.h>

#include "result/utf8.h"
#include "util/alloc.h"
#include "util/arena.h"
#include "util/hashmap.h"

/* Longer texts are hardly ever there twice. */
#define SHARED_LENGTH 512

struct result {
	struct arena arena;
	struct hashmap texts; /* the same function or file stands in thousands of stacks */
	struct rvalue root;
};

struct result *result_new(void)
{
	struct result *doc = xcalloc(1, sizeof(*doc));

	doc->root.kind = R_OBJECT;
	return doc;
}

void result_free(struct result *doc)
{
	if (!doc)
		return;
	hashmap_release(&doc->texts);
	arena_release(&doc->arena);
	free(doc);
}

struct rvalue *result_root(struct result *doc)
{
	return &doc->root;
}

static const char *keep(struct result *doc, const char *s)
{
	size_t len = strlen(s);
	uint64_t *slot;
	bool is_new;

	if (len > SHARED_LENGTH)
		return arena_strdup(&doc->arena, s);
	slot = hashmap_slot(&doc->texts, s, len, &is_new);
	if (is_new)
		*slot = (uintptr_t)arena_strdup(&doc->arena, s);
	return (const char *)(uintptr_t)*slot;
}

static struct rvalue *add(struct result *doc, struct rvalue *parent, const char *key,
			  enum rkind kind)
{
	struct rvalue *v = arena_alloc(&doc->arena, sizeof(*v));

	v->kind = kind;
	v->key = key ? keep(doc, key) : NULL;
	if (parent->last)
		parent->last->next = v;
	else
		parent->first = v;
	parent->last = v;
	parent->count++;
	return v;
}

static const char *copy_valid(struct result *doc, const char *s)
{
	struct strbuf sb = STRBUF_INIT;
	const char *out;

	if (utf8_is_valid(s, strlen(s)))
		return keep(doc, s);
	utf8_repair(&sb, s, strlen(s));
	out = keep(doc, sb.buf);
	strbuf_release(&sb);
	return out;
}

struct rvalue *r_object(struct result *doc, struct rvalue *object, const char *key)
{
	return add(doc, object, key, R_OBJECT);
}

struct rvalue *r_array(struct result *doc, struct rvalue *object, const char *key)
{
	return add(doc, object, key, R_ARRAY);
}

void *result_alloc(struct result *doc, size_t size)
{
	return arena_alloc(&doc->arena, size);
}

void r_array_made(struct result *doc, struct rvalue *object, const char *key, size_t count,
		  r_maker *make, void *arg)
{
	struct rsource *source = result_alloc(doc, sizeof(*source));

	*source = (struct rsource){ make, arg, count };
	r_array(doc, object, key)->u.source = source;
}

void r_int(struct result *doc, struct rvalue *object, const char *key, int64_t v)
{
	add(doc, object, key, R_INT)->u.integer = v;
}

void r_float(struct result *doc, struct rvalue *object, const char *key, double v)
{
	add(doc, object, key, R_FLOAT)->u.number = v;
}

void r_bool(struct result *doc, struct rvalue *object, const char *key, bool v)
{
	add(doc, object, key, R_BOOL)->u.boolean = v;
}

void r_string(struct result *doc, struct rvalue *object, const char *key, const char *v)
{
	if (v)
		add(doc, object, key, R_STRING)->u.string = copy_valid(doc, v);
	else
		add(doc, object, key, R_NULL);
}

void r_null(struct result *doc, struct rvalue *object, const char *key)
{
	add(doc, object, key, R_NULL);
}

struct rvalue *r_push_object(struct result *doc, struct rvalue *array)
{
	return add(doc, array, NULL, R_OBJECT);
}

struct rvalue *r_push_array(struct result *doc, struct rvalue *array)
{
	return add(doc, array, NULL, R_ARRAY);
}

void r_push_int(struct result *doc, struct rvalue *array, int64_t v)
{
	r_int(doc, array, NULL, v);
}

void r_push_float(struct result *doc, struct rvalue *array, double v)
{
	r_float(doc, array, NULL, v);
}

void r_push_string(struct result *doc, struct rvalue *array, const char *v)
{
	r_string(doc, array, NULL, v);
}

void r_push_null(struct result *doc, struct rvalue *array)
{
	r_null(doc, array, NULL);
}

const struct rvalue *r_get(const struct rvalue *object, const char *key)
{
	if (!object || object->kind != R_OBJECT)
		return NULL;
	r_for_each (v, object)
		if (!strcmp(v->key, key))
			return v;
	return NULL;
}

int64_t r_get_int(const struct rvalue *object, const char *key)
{
	const struct rvalue *v = r_get(object, key);

	return v && v->kind == R_INT ? v->u.integer : 0;
}

double r_get_float(const struct rvalue *object, const char *key)
{
	const struct rvalue *v = r_get(object, key);

	if (v && v->kind == R_INT)
		return (double)v->u.integer;
	return v && v->kind == R_FLOAT ? v->u.number : 0.0;
}

bool r_get_bool(const struct rvalue *object, const char *key)
{
	const struct rvalue *v = r_get(object, key);

	return v && v->kind == R_BOOL && v->u.boolean;
}

const char *r_get_string(const struct rvalue *object, const char *key)
{
	const struct rvalue *v = r_get(object, key);

	return v && v->kind == R_STRING ? v->u.string : NULL;
}

bool r_has(const struct rvalue *object, const char *key)
{
	const struct rvalue *v = r_get(object, key);

	return v && v->kind != R_NULL;
}
