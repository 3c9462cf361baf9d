/*
 * Rules from code instead of tables. See epilogue.h.
 *
 * Straight on from a return address to the `ret`, only instructions that take a frame down are
 * accepted, and there is no jump among them: so this is what the processor will do, unless the call
 * never returns and the code behind it belongs to somebody else.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "stack/epilogue.h"

#include "stack/bounds.h"
#include "stack/rules.h"

enum { RBP = 5, RSP = 4, CALL_MOST = 6, CODE_MOST = 48 };

/* What has been undone so far. */
struct frame {
	int64_t up; /* RSP now, above where it was when the call returned; after `leave`, above RBP */
	int64_t rbp_at; /* where RBP was popped from, counted likewise */
	int from_rbp;
	int rbp_popped;
};

static int32_t int32_at(const uint8_t *p)
{
	return (int32_t)((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
			 (uint32_t)p[3] << 24);
}

static int follows_call(const uint8_t *p)
{
	return p[-5] == 0xe8 || /* call rel32 */
	       (p[-2] == 0xff && ((p[-1] & 0xf8) == 0xd0 || /* call *%reg */
				  ((p[-1] & 0xf8) == 0x10 && p[-1] != 0x14 && p[-1] != 0x15))) ||
	       (p[-3] == 0xff && (p[-2] & 0xf8) == 0x50 && p[-2] != 0x54) || /* call *d8(%reg) */
	       (p[-6] == 0xff && (p[-5] == 0x15 || /* call *d32(%rip) */
				  ((p[-5] & 0xf8) == 0x90 && p[-5] != 0x94)));
}

static void pop(struct frame *f, int reg)
{
	if (reg == RBP) {
		f->rbp_at = f->up;
		f->rbp_popped = 1;
	}
	f->up += 8;
}

/* One instruction of at most 7 bytes; its length, 0 when it is another than those known here. */
static uint32_t undo(struct frame *f, const uint8_t *p)
{
	if (p[0] == 0x48 && p[1] == 0x83 && p[2] == 0xc4 && p[3] < 0x80) { /* add $d8, %rsp */
		f->up += p[3];
		return 4;
	}
	if (p[0] == 0x48 && p[1] == 0x81 && p[2] == 0xc4 && p[6] < 0x80) { /* add $d32, %rsp */
		f->up += int32_at(p + 3);
		return 7;
	}
	if ((p[0] & 0xf8) == 0x58 && (p[0] & 7) != RSP) {
		pop(f, p[0] & 7);
		return 1;
	}
	if (p[0] == 0x41 && (p[1] & 0xf8) == 0x58) { /* pop %r8 to %r15 */
		f->up += 8;
		return 2;
	}
	if (p[0] == 0xc9 && !f->rbp_popped && !f->from_rbp) { /* leave */
		f->up = 0;
		f->from_rbp = 1;
		pop(f, RBP);
		return 1;
	}
	if (p[0] == 0xc5 && p[1] == 0xf8 && p[2] == 0x77) /* vzeroupper */
		return 3;
	return p[0] == 0x90; /* nop */
}

static uint64_t rule_of(const struct frame *f)
{
	int64_t cfa = f->up + 8, saved = f->rbp_at - cfa;
	uint64_t rule = MT_RULE_STD | (uint64_t)(uint32_t)cfa << 32;

	if (cfa % 8 || cfa > INT32_MAX || (f->rbp_popped && saved / 8 < INT16_MIN))
		return MT_RULE_NOINFO;
	if (f->from_rbp)
		rule |= MT_RULE_CFA_RBP;
	if (f->rbp_popped)
		rule |= MT_RULE_SAVED | (uint64_t)(uint16_t)(saved / 8) << 8;
	return rule;
}

MT_READS_STACKS uint64_t mt_epilogue_rule(const uint8_t *code, uint32_t before, uint32_t size)
{
#if defined(__x86_64__)
	uint8_t room[CODE_MOST + 8] = { 0 }; /* zeroes are no instruction known here */
	uint8_t ahead[CALL_MOST] = { 0 };
	struct frame f = { 0, 0, 0, 0 };
	uint32_t at = 0, length;

	for (uint32_t i = 1; i <= before && i <= CALL_MOST; i++)
		ahead[CALL_MOST - i] = *(code - i);
	if (!follows_call(ahead + CALL_MOST))
		return MT_RULE_NOINFO;
	for (uint32_t i = 0; i < size && i < CODE_MOST; i++)
		room[i] = code[i];
	for (; at < CODE_MOST; at += length) {
		if (room[at] == 0xc3 || (room[at] == 0xf3 && room[at + 1] == 0xc3))
			return rule_of(&f);
		length = undo(&f, room + at);
		if (!length)
			return MT_RULE_NOINFO;
	}
#else
	(void)code;
	(void)before;
	(void)size;
#endif
	return MT_RULE_NOINFO;
}
