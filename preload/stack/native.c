/*
 * The native stack of the running thread. See stack.h.
 *
 * Consecutive stacks of a thread share most of their frames. So the last one is kept, frame by
 * frame, and a new walk goes outwards only until it stands where a kept frame stood: same slot,
 * same return address and, if anything further out is found by way of RBP, same RBP. Then every
 * memory word the outer part of the walk had read is compared; when all still hold what they held,
 * the unwinder would do again what it did, so its result is the kept node. This is exact, and costs
 * 0.3 ns for a frame instead of 5.
 *
 * Stacks that were walked this way go into a memo as a whole (memo.h), where a program that does
 * the same things again and again finds 97 to 100 % of them.
 *
 * Only frames on the thread's own stack are kept: all words compared lie between the current frame
 * and the stack's upper end and so are mapped.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "stack/native.h"

#include <string.h>

#include "core/mem.h"
#include "stack/modules.h"
#include "stack/python.h"
#include "stack/stack.h"
#include "stack/verify.h"

unsigned int mt_native_depth = 128;

/* ---- checks ---------------------------------------------------------------------------------- */

/* Index of the outermost of n checks that fails, or n. */
MT_READS_STACKS static uint32_t checks_verify(const struct mt_check *c, uint32_t n)
{
	uintptr_t a = 0, b = 0;
	uint32_t i;

	for (i = 0; i + 4 <= n; i += 4) {
		a |= (*(const uintptr_t *)c[i].address ^ c[i].value) |
		     (*(const uintptr_t *)c[i + 1].address ^ c[i + 1].value);
		b |= (*(const uintptr_t *)c[i + 2].address ^ c[i + 2].value) |
		     (*(const uintptr_t *)c[i + 3].address ^ c[i + 3].value);
	}
	for (; i < n; i++)
		a |= *(const uintptr_t *)c[i].address ^ c[i].value;
	if (!(a | b))
		return n;
	for (i = 0; *(const uintptr_t *)c[i].address == c[i].value; i++)
		;
	return i;
}

/* The kept frame a check belongs to. */
static uint32_t check_owner(const struct mt_native_cache *c, uint32_t check)
{
	uint32_t i = 0;

	while (c->kept[i].checks <= check)
		i++;
	return i;
}

/*
 * Completes kept frame i, whose outer neighbours are complete: what has to be compared so that its
 * rule leads to them again. -1: no room for the checks.
 */
static int kept_complete(struct mt_native_cache *c, uint32_t i)
{
	struct mt_kept *k = &c->kept[i];
	const struct mt_kept *outer = i ? k - 1 : NULL;
	uint32_t n = outer ? outer->checks : 0;
	uint64_t rule = k->rule;
	uintptr_t cfa = (rule & MT_RULE_CFA_RBP ? k->rbp : k->slot + 8) +
			(uintptr_t)mt_rule_cfa_offset(rule);
	uintptr_t saved;

	if (n + 3 > MT_CHECKS)
		return -1;
	c->check[n++] = (struct mt_check){ k->slot, k->ra };
	k->need = 0;
	if (outer) {
		k->need = (rule & (MT_RULE_CFA_RBP | MT_RULE_SAVE_RBP)) ||
			  (!(rule & MT_RULE_SAVED) && outer->need);
		if (mt_rule_kind(rule) == MT_RULE_DEREF) {
			c->check[n++] = (struct mt_check){
				cfa, outer->slot + 8 - (uintptr_t)mt_rule_add(rule)
			};
			cfa = outer->slot + 8;
		}
		if ((rule & MT_RULE_SAVED) && outer->need) {
			saved = (rule & MT_RULE_SAVE_RBP ? k->rbp : cfa) +
				(uintptr_t)mt_rule_save_offset(rule);
			c->check[n++] = (struct mt_check){ saved, outer->rbp };
		}
	}
	k->checks = n;
	return 0;
}

/* ---- the quick walk -------------------------------------------------------------------------- */

enum quick_end { QUICK_MATCH, QUICK_OUTERMOST, QUICK_NO_INFO, QUICK_GIVE_UP };

struct quick {
	struct mt_native_cache *c;
	struct mt_thread *t;
	uint32_t have; /* kept frames, from the outermost, that may still be good */
	uint32_t fresh; /* index of the outermost new frame: they grow down from the array's end */
	uint32_t verified; /* checks known to hold at this moment */
};

/* Does the walk, at this slot, stand where a kept frame stood? Drops those that can't match. */
static int quick_match(struct quick *q, uintptr_t slot, uintptr_t ra, uintptr_t rbp)
{
	struct mt_native_cache *c = q->c;
	const struct mt_kept *k;
	uint32_t bad;

	while (q->have && c->kept[q->have - 1].slot < slot)
		q->have--;
	if (!q->have || c->kept[q->have - 1].slot != slot)
		return 0;
	k = &c->kept[q->have - 1];
	if (k->ra != ra || (k->need && k->rbp != rbp)) {
		q->have--;
		return 0;
	}
	if (k->checks <= q->verified)
		return 1;
	bad = checks_verify(c->check, k->checks);
	if (bad == k->checks)
		return 1;
	q->verified = bad;
	q->have = check_owner(c, bad);
	return 0;
}

/* One frame outwards on the own stack; -1: something the full walk has to look at. */
MT_READS_STACKS static int quick_step(const struct mt_bounds *b, uint64_t rule, uintptr_t *slot,
				      uintptr_t *rbp)
{
	uintptr_t cfa = (rule & MT_RULE_CFA_RBP ? *rbp : *slot + 8) +
			(uintptr_t)mt_rule_cfa_offset(rule);
	uintptr_t room = b->high - b->low - sizeof(uintptr_t), saved;

	if (mt_rule_kind(rule) == MT_RULE_DEREF) {
		if (cfa - b->low > room || cfa % 8)
			return -1;
		cfa = *(const uintptr_t *)cfa + (uintptr_t)mt_rule_add(rule);
	}
	if (cfa - 8 <= *slot || cfa - 8 - b->low > room || cfa % 8)
		return -1;
	if (rule & MT_RULE_SAVED) {
		saved = (rule & MT_RULE_SAVE_RBP ? *rbp : cfa) +
			(uintptr_t)mt_rule_save_offset(rule);
		if (saved <= *slot || saved - b->low > room || saved % 8)
			return -1;
		*rbp = *(const uintptr_t *)saved;
	}
	*slot = cfa - 8;
	return 0;
}

MT_READS_STACKS static enum quick_end quick_walk(struct quick *q, uintptr_t slot, uintptr_t rbp)
{
	struct mt_native_cache *c = q->c;
	struct mt_ip found;
	uintptr_t ra;

	for (;;) {
		ra = *(const uintptr_t *)slot;
		if (quick_match(q, slot, ra, rbp))
			return QUICK_MATCH;
		if (q->fresh <= q->have || !ra || ra >> MT_IP_BITS)
			return QUICK_GIVE_UP;
		found = mt_native_ip(c, q->t, ra);
		if (found.frame == UINT32_MAX)
			return QUICK_GIVE_UP;
		c->kept[--q->fresh] = (struct mt_kept){
			.slot = slot, .ra = ra, .rbp = rbp, .rule = found.rule, .frame = found.frame
		};
		switch (mt_rule_kind(found.rule)) {
		case MT_RULE_END:
			q->have = 0;
			return QUICK_OUTERMOST;
		case MT_RULE_NOINFO:
			if (!found.module) /* the full walk looks at the code itself */
				return QUICK_GIVE_UP;
			q->have = 0;
			return QUICK_NO_INFO;
		case MT_RULE_SIGNAL:
			return QUICK_GIVE_UP;
		}
		if (quick_step(&c->bounds, found.rule, &slot, &rbp) < 0)
			return QUICK_GIVE_UP;
	}
}

/* The node of the innermost kept frame when there are more than may be shown. */
static uint32_t cut_node(struct mt_native_cache *c, struct mt_thread *t)
{
	struct mt_kept *top = &c->kept[c->count - 1];
	uint32_t outer = mt_native_depth / 2, node;
	uint32_t mark = mt_frame_pseudo(t, MT_FRAME_TRUNCATED);

	if (top->node || !mark)
		return top->node;
	node = mt_native_node(c, t, c->kept[outer - 1].node, mark);
	for (uint32_t i = c->count - (mt_native_depth - outer); node && i < c->count; i++)
		if (c->kept[i].frame)
			node = mt_native_node(c, t, node, c->kept[i].frame);
	top->node = node;
	return node;
}

/* Moves the new frames to the kept ones and numbers their stacks; the innermost one's node. */
static uint32_t quick_intern(struct quick *q)
{
	struct mt_native_cache *c = q->c;
	uint32_t new_frames = MT_KEPT - q->fresh;
	uint32_t parent;

	c->walked = new_frames;
	c->count = q->have;
	memmove(&c->kept[q->have], &c->kept[q->fresh], new_frames * sizeof(c->kept[0]));
	for (; new_frames; new_frames--) {
		struct mt_kept *k = &c->kept[c->count];

		if (kept_complete(c, c->count) < 0)
			return 0;
		parent = c->count ? k[-1].node : c->root;
		if (c->count < mt_native_depth) {
			k->node = k->frame ? mt_native_node(c, q->t, parent, k->frame) : parent;
			if (!k->node && k->frame)
				return 0;
		}
		c->count++;
	}
	return c->count > mt_native_depth ? cut_node(c, q->t) : c->kept[c->count - 1].node;
}

static uint32_t native_quick(struct mt_native_cache *c, struct mt_thread *t,
			     struct mt_caller caller)
{
	struct quick q = { .c = c, .t = t, .fresh = MT_KEPT };
	enum quick_end end;

	q.have = c->count;
	end = quick_walk(&q, caller.slot, caller.rbp);
	if (end == QUICK_GIVE_UP) {
		/* New frames were written over kept ones only above q.have. */
		c->count = q.have < c->count ? q.have : c->count;
		return mt_native_walk(c, t, caller.slot, caller.rbp);
	}
	if (end != QUICK_MATCH)
		c->root = end == QUICK_NO_INFO ? mt_node_pseudo(t, MT_FRAME_NO_UNWIND_INFO) : 0;
	if (q.fresh == MT_KEPT && q.have == c->count && c->kept[q.have - 1].node)
		return c->kept[q.have - 1].node;
	return quick_intern(&q);
}

/* The memo first; what had to be walked and is known frame by frame goes into it. */
static uint32_t native_own(struct mt_native_cache *c, struct mt_thread *t, struct mt_caller caller)
{
	uint32_t node = mt_memo_find(&c->memo, caller.slot, caller.rbp);
	const struct mt_kept *top;

	c->walked = 0;
	if (__builtin_expect(node != 0, 1))
		return node;
	node = native_quick(c, t, caller);
	top = c->count ? &c->kept[c->count - 1] : NULL;
	if (node && top && top->slot == caller.slot && top->node == node)
		mt_memo_add(&c->memo, caller.slot, caller.rbp, (int)top->need, c->check,
			    top->checks, node);
	return node;
}

/* ---- entry ----------------------------------------------------------------------------------- */

static struct mt_native_cache *cache_new(struct mt_thread *t)
{
	size_t size = (sizeof(struct mt_native_cache) + 4095) & ~(size_t)4095;
	struct mt_native_cache *c = mt_mem_map(size);

	t->native_cache = c;
	if (c && mt_verify_every)
		c->busy = MT_BUSY_VERIFY;
	return c;
}

/* Another thread took the struct over, or a module vanished. */
static void cache_renew(struct mt_native_cache *c, struct mt_thread *t, uint32_t epoch)
{
	if (c->bounds.owner != mt_bounds_thread())
		mt_bounds_reset(&c->bounds);
	if (c->epoch != epoch && c->epoch) /* a new cache is empty: do not touch its pages */
		memset(c->ips, 0, sizeof(c->ips));
	mt_memo_clear(&c->memo);
	c->count = 0;
	c->epoch = epoch;
	t->stack_low = c->bounds.floor;
	t->stack_high = c->bounds.high;
}

void mt_stack_prepare(void)
{
	mt_modules_init();
	mt_bounds_init();
}

void mt_stack_init(struct mt_thread *t, unsigned int max_depth, int python, int late)
{
	uint32_t end;

	mt_native_depth = max_depth < 2 ? 2 : max_depth;
	if (mt_native_depth > MT_DEPTH_MAX)
		mt_native_depth = MT_DEPTH_MAX;
	mt_modules_init();
	if (late && !mt_modules_need_scan()) {
		mt_python_init(t, python);
		return;
	}
	if (!late)
		mt_bounds_init();
	mt_stack_modules_scan(t);
	/* What is mapped when the shim starts has been relocated: ld.so runs no code before that.
	 */
	end = mt_modules_end();
	for (uint32_t i = 1; i < end; i++)
		if (mt_module_get(i))
			mt_module_mark_running(mt_module_get(i));
	mt_python_init(t, python);
}

/* Hung on a test that is there anyway: a branch of its own cost 9 ns of a stack 80 deep. */
__attribute__((cold, noinline)) static uint32_t find_verified(struct mt_native_cache *c,
							      struct mt_thread *t,
							      struct mt_caller caller)
{
	uint32_t node;

	c->busy = 0;
	node = mt_stack_native(t, caller);
	c->busy = 1;
	if (mt_verify_every) /* 0 in a forked child, also for structs of threads it has not */
		mt_verify(c, t, caller, node);
	c->busy = mt_verify_every ? MT_BUSY_VERIFY : 0;
	return node;
}

void mt_native_verify(struct mt_thread *t)
{
	struct mt_native_cache *c = t ? t->native_cache : NULL;

	if (c && !c->busy)
		c->busy = MT_BUSY_VERIFY;
}

uint32_t mt_stack_native(struct mt_thread *t, struct mt_caller caller)
{
	struct mt_native_cache *c = t->native_cache;
	uint32_t epoch, node;

	if (__builtin_expect(!c, 0) && !(c = cache_new(t)))
		return 0;
	if (__builtin_expect(c->busy, 0) &&
	    (c->busy == MT_BUSY_VERIFY || c->bounds.owner == mt_bounds_thread()))
		return c->busy == MT_BUSY_VERIFY ? find_verified(c, t, caller) : 0;
	c->busy = 1;
	/* Acquire: an epoch seen comes with the marks it announces. */
	epoch = __atomic_load_n(&mt_modules_epoch, __ATOMIC_ACQUIRE);
	if (__builtin_expect(c->epoch != epoch || c->bounds.owner != mt_bounds_thread(), 0))
		cache_renew(c, t, epoch);
	c->strict = __atomic_load_n(&mt_modules_unloading, __ATOMIC_RELAXED) != 0;
	if (__builtin_expect(c->strict || !mt_bounds_own(&c->bounds, caller.slot), 0))
		node = mt_native_walk(c, t, caller.slot, caller.rbp);
	else
		node = native_own(c, t, caller);
	c->busy = 0;
	return node;
}

uint32_t mt_stack_interrupted(struct mt_thread *t, const void *context)
{
	struct mt_native_cache *c = t->native_cache;
	uint32_t epoch, node, busy;

	if (!c && !(c = cache_new(t)))
		return 0;
	busy = c->busy;
	if (busy && busy != MT_BUSY_VERIFY)
		return 0;
	c->busy = 1;
	epoch = __atomic_load_n(&mt_modules_epoch, __ATOMIC_ACQUIRE);
	if (c->epoch != epoch || c->bounds.owner != mt_bounds_thread())
		cache_renew(c, t, epoch);
	c->strict = __atomic_load_n(&mt_modules_unloading, __ATOMIC_RELAXED) != 0;
	node = mt_native_walk_context(c, t, context);
	c->busy = busy;
	return node;
}

int mt_stack_is_elsewhere(struct mt_thread *t, uintptr_t address)
{
	const struct mt_native_cache *c = t->native_cache;

	return c && c->bounds.owner == mt_bounds_thread() &&
	       (address < c->bounds.floor || address >= c->bounds.high) &&
	       !mt_module_at(t, address);
}

void mt_stack_child(struct mt_thread *t)
{
	struct mt_native_cache *c = t ? t->native_cache : NULL;

	mt_modules_child();
	mt_rules_child();
	mt_intern_child();
	mt_verify_child();
	mt_pycode_child();
	mt_python_child(t);
	if (c) {
		c->busy = 0;
		mt_memo_child(&c->memo);
	}
}

void mt_stack_forget(void)
{
	mt_modules_forget();
	mt_rules_forget();
	mt_intern_forget();
	mt_pycode_forget();
	mt_python_forget();
}
