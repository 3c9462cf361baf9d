/*
 * C++ names are left to the C++ runtime. Rust's first scheme borrows C++'s ("_ZN...17h<hash>E") and
 * spells what C++ cannot in escapes; its second has a demangler of its own (rust_v0.c).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "symbols/demangle.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "util/strbuf.h"

#define HASH_DIGITS 16

/* Of libstdc++ and libc++abi; their header is C++ only. */
char *__cxa_demangle(const char *name, char *buf, size_t *size, int *status);

static const struct {
	const char *escape, *text;
} rust_escapes[] = {
	{ "$SP$", "@" }, { "$BP$", "*" }, { "$RF$", "&" }, { "$LT$", "<" },
	{ "$GT$", ">" }, { "$LP$", "(" }, { "$RP$", ")" }, { "$C$", "," },
};

/* Length of what stands before "::h" and the hash; 0: this is not Rust. */
static size_t rust_legacy_length(const char *name)
{
	size_t n = strlen(name), hash = HASH_DIGITS + 3;

	if (n <= hash || strncmp(name + n - hash, "::h", 3) != 0)
		return 0;
	for (size_t i = n - HASH_DIGITS; i < n; i++)
		if (!isxdigit((unsigned char)name[i]))
			return 0;
	return n - hash;
}

/* One escape at p to sb; its length, 0: none begins there. */
static size_t rust_escape(struct strbuf *sb, const char *p)
{
	unsigned long c;
	char *end;

	for (size_t i = 0; i < sizeof(rust_escapes) / sizeof(rust_escapes[0]); i++) {
		size_t n = strlen(rust_escapes[i].escape);

		if (!strncmp(p, rust_escapes[i].escape, n)) {
			strbuf_addstr(sb, rust_escapes[i].text);
			return n;
		}
	}
	if (strncmp(p, "$u", 2) != 0 || !isxdigit((unsigned char)p[2]))
		return 0;
	c = strtoul(p + 2, &end, 16);
	if (*end != '$' || c < ' ' || c >= 0x7f)
		return 0;
	strbuf_addch(sb, (char)c);
	return (size_t)(end + 1 - p);
}

static char *rust_legacy(const char *name, size_t len)
{
	struct strbuf sb = STRBUF_INIT;
	bool starts_word = true; /* an identifier that begins with an escape has a "_" before it */

	for (size_t i = 0; i < len;) {
		size_t n = 0;

		if (starts_word && name[i] == '_' && name[i + 1] == '$')
			i++;
		starts_word = false;
		if (name[i] == '$')
			n = rust_escape(&sb, name + i);
		if (!n && name[i] == '.' && name[i + 1] == '.') {
			strbuf_addstr(&sb, "::");
			n = 2;
		}
		if (!n) {
			starts_word = name[i] == ':';
			strbuf_addch(&sb, name[i]);
			n = 1;
		}
		i += n;
	}
	return strbuf_detach(&sb);
}

char *demangle(const char *name)
{
	char *text, *rust;
	size_t len;
	int status;

	if (!strncmp(name, "_R", 2))
		return demangle_rust_v0(name);
	if (strncmp(name, "_Z", 2) != 0)
		return NULL;
	text = __cxa_demangle(name, NULL, NULL, &status);
	len = text ? rust_legacy_length(text) : 0;
	if (!len)
		return text;
	rust = rust_legacy(text, len);
	free(text);
	return rust;
}
