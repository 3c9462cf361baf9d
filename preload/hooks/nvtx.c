/*
 * NVTX ranges and marks as phases and marks. NVTX, when a module uses it for the first time, loads
 * the library that NVTX_INJECTION64_PATH names and calls the function below: environ.c names us
 * there, unless another tool is named already: then MEMTRACE_NVTX names that one, and it is called
 * first and keeps getting everything.
 *
 * Layouts and numbers are those of NVTX's public headers (version 3).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/config.h"
#include "core/guard.h"
#include "core/mem.h"
#include "hooks/nvtx.h"
#include "record/record.h"

#define CALLBACKS 1 /* NvtxExportTableID: NVTX_ETID_CALLBACKS */
#define MODULE_CORE 1
#define MODULE_CORE2 5

enum { CORE_MARK_EX = 1, CORE_MARK = 2, CORE_PUSH_EX = 8, CORE_PUSH = 9, CORE_POP = 11 };
enum { CORE2_MARK_EX = 1, CORE2_PUSH_EX = 4, CORE2_POP = 5, CORE2_REGISTER = 10 };
enum { TEXT = 1, REGISTERED = 3 }; /* nvtxMessageType_t */

typedef void slot(void);

struct callbacks {
	size_t bytes;
	int (*table)(uint32_t module, slot ****table, uint32_t *count);
};

struct attributes { /* nvtxEventAttributes_t */
	uint16_t version, size;
	uint32_t category;
	int32_t color_type;
	uint32_t color;
	int32_t payload_type, reserved;
	uint64_t payload;
	int32_t message_type;
	const void *message;
};

static __thread uint32_t depth __attribute__((tls_model("initial-exec"))); /* open ranges */

/* ---- registered strings ---------------------------------------------------------------------------- */

#define STRINGS 1024
#define LONGEST 128

struct string {
	const void *handle; /* atomic; stored last; NULL: free */
	char text[LONGEST];
};

static struct string *strings; /* atomic; STRINGS of them, once one is registered */
static uint32_t string_count; /* atomic; places given out */

static struct string *strings_get(void)
{
	struct string *s = __atomic_load_n(&strings, __ATOMIC_ACQUIRE), *none = NULL;

	if (s)
		return s;
	s = mt_mem_keep(STRINGS * sizeof(*s)); /* one that comes second is lost: 128 KiB, once */
	if (__atomic_compare_exchange_n(&strings, &none, s, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		return s;
	return none;
}

/* Its handle: the other tool's, else the place's. Beyond the last place: one for all, without text. */
static const void *string_add(const char *text, const void *handle)
{
	struct string *all = text ? strings_get() : NULL;
	uint32_t i = all ? __atomic_fetch_add(&string_count, 1, __ATOMIC_RELAXED) : STRINGS;

	if (i >= STRINGS)
		return handle ? handle : &string_count;
	memcpy(all[i].text, text, strnlen(text, LONGEST - 1));
	__atomic_store_n(&all[i].handle, handle ? handle : &all[i], __ATOMIC_RELEASE);
	return all[i].handle;
}

const char *mt_nvtx_text(int32_t type, const void *message)
{
	const struct string *all = __atomic_load_n(&strings, __ATOMIC_ACQUIRE);
	uint32_t count = __atomic_load_n(&string_count, __ATOMIC_RELAXED);

	if (type == TEXT && message)
		return message;
	for (uint32_t i = 0; type == REGISTERED && all && message && i < count && i < STRINGS; i++)
		if (__atomic_load_n(&all[i].handle, __ATOMIC_ACQUIRE) == message)
			return all[i].text;
	return "";
}

static const char *text_of(const struct attributes *a)
{
	return a ? mt_nvtx_text(a->message_type, a->message) : "";
}

/* ---- ranges and marks ------------------------------------------------------------------------------ */

static void mark(enum mt_mark_kind kind, const char *label)
{
	int saved = errno;
	struct mt_thread *t = mt_enter();

	if (t) {
		mt_record_mark(t, kind, 0, label);
		mt_leave(t);
	}
	errno = saved;
}

/* Outermost ranges are phases; those inside are too many to be anybody's phase. */
static int push(const char *label)
{
	if (!depth++ && *label)
		mark(MT_MARK_PHASE, label);
	return (int)depth - 1;
}

static int pop(void)
{
	if (depth && !--depth)
		mark(MT_MARK_PHASE, "");
	return (int)depth;
}

/* What another tool put there before us, called first. One module's is like the other's. */
static struct {
	void (*mark_ex)(const struct attributes *);
	void (*mark)(const char *);
	int (*push_ex)(const struct attributes *);
	int (*push)(const char *);
	int (*pop)(void);
	void (*domain_mark)(void *, const struct attributes *);
	int (*domain_push)(void *, const struct attributes *);
	int (*domain_pop)(void *);
	const void *(*add)(void *, const char *);
} other;

static void on_mark_ex(const struct attributes *a)
{
	if (other.mark_ex)
		other.mark_ex(a);
	mark(MT_MARK_MARK, text_of(a));
}

static void on_mark(const char *text)
{
	if (other.mark)
		other.mark(text);
	mark(MT_MARK_MARK, text ? text : "");
}

static int on_push_ex(const struct attributes *a)
{
	int level = push(text_of(a));

	return other.push_ex ? other.push_ex(a) : level;
}

static int on_push(const char *text)
{
	int level = push(text ? text : "");

	return other.push ? other.push(text) : level;
}

static int on_pop(void)
{
	int level = pop();

	return other.pop ? other.pop() : level;
}

static void on_domain_mark(void *domain, const struct attributes *a)
{
	if (other.domain_mark)
		other.domain_mark(domain, a);
	mark(MT_MARK_MARK, text_of(a));
}

static int on_domain_push(void *domain, const struct attributes *a)
{
	int level = push(text_of(a));

	return other.domain_push ? other.domain_push(domain, a) : level;
}

static int on_domain_pop(void *domain)
{
	int level = pop();

	return other.domain_pop ? other.domain_pop(domain) : level;
}

static const void *on_register(void *domain, const char *text)
{
	int saved = errno;
	const void *handle = string_add(text, other.add ? other.add(domain, text) : NULL);

	errno = saved;
	return handle;
}

static void put(slot ***table, uint32_t count, uint32_t at, void *ours, void *theirs)
{
	if (at >= count || !table[at])
		return;
	if ((void *)(uintptr_t)*table[at] != ours)
		*(void **)theirs = (void *)(uintptr_t)*table[at];
	*table[at] = (slot *)(uintptr_t)ours;
}

#define PUT(at, function, member)                                                                  \
	put(table, count, at, (void *)(uintptr_t)(function), &other.member)

static int attach(const struct callbacks *c, int has_other)
{
	slot ***table;
	uint32_t count;

	if (!has_other)
		memset(&other, 0, sizeof(other)); /* the slots hold NVTX's own start-up code */
	if (!c || !c->table || !c->table(MODULE_CORE, &table, &count))
		return 0;
	PUT(CORE_MARK_EX, on_mark_ex, mark_ex);
	PUT(CORE_MARK, on_mark, mark);
	PUT(CORE_PUSH_EX, on_push_ex, push_ex);
	PUT(CORE_PUSH, on_push, push);
	PUT(CORE_POP, on_pop, pop);
	if (c->table(MODULE_CORE2, &table, &count)) {
		PUT(CORE2_MARK_EX, on_domain_mark, domain_mark);
		PUT(CORE2_PUSH_EX, on_domain_push, domain_push);
		PUT(CORE2_POP, on_domain_pop, domain_pop);
		PUT(CORE2_REGISTER, on_register, add);
	}
	if (!has_other)
		memset(&other, 0, sizeof(other));
	return 1;
}

/* Ranges of the mathematics libraries are theirs and no phase of the program: they are declined. */
static int is_library(const void *in_module)
{
	static const char *const stems[] = { "libcublas",   "libcudnn",	   "libnccl",
					     "libcusparse", "libcusolver", "libcufft" };
	const char *base;
	Dl_info info;

	if (!dladdr(in_module, &info) || !info.dli_fname)
		return 0;
	base = strrchr(info.dli_fname, '/');
	base = base ? base + 1 : info.dli_fname;
	for (size_t i = 0; i < sizeof(stems) / sizeof(stems[0]); i++)
		if (!strncmp(base, stems[i], strlen(stems[i])))
			return 1;
	return 0;
}

typedef const void *export_table_fn(uint32_t id);

MT_EXPORT int InitializeInjectionNvtx2(export_table_fn *get);
MT_EXPORT int InitializeInjectionNvtx2(export_table_fn *get)
{
	const char *path = mt_config.nvtx;
	void *tool = *path ? dlopen(path, RTLD_LAZY | RTLD_LOCAL) : NULL;
	int (*init)(export_table_fn *) = NULL, theirs = 0;

	if (tool)
		*(void **)&init = dlsym(tool, "InitializeInjectionNvtx2");
	if (init)
		theirs = init(get);
	if (!mt_config.gpu || is_library((const void *)(uintptr_t)get))
		return theirs;
	return attach(get(CALLBACKS), theirs) || theirs;
}
