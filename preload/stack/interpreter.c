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
#include <pthread.h>

#include "core/clock.h"
#include "out/stream.h"
#include "stack/bounds.h"
#include "stack/modules.h"
#include "stack/python.h"
#include "stack/stack.h"
#include "sys/fmt.h"
#include "sys/sys.h"

enum { ARENA_FUNCTION_BYTES = 256, VERSION_MAX = 32 };

enum life { LIFE_NONE, LIFE_FOUND, LIFE_READY, LIFE_OFF };

static const struct mt_python_layout layouts[] = {
/* clang-format off */
#define NONE (-1)
#define MT_PYTHON(minor, top, cframe, thread, back, code, ip, ip_kind, entry, entry_kind,          \
		  file, name, first_line, lines, lines_kind, start, ascii, compact)                \
	{ minor, top, cframe, thread, back, code, ip, MT_PYTHON_##ip_kind, entry,                  \
	  MT_PYTHON_##entry_kind, file, name, first_line, lines, MT_LINES_##lines_kind, start,     \
	  ascii, compact },
#include "stack/python_layout.def"
#undef MT_PYTHON
#undef NONE
	/* clang-format on */
};

struct mt_python_layout mt_python_layout;

static uint32_t life = LIFE_OFF; /* atomic; enum life; OFF until mt_python_init */
static uint32_t modules_checked; /* atomic; mt_modules_running when last looked for Python */
static uintptr_t (*thread_state)(void); /* PyGILState_GetThisThreadState */
static uintptr_t (*attached_state)(void); /* the one that runs now; NULL before 3.12 */
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
	uintptr_t finalizing = mt_elf_symbol(&m->elf,
					     minor >= 13 ? "Py_IsFinalizing" : "_Py_IsFinalizing");

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
	/* Before 3.12 the attached state is a global variable that may be another thread's. */
	if (minor >= 12)
		attached_state = (uintptr_t(*)(void))mt_elf_symbol(
			&m->elf,
			minor >= 13 ? "PyThreadState_GetUnchecked" : "_PyThreadState_UncheckedGet");
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

/* ---- entry ----------------------------------------------------------------------------------- */

/*
 * CPython frees what it can when it ends: what was alive just before is what the program kept. Its
 * own functions can't be wrapped in an interpreter that is linked statically, so the first event
 * that finds it ending writes the mark, once in a process.
 */
static __attribute__((cold, noinline)) void shutdown_mark(struct mt_thread *t)
{
	uint32_t pid = (uint32_t)mt_sys_getpid();

	if (__atomic_exchange_n(&finalizing_pid, pid, __ATOMIC_RELAXED) != pid)
		MT_EMIT(t, mark, .time = mt_clock_now(), .kind = MT_MARK_SHUTDOWN);
}

static uintptr_t frame_innermost(struct mt_thread *t)
{
	const struct mt_python_layout *l = &mt_python_layout;
	uintptr_t state = attached_state ? attached_state() : 0, top;

	/* Detached (the GIL is given up), or no sub-interpreters to be told apart. */
	if (!state)
		state = thread_state();
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
	if (mt_python_word(state, l->thread) != (uintptr_t)pthread_self())
		return 0;
	top = mt_python_word(state, l->top);
	return top && l->cframe >= 0 ? mt_python_word(top, (size_t)l->cframe) : top;
}

uintptr_t mt_python_top(struct mt_thread *t)
{
	uint32_t now = __atomic_load_n(&life, __ATOMIC_ACQUIRE);

	if (now == LIFE_NONE &&
	    modules_checked != __atomic_load_n(&mt_modules_running, __ATOMIC_RELAXED))
		interpreter_find(t);
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
	modules_checked = 0;
	arena_alloc = 0;
}
