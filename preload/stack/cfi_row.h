/*
 * The inside of the call-frame interpreter, shared by cfi.c (which entry, which program) and
 * cfi_row.c (what the program says). Every read is checked against the end of its range.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_CFI_ROW_H
#define MEMTRACE_PRELOAD_CFI_ROW_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { MT_REG_RBP = 6, MT_REG_RSP = 7, MT_REG_RA = 16 };
enum { MT_CFI_SAVED_ROWS = 8 };

/* Pointer encodings (DW_EH_PE_*): low four bits the format, next three what it is relative to. */
enum {
	MT_ENC_ABSPTR = 0x00,
	MT_ENC_ULEB = 0x01,
	MT_ENC_UDATA2 = 0x02,
	MT_ENC_UDATA4 = 0x03,
	MT_ENC_UDATA8 = 0x04,
	MT_ENC_SLEB = 0x09,
	MT_ENC_SDATA2 = 0x0a,
	MT_ENC_SDATA4 = 0x0b,
	MT_ENC_SDATA8 = 0x0c,
	MT_ENC_PCREL = 0x10,
	MT_ENC_DATAREL = 0x30,
	MT_ENC_DATAREL_SDATA4 = 0x3b,
	MT_ENC_OMIT = 0xff,
};

/* ---- bounded reading: after the first bad read everything reads as 0 and `bad` stays set --------
 */

struct mt_reader {
	const uint8_t *p, *end;
	int bad;
};

struct mt_span {
	const uint8_t *p, *end; /* p NULL: none */
};

static inline uint64_t mt_read_fixed(struct mt_reader *r, size_t size)
{
	uint64_t v = 0;

	if ((size_t)(r->end - r->p) < size) {
		r->bad = 1;
		r->p = r->end;
		return 0;
	}
	memcpy(&v, r->p, size); /* x86 is little-endian, like the sections */
	r->p += size;
	return v;
}

static inline uint64_t mt_read_uleb(struct mt_reader *r)
{
	uint64_t v = 0;
	unsigned int shift = 0;
	uint8_t byte;

	do {
		byte = (uint8_t)mt_read_fixed(r, 1);
		if (shift < 64)
			v |= (uint64_t)(byte & 0x7f) << shift;
		shift += 7;
	} while ((byte & 0x80) && !r->bad);
	return v;
}

static inline int64_t mt_read_sleb(struct mt_reader *r)
{
	uint64_t v = 0;
	unsigned int shift = 0;
	uint8_t byte;

	do {
		byte = (uint8_t)mt_read_fixed(r, 1);
		if (shift < 64)
			v |= (uint64_t)(byte & 0x7f) << shift;
		shift += 7;
	} while ((byte & 0x80) && !r->bad);
	if (shift < 64 && (byte & 0x40))
		v |= ~UINT64_C(0) << shift;
	return (int64_t)v;
}

static inline struct mt_span mt_read_block(struct mt_reader *r)
{
	uint64_t size = mt_read_uleb(r);
	struct mt_span s = { r->p, r->p };

	if (size > (uint64_t)(r->end - r->p)) {
		r->bad = 1;
		r->p = r->end;
		return s;
	}
	s.end = r->p += size;
	return s;
}

static inline uint64_t mt_read_encoded(struct mt_reader *r, uint8_t enc, const uint8_t *data)
{
	uint64_t base = 0, v;

	switch (enc & 0x70) {
	case 0:
		break;
	case MT_ENC_PCREL:
		base = (uintptr_t)r->p;
		break;
	case MT_ENC_DATAREL:
		base = (uintptr_t)data;
		break;
	default:
		r->bad = 1;
	}
	switch (enc & 0x0f) {
	case MT_ENC_ABSPTR:
	case MT_ENC_UDATA8:
	case MT_ENC_SDATA8:
		v = mt_read_fixed(r, 8);
		break;
	case MT_ENC_ULEB:
		v = mt_read_uleb(r);
		break;
	case MT_ENC_SLEB:
		v = (uint64_t)mt_read_sleb(r);
		break;
	case MT_ENC_UDATA2:
		v = mt_read_fixed(r, 2);
		break;
	case MT_ENC_SDATA2:
		v = (uint64_t)(int16_t)mt_read_fixed(r, 2);
		break;
	case MT_ENC_UDATA4:
		v = mt_read_fixed(r, 4);
		break;
	case MT_ENC_SDATA4:
		v = (uint64_t)(int32_t)mt_read_fixed(r, 4);
		break;
	default:
		r->bad = 1;
		v = 0;
	}
	if (enc &
	    0x80) /* indirect: only used for personality routines, whose value is not needed */
		return 0;
	return base + v;
}

/* ---- programs -------------------------------------------------------------------------------- */

enum mt_cfi_how {
	MT_CFI_SAME,
	MT_CFI_AT_CFA,
	MT_CFI_AT_EXPRESSION,
	MT_CFI_UNDEFINED,
	MT_CFI_OTHER
};

struct mt_cfi_place {
	enum mt_cfi_how how;
	int64_t off;
	struct mt_span expr;
};

struct mt_cfi_row {
	uint64_t cfa_reg;
	int64_t cfa_off;
	struct mt_span cfa_expr;
	struct mt_cfi_place rbp, ra;
};

struct mt_cfi_program {
	struct mt_cfi_row row, initial, saved[MT_CFI_SAVED_ROWS];
	unsigned int depth;
	uint64_t loc, pc; /* the row wanted is the last one that starts at or before pc */
	uint64_t code_align;
	int64_t data_align;
	uint8_t enc;
};

/* Runs call-frame instructions up to the row that holds for m->pc; -1: bad or unknown bytes. */
int mt_cfi_program_run(struct mt_cfi_program *m, struct mt_span code);

/* The rule word of a finished row; `ip` as in mt_cfi_rule. */
uint64_t mt_cfi_row_rule(const struct mt_cfi_row *row, uintptr_t ip);

#endif
