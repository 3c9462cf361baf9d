/*
 * The module table. See modules.h, and stack.h for scan and unload.
 *
 * Where ld.so has no lock-free look-up, the table itself is searched by address, and filled by
 * dl_iterate_phdr. That call takes ld.so's lock: a forked child may find it held by a thread that
 * no longer exists, so there it is never made again.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "stack/modules.h"

#include <limits.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "core/clock.h"
#include "core/ids.h"
#include "core/mem.h"
#include "out/stream.h"
#include "stack/intern.h"
#include "stack/stack.h"
#include "sys/fmt.h"
#include "sys/sys.h"

enum { MODULES_MAX = 16384 };

/* struct dl_find_object, which older headers do not declare. */
struct object {
	unsigned long long flags;
	void *start, *end;
	struct link_map *map;
	void *eh_frame;
	unsigned long long reserved[8];
};

extern int object_of_address(void *address, struct object *o) __asm__("_dl_find_object")
	__attribute__((weak));

uint32_t mt_modules_epoch = 1;
uint32_t mt_modules_unloading;
uint32_t mt_modules_running;
int mt_modules_force_scan;

static int (*find_object)(void *address, struct object *o); /* NULL: scan instead */
static int in_child; /* forked: ld.so's lock may never come free */
static struct mt_module *modules[MODULES_MAX]; /* atomic each; from 1 */
static uint32_t next_module = 1; /* atomic */
static struct mt_map by_start = { .first_bits = 9, .limit = MODULES_MAX };

void mt_modules_init(void)
{
	find_object = mt_modules_force_scan ? NULL : object_of_address;
}

struct mt_module *mt_module_get(uint32_t index)
{
	return __atomic_load_n(&modules[index], __ATOMIC_ACQUIRE);
}

uint32_t mt_modules_end(void)
{
	uint32_t end = __atomic_load_n(&next_module, __ATOMIC_ACQUIRE);

	return end < MODULES_MAX ? end : MODULES_MAX;
}

static uint64_t name_hash(const char *name)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	while (*name)
		h = (h ^ (uint8_t)*name++) * UINT64_C(0x100000001b3);
	return h;
}

/* ---- adding ---------------------------------------------------------------------------------- */

static uint64_t inode_of(const char *path)
{
	struct stat st;

	if (path[0] != '/' || mt_sys4(SYS_newfstatat, -1, path, &st, 0) < 0)
		return 0;
	return st.st_ino;
}

/* The file's absolute path as far as it can be known, in buf[PATH_MAX]. */
static void path_find(const struct mt_elf *elf, const char *name, char *buf)
{
	int n = 0;

	buf[0] = '\0';
	if (elf->start == (getauxval(AT_SYSINFO_EHDR) & ~(uintptr_t)4095)) {
		mt_fmt(buf, PATH_MAX, "[vdso]");
	} else if (!name[0]) {
		mt_sys_readlink("/proc/self/exe", buf, PATH_MAX);
	} else if (name[0] == '/') {
		mt_fmt(buf, PATH_MAX, "%s", name);
	} else {
		n = mt_sys_readlink("/proc/self/cwd", buf, PATH_MAX);
		if (n > 0)
			mt_fmt(buf + n, PATH_MAX - (size_t)n, "/%s", name);
	}
}

static int module_emit(struct mt_thread *t, const struct mt_module *m, const char *name)
{
	char *path = mt_mem_map(PATH_MAX); /* not on a stack that may be a signal handler's */
	int done;

	if (!path)
		return 0;
	path_find(&m->elf, name, path);
	done = MT_EMIT(t, module, .time = mt_clock_now(), .id = m->id, .bias = m->elf.bias,
		       .start = m->elf.start, .end = m->elf.end, .inode = inode_of(path),
		       .path = { path, (uint32_t)strlen(path) },
		       .build_id = { (const char *)m->elf.build_id, m->elf.build_id_bytes });
	mt_mem_unmap(path, PATH_MAX);
	return done;
}

/* A shim is a shared object, and this code is in it; in a unit test it is in the program itself. */
static int is_self(const struct mt_elf *elf, const char *name)
{
	uintptr_t here = (uintptr_t)&mt_modules_init;

	return name[0] && here >= elf->start && here < elf->end;
}

static void module_set_gone(struct mt_thread *t, uint32_t index)
{
	struct mt_module *m = mt_module_get(index);

	if (__atomic_exchange_n(&m->gone, 1, __ATOMIC_ACQ_REL))
		return;
	__atomic_fetch_add(&mt_modules_epoch, 1, __ATOMIC_ACQ_REL);
	MT_EMIT(t, module_gone, .time = mt_clock_now(), .id = m->id);
}

static void by_start_set(uintptr_t start, uint32_t index)
{
	mt_map_remove(&by_start, start);
	mt_map_insert(&by_start, start, index);
}

static int is_same_file(const struct mt_module *m, const struct mt_elf *elf, uint64_t hash)
{
	return m->elf.start == elf->start && m->elf.end == elf->end && m->elf.bias == elf->bias &&
	       m->name_hash == hash && elf->build_id_bytes &&
	       m->elf.build_id_bytes == elf->build_id_bytes &&
	       !memcmp(m->elf.build_id, elf->build_id, elf->build_id_bytes);
}

/*
 * A file that was unmapped and is now back at the very same place: all that was learnt of its code
 * holds again. Keeps a program that opens and closes a plugin for ever from filling the tables.
 */
static uint32_t module_revive(struct mt_thread *t, const struct mt_elf *elf, const char *name,
			      const void *map)
{
	uint64_t hash = name_hash(name);
	uint32_t end = mt_modules_end();
	struct mt_module *m;

	for (uint32_t i = 1; i < end; i++) {
		m = mt_module_get(i);
		if (!m || !__atomic_load_n(&m->gone, __ATOMIC_ACQUIRE) ||
		    !is_same_file(m, elf, hash))
			continue;
		if (!module_emit(t, m, name))
			return 0;
		m->map = map;
		__atomic_store_n(&m->gone, 0, __ATOMIC_RELEASE);
		by_start_set(elf->start, i);
		return i;
	}
	return 0;
}

static uint32_t module_add(struct mt_thread *t, const struct mt_elf *elf, const char *name,
			   const void *map)
{
	uint32_t index = mt_map_find(&by_start, elf->start);
	struct mt_module *m;

	if (index)
		module_set_gone(t, index);
	index = module_revive(t, elf, name, map);
	if (index)
		return index;
	m = mt_mem_alloc(sizeof(*m));
	if (!m)
		return 0;
	m->elf = *elf;
	m->map = map;
	m->name_hash = name_hash(name);
	m->self = is_self(elf, name);
	m->id = mt_id_new(t, MT_ID_MODULE);
	if (!module_emit(t, m, name))
		return 0;
	index = __atomic_load_n(&next_module, __ATOMIC_RELAXED);
	do {
		if (index >= MODULES_MAX)
			return 0;
	} while (!__atomic_compare_exchange_n(&next_module, &index, index + 1, 0, __ATOMIC_ACQ_REL,
					      __ATOMIC_RELAXED));
	__atomic_store_n(&modules[index], m, __ATOMIC_RELEASE);
	by_start_set(elf->start, index);
	return index;
}

void mt_module_mark_running(struct mt_module *m)
{
	if (!__atomic_load_n(&m->running, __ATOMIC_RELAXED) &&
	    !__atomic_exchange_n(&m->running, 1, __ATOMIC_ACQ_REL))
		__atomic_fetch_add(&mt_modules_running, 1, __ATOMIC_RELEASE);
}

/* ---- finding --------------------------------------------------------------------------------- */

static int module_is(const struct mt_module *m, const struct object *o)
{
	return !__atomic_load_n(&m->gone, __ATOMIC_ACQUIRE) && m->map == o->map &&
	       m->elf.start == (uintptr_t)o->start && m->elf.end == (uintptr_t)o->end &&
	       m->elf.bias == o->map->l_addr &&
	       m->name_hash == name_hash(o->map->l_name ? o->map->l_name : "");
}

/* The main program's headers need not be mapped; the kernel's copy of their address always is. */
static int elf_of_object(const struct object *o, struct mt_elf *elf)
{
	const ElfW(Phdr) *phdr = (const ElfW(Phdr) *)getauxval(AT_PHDR);
	size_t count = getauxval(AT_PHNUM);

	if (!phdr || (uintptr_t)phdr < (uintptr_t)o->start || (uintptr_t)phdr >= (uintptr_t)o->end)
		phdr = mt_elf_headers((uintptr_t)o->start, (uintptr_t)o->end, &count);
	if (phdr && mt_elf_read(elf, o->map->l_addr, phdr, count) == 0 &&
	    elf->start == (uintptr_t)o->start)
		return 0;
	memset(elf, 0, sizeof(*elf));
	elf->bias = o->map->l_addr;
	elf->start = (uintptr_t)o->start;
	elf->end = (uintptr_t)o->end;
	return 0;
}

static uint32_t module_at_table(uintptr_t address)
{
	uint32_t end = mt_modules_end();

	for (uint32_t i = 1; i < end; i++) {
		const struct mt_module *m = mt_module_get(i);

		if (m && address >= m->elf.start && address < m->elf.end &&
		    !__atomic_load_n(&m->gone, __ATOMIC_ACQUIRE))
			return i;
	}
	return 0;
}

uint32_t mt_module_at(struct mt_thread *t, uintptr_t address)
{
	struct object o;
	struct mt_elf elf;
	uint32_t index;

	if (!find_object) {
		index = module_at_table(address);
		if (!index && !in_child) {
			mt_stack_modules_scan(t);
			index = module_at_table(address);
		}
		return index;
	}
	if (find_object((void *)address, &o) < 0)
		return 0;
	index = mt_map_find(&by_start, (uintptr_t)o.start);
	if (index && module_is(mt_module_get(index), &o))
		return index;
	if (elf_of_object(&o, &elf) < 0)
		return 0;
	elf.end = (uintptr_t)o.end;
	return module_add(t, &elf, o.map->l_name ? o.map->l_name : "", o.map);
}

int mt_module_holds(uint32_t index, uintptr_t address)
{
	struct object o;

	if (!find_object)
		return module_at_table(address) == index;
	if (find_object((void *)address, &o) < 0)
		return index == 0;
	return index && module_is(mt_module_get(index), &o);
}

/* ---- scanning -------------------------------------------------------------------------------- */

struct scan {
	struct mt_thread *t;
	uint8_t *seen; /* by index; NULL: only look for new ones */
};

static int scan_one(struct dl_phdr_info *info, size_t size, void *data)
{
	struct scan *scan = data;
	struct mt_elf elf;
	struct object o;
	uint32_t index;
	const char *name = info->dlpi_name ? info->dlpi_name : "";
	const struct mt_module *m;

	(void)size;
	if (mt_elf_read(&elf, info->dlpi_addr, info->dlpi_phdr, info->dlpi_phnum) < 0)
		return 0;
	if (find_object && find_object((void *)elf.start, &o) == 0) {
		mt_module_at(scan->t, elf.start);
		return 0;
	}
	index = mt_map_find(&by_start, elf.start);
	m = index ? mt_module_get(index) : NULL;
	if (!m || m->gone || m->elf.end != elf.end || m->elf.bias != elf.bias ||
	    m->name_hash != name_hash(name))
		index = module_add(scan->t, &elf, name, NULL);
	if (scan->seen && index)
		scan->seen[index] = 1;
	return 0;
}

void mt_stack_modules_scan(struct mt_thread *t)
{
	struct scan scan = { t, NULL };

	dl_iterate_phdr(scan_one, &scan);
}

/* ---- unloading ------------------------------------------------------------------------------- */

void mt_stack_unload_begin(void)
{
	/* Both before the real dlclose: from here on no thread trusts a cache. */
	__atomic_fetch_add(&mt_modules_unloading, 1, __ATOMIC_SEQ_CST);
	__atomic_fetch_add(&mt_modules_epoch, 1, __ATOMIC_SEQ_CST);
}

static void unload_find(struct mt_thread *t)
{
	uint32_t end = mt_modules_end();
	struct scan scan = { t, NULL };

	if (!find_object) {
		if (in_child)
			return;
		scan.seen = mt_mem_map(MODULES_MAX);
		if (!scan.seen)
			return;
		dl_iterate_phdr(scan_one, &scan);
	}
	for (uint32_t i = 1; i < end; i++) {
		struct mt_module *m = mt_module_get(i);

		if (!m || m->gone)
			continue;
		if (find_object ? !mt_module_holds(i, m->elf.start) : !scan.seen[i])
			module_set_gone(t, i);
	}
	mt_mem_unmap(scan.seen, MODULES_MAX);
}

void mt_stack_unload_end(struct mt_thread *t)
{
	uint32_t n = __atomic_load_n(&mt_modules_unloading, __ATOMIC_RELAXED);

	if (t)
		unload_find(t);
	__atomic_fetch_add(&mt_modules_epoch, 1, __ATOMIC_SEQ_CST);
	/* Not below 0: a child that forked inside a dlclose has counted from 0 again. */
	while (n && !__atomic_compare_exchange_n(&mt_modules_unloading, &n, n - 1, 0,
						 __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
		;
}

void mt_modules_child(void)
{
	in_child = 1;
	if (mt_modules_unloading) { /* those threads are gone, whatever they had unloaded */
		mt_modules_unloading = 0;
		mt_modules_epoch++;
	}
	mt_map_child(&by_start);
}

void mt_modules_dormant_child(void)
{
	in_child = 1;
}

/* What may be unloaded at this moment stays as it is: those threads do not know of us. */
void mt_modules_forget(void)
{
	uint32_t end = mt_modules_end();

	for (uint32_t i = 1; i < end; i++)
		modules[i] = NULL;
	next_module = 1;
	mt_map_forget(&by_start);
	__atomic_fetch_add(&mt_modules_epoch, 1, __ATOMIC_SEQ_CST);
}

int mt_modules_need_scan(void)
{
	return !find_object && !in_child;
}
