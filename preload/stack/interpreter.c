/*
 * Which interpreter runs here, whether its frames lie where python_layout.def says, and the way to
 * the innermost one. See python.h.
 *
 * It is found by its symbols, read from the module's own tables: dlsym takes ld.so's lock, which a
 * thread may hold that waits for one the caller of malloc holds. Nothing of it is called before its
 * module runs, because until then it may not be relocated.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core/clock.h"
#include "core/tick.h"
#include "out/stream.h"
#include "stack/bounds.h"
#include "stack/modules.h"
#include "stack/python.h"
#include "stack/stack.h"
#include "sys/fmt.h"
#include "sys/sys.h"

enum { ARENA_FUNCTION_BYTES = 256, VERSION_MAX = 32, WORDS_MAX = 128 };

enum life { LIFE_NONE, LIFE_FOUND, LIFE_READY, LIFE_OFF };

struct mt_python_layout mt_python_layout;

static uint32_t life = LIFE_OFF; /* atomic; enum life; OFF until mt_python_init */
uint32_t mt_python_absent_at;
static uintptr_t (*thread_state)(void); /* PyGILState_GetThisThreadState */
static uintptr_t (*attached_state)(void); /* the one that runs now */
static uint32_t attached_is_own; /* since 3.12: in this thread, not in any */
static int (*is_finalizing)(void);
static uint32_t finalizing_pid; /* atomic; the process that was marked as shutting down */
static uintptr_t arena_alloc;

/* ---- finding the interpreter ----------------------------------------------------------------- */

static void note(struct mt_thread *t, const char *why, const char *version)
{
	char text[160];
	size_t n = mt_fmt(text, sizeof(text), "Python frames are not recorded: %s %s", why,
			  version);

	MT_EMIT(t, note, .time = mt_clock_now(), .text = { text, (uint32_t)n });
}

/* "3.11.7" in text and the minor version; 0: not Python 3. *hex: PY_VERSION_HEX, from 3.11 on. */
static unsigned int version_read(const struct mt_module *m, char *text, uint32_t *hex)
{
	uintptr_t data = mt_elf_symbol(&m->elf, "Py_Version"); /* since 3.11 */
	uintptr_t call = mt_elf_symbol(&m->elf, "Py_GetVersion");
	const char *p;
	size_t n = 0;

	if (data) {
		*hex = (uint32_t)mt_python_int(data, 0);
		mt_fmt(text, VERSION_MAX, "%u.%u.%u", *hex >> 24, *hex >> 16 & 255,
		       *hex >> 8 & 255);
		return *hex >> 24 == 3 ? *hex >> 16 & 255 : 0;
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

/* NULL, or why this interpreter's frames can't be read. */
static const char *layout_choose(const struct mt_module *m, unsigned int minor, uint32_t hex)
{
	uintptr_t runtime = mt_elf_symbol(&m->elf, "_PyRuntime");
	size_t count = runtime && mt_bounds_readable(runtime, WORDS_MAX * 8) ? WORDS_MAX : 0;

	return mt_python_layout_find(&mt_python_layout, minor, hex, (const uint64_t *)runtime,
				     count);
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

/* The functions that tell which frames are this thread's. 0, or -1: one is missing. */
static int functions_find(const struct mt_module *m, unsigned int minor, uintptr_t state)
{
	const struct mt_elf *elf = &m->elf;

	thread_state = (uintptr_t(*)(void))state;
	attached_state = (uintptr_t(*)(void))mt_elf_symbol(
		elf, minor >= 13 ? "PyThreadState_GetUnchecked" : "_PyThreadState_UncheckedGet");
	is_finalizing = (int (*)(void))mt_elf_symbol(elf, minor >= 13 ? "Py_IsFinalizing"
								      : "_Py_IsFinalizing");
	attached_is_own = minor >= 12;
	return is_finalizing && attached_state ? 0 : -1;
}

/* The module has the interpreter; its code may be called, for it is relocated. */
static void interpreter_adopt(struct mt_thread *t, const struct mt_module *m, uintptr_t state)
{
	char version[VERSION_MAX] = "";
	uint32_t hex = 0;
	unsigned int minor = version_read(m, version, &hex);
	uint32_t expected = LIFE_NONE;
	const char *why;

	/* LIFE_OFF while the pieces are put together, so that one thread does it. */
	if (!__atomic_compare_exchange_n(&life, &expected, LIFE_OFF, 0, __ATOMIC_ACQ_REL,
					 __ATOMIC_RELAXED))
		return;
	MT_EMIT(t, fact, .key = { "python", 6 }, .value = { version, (uint32_t)strlen(version) });
	arena_read(m);
	why = layout_choose(m, minor, hex);
	if (!why && functions_find(m, minor, state) < 0)
		why = "no known functions in CPython";
	if (why) {
		note(t, why, version);
		return;
	}
	__atomic_store_n(&life, LIFE_FOUND, __ATOMIC_RELEASE);
	__atomic_store_n(&mt_python_absent_at, MT_PYTHON_PRESENT, __ATOMIC_RELEASE);
}

static void interpreter_find(struct mt_thread *t)
{
	uint32_t checked = __atomic_load_n(&mt_python_absent_at, __ATOMIC_ACQUIRE);
	uint32_t running = __atomic_load_n(&mt_modules_running, __ATOMIC_ACQUIRE);
	uint32_t end = mt_modules_end();
	struct mt_module *m;
	uintptr_t state;

	/* Not over what another thread has found meanwhile. */
	if (checked == MT_PYTHON_PRESENT ||
	    !__atomic_compare_exchange_n(&mt_python_absent_at, &checked, running, 0,
					 __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		return;
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

/* ---- the first frame: is the layout true? ---------------------------------------------------- */

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
	const struct mt_python_layout *l = &mt_python_layout;
	uintptr_t object, name;

	if (safe_word(at, &object) < 0 ||
	    safe_word((object & MT_PYTHON_UNTAG) + l->object_type, type) < 0 ||
	    safe_word(*type + l->type_name, &name) < 0 || !mt_bounds_readable(name, 8))
		return 0;
	return mt_same((const char *)name, type_name);
}

/* A code object, as far as can be told, and the str that names it tells how a str is laid out. */
static int is_code(uintptr_t code)
{
	struct mt_python_layout *l = &mt_python_layout;
	uintptr_t type, name;
	int shift;

	if (!is_object_of(code + l->file, "str", &type) ||
	    !is_object_of(code + l->name, "str", &type) ||
	    !is_object_of(code + l->lines, "bytes", &type) ||
	    safe_word(code + l->name, &name) < 0 || !mt_bounds_readable(name, l->compact))
		return 0;
	shift = mt_python_str_shift((uint32_t)mt_python_int(name, l->str_state));
	if (shift < 0)
		return 0;
	l->str_shift = (uint16_t)shift;
	return 1;
}

/* 1: yes; 0: not to be told yet, there is no Python frame; -1: no. */
static int layout_is_true(uintptr_t state)
{
	const struct mt_python_layout *l = &mt_python_layout;
	uintptr_t thread, frame, code, type;
	int tries;

	/* A state that is attached here may have been made by another thread. */
	if (safe_word(state + l->thread, &thread) < 0 ||
	    (thread != mt_bounds_thread() && state == thread_state()) ||
	    safe_word(state + l->top, &frame) < 0)
		return -1;
	if (l->cframe >= 0 && safe_word(frame + (uintptr_t)l->cframe, &frame) < 0)
		return -1;
	for (tries = 0; frame && tries < 4; tries++) {
		if (is_object_of(frame + l->code, "code", &type) &&
		    safe_word(frame + l->code, &code) == 0 &&
		    (l->entry_kind != MT_PYTHON_OWNER ||
		     mt_python_byte(frame, l->entry) < MT_PYTHON_OWNER_SHIM))
			return is_code(code & MT_PYTHON_UNTAG) && mt_pycode_watch(type) == 0 ? 1
											     : -1;
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

/* ---- entry ----------------------------------------------------------------------------------- */

/*
 * CPython frees what it can when it ends: what was alive just before is what the program kept. Its
 * own functions can't be wrapped in an interpreter that is linked statically, so the first event
 * that finds it ending writes the mark, once in a process.
 */
static __attribute__((cold, noinline)) void shutdown_mark(struct mt_thread *t)
{
	uint32_t pid = (uint32_t)mt_sys_getpid();

	if (__atomic_exchange_n(&finalizing_pid, pid, __ATOMIC_RELAXED) == pid)
		return;
	MT_EMIT(t, mark, .time = mt_clock_now(), .kind = MT_MARK_SHUTDOWN);
	__atomic_store_n(&mt_tick_ending, 1, __ATOMIC_RELAXED);
	mt_tick_hurry(); /* a sample of what was kept */
}

/* Is the state this thread's, by what it says itself? A thread's identity is its pthread_t. */
static inline int state_is_own(uintptr_t state)
{
	return mt_python_word(state, mt_python_layout.thread) == mt_bounds_thread();
}

/*
 * The thread state whose frames are this thread's; 0: none.
 *
 * What is attached tells a sub-interpreter's from the main one's. Before 3.12 it is one variable for
 * all threads: another thread's, as a rule, when this one has given the GIL up. So it is used as long
 * as there is one thread. With several, the stack of a sub-interpreter is the main interpreter's
 * around it, and the analyzer sees that it has too few frames for the native one.
 */
static inline uintptr_t state_find(void)
{
	uintptr_t state;

	if (attached_is_own || !__atomic_load_n(&mt_thread_shared, __ATOMIC_RELAXED)) {
		state = attached_state();
		if (__builtin_expect(state && (attached_is_own || state_is_own(state)), 1))
			return state;
	}
	state = thread_state(); /* has it also when the thread is detached: without the GIL */
	/* Or one that was left behind by a thread whose identity this one has got. */
	return state && state_is_own(state) ? state : 0;
}

static uintptr_t frame_innermost(struct mt_thread *t)
{
	const struct mt_python_layout *l = &mt_python_layout;
	uintptr_t state = state_find(), top;

	if (!state)
		return 0;
	/* At the end the main thread frees the states of all others while these still run. */
	if (__builtin_expect(is_finalizing(), 0)) {
		shutdown_mark(t);
		if (mt_sys_gettid() != mt_sys_getpid())
			return 0;
	}
	if (__builtin_expect(__atomic_load_n(&life, __ATOMIC_ACQUIRE) != LIFE_READY, 0) &&
	    interpreter_check(t, state) < 0)
		return 0;
	top = mt_python_word(state, l->top);
	return top && l->cframe >= 0 ? mt_python_word(top, (size_t)l->cframe) : top;
}

uintptr_t mt_python_top(struct mt_thread *t)
{
	uint32_t now = __atomic_load_n(&life, __ATOMIC_ACQUIRE);

	if (now == LIFE_NONE)
		interpreter_find(t); /* modules have come since it was last looked for */
	if (now != LIFE_FOUND && now != LIFE_READY)
		return 0;
	return frame_innermost(t);
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

void mt_python_forget(void)
{
	__atomic_store_n(&life, LIFE_OFF, __ATOMIC_RELEASE);
	__atomic_store_n(&mt_python_absent_at, 0, __ATOMIC_RELEASE);
	arena_alloc = 0;
}
