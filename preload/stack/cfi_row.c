/*
 * Call-frame programs and expressions, down to a rule word. See cfi_row.h and cfi.h. The formats:
 * DWARF 5 sections 6.4.2 and 2.5.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "stack/cfi_row.h"

#include "stack/rules.h"

enum { EXPRESSION_STACK = 8 };

/* ---- expressions: what linkers and compilers write, folded to (*)(register + offset) + add ------
 */

struct value {
	uint8_t base; /* MT_REG_RBP, MT_REG_RSP; 0: a plain number in off */
	uint8_t loaded; /* the value is *(base + off) + add */
	int64_t off, add;
};

static void value_add(struct value *v, int64_t n)
{
	int64_t *sum = v->loaded ? &v->add : &v->off;

	*sum = (int64_t)((uint64_t)*sum + (uint64_t)n);
}

/* Two-operand operators a OP b, top of stack is b; -1: not foldable. */
static int value_combine(uint8_t op, struct value *a, const struct value *b)
{
	if (b->base || b->loaded)
		return -1;
	if (op == 0x22 || op == 0x1c) { /* plus, minus */
		value_add(a, op == 0x22 ? b->off : (int64_t)(0 - (uint64_t)b->off));
		return 0;
	}
	if (a->base || a->loaded)
		return -1;
	switch (op) {
	case 0x1a: /* and */
		a->off &= b->off;
		return 0;
	case 0x24: /* shl */
		a->off = b->off >= 0 && b->off < 64 ? (int64_t)((uint64_t)a->off << b->off) : 0;
		return 0;
	case 0x2a: /* ge */
		a->off = a->off >= b->off;
		return 0;
	}
	return -1;
}

/* Operators that push; -1: another kind. Addresses in `ip` fold PLT expressions to constants. */
static int value_push(uint8_t op, struct mt_reader *r, uintptr_t ip, struct value *v)
{
	*v = (struct value){ 0 };
	if (op >= 0x30 && op <= 0x4f) { /* lit0 ... lit31 */
		v->off = op - 0x30;
		return 0;
	}
	if (op >= 0x70 && op <= 0x8f) { /* breg0 ... breg31 */
		v->off = mt_read_sleb(r);
		op -= 0x70;
		if (op == MT_REG_RA)
			v->off = (int64_t)((uint64_t)v->off + ip);
		else if (op == MT_REG_RBP || op == MT_REG_RSP)
			v->base = op;
		else
			return -1;
		return 0;
	}
	switch (op) {
	case 0x08: /* const1u */
		v->off = (int64_t)mt_read_fixed(r, 1);
		return 0;
	case 0x09: /* const1s */
		v->off = (int8_t)mt_read_fixed(r, 1);
		return 0;
	case 0x0a: /* const2u */
		v->off = (int64_t)mt_read_fixed(r, 2);
		return 0;
	case 0x0b: /* const2s */
		v->off = (int16_t)mt_read_fixed(r, 2);
		return 0;
	case 0x10: /* constu */
		v->off = (int64_t)mt_read_uleb(r);
		return 0;
	case 0x11: /* consts */
		v->off = mt_read_sleb(r);
		return 0;
	}
	return -1;
}

static int expression_fold(struct mt_span expr, uintptr_t ip, struct value *result)
{
	struct mt_reader r = { expr.p, expr.end, 0 };
	struct value stack[EXPRESSION_STACK];
	size_t n = 0;
	uint8_t op;

	while (r.p < r.end) {
		op = (uint8_t)mt_read_fixed(&r, 1);
		if (n < EXPRESSION_STACK && value_push(op, &r, ip, &stack[n]) == 0) {
			n++;
		} else if (op == 0x06 && n && stack[n - 1].base &&
			   !stack[n - 1].loaded) { /* deref */
			stack[n - 1].loaded = 1;
		} else if (op == 0x23 && n) { /* plus_uconst */
			value_add(&stack[n - 1], (int64_t)mt_read_uleb(&r));
		} else if (n >= 2 && value_combine(op, &stack[n - 2], &stack[n - 1]) == 0) {
			n--;
		} else {
			return -1;
		}
	}
	if (r.bad || !n || !stack[n - 1].base)
		return -1;
	*result = stack[n - 1];
	return 0;
}

/* ---- the call-frame program
 * ---------------------------------------------------------------------- */

static void place_set(struct mt_cfi_program *m, uint64_t reg, struct mt_cfi_place place)
{
	if (reg == MT_REG_RBP)
		m->row.rbp = place;
	else if (reg == MT_REG_RA)
		m->row.ra = place;
}

static void place_restore(struct mt_cfi_program *m, uint64_t reg)
{
	place_set(m, reg, reg == MT_REG_RBP ? m->initial.rbp : m->initial.ra);
}

static void place_at(struct mt_cfi_program *m, uint64_t reg, int64_t factored)
{
	place_set(m, reg,
		  (struct mt_cfi_place){ MT_CFI_AT_CFA,
					 (int64_t)((uint64_t)factored * (uint64_t)m->data_align),
					 { 0 } });
}

/* Unsigned, so that nonsense wraps instead of being undefined. */
static int64_t data_factored(const struct mt_cfi_program *m, struct mt_reader *r)
{
	return (int64_t)((uint64_t)mt_read_sleb(r) * (uint64_t)m->data_align);
}

/* Opcodes about the CFA; 0: done, 1: not one of them. */
static int program_cfa(struct mt_cfi_program *m, struct mt_reader *r, uint8_t op)
{
	switch (op) {
	case 0x0c: /* def_cfa */
	case 0x12: /* def_cfa_sf */
		m->row.cfa_reg = mt_read_uleb(r);
		m->row.cfa_off = op == 0x0c ? (int64_t)mt_read_uleb(r) : data_factored(m, r);
		m->row.cfa_expr = (struct mt_span){ 0 };
		return 0;
	case 0x0d: /* def_cfa_register */
		m->row.cfa_reg = mt_read_uleb(r);
		return 0;
	case 0x0e: /* def_cfa_offset */
		m->row.cfa_off = (int64_t)mt_read_uleb(r);
		return 0;
	case 0x13: /* def_cfa_offset_sf */
		m->row.cfa_off = data_factored(m, r);
		return 0;
	case 0x0f: /* def_cfa_expression */
		m->row.cfa_expr = mt_read_block(r);
		return 0;
	}
	return 1;
}

/* Opcodes about a register; 0: done, 1: not one of them. */
static int program_register(struct mt_cfi_program *m, struct mt_reader *r, uint8_t op)
{
	uint64_t reg;

	if (op < 0x05 || op == 0x0a || op == 0x0b || (op > 0x16 && op != 0x2f))
		return 1;
	reg = mt_read_uleb(r);
	switch (op) {
	case 0x05: /* offset_extended */
		place_at(m, reg, (int64_t)mt_read_uleb(r));
		return 0;
	case 0x11: /* offset_extended_sf */
		place_at(m, reg, mt_read_sleb(r));
		return 0;
	case 0x2f: /* GNU_negative_offset_extended */
		place_at(m, reg, (int64_t)(0 - mt_read_uleb(r)));
		return 0;
	case 0x06: /* restore_extended */
		place_restore(m, reg);
		return 0;
	case 0x07: /* undefined */
		place_set(m, reg, (struct mt_cfi_place){ MT_CFI_UNDEFINED, 0, { 0 } });
		return 0;
	case 0x08: /* same_value */
		place_set(m, reg, (struct mt_cfi_place){ MT_CFI_SAME, 0, { 0 } });
		return 0;
	case 0x10: /* expression */
		place_set(m, reg,
			  (struct mt_cfi_place){ MT_CFI_AT_EXPRESSION, 0, mt_read_block(r) });
		return 0;
	case 0x16: /* val_expression */
		mt_read_block(r);
		break;
	case 0x09: /* register */
	case 0x14: /* val_offset */
		mt_read_uleb(r);
		break;
	case 0x15: /* val_offset_sf */
		mt_read_sleb(r);
		break;
	default:
		return -1;
	}
	place_set(m, reg, (struct mt_cfi_place){ MT_CFI_OTHER, 0, { 0 } });
	return 0;
}

/* Opcodes that move on; 0: done, 1: the row wanted is complete, -1: not known or bad. */
static int program_advance(struct mt_cfi_program *m, struct mt_reader *r, uint8_t op)
{
	switch (op) {
	case 0x00: /* nop */
		return 0;
	case 0x01: /* set_loc */
		m->loc = mt_read_encoded(r, m->enc, NULL);
		return m->loc > m->pc;
	case 0x02: /* advance_loc1, 2, 4 */
	case 0x03:
	case 0x04:
		m->loc += mt_read_fixed(r, (size_t)1 << (op - 2)) * m->code_align;
		return m->loc > m->pc;
	case 0x0a: /* remember_state */
		if (m->depth == MT_CFI_SAVED_ROWS)
			return -1;
		m->saved[m->depth++] = m->row;
		return 0;
	case 0x0b: /* restore_state */
		if (!m->depth)
			return -1;
		m->row = m->saved[--m->depth];
		return 0;
	case 0x2e: /* GNU_args_size */
		mt_read_uleb(r);
		return 0;
	}
	return -1;
}

int mt_cfi_program_run(struct mt_cfi_program *m, struct mt_span code)
{
	struct mt_reader r = { code.p, code.end, 0 };
	uint8_t op, low;
	int rc = 0;

	while (r.p < r.end && rc == 0) {
		op = (uint8_t)mt_read_fixed(&r, 1);
		low = op & 0x3f;
		switch (op & 0xc0) {
		case 0x40: /* advance_loc */
			m->loc += low * m->code_align;
			rc = m->loc > m->pc;
			break;
		case 0x80: /* offset */
			place_at(m, low, (int64_t)mt_read_uleb(&r));
			break;
		case 0xc0: /* restore */
			place_restore(m, low);
			break;
		default:
			rc = program_cfa(m, &r, op);
			if (rc == 1)
				rc = program_register(m, &r, op);
			if (rc == 1)
				rc = program_advance(m, &r, op);
		}
	}
	return r.bad || rc < 0 ? -1 : 0;
}

/* ---- from a row to a rule -------------------------------------------------------------------- */

uint64_t mt_cfi_row_rule(const struct mt_cfi_row *row, uintptr_t ip)
{
	struct value cfa = { (uint8_t)row->cfa_reg, 0, row->cfa_off, 0 };
	struct value at;
	uint64_t rule = 0;
	int64_t save = 0;

	if (row->ra.how == MT_CFI_UNDEFINED)
		return MT_RULE_END;
	if (row->ra.how != MT_CFI_AT_CFA || row->ra.off != -8 || row->rbp.how == MT_CFI_OTHER)
		return MT_RULE_NOINFO;
	if (row->cfa_expr.p && expression_fold(row->cfa_expr, ip, &cfa) < 0)
		return MT_RULE_NOINFO;
	if (!row->cfa_expr.p && row->cfa_reg != MT_REG_RBP && row->cfa_reg != MT_REG_RSP)
		return MT_RULE_NOINFO;
	if (cfa.off != (int32_t)cfa.off || cfa.add % 8 || cfa.add / 8 != (int8_t)(cfa.add / 8))
		return MT_RULE_NOINFO;
	if (row->rbp.how == MT_CFI_AT_CFA) {
		save = row->rbp.off;
		rule |= MT_RULE_SAVED;
	} else if (row->rbp.how == MT_CFI_AT_EXPRESSION) {
		if (expression_fold(row->rbp.expr, ip, &at) < 0 || at.base != MT_REG_RBP ||
		    at.loaded)
			return MT_RULE_NOINFO;
		save = at.off;
		rule |= MT_RULE_SAVED | MT_RULE_SAVE_RBP;
	}
	if (save % 8 || save / 8 != (int16_t)(save / 8))
		return MT_RULE_NOINFO;
	rule |= cfa.loaded ? MT_RULE_DEREF : MT_RULE_STD;
	rule |= cfa.base == MT_REG_RBP ? MT_RULE_CFA_RBP : 0;
	rule |= (uint64_t)(uint16_t)(save / 8) << 8;
	rule |= (uint64_t)(uint8_t)(cfa.add / 8) << 24;
	return rule | (uint64_t)(uint32_t)cfa.off << 32;
}
