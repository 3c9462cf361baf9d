/*
 * Rust's second mangling scheme (RFC 2603, "_R..."): a grammar of paths and types with references
 * back into the text. Names come from files that anybody may have made: depth, length of the
 * output and every read are bounded; what breaks the grammar is not demangled at all.
 *
 * Left out, as in a debugger's short form: crate hashes and lifetimes.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "symbols/demangle.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "util/strbuf.h"

#define DEPTH_MAX 128
#define OUTPUT_MAX 8192 /* references back can make a short name long */

struct rust {
	const char *text; /* after "_R" */
	size_t at, end;
	int depth;
	bool bad;
	bool silent; /* parse, but print nothing */
	struct strbuf out;
};

static void put_path(struct rust *r, bool in_value);
static void put_type(struct rust *r);
static void put_const(struct rust *r);

/* ---- reading
 * -------------------------------------------------------------------------------------- */

static char peek(const struct rust *r)
{
	return r->at < r->end ? r->text[r->at] : '\0';
}

static bool eat(struct rust *r, char c)
{
	if (r->bad || peek(r) != c || !c)
		return false;
	r->at++;
	return true;
}

static char next(struct rust *r)
{
	if (r->at >= r->end)
		r->bad = true;
	return r->bad ? '\0' : r->text[r->at++];
}

static void put(struct rust *r, const char *s, size_t len)
{
	if (r->silent || r->bad)
		return;
	strbuf_add(&r->out, s, len);
	if (r->out.len > OUTPUT_MAX)
		r->bad = true;
}

static void puts_to(struct rust *r, const char *s)
{
	put(r, s, strlen(s));
}

static bool enter(struct rust *r)
{
	if (++r->depth > DEPTH_MAX)
		r->bad = true;
	return !r->bad;
}

/* Digits, small and capital letters, ended by '_': "_" is 0, "0_" is 1. */
static uint64_t base62(struct rust *r)
{
	static const char digits[] =
		"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
	uint64_t v = 0;

	if (eat(r, '_'))
		return 0;
	while (!r->bad) {
		char c = next(r);
		const char *digit;

		if (c == '_')
			break;
		digit = strchr(digits, c);
		if (!c || !digit || v > UINT64_MAX / 62 - 1)
			r->bad = true;
		else
			v = v * 62 + (uint64_t)(digit - digits);
	}
	return v + 1;
}

/* 0 where there is none. */
static uint64_t tagged62(struct rust *r, char tag)
{
	return eat(r, tag) ? base62(r) + 1 : 0;
}

static size_t decimal(struct rust *r)
{
	size_t v = 0;

	if (!isdigit((unsigned char)peek(r)))
		r->bad = true;
	if (eat(r, '0'))
		return 0;
	while (!r->bad && isdigit((unsigned char)peek(r))) {
		v = v * 10 + (size_t)(next(r) - '0');
		if (v > r->end)
			r->bad = true;
	}
	return v;
}

struct ident {
	const char *text;
	size_t len;
	bool punycode;
	uint64_t disambiguator;
};

static struct ident identifier(struct rust *r)
{
	struct ident id = { .disambiguator = tagged62(r, 's') };

	id.punycode = eat(r, 'u');
	id.len = decimal(r);
	eat(r, '_'); /* where the name begins with a digit or underscore */
	if (r->bad || id.len > r->end - r->at) {
		r->bad = true;
		id.len = 0;
	}
	id.text = r->text + r->at;
	r->at += id.len;
	return id;
}

static void put_ident(struct rust *r, const struct ident *id)
{
	if (id->punycode)
		puts_to(r, "punycode{");
	put(r, id->text, id->len);
	if (id->punycode)
		puts_to(r, "}");
}

/* Runs put_what at an earlier place of the text. Only backwards, so it comes to an end. */
#define BACK_REFERENCE(r, put_what)                                                                \
	do {                                                                                       \
		size_t self = (r)->at - 1, target = (size_t)base62(r), resume = (r)->at;           \
                                                                                                   \
		if (target >= self)                                                                \
			(r)->bad = true;                                                           \
		if (!(r)->bad && !(r)->silent) {                                                   \
			(r)->at = target;                                                          \
			put_what;                                                                  \
			(r)->at = resume;                                                          \
		}                                                                                  \
	} while (0)

/* ---- types
 * ---------------------------------------------------------------------------------------- */

static const char *const basic_types[26] = {
	['a' - 'a'] = "i8",    ['b' - 'a'] = "bool", ['c' - 'a'] = "char", ['d' - 'a'] = "f64",
	['e' - 'a'] = "str",   ['f' - 'a'] = "f32",  ['h' - 'a'] = "u8",   ['i' - 'a'] = "isize",
	['j' - 'a'] = "usize", ['l' - 'a'] = "i32",  ['m' - 'a'] = "u32",  ['n' - 'a'] = "i128",
	['o' - 'a'] = "u128",  ['p' - 'a'] = "_",    ['s' - 'a'] = "i16",  ['t' - 'a'] = "u16",
	['u' - 'a'] = "()",    ['v' - 'a'] = "...",  ['x' - 'a'] = "i64",  ['y' - 'a'] = "u64",
	['z' - 'a'] = "!",
};

static void skip_lifetime(struct rust *r)
{
	if (eat(r, 'L'))
		base62(r);
}

/* Items until 'E'; the number of them. */
static size_t put_list(struct rust *r, void (*put_item)(struct rust *r), const char *separator)
{
	size_t n = 0;

	while (!r->bad && !eat(r, 'E')) {
		if (n++)
			puts_to(r, separator);
		put_item(r);
	}
	return n;
}

static void put_function_type(struct rust *r)
{
	tagged62(r, 'G'); /* binder */
	if (eat(r, 'U'))
		puts_to(r, "unsafe ");
	if (eat(r, 'K')) {
		puts_to(r, "extern \"");
		if (eat(r, 'C')) {
			puts_to(r, "C");
		} else {
			struct ident abi = identifier(r);

			put_ident(r, &abi);
		}
		puts_to(r, "\" ");
	}
	puts_to(r, "fn(");
	put_list(r, put_type, ", ");
	puts_to(r, ")");
	if (eat(r, 'u')) /* returns () */
		return;
	puts_to(r, " -> ");
	put_type(r);
}

static void put_dyn_trait(struct rust *r)
{
	bool open = false;

	put_path(r, false);
	while (!r->bad && eat(r, 'p')) {
		struct ident name = identifier(r);

		puts_to(r, open ? ", " : "<");
		open = true;
		put_ident(r, &name);
		puts_to(r, " = ");
		put_type(r);
	}
	if (open)
		puts_to(r, ">");
}

static void put_dyn(struct rust *r)
{
	puts_to(r, "dyn ");
	tagged62(r, 'G');
	put_list(r, put_dyn_trait, " + ");
	skip_lifetime(r);
}

static void put_after(struct rust *r, const char *before)
{
	puts_to(r, before);
	put_type(r);
}

static void put_compound(struct rust *r, char tag)
{
	switch (tag) {
	case 'A':
		put_after(r, "[");
		puts_to(r, "; ");
		put_const(r);
		puts_to(r, "]");
		break;
	case 'S':
		put_after(r, "[");
		puts_to(r, "]");
		break;
	case 'T':
		puts_to(r, "(");
		if (put_list(r, put_type, ", ") == 1)
			puts_to(r, ",");
		puts_to(r, ")");
		break;
	case 'R':
		skip_lifetime(r);
		put_after(r, "&");
		break;
	case 'Q':
		skip_lifetime(r);
		put_after(r, "&mut ");
		break;
	case 'P':
		put_after(r, "*const ");
		break;
	case 'O':
		put_after(r, "*mut ");
		break;
	case 'F':
		put_function_type(r);
		break;
	case 'D':
		put_dyn(r);
		break;
	case 'B':
		BACK_REFERENCE(r, put_type(r));
		break;
	default:
		r->at--; /* a path */
		put_path(r, false);
		break;
	}
}

static void put_type(struct rust *r)
{
	char tag = next(r);

	if (!enter(r))
		return;
	if (!islower((unsigned char)tag))
		put_compound(r, tag);
	else if (basic_types[tag - 'a'])
		puts_to(r, basic_types[tag - 'a']);
	else
		r->bad = true;
	r->depth--;
}

/* ---- constants
 * ------------------------------------------------------------------------------------ */

/* Hexadecimal digits up to '_'. */
static void put_number(struct rust *r, char type)
{
	bool negative = eat(r, 'n');
	size_t from = r->at;
	uint64_t v = 0;
	struct strbuf sb = STRBUF_INIT;

	while (isxdigit((unsigned char)peek(r)) && !isupper((unsigned char)peek(r))) {
		char c = next(r);

		v = v << 4 | (uint64_t)(isdigit((unsigned char)c) ? c - '0' : c - 'a' + 10);
	}
	if (type == 'b')
		strbuf_addstr(&sb, v ? "true" : "false");
	else if (type == 'c' && v >= ' ' && v < 0x7f)
		strbuf_addf(&sb, "'%c'", (char)v);
	else if (r->at - from > 16)
		strbuf_addf(&sb, "%s0x%.*s", negative ? "-" : "", (int)(r->at - from),
			    r->text + from);
	else
		strbuf_addf(&sb, "%s%llu", negative ? "-" : "", (unsigned long long)v);
	if (!eat(r, '_'))
		r->bad = true;
	puts_to(r, sb.buf);
	strbuf_release(&sb);
}

static void put_const(struct rust *r)
{
	char tag = next(r);

	if (!enter(r))
		return;
	if (tag == 'p')
		puts_to(r, "_");
	else if (tag == 'B')
		BACK_REFERENCE(r, put_const(r));
	else if (tag && strchr("abchijlmnostxy", tag))
		put_number(r, tag);
	else
		r->bad = true;
	r->depth--;
}

/* ---- paths
 * ---------------------------------------------------------------------------------------- */

static void put_generic_arg(struct rust *r)
{
	bool is_lifetime = peek(r) == 'L';

	skip_lifetime(r);
	if (is_lifetime)
		puts_to(r, "'_");
	else if (eat(r, 'K'))
		put_const(r);
	else
		put_type(r);
}

/* The path to an impl says where it stands, not what it is. */
static void skip_impl_path(struct rust *r)
{
	bool silent = r->silent;

	r->silent = true;
	tagged62(r, 's');
	put_path(r, false);
	r->silent = silent;
}

static void put_nested(struct rust *r, bool in_value)
{
	char space = next(r);
	struct ident name;

	if (!isalpha((unsigned char)space)) {
		r->bad = true;
		return;
	}
	put_path(r, in_value);
	name = identifier(r);
	if (isupper((unsigned char)space)) {
		struct strbuf sb = STRBUF_INIT;

		strbuf_addf(&sb, "#%llu}", (unsigned long long)name.disambiguator);
		puts_to(r, space == 'C' ? "::{closure" : space == 'S' ? "::{shim" : "::{");
		if (!strchr("CS", space))
			put(r, &space, 1);
		puts_to(r, name.len ? ":" : "");
		put_ident(r, &name);
		puts_to(r, sb.buf);
		strbuf_release(&sb);
	} else if (name.len) {
		puts_to(r, "::");
		put_ident(r, &name);
	}
}

static void put_qualified(struct rust *r, bool has_trait)
{
	puts_to(r, "<");
	put_type(r);
	if (has_trait) {
		puts_to(r, " as ");
		put_path(r, false);
	}
	puts_to(r, ">");
}

static void put_generics(struct rust *r, bool in_value)
{
	put_path(r, in_value);
	puts_to(r, in_value ? "::<" : "<");
	put_list(r, put_generic_arg, ", ");
	puts_to(r, ">");
}

static void put_path(struct rust *r, bool in_value)
{
	struct ident name;
	char tag = next(r);

	if (!enter(r))
		return;
	switch (tag) {
	case 'C':
		name = identifier(r);
		put_ident(r, &name);
		break;
	case 'N':
		put_nested(r, in_value);
		break;
	case 'M':
	case 'X':
		skip_impl_path(r);
		put_qualified(r, tag == 'X');
		break;
	case 'Y':
		put_qualified(r, true);
		break;
	case 'I':
		put_generics(r, in_value);
		break;
	case 'B':
		BACK_REFERENCE(r, put_path(r, in_value));
		break;
	default:
		r->bad = true;
		break;
	}
	r->depth--;
}

char *demangle_rust_v0(const char *name)
{
	struct rust r = { .out = STRBUF_INIT };

	if (strncmp(name, "_R", 2) != 0 || !isupper((unsigned char)name[2]))
		return NULL;
	r.text = name + 2;
	r.end = strcspn(r.text, ".$"); /* what a linker or compiler added */
	put_path(&r, true);
	if (!r.bad && r.at < r.end) { /* the crate that made this instance */
		r.silent = true;
		put_path(&r, false);
	}
	if (r.bad || r.at != r.end) {
		strbuf_release(&r.out);
		return NULL;
	}
	return strbuf_detach(&r.out);
}
