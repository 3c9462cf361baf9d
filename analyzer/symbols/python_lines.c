/*
 * The three encodings that CPython has had. Bytes come from a trace: every read is bounded, and
 * sums are done in 64 bits, which a table of any length cannot overflow.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "symbols/python_lines.h"

#define NO_LINE 0

static uint32_t line_or_none(int64_t line)
{
	return line > 0 && line <= INT32_MAX ? (uint32_t)line : NO_LINE;
}

/* Up to 3.9: pairs of code and line deltas; a pair's line begins where its code delta ends. */
static uint32_t lnotab_line(const uint8_t *p, size_t len, int64_t line, uint32_t offset)
{
	uint64_t at = 0;

	for (size_t i = 0; i + 1 < len; i += 2) {
		at += p[i];
		if (at > offset)
			break;
		line += (int8_t)p[i + 1];
	}
	return line_or_none(line);
}

/* 3.10, PEP 626: pairs of a range's length and its line delta; -128: the range has no line. */
static uint32_t pep626_line(const uint8_t *p, size_t len, int64_t line, uint32_t offset)
{
	uint64_t end = 0;

	for (size_t i = 0; i + 1 < len; i += 2) {
		int8_t delta = (int8_t)p[i + 1];

		end += p[i];
		if (delta != -128)
			line += delta;
		if (end > offset)
			return delta == -128 ? NO_LINE : line_or_none(line);
	}
	return NO_LINE;
}

/* Six bits a byte, the seventh says that more follow. NULL: cut off or too long. */
static const uint8_t *read_svarint(const uint8_t *p, const uint8_t *end, int64_t *out)
{
	uint64_t v = 0;

	for (unsigned int shift = 0; p < end && shift < 36; shift += 6) {
		v |= (uint64_t)(*p & 63) << shift;
		if (!(*p++ & 64)) {
			*out = v & 1 ? -(int64_t)(v >> 1) : (int64_t)(v >> 1);
			return p;
		}
	}
	return NULL;
}

enum {
	ENTRY_ONE_LINE_0 = 10, /* line delta 0, columns follow; 11 and 12: delta 1 and 2 */
	ENTRY_ONE_LINE_2 = 12,
	ENTRY_NO_COLUMNS = 13, /* a line delta follows */
	ENTRY_LONG = 14, /* a line delta and columns follow */
	ENTRY_NONE = 15,
};

/* 3.11 on, PEP 657: entries of a first byte with its high bit set, then bytes without it. */
static uint32_t pep657_line(const uint8_t *p, size_t len, int64_t line, uint32_t offset)
{
	const uint8_t *end = p + len;
	uint64_t covered = 0;

	while (p < end) {
		unsigned int kind = *p >> 3 & 15;
		int64_t delta = 0;

		if (!(*p & 0x80))
			return NO_LINE;
		covered += ((*p & 7u) + 1) * 2; /* in code units of two bytes */
		p++;
		if (kind == ENTRY_NO_COLUMNS || kind == ENTRY_LONG) {
			p = read_svarint(p, end, &delta);
			if (!p)
				return NO_LINE;
		} else if (kind >= ENTRY_ONE_LINE_0 && kind <= ENTRY_ONE_LINE_2) {
			delta = kind - ENTRY_ONE_LINE_0;
		}
		line += delta;
		if (covered > offset)
			return kind == ENTRY_NONE ? NO_LINE : line_or_none(line);
		while (p < end && !(*p & 0x80))
			p++;
	}
	return NO_LINE;
}

uint32_t python_line(enum mt_line_kind kind, const uint8_t *table, size_t len, uint32_t first_line,
		     uint32_t offset)
{
	switch (kind) {
	case MT_LINES_LNOTAB:
		return lnotab_line(table, len, first_line, offset);
	case MT_LINES_310:
		return pep626_line(table, len, first_line, offset);
	case MT_LINES_311:
		return pep657_line(table, len, first_line, offset);
	case MT_LINES_NONE:
		break;
	}
	return NO_LINE;
}
