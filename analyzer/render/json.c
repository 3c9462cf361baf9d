/*
 * The document as JSON, by cJSON. Integers go in as their digits: cJSON's numbers are doubles, which
 * are exact only up to 2^53.
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
	r_for_each(child, v) {
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

/* Member by member: the whole text of a large report need not be in memory beside its tree. */
void render_json(const struct rvalue *root, const struct render_options *opt, FILE *out)
{
	const char *separator = "{";

	(void)opt;
	r_for_each(member, root) {
		cJSON *item = convert(member);
		char *text = cJSON_PrintUnformatted(item);

		cJSON_Delete(item);
		if (!text)
			die_status(1, "not enough memory for the JSON report");
		fprintf(out, "%s\n\"%s\":%s", separator, member->key, text);
		cJSON_free(text);
		separator = ",";
	}
	fputs(root->count ? "\n}\n" : "{}\n", out);
}
