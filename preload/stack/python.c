/*
 * The Python stack of the running thread. See stack.h, python.h and python_layout.def.
 *
 * No lock, no GIL, no allocating API: only the thread itself changes its own frames, they hold
 * references to their code objects, and every instruction pointer is stored before the instruction
 * runs. interpreter.c finds the innermost frame.
 *
 * As with native stacks the last one is kept: a live frame that equals a kept one in address,
 * code and position starts a comparison outwards along the live chain. Only frames that the chain
 * has reached are ever read: others may be unmapped.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "stack/python.h"

#include "core/mem.h"
#include "stack/native.h"
#include "stack/stack.h"

enum { KEPT = 1024, INDEX = 256, FRONT_BITS = 10 };

/* A frame of the last stack, outermost first. */
struct kept {
	uintptr_t frame;
	struct mt_pyframe f;
	uint32_t node; /* 0: not numbered, being deeper than may be shown */
	uint32_t shim; /* no Python frame: the outer end of an eval loop's */
};

struct front {
	uintptr_t code, ip;
	uint32_t parent, entry;
	uint32_t node; /* 0: empty */
};

struct python_cache {
	uint32_t epoch; /* mt_pycode_epoch */
	uint32_t tid; /* the thread that filled it */
	uint32_t busy;
	uint32_t count; /* of kept[] */
	uint32_t cut; /* the kept frames are not all: the chain went on */
	uint16_t index[INDEX]; /* by frame address: where in kept[] it may be */
	struct front front[1 << FRONT_BITS];
	struct kept kept[KEPT];
	struct kept fresh[KEPT]; /* scratch: new frames, innermost first */
};

/* ---- the walk -------------------------------------------------------------------------------- */

static void frame_read(uintptr_t frame, struct kept *k)
{
	const struct mt_python_layout *l = &mt_python_layout;

	k->frame = frame;
	k->f.code = mt_python_word(frame, l->code) & MT_PYTHON_UNTAG;
	k->f.ip = l->ip_kind == MT_PYTHON_ADDRESS
			  ? mt_python_word(frame, l->ip)
			  : (uintptr_t)(uint32_t)mt_python_int(frame, l->ip);
	k->shim = l->entry_kind == MT_PYTHON_OWNER &&
		  mt_python_byte(frame, l->entry) >= MT_PYTHON_OWNER_SHIM;
	k->f.entry = l->entry_kind == MT_PYTHON_ALWAYS ||
		     (l->entry_kind == MT_PYTHON_FLAG && mt_python_byte(frame, l->entry));
	k->node = 0;
}

static uint32_t node_find(struct python_cache *c, struct mt_thread *t, uint32_t parent,
			  const struct mt_pyframe *f)
{
	uint64_t hash = (f->code ^ f->ip * 31 ^ parent) * UINT64_C(0x9e3779b97f4a7c15);
	struct front *e = &c->front[hash >> (64 - FRONT_BITS)];

	if (e->node && e->code == f->code && e->ip == f->ip && e->parent == parent &&
	    e->entry == f->entry)
		return e->node;
	*e = (struct front){ f->code, f->ip, parent, f->entry, mt_pynode_intern(t, parent, f) };
	return e->node;
}

/* Numbers kept frames from `low` on. Those deeper than may be shown get none. */
static void kept_intern(struct python_cache *c, struct mt_thread *t, uint32_t low)
{
	for (uint32_t i = low; i < c->count; i++) {
		struct kept *k = &c->kept[i];
		uint32_t parent = i ? k[-1].node : 0;

		if (mt_python_layout.entry_kind == MT_PYTHON_OWNER)
			k->f.entry = !i || k[-1].shim;
		k->node = 0;
		if (c->cut || i >= mt_native_depth || (i && !parent && !k[-1].shim))
			continue;
		k->node = k->shim ? parent : node_find(c, t, parent, &k->f);
		if (__builtin_expect(mt_pyargs_code != 0, 0) && mt_pyargs_code == k->f.code)
			mt_pyargs_read(t, k->frame, k->f.code);
	}
}

/* The stack of more frames than may be shown: both ends and a mark. */
static uint32_t cut_node(struct python_cache *c, struct mt_thread *t)
{
	uint32_t outer = mt_native_depth / 2, inner = mt_native_depth - outer;
	uint32_t parent = c->cut ? 0 : c->kept[outer - 1].node;
	uint32_t node = mt_pynode_intern(t, parent, NULL);

	for (uint32_t i = c->count > inner ? c->count - inner : 0; node && i < c->count; i++)
		if (!c->kept[i].shim)
			node = node_find(c, t, node, &c->kept[i].f);
	return node;
}

/*
 * Compares kept frames from number k outwards with the live chain, bringing positions up to date.
 * Returns the outermost one that changed (k + 1: none), or -1 when the chain is another. Expanded
 * once per kind of layout, so that the loop is four loads and compares a frame.
 */
static inline __attribute__((always_inline)) int64_t verify_as(struct python_cache *c, int64_t k,
							       enum mt_python_ip ip_kind,
							       enum mt_python_entry kind)
{
	const size_t back = mt_python_layout.back, code = mt_python_layout.code;
	const size_t at = mt_python_layout.ip, entry = mt_python_layout.entry;
	int64_t low = k + 1;

	for (struct kept *r = &c->kept[k]; r >= c->kept; r--) {
		uintptr_t ip = ip_kind == MT_PYTHON_ADDRESS
				       ? mt_python_word(r->frame, at)
				       : (uintptr_t)(uint32_t)mt_python_int(r->frame, at);

		/* An address is inside the code object: while none died (the epoch), it is that one. */
		uintptr_t differs = r->f.ip ^ ip;

		if (ip_kind != MT_PYTHON_ADDRESS)
			differs |= r->f.code ^ mt_python_word(r->frame, code);
		if (kind == MT_PYTHON_FLAG)
			differs |= r->f.entry ^ mt_python_byte(r->frame, entry);
		if (__builtin_expect(differs != 0, 0)) {
			frame_read(r->frame, r);
			low = r - c->kept;
		}
		/* A compare-and-branch, so that the next read need not wait for this pointer. */
		if (mt_python_word(r->frame, back) != (r == c->kept ? 0 : r[-1].frame))
			return -1;
	}
	return low;
}

static int64_t kept_verify(struct python_cache *c, int64_t k)
{
	switch (mt_python_layout.entry_kind) {
	case MT_PYTHON_ALWAYS:
		return verify_as(c, k, MT_PYTHON_BYTES, MT_PYTHON_ALWAYS);
	case MT_PYTHON_FLAG:
		return verify_as(c, k, MT_PYTHON_ADDRESS, MT_PYTHON_FLAG);
	default:
		return verify_as(c, k, MT_PYTHON_ADDRESS, MT_PYTHON_OWNER);
	}
}

static inline uint16_t *index_slot(struct python_cache *c, uintptr_t frame)
{
	return &c->index[frame >> 4 & (INDEX - 1)];
}

/* Brings kept[] up to date with the chain that starts at `frame`; the first changed number. */
static uint32_t kept_update(struct python_cache *c, uintptr_t frame)
{
	int64_t k = -1, low = 0;
	uint32_t n = 0;

	for (; frame && n < KEPT; frame = mt_python_word(frame, mt_python_layout.back)) {
		k = *index_slot(c, frame);
		if (k >= 0 && k < c->count && c->kept[k].frame == frame && !c->cut) {
			low = kept_verify(c, k);
			if (low >= 0)
				break;
			c->count = 0; /* positions were changed without new numbers: start afresh */
		}
		k = -1;
		c->fresh[n++].frame = frame;
	}
	if (k < 0) {
		c->cut = frame != 0;
		low = 0;
	}
	if ((uint64_t)k + 1 + n > KEPT) { /* deeper than can be kept: the inner end alone */
		n = KEPT / 2;
		k = -1;
		low = 0;
		c->cut = 1;
	}
	c->count = (uint32_t)(k + 1);
	while (n-- > 0) {
		*index_slot(c, c->fresh[n].frame) = (uint16_t)c->count;
		frame_read(c->fresh[n].frame, &c->kept[c->count++]);
	}
	return (uint32_t)low;
}

static uint32_t stack_number(struct python_cache *c, struct mt_thread *t, uintptr_t top)
{
	uint32_t low = kept_update(c, top);

	kept_intern(c, t, low);
	if (!c->count)
		return 0;
	if (c->cut || c->count > mt_native_depth)
		return cut_node(c, t);
	return c->kept[c->count - 1].node;
}

/* ---- entry ----------------------------------------------------------------------------------- */

static struct python_cache *cache_new(struct mt_thread *t)
{
	t->python_cache = mt_mem_map((sizeof(struct python_cache) + 4095) & ~(size_t)4095);
	return t->python_cache;
}

uint32_t mt_python_stack(struct mt_thread *t)
{
	struct python_cache *c = t->python_cache;
	uintptr_t top;
	uint32_t epoch, node;

	if (c && c->busy)
		return 0;
	top = mt_python_top(t);
	if (!top)
		return 0;
	if (!c && !(c = cache_new(t)))
		return 0;
	c->busy = 1;
	epoch = __atomic_load_n(&mt_pycode_epoch, __ATOMIC_ACQUIRE);
	/* Without the GIL the byte code's address is one of the thread's own. */
	if (__builtin_expect(c->epoch != epoch || c->tid != t->tid, 0)) {
		if (c->epoch) /* a new cache is empty: do not touch its pages */
			memset(c->front, 0, sizeof(c->front));
		c->count = 0;
		c->epoch = epoch;
		c->tid = t->tid;
	}
	node = stack_number(c, t, top);
	c->busy = 0;
	return node;
}

void mt_python_child(struct mt_thread *t)
{
	struct python_cache *c = t ? t->python_cache : NULL;

	if (c)
		c->busy = 0;
}
