/*
 * The Python stack of the running thread. See stack.h, python.h and python_layout.def.
 *
 * No lock, no GIL, no allocating API: only the thread itself changes its own frames, they hold
 * references to their code objects, and every instruction pointer is stored before the instruction
 * runs. The interpreter is found by its symbols when its module begins to run.
 *
 * As with native stacks the last one is kept: a live frame that equals a kept one in address,
 * code and position starts a comparison outwards along the live chain. Only frames that the chain
 * has reached are ever read: others may be unmapped.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "stack/python.h"

#include <pthread.h>

#include "core/clock.h"
#include "core/mem.h"
#include "out/stream.h"
#include "stack/bounds.h"
#include "stack/modules.h"
#include "stack/stack.h"
#include "sys/fmt.h"
#include "sys/sys.h"

enum { KEPT = 1024, INDEX = 256, FRONT_BITS = 10, ARENA_FUNCTION_BYTES = 256, VERSION_MAX = 32 };

enum life { LIFE_NONE, LIFE_FOUND, LIFE_READY, LIFE_OFF };

static const struct mt_python_layout layouts[] = {
#define NONE (-1)
#define MT_PYTHON(minor, top, cframe, thread, back, code, ip, ip_kind, entry, entry_kind, file,    \
		  name, first_line, lines, lines_kind, start, ascii, compact)                      \
	{ minor, top,	     cframe, thread, back, code, ip, MT_PYTHON_##ip_kind,                  \
	  entry, MT_PYTHON_##entry_kind, file, name, first_line, lines,                            \
	  MT_LINES_##lines_kind, start, ascii, compact },
#include "stack/python_layout.def"
#undef MT_PYTHON
#undef NONE
};

struct mt_python_layout mt_python_layout;

static uint32_t life = LIFE_OFF; /* atomic; enum life; OFF until mt_python_init */
static uint32_t modules_checked; /* atomic; mt_modules_running when last looked for Python */
static uintptr_t (*thread_state)(void); /* PyGILState_GetThisThreadState */
static int (*is_finalizing)(void);
static uintptr_t arena_alloc;

extern unsigned int mt_native_depth;

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
	uint32_t busy;
	uint32_t count; /* of kept[] */
	uint32_t cut; /* the kept frames are not all: the chain went on */
	uint16_t index[INDEX]; /* by frame address: where in kept[] it may be */
	struct front front[1 << FRONT_BITS];
	struct kept kept[KEPT];
	struct kept fresh[KEPT]; /* scratch: new frames, innermost first */
};

/* ---- finding the interpreter --------------------------------------------------------------------- */

static void note(struct mt_thread *t, const char *why, const char *version)
{
	char text[160];
	size_t n = mt_fmt(text, sizeof(text), "Python frames are not recorded: %s %s", why, version);

	MT_EMIT(t, note, .time = mt_clock_before(), .text = { text, (uint32_t)n });
}

/* "3.11.7" in text and the minor version; 0: not Python 3. */
static unsigned int version_read(const struct mt_module *m, char *text)
{
	uintptr_t data = mt_elf_symbol(&m->elf, "Py_Version"); /* since 3.11 */
	uintptr_t call = mt_elf_symbol(&m->elf, "Py_GetVersion");
	const char *p;
	uint32_t hex;
	size_t n = 0;

	if (data) {
		hex = (uint32_t)mt_python_int(data, 0);
		mt_fmt(text, VERSION_MAX, "%u.%u.%u", hex >> 24, hex >> 16 & 255, hex >> 8 & 255);
		return hex >> 24 == 3 ? hex >> 16 & 255 : 0;
	}
	if (!call)
		return 0;
	p = ((const char *(*)(void))call)(); /* fills a static buffer */
	for (; n < VERSION_MAX - 1 && (*p == '.' || (*p >= '0' && *p <= '9')); p++)
		text[n++] = *p;
	text[n] = '\0';
	if (text[0] != '3' || text[1] != '.')
		return 0;
	p = text + 2;
	return (unsigned int)mt_parse_number(&p, 10);
}

static int layout_choose(const struct mt_module *m, unsigned int minor)
{
	uintptr_t runtime = mt_elf_symbol(&m->elf, "_PyRuntime");

	/* 3.13 and later tell whether objects have the layout of a build without the GIL. */
	if (minor >= 13 && runtime && !memcmp((const void *)runtime, "xdebugpy", 8) &&
	    mt_python_word(runtime, 16))
		return -1;
	for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++) {
		if (layouts[i].minor == minor) {
			mt_python_layout = layouts[i];
			return 0;
		}
	}
	return -1;
}

static void arena_read(const struct mt_module *m)
{
	struct {
		void *context;
		void *(*alloc)(void *context, size_t size);
		void (*free)(void *context, void *p, size_t size);
	} allocator = { 0 };
	uintptr_t get = mt_elf_symbol(&m->elf, "PyObject_GetArenaAllocator");

	if (!get)
		return;
	((void (*)(void *))get)(&allocator); /* copies a static struct */
	arena_alloc = (uintptr_t)allocator.alloc;
}

/* The module has the interpreter; its code may be called, for it is relocated. */
static void interpreter_adopt(struct mt_thread *t, const struct mt_module *m, uintptr_t state)
{
	char version[VERSION_MAX] = "";
	unsigned int minor = version_read(m, version);
	uint32_t expected = LIFE_NONE;
	uintptr_t finalizing = mt_elf_symbol(&m->elf, minor >= 13 ? "Py_IsFinalizing" :
								    "_Py_IsFinalizing");

	/* LIFE_OFF while the pieces are put together, so that one thread does it. */
	if (!__atomic_compare_exchange_n(&life, &expected, LIFE_OFF, 0, __ATOMIC_ACQ_REL,
					 __ATOMIC_RELAXED))
		return;
	MT_EMIT(t, fact, .key = { "python", 6 }, .value = { version, (uint32_t)strlen(version) });
	arena_read(m);
	if (layout_choose(m, minor) < 0 || !finalizing) {
		note(t, "no known layout for CPython", version);
		return;
	}
	thread_state = (uintptr_t(*)(void))state;
	is_finalizing = (int (*)(void))finalizing;
	__atomic_store_n(&life, LIFE_FOUND, __ATOMIC_RELEASE);
}

static void interpreter_find(struct mt_thread *t)
{
	uint32_t running = __atomic_load_n(&mt_modules_running, __ATOMIC_ACQUIRE);
	uint32_t end = mt_modules_end();
	struct mt_module *m;
	uintptr_t state;

	__atomic_store_n(&modules_checked, running, __ATOMIC_RELAXED);
	for (uint32_t i = 1; i < end; i++) {
		m = mt_module_get(i);
		if (!m || m->gone || m->self || !__atomic_load_n(&m->running, __ATOMIC_ACQUIRE))
			continue;
		state = mt_elf_symbol(&m->elf, "PyGILState_GetThisThreadState");
		if (state) {
			interpreter_adopt(t, m, state);
			return;
		}
	}
}

/* ---- the first frame: is the layout true? ---------------------------------------------------------- */

/* A word behind a pointer that may be anything. */
static int safe_word(uintptr_t address, uintptr_t *word)
{
	if (!address || address % 8 || address >> 56 || !mt_bounds_readable(address, 8))
		return -1;
	*word = *(const uintptr_t *)address;
	return 0;
}

/* Is the object behind the pointer at `at` of that type? Its type in *type. */
static int is_object_of(uintptr_t at, const char *type_name, uintptr_t *type)
{
	uintptr_t object, name;

	if (safe_word(at, &object) < 0 || safe_word(object + MT_PYTHON_OBJECT_TYPE, type) < 0 ||
	    safe_word(*type + MT_PYTHON_TYPE_NAME, &name) < 0 || !mt_bounds_readable(name, 8))
		return 0;
	return mt_same((const char *)name, type_name);
}

/* 1: yes; 0: not to be told yet, there is no Python frame; -1: no. */
static int layout_is_true(uintptr_t state)
{
	const struct mt_python_layout *l = &mt_python_layout;
	uintptr_t thread, frame, code, type, other;
	int tries;

	if (safe_word(state + l->thread, &thread) < 0 || thread != (uintptr_t)pthread_self() ||
	    safe_word(state + l->top, &frame) < 0)
		return -1;
	if (l->cframe >= 0 && safe_word(frame + (uintptr_t)l->cframe, &frame) < 0)
		return -1;
	for (tries = 0; frame && tries < 4; tries++) {
		if (is_object_of(frame + l->code, "code", &type) &&
		    safe_word(frame + l->code, &code) == 0 &&
		    (l->entry_kind != MT_PYTHON_OWNER ||
		     mt_python_byte(frame, l->entry) != MT_PYTHON_OWNER_SHIM)) {
			if (is_object_of(code + l->file, "str", &other) &&
			    is_object_of(code + l->name, "str", &other) &&
			    is_object_of(code + l->lines, "bytes", &other))
				return mt_pycode_watch(type) == 0 ? 1 : -1;
			return -1;
		}
		if (l->entry_kind != MT_PYTHON_OWNER || safe_word(frame + l->back, &frame) < 0)
			return -1;
	}
	return 0;
}

static int interpreter_check(struct mt_thread *t, uintptr_t state)
{
	uint32_t expected = LIFE_FOUND;
	int truth = layout_is_true(state);

	if (truth == 0)
		return -1;
	if (__atomic_compare_exchange_n(&life, &expected, truth > 0 ? LIFE_READY : LIFE_OFF, 0,
					__ATOMIC_ACQ_REL, __ATOMIC_RELAXED) &&
	    truth < 0)
		note(t, "this build of CPython has another layout", "");
	return truth > 0 ? 0 : -1;
}

/* ---- the walk ------------------------------------------------------------------------------------ */

static void frame_read(uintptr_t frame, struct kept *k)
{
	const struct mt_python_layout *l = &mt_python_layout;

	k->frame = frame;
	k->f.code = mt_python_word(frame, l->code);
	k->f.ip = l->ip_kind == MT_PYTHON_ADDRESS ? mt_python_word(frame, l->ip) :
						     (uintptr_t)(uint32_t)mt_python_int(frame, l->ip);
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
static inline __attribute__((always_inline)) int64_t
verify_as(struct python_cache *c, int64_t k, enum mt_python_ip ip_kind, enum mt_python_entry kind)
{
	const size_t back = mt_python_layout.back, code = mt_python_layout.code;
	const size_t at = mt_python_layout.ip, entry = mt_python_layout.entry;
	int64_t low = k + 1;

	for (struct kept *r = &c->kept[k]; r >= c->kept; r--) {
		uintptr_t ip = ip_kind == MT_PYTHON_ADDRESS ?
				       mt_python_word(r->frame, at) :
				       (uintptr_t)(uint32_t)mt_python_int(r->frame, at);

		if (__builtin_expect(r->f.ip != ip ||
					     r->f.code != mt_python_word(r->frame, code) ||
					     (kind == MT_PYTHON_FLAG &&
					      r->f.entry != mt_python_byte(r->frame, entry)),
				     0)) {
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

/* ---- entry --------------------------------------------------------------------------------------- */

static struct python_cache *cache_get(struct mt_thread *t)
{
	if (!t->python_cache)
		t->python_cache = mt_mem_map((sizeof(struct python_cache) + 4095) & ~(size_t)4095);
	return t->python_cache;
}

/* The innermost frame of this thread, or 0. */
static uintptr_t frame_top(struct mt_thread *t)
{
	const struct mt_python_layout *l = &mt_python_layout;
	uintptr_t state = thread_state(), top;

	if (!state)
		return 0;
	/* At the end the main thread frees the states of all others while these still run. */
	if (__builtin_expect(is_finalizing(), 0) && mt_sys_gettid() != mt_sys_getpid())
		return 0;
	if (__builtin_expect(__atomic_load_n(&life, __ATOMIC_ACQUIRE) != LIFE_READY, 0) && interpreter_check(t, state) < 0)
		return 0;
	if (mt_python_word(state, l->thread) != (uintptr_t)pthread_self())
		return 0;
	top = mt_python_word(state, l->top);
	return top && l->cframe >= 0 ? mt_python_word(top, (size_t)l->cframe) : top;
}

uint32_t mt_stack_python(struct mt_thread *t)
{
	uint32_t now = __atomic_load_n(&life, __ATOMIC_ACQUIRE), epoch, node = 0;
	struct python_cache *c;
	uintptr_t top;

	if (now == LIFE_NONE &&
	    modules_checked != __atomic_load_n(&mt_modules_running, __ATOMIC_RELAXED))
		interpreter_find(t);
	if (now != LIFE_FOUND && now != LIFE_READY)
		return 0;
	c = cache_get(t);
	if (!c || c->busy)
		return 0;
	c->busy = 1;
	epoch = __atomic_load_n(&mt_pycode_epoch, __ATOMIC_ACQUIRE);
	if (__builtin_expect(c->epoch != epoch, 0)) {
		memset(c->front, 0, sizeof(c->front));
		c->count = 0;
		c->epoch = epoch;
	}
	top = frame_top(t);
	if (top)
		node = stack_number(c, t, top);
	c->busy = 0;
	return node;
}

int mt_python_is_arena_caller(uintptr_t return_address)
{
	return arena_alloc && return_address - arena_alloc < ARENA_FUNCTION_BYTES;
}

void mt_python_init(struct mt_thread *t, int wanted)
{
	if (!wanted)
		return;
	__atomic_store_n(&life, LIFE_NONE, __ATOMIC_RELEASE);
	interpreter_find(t);
}
