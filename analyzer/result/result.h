/*
 * The result document: what analyses fill and renderers print. A tree of values like JSON's, with
 * exact 64-bit integers and members in the order they were added, so that every renderer shows the
 * same numbers and none has to compute one. Keys are the ones of the report's JSON schema.
 *
 * Ownership: values live in the document's arena and go with result_free(). Strings are copied.
 * Not thread-safe. Running out of memory ends the program (util/die.h).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_RESULT_H
#define MEMTRACE_ANALYZER_RESULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum rkind { R_NULL, R_BOOL, R_INT, R_FLOAT, R_STRING, R_ARRAY, R_OBJECT };

struct result;
struct rvalue;

/* Adds item `index` of a list to `list`, an empty one in a document of its own. */
typedef void r_maker(void *arg, size_t index, struct result *doc, struct rvalue *list);

/* Items that are too many to be held all at once: each is made when it is its turn. */
struct rsource {
	r_maker *make;
	void *arg;
	size_t count;
};

struct rvalue {
	enum rkind kind;
	const char *key; /* in an object */
	union {
		bool boolean;
		int64_t integer;
		double number;
		const char *string; /* valid UTF-8, terminated */
		const struct rsource *source; /* of an array; NULL: its children are all there is */
	} u;
	size_t count; /* children of an array or object */
	struct rvalue *first, *last, *next;
};

struct result *result_new(void);
void result_free(struct result *doc); /* accepts NULL */
struct rvalue *result_root(struct result *doc); /* an object */

/* Add a member to an object. The same key twice is a bug of the caller. */
struct rvalue *r_object(struct result *doc, struct rvalue *object, const char *key);
struct rvalue *r_array(struct result *doc, struct rvalue *object, const char *key);
void r_int(struct result *doc, struct rvalue *object, const char *key, int64_t v);
void r_float(struct result *doc, struct rvalue *object, const char *key, double v);
void r_bool(struct result *doc, struct rvalue *object, const char *key, bool v);
/* NULL becomes null; bytes that are not UTF-8 become U+FFFD. */
void r_string(struct result *doc, struct rvalue *object, const char *key, const char *v);
void r_null(struct result *doc, struct rvalue *object, const char *key);

/*
 * An array whose items are made one by one by whoever can stream it: to all others it is empty. What
 * make() reads must stay until the document is rendered.
 */
void r_array_made(struct result *doc, struct rvalue *object, const char *key, size_t count,
		  r_maker *make, void *arg);
/* Zeroed memory that goes with the document. */
void *result_alloc(struct result *doc, size_t size);

/* Append to an array. */
struct rvalue *r_push_object(struct result *doc, struct rvalue *array);
struct rvalue *r_push_array(struct result *doc, struct rvalue *array);
void r_push_int(struct result *doc, struct rvalue *array, int64_t v);
void r_push_float(struct result *doc, struct rvalue *array, double v);
void r_push_string(struct result *doc, struct rvalue *array, const char *v);
void r_push_null(struct result *doc, struct rvalue *array);

/* Read. Absent keys and wrong kinds give NULL, 0, 0.0, false or the default. */
const struct rvalue *r_get(const struct rvalue *object, const char *key);
int64_t r_get_int(const struct rvalue *object, const char *key);
double r_get_float(const struct rvalue *object, const char *key);
bool r_get_bool(const struct rvalue *object, const char *key);
const char *r_get_string(const struct rvalue *object, const char *key); /* NULL if absent */
bool r_has(const struct rvalue *object, const char *key); /* there and not null */

#define r_for_each(child, parent)                                                                  \
	for (const struct rvalue *child = (parent) ? (parent)->first : NULL; child;                \
	     child = child->next)

#ifdef __cplusplus
}
#endif

#endif
