/*
 * Finding the entry for an address in .eh_frame. See cfi.h. The formats: DWARF 5 section 6.4.1, and
 * the Linux Standard Base's chapter on exception frames for .eh_frame_hdr and pointer encodings.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "stack/cfi.h"

#include "stack/cfi_row.h"
#include "stack/rules.h"

enum { AUGMENTATION_MAX = 8 };

/* ---- entries of .eh_frame -------------------------------------------------------------------- */

struct entry {
	const uint8_t *id_at; /* where its CIE pointer stands */
	uint64_t id;
	struct mt_reader body;
};

static int entry_open(const struct mt_cfi *cfi, uintptr_t at, struct entry *e)
{
	struct mt_reader r = { (const uint8_t *)at, cfi->high, 0 };
	uint64_t length;

	if (at < (uintptr_t)cfi->low || at >= (uintptr_t)cfi->high)
		return -1;
	length = mt_read_fixed(&r, 4);
	if (length == 0xffffffff)
		length = mt_read_fixed(&r, 8);
	if (r.bad || length < 4 || length > (uint64_t)(r.end - r.p))
		return -1;
	r.end = r.p + length;
	e->id_at = r.p;
	e->id = mt_read_fixed(&r, 4);
	e->body = r;
	return 0;
}

struct cie {
	uint8_t enc; /* of addresses in its FDEs */
	uint8_t augmented; /* its FDEs carry augmentation data */
	uint8_t signal;
	uint64_t code_align;
	int64_t data_align;
	struct mt_span code;
};

/* The data that follow the letters of an augmentation string; -1: a letter that isn't known. */
static int cie_augmentation(struct mt_reader *r, const char *letters, struct cie *cie)
{
	struct mt_span data;
	struct mt_reader a;

	data = mt_read_block(r);
	a = (struct mt_reader){ data.p, data.end, 0 };
	for (; *letters; letters++) {
		switch (*letters) {
		case 'R':
			cie->enc = (uint8_t)mt_read_fixed(&a, 1);
			break;
		case 'P':
			mt_read_encoded(&a, (uint8_t)mt_read_fixed(&a, 1), NULL);
			break;
		case 'L':
			mt_read_fixed(&a, 1);
			break;
		case 'S':
			cie->signal = 1;
			break;
		default:
			return -1;
		}
	}
	return a.bad ? -1 : 0;
}

static int cie_read(const struct mt_cfi *cfi, uintptr_t at, struct cie *cie)
{
	char letters[AUGMENTATION_MAX];
	struct entry e;
	struct mt_reader *r = &e.body;
	uint8_t version;
	size_t n = 0;

	if (entry_open(cfi, at, &e) < 0 || e.id != 0)
		return -1;
	version = (uint8_t)mt_read_fixed(r, 1);
	if (version != 1 && version != 3 && version != 4)
		return -1;
	do {
		letters[n] = (char)mt_read_fixed(r, 1);
	} while (letters[n++] && n < sizeof(letters));
	if (letters[n - 1])
		return -1;
	if (version == 4)
		mt_read_fixed(r, 2); /* sizes of addresses and segment selectors */
	cie->code_align = mt_read_uleb(r);
	cie->data_align = mt_read_sleb(r);
	if ((version == 1 ? mt_read_fixed(r, 1) : mt_read_uleb(r)) != MT_REG_RA)
		return -1;
	if (letters[0] == 'z') {
		cie->augmented = 1;
		if (cie_augmentation(r, letters + 1, cie) < 0)
			return -1;
	} else if (letters[0]) {
		return -1;
	}
	cie->code = (struct mt_span){ r->p, r->end };
	return r->bad ? -1 : 0;
}

static uint64_t fde_rule(const struct mt_cfi *cfi, uintptr_t at, uintptr_t ip, uintptr_t pc)
{
	struct mt_cfi_program m = { .pc = pc };
	struct cie cie = { 0 };
	struct entry e;
	uint64_t start, range;

	if (entry_open(cfi, at, &e) < 0 || e.id == 0 ||
	    cie_read(cfi, (uintptr_t)e.id_at - e.id, &cie) < 0)
		return MT_RULE_NOINFO;
	start = mt_read_encoded(&e.body, cie.enc, NULL);
	range = mt_read_encoded(&e.body, cie.enc & 0x0f, NULL);
	if (cie.augmented)
		mt_read_block(&e.body);
	if (e.body.bad || pc < start || pc - start >= range)
		return MT_RULE_NOINFO;
	if (cie.signal)
		return MT_RULE_SIGNAL;
	m.code_align = cie.code_align;
	m.data_align = cie.data_align;
	m.enc = cie.enc;
	if (mt_cfi_program_run(&m, cie.code) < 0)
		return MT_RULE_NOINFO;
	m.initial = m.row;
	m.loc = start;
	if (mt_cfi_program_run(&m, (struct mt_span){ e.body.p, e.body.end }) < 0)
		return MT_RULE_NOINFO;
	return mt_cfi_row_rule(&m.row, ip);
}

/* .eh_frame_hdr's sorted table: the last entry that starts at or before pc; 0: none. */
static uintptr_t fde_search(const struct mt_cfi *cfi, uintptr_t pc)
{
	struct mt_reader r = { cfi->hdr, cfi->hdr_end, 0 };
	uint8_t version, frame_enc, count_enc, table_enc;
	uint64_t low = 0, count, mid;
	int32_t entry[2];

	version = (uint8_t)mt_read_fixed(&r, 1);
	frame_enc = (uint8_t)mt_read_fixed(&r, 1);
	count_enc = (uint8_t)mt_read_fixed(&r, 1);
	table_enc = (uint8_t)mt_read_fixed(&r, 1);
	if (version != 1 || count_enc == MT_ENC_OMIT || table_enc != MT_ENC_DATAREL_SDATA4)
		return 0;
	if (frame_enc != MT_ENC_OMIT)
		mt_read_encoded(&r, frame_enc, cfi->hdr);
	count = mt_read_encoded(&r, count_enc, cfi->hdr);
	if (r.bad)
		return 0;
	if (count > (uint64_t)(r.end - r.p) / sizeof(entry))
		count = (uint64_t)(r.end - r.p) / sizeof(entry);
	while (low < count) {
		mid = low + (count - low) / 2;
		memcpy(entry, r.p + mid * sizeof(entry), sizeof(entry));
		if ((uintptr_t)cfi->hdr + (uint64_t)(int64_t)entry[0] <= pc)
			low = mid + 1;
		else
			count = mid;
	}
	if (!low)
		return 0;
	memcpy(entry, r.p + (low - 1) * sizeof(entry), sizeof(entry));
	return (uintptr_t)cfi->hdr + (uint64_t)(int64_t)entry[1];
}

uint64_t mt_cfi_rule(const struct mt_cfi *cfi, uintptr_t ip, int interrupted)
{
	uintptr_t pc = interrupted ? ip
				   : ip - 1; /* a call may be its function's last instruction */
	uintptr_t fde;

	if (!cfi->hdr)
		return MT_RULE_NOINFO;
	fde = fde_search(cfi, pc);
	return fde ? fde_rule(cfi, fde, ip, pc) : MT_RULE_NOINFO;
}
