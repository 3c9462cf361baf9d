/*
 * Well-formed means table 3-7 of the Unicode standard: no overlong forms, no surrogates, nothing
 * above U+10FFFF.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "result/utf8.h"

/* The second byte of a character depends on its first, those after it lie in 80..bf. */
static const struct {
	unsigned char first_low, first_high, second_low, second_high, length;
} forms[] = {
	{ 0x00, 0x7f, 0x00, 0x00, 1 }, { 0xc2, 0xdf, 0x80, 0xbf, 2 }, { 0xe0, 0xe0, 0xa0, 0xbf, 3 },
	{ 0xe1, 0xec, 0x80, 0xbf, 3 }, { 0xed, 0xed, 0x80, 0x9f, 3 }, { 0xee, 0xef, 0x80, 0xbf, 3 },
	{ 0xf0, 0xf0, 0x90, 0xbf, 4 }, { 0xf1, 0xf3, 0x80, 0xbf, 4 }, { 0xf4, 0xf4, 0x80, 0x8f, 4 },
};

size_t utf8_length(const char *s, size_t len)
{
	const unsigned char *p = (const unsigned char *)s;

	for (size_t i = 0; len && i < sizeof(forms) / sizeof(forms[0]); i++) {
		size_t n = forms[i].length;

		if (p[0] < forms[i].first_low || p[0] > forms[i].first_high)
			continue;
		if (n > len ||
		    (n > 1 && (p[1] < forms[i].second_low || p[1] > forms[i].second_high)))
			return 0;
		for (size_t k = 2; k < n; k++)
			if ((p[k] & 0xc0) != 0x80)
				return 0;
		return n;
	}
	return 0;
}

bool utf8_is_valid(const char *s, size_t len)
{
	for (size_t i = 0, n; i < len; i += n) {
		n = utf8_length(s + i, len - i);
		if (!n)
			return false;
	}
	return true;
}

void utf8_repair(struct strbuf *sb, const char *s, size_t len)
{
	for (size_t i = 0; i < len;) {
		size_t n = utf8_length(s + i, len - i);

		if (n)
			strbuf_add(sb, s + i, n);
		else
			strbuf_addstr(sb, "\xef\xbf\xbd");
		i += n ? n : 1;
	}
}
