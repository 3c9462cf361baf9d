/*
 * The full native walk. See native.h: this is the way for everything unusual, and the referee of
 * the quick one in native.c, which must give the same ids.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stddef.h>
#include <ucontext.h>

#include "stack/epilogue.h"
#include "stack/native.h"
#include "stack/verify.h"

enum {
	STEPS_MAX = 16384, /* 100 us; deeper stacks lose their outermost end, and say so */
	SIGNALS_MAX = 32,
	STEP_BYTES_MAX = 16 << 20, /* a frame larger than that is not one */
};

struct walk {
	struct mt_native_cache *c;
	struct mt_thread *t;
	uintptr_t ip, sp, rbp; /* the registers in the frame at hand */
	uint32_t interrupted;
	uint32_t signals;
	uint32_t count; /* frames so far */
	uintptr_t code_page; /* of code in no module: the last one found readable */
};

/* Keeps the first mt_native_depth frames and, in a ring, the latest half as many. */
static void frame_keep(struct walk *w, uint32_t frame)
{
	if (!frame)
		return;
	if (w->count < mt_native_depth)
		w->c->inner[w->count] = frame;
	else
		w->c->outer[w->count % (mt_native_depth / 2)] = frame;
	w->count++;
}

static uint32_t frame_kept(const struct walk *w, uint32_t i)
{
	return i < mt_native_depth ? w->c->inner[i] : w->c->outer[i % (mt_native_depth / 2)];
}

/* From outermost to innermost. Too many: `keep_outer` outermost ones, a mark, the inner half. */
static uint32_t frames_intern(struct walk *w, uint32_t root, uint32_t keep_outer)
{
	uint32_t node = root, cut = 0, i = w->count;
	uint32_t inner = mt_native_depth - mt_native_depth / 2;

	if (w->count > mt_native_depth) {
		cut = mt_frame_pseudo(w->t, MT_FRAME_TRUNCATED);
		if (!cut)
			return 0;
	}
	while (i > 0) {
		if (cut && w->count - i == keep_outer) {
			node = mt_native_node(w->c, w->t, node, cut);
			i = inner;
			cut = 0;
			continue;
		}
		i--;
		node = mt_native_node(w->c, w->t, node, frame_kept(w, i));
		if (!node)
			return 0;
	}
	return node;
}

/* Registers that the kernel saved when it called a signal handler. */
static int step_signal(struct walk *w)
{
	uintptr_t gregs = w->sp + offsetof(ucontext_t, uc_mcontext.gregs);
	struct mt_bounds *b = &w->c->bounds;
	uintptr_t sp;

	if (++w->signals > SIGNALS_MAX ||
	    mt_bounds_load(b, gregs + REG_RIP * sizeof(greg_t), &w->ip) < 0 ||
	    mt_bounds_load(b, gregs + REG_RSP * sizeof(greg_t), &sp) < 0 ||
	    mt_bounds_load(b, gregs + REG_RBP * sizeof(greg_t), &w->rbp) < 0)
		return -1;
	w->sp = sp;
	w->interrupted = 1;
	return 0;
}

/* One frame outwards; -1: this can't be a frame. */
static int step(struct walk *w, uint64_t rule)
{
	uintptr_t cfa = (rule & MT_RULE_CFA_RBP ? w->rbp : w->sp) +
			(uintptr_t)mt_rule_cfa_offset(rule);
	uintptr_t saved = (uintptr_t)mt_rule_save_offset(rule);
	struct mt_bounds *b = &w->c->bounds;

	if (mt_rule_kind(rule) == MT_RULE_DEREF) {
		if (mt_bounds_load(b, cfa, &cfa) < 0)
			return -1;
		cfa += (uintptr_t)mt_rule_add(rule);
	}
	if (cfa - 8 < w->sp || cfa - w->sp > STEP_BYTES_MAX)
		return -1;
	saved += rule & MT_RULE_SAVE_RBP ? w->rbp : cfa;
	if ((rule & MT_RULE_SAVED) && mt_bounds_load(b, saved, &w->rbp) < 0)
		return -1;
	w->sp = cfa;
	w->interrupted = 0;
	return mt_bounds_load(b, cfa - 8, &w->ip);
}

/* Code in no module has no tables, and may be other code the next time: looked at each time. */
static uint64_t uncovered_rule(struct walk *w)
{
	uintptr_t page = w->ip & ~(uintptr_t)4095, left = page + 4096 - w->ip;

	if (w->interrupted)
		return MT_RULE_NOINFO;
	if (page != w->code_page || !page) {
		if (!mt_bounds_readable(w->ip, 1))
			return MT_RULE_NOINFO;
		w->code_page = page;
	}
	return mt_epilogue_rule((const uint8_t *)w->ip, (uint32_t)(w->ip - page), (uint32_t)left);
}

/* From the registers in *w outwards. */
static uint32_t walk_on(struct walk *w)
{
	struct mt_native_cache *c = w->c;
	struct mt_thread *t = w->t;
	uint32_t keep_outer = mt_native_depth / 2, root = 0, steps;
	unsigned int end = MT_FRAME_TRUNCATED; /* unless the walk finds another */
	struct mt_ip found;

	for (steps = 0; steps < STEPS_MAX; steps++) {
		if (!w->ip) { /* by convention, where nothing called */
			end = 0;
			break;
		}
		if (w->ip >> MT_IP_BITS) {
			end = MT_FRAME_BAD_STACK;
			break;
		}
		found = mt_native_ip(c, t, w->ip | (w->interrupted ? MT_IP_INTERRUPTED : 0));
		if (__builtin_expect(c->trail != NULL, 0))
			mt_trail_add(c->trail, w->ip, found.module);
		frame_keep(w, found.frame == UINT32_MAX ? mt_frame_pseudo(t, MT_FRAME_LOST)
							: found.frame);
		if (!found.module && mt_rule_kind(found.rule) == MT_RULE_NOINFO)
			found.rule = uncovered_rule(w);
		if (mt_rule_kind(found.rule) == MT_RULE_END) {
			end = 0;
			break;
		}
		if (mt_rule_kind(found.rule) == MT_RULE_NOINFO) {
			end = MT_FRAME_NO_UNWIND_INFO;
			break;
		}
		if ((mt_rule_kind(found.rule) == MT_RULE_SIGNAL ? step_signal(w)
								: step(w, found.rule)) < 0) {
			end = MT_FRAME_BAD_STACK;
			break;
		}
	}
	if (c->trail)
		c->trail->end = end;
	if (end) {
		root = mt_node_pseudo(t, end);
		if (!root)
			return 0;
	}
	if (end == MT_FRAME_TRUNCATED) {
		/* What lies in the ring is somewhere in the middle: only the inner end is known. */
		w->count = mt_native_depth - mt_native_depth / 2;
		keep_outer = 0;
	}
	return frames_intern(w, root, keep_outer);
}

uint32_t mt_native_walk(struct mt_native_cache *c, struct mt_thread *t, uintptr_t slot,
			uintptr_t rbp)
{
	struct walk w = { .c = c, .t = t, .sp = slot + 8, .rbp = rbp };

	c->bounds.page = 0;
	c->walked = UINT32_MAX;
	if (mt_bounds_load(&c->bounds, slot, &w.ip) < 0)
		return mt_node_pseudo(t, MT_FRAME_BAD_STACK);
	return walk_on(&w);
}

uint32_t mt_native_walk_context(struct mt_native_cache *c, struct mt_thread *t, const void *context)
{
	const greg_t *gregs = ((const ucontext_t *)context)->uc_mcontext.gregs;
	struct walk w = { .c = c,
			  .t = t,
			  .ip = (uintptr_t)gregs[REG_RIP],
			  .sp = (uintptr_t)gregs[REG_RSP],
			  .rbp = (uintptr_t)gregs[REG_RBP],
			  .interrupted = 1 };

	c->bounds.page = 0;
	c->walked = UINT32_MAX;
	return walk_on(&w);
}
