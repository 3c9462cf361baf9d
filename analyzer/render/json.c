/*
 * The document as JSON, by cJSON. Integers go in as their digits: cJSON's numbers are doubles,
 * which are exact only up to 2^53.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdlib.h>

#include "render/render.h"
#include "util/die.h"

static cJSON *convert(const struct rvalue *v);

static void add_children(cJSON *to, const struct rvalue *v)
{
	r_for_each (child, v) {
		cJSON *item = convert(child);

		if (v->kind == R_OBJECT)
			cJSON_AddItemToObjectCS(to, child->key, item);
		else
			cJSON_AddItemToArray(to, item);
	}
}

static cJSON *convert(const struct rvalue *v)
{
	char digits[24];
	cJSON *item = NULL;

	switch (v->kind) {
	case R_NULL:
		item = cJSON_CreateNull();
		break;
	case R_BOOL:
		item = cJSON_CreateBool(v->u.boolean);
		break;
	case R_INT:
		snprintf(digits, sizeof(digits), "%" PRId64, v->u.integer);
		item = cJSON_CreateRaw(digits);
		break;
	case R_FLOAT:
		item = cJSON_CreateNumber(v->u.number);
		break;
	case R_STRING:
		item = cJSON_CreateString(v->u.string);
		break;
	case R_ARRAY:
		item = cJSON_CreateArray();
		break;
	case R_OBJECT:
		item = cJSON_CreateObject();
		break;
	}
	if (!item)
		die_status(1, "not enough memory for the JSON report");
	add_children(item, v);
	return item;
}

static void put(const struct rvalue *v, FILE *out)
{
	cJSON *item = convert(v);
	char *text = cJSON_PrintUnformatted(item);

	cJSON_Delete(item);
	if (!text)
		die_status(1, "not enough memory for the JSON report");
	fputs(text, out);
	cJSON_free(text);
}

/* A list of objects, one a line: its tree and text are never in memory at once. */
static void put_lines(const struct rvalue *list, FILE *out)
{
	fputc('[', out);
	r_for_each (item, list) {
		fputs(item == list->first ? "\n" : ",\n", out);
		put(item, out);
	}
	fputs(list->count ? "\n]" : "]", out);
}

/* The same of items that are made one by one. */
static void put_made(const struct rsource *source, FILE *out)
{
	fputc('[', out);
	for (size_t i = 0; i < source->count; i++) {
		struct result *doc = result_new();
		struct rvalue *list = r_array(doc, result_root(doc), "list");

		source->make(source->arg, i, doc, list);
		fputs(i ? ",\n" : "\n", out);
		put(list->first, out);
		result_free(doc);
	}
	fputs(source->count ? "\n]" : "]", out);
}

void render_json(const struct rvalue *root, const struct render_options *opt, FILE *out)
{
	(void)opt;
	fputc('{', out);
	r_for_each (member, root) {
		/* Keys are the report's own: plain names. */
		fprintf(out, "%s\n\"%s\":", member == root->first ? "" : ",", member->key);
		if (member->kind == R_ARRAY && member->u.source)
			put_made(member->u.source, out);
		else if (member->kind == R_ARRAY)
			put_lines(member, out);
		else
			put(member, out);
	}
	fputs("\n}\n", out);
}
