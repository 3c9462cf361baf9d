/*
 * Changing slots. See slots.h.
 *
 * A slot is changed if it leads to the real function now, or if it is not bound yet (then it leads
 * back into its own module). The shim itself, the loader and the allocator behind us are left alone;
 * of libc only the heap functions that it calls through slots, as it does for every interposer
 * (strdup, getline). Modules that are loaded later are changed right after the dlopen that loaded
 * them, in the thread that called it: there ld.so's lock is taken where the program takes it anyway.
 *
 * Changing back takes no lock of ld.so: it happens in a hook, whose caller may hold any lock. It looks
 * at each slot without trusting it to be there still.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "slots.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <gnu/libc-version.h>
#include <link.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "core/dynamic.h"
#include "core/guard.h"
#include "core/real.h"
#include "stack/modules.h"
#include "sys/fmt.h"
#include "sys/sys.h"

/* The hooks by their names, whatever their types. */
#define MT_HOOK(family, name, result, parameters, need)                                            \
	extern const char hook_##name[] __asm__(#name);
#include "memtrace/hooks.def"
#undef MT_HOOK
extern const char dlopen_hook[] __attribute__((visibility("hidden")));

extern const char system_hook[] __asm__("mt_system_late") __attribute__((visibility("hidden")));
extern const char popen_hook[] __asm__("mt_popen_late") __attribute__((visibility("hidden")));

static void *(*dlopen_real)(const char *file, int mode) __attribute__((used));

enum family { HEAP, CXX, MAP, PROC, LOAD };

static const struct entry {
	const char *name;
	const char *hook;
	void *real; /* where its address is */
	enum family family;
} entries[] = {
#define MT_HOOK(family, name, result, parameters, need)                                            \
	{ #name, hook_##name, &mt_real.name, family },
#include "memtrace/hooks.def"
#undef MT_HOOK
	{ "dlopen", dlopen_hook, &dlopen_real, LOAD },
	{ "system", system_hook, &mt_system_real, PROC },
	{ "popen", popen_hook, &mt_popen_real, PROC },
};

enum { ENTRIES = sizeof(entries) / sizeof(entries[0]), HASH_SLOTS = 256 };

#define CHANGED_MAX 65536u
#define SEEN_MAX 8192u
#define MAPS_BYTES ((size_t)4 << 20)

struct changed {
	uintptr_t slot;
	uint32_t entry, reserved;
};

uint32_t mt_slots_count, mt_slots_modules;

static uint8_t by_hash[HASH_SLOTS]; /* index + 1 */
static uintptr_t lowest, highest; /* of the real functions */
static struct changed *changed; /* mapped while slots are changed; NULL: they are not */
static const void *seen[SEEN_MAX]; /* dynamic sections of modules that were looked at */
static uint32_t seen_count;
static unsigned long long unloads; /* ld.so's count when `seen` was right */
static int with_cxx;

static uintptr_t real_of(uint32_t i)
{
	return *(uintptr_t *)entries[i].real;
}

/* Whoever had the lock and is gone may have looked at half a module. */
static int take(int may_wait)
{
	int was_left = 0,
	    taken = may_wait ? mt_slots_lock_between_forks(&was_left) : mt_slots_lock(&was_left);

	if (was_left)
		seen_count = 0;
	return taken;
}

/* ---- the real functions -------------------------------------------------------------------------- */

static int is_self(const struct dl_phdr_info *info)
{
	return mt_dynamic_holds(info, (uintptr_t)entries);
}

struct order {
	int libc, self, at;
};

static int note_order(struct dl_phdr_info *info, size_t size, void *data)
{
	struct order *o = data;

	(void)size;
	o->at++;
	if (is_self(info))
		o->self = o->at;
	else if (mt_dynamic_holds(info, (uintptr_t)gnu_get_libc_version))
		o->libc = o->at;
	return 0;
}

int mt_slots_late(void)
{
	struct order o = { 0 };

	dl_iterate_phdr(note_order, &o);
	return o.libc && o.self > o.libc;
}

/* The loader's order of modules is that of its look-up, as far as libc, which has them all. */
static int resolve_in(struct dl_phdr_info *info, size_t size, void *data)
{
	struct mt_dynamic d;

	(void)size;
	(void)data;
	if (is_self(info) || mt_dynamic_read(&d, info) < 0)
		return 0;
	for (uint32_t i = 0; i < ENTRIES; i++) {
		void **real = entries[i].real;

		if (!*real)
			*real = mt_dynamic_find(&d, entries[i].name);
	}
	return mt_dynamic_holds(info, (uintptr_t)gnu_get_libc_version);
}

int mt_slots_resolve(void)
{
	dl_iterate_phdr(resolve_in, NULL);
	lowest = UINTPTR_MAX;
	highest = 0;
	memset(by_hash, 0, sizeof(by_hash));
	for (uint32_t i = 0; i < ENTRIES; i++) {
		uint32_t at = mt_dynamic_hash(entries[i].name) % HASH_SLOTS;

		while (by_hash[at])
			at = (at + 1) % HASH_SLOTS;
		by_hash[at] = (uint8_t)(i + 1);
		if (!real_of(i))
			continue;
		lowest = real_of(i) < lowest ? real_of(i) : lowest;
		highest = real_of(i) > highest ? real_of(i) : highest;
	}
	return mt_real.malloc && mt_real.free && mt_real.calloc && mt_real.realloc &&
			       mt_real.fork && mt_real.mmap && mt_real.munmap
		       ? 0
		       : -ENOSYS;
}

static int entry_of(const char *name)
{
	/* Most of a C++ library's names, and long ones. */
	if (name[0] == '_' && name[1] == 'Z' && name[2] != 'n' && name[2] != 'd')
		return -1;
	for (uint32_t at = mt_dynamic_hash(name) % HASH_SLOTS; by_hash[at];
	     at = (at + 1) % HASH_SLOTS)
		if (!strcmp(entries[by_hash[at] - 1].name, name))
			return by_hash[at] - 1;
	return -1;
}

/* ---- writing ------------------------------------------------------------------------------------- */

/* Pages and what they are mapped with, from a text of /proc/self/maps, which is in their order. */
struct pages {
	const char *text, *line; /* the line that was right last */
	uintptr_t from, to;
	int protection;
	uintptr_t open; /* a page that was made writable for a while; 0: none */
	int open_was;
};

static int next_line(struct pages *p)
{
	const char *at = p->line;

	if (!*at)
		return 0;
	p->from = mt_parse_number(&at, 16);
	at++;
	p->to = mt_parse_number(&at, 16);
	at++;
	p->protection = (at[0] == 'r' ? PROT_READ : 0) | (at[1] == 'w' ? PROT_WRITE : 0) |
			(at[2] == 'x' ? PROT_EXEC : 0);
	while (*at && *at != '\n')
		at++;
	p->line = *at ? at + 1 : at;
	return 1;
}

static int protection_at(struct pages *p, uintptr_t address)
{
	if (address < p->from)
		p->line = p->text;
	else if (address < p->to)
		return p->protection;
	while (next_line(p))
		if (address >= p->from && address < p->to)
			return p->protection;
	p->from = p->to = 0;
	p->line = p->text;
	return -1;
}

static void pages_close(struct pages *p)
{
	if (p->open)
		mt_sys3(SYS_mprotect, p->open, 4096, p->open_was);
	p->open = 0;
}

/* 1: the slot was written. */
static int slot_write(struct pages *p, uintptr_t slot, uintptr_t value)
{
	uintptr_t page = slot & ~(uintptr_t)4095;
	int protection;

	if (page != p->open) {
		pages_close(p);
		protection = protection_at(p, page);
		if (protection < 0)
			return 0;
		if (!(protection & PROT_WRITE)) {
			if (mt_sys3(SYS_mprotect, page, 4096, PROT_READ | PROT_WRITE) < 0)
				return 0;
			p->open = page;
			p->open_was = protection;
		}
	}
	/* One store: other threads call through the slot at this very moment. */
	__atomic_store_n((uintptr_t *)slot, value, __ATOMIC_RELEASE);
	return 1;
}

/* The text is mapped by raw calls: this runs where nothing of a recording may be left behind. */
static char *maps_read(void)
{
	char *text = mt_sys_mmap(MAPS_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
				 -1, 0);
	int fd = text ? mt_sys_open("/proc/self/maps", O_RDONLY | O_CLOEXEC, 0) : -1;
	size_t have = 0;
	ssize_t n = -1;

	while (fd >= 0 && have < MAPS_BYTES - 1 &&
	       (n = mt_sys_read(fd, text + have, MAPS_BYTES - 1 - have)) > 0)
		have += (size_t)n;
	if (fd >= 0)
		mt_sys_close(fd);
	if (n == 0)
		return text;
	if (text)
		mt_sys_munmap(text, MAPS_BYTES);
	return NULL;
}

/* ---- one module ---------------------------------------------------------------------------------- */

static int name_begins(const char *path, const char *with)
{
	const char *base = strrchr(path, '/');

	return !strncmp(base ? base + 1 : path, with, strlen(with));
}

/* Which families may be changed there, as a bit mask. */
static unsigned int families_of(const struct dl_phdr_info *info)
{
	const char *name = info->dlpi_name ? info->dlpi_name : "";
	uintptr_t vdso = getauxval(AT_SYSINFO_EHDR);

	if (is_self(info) || name_begins(name, "ld-linux") || name_begins(name, "libpthread") ||
	    name_begins(name, "libdl.so") || (vdso && mt_dynamic_holds(info, vdso)))
		return 0;
	if (mt_dynamic_holds(info, (uintptr_t)gnu_get_libc_version))
		return 1u << HEAP;
	if (mt_dynamic_holds(info, (uintptr_t)mt_real.malloc))
		return 0;
	return (1u << HEAP | 1u << MAP | 1u << PROC | 1u << LOAD) | (with_cxx ? 1u << CXX : 0);
}

/* Still writable although it is to be read-only: ld.so is at work on the module. */
static int is_unfinished(struct pages *p, const struct mt_dynamic *d, uintptr_t slot)
{
	uintptr_t page = slot & ~(uintptr_t)4095;

	return page >= d->relro && page < d->relro_end && page != p->open &&
	       protection_at(p, page) & PROT_WRITE;
}

static void slot_change(struct pages *p, const struct mt_dynamic *d, const ElfW(Rela) * r,
			unsigned int families)
{
	uintptr_t slot = d->base + r->r_offset, value;
	int lazy, i;

	if (!mt_dynamic_is_slot(r))
		return;
	value = __atomic_load_n((uintptr_t *)slot, __ATOMIC_ACQUIRE);
	lazy = mt_dynamic_is_lazy(r) && value >= d->start && value < d->end;
	if (!lazy && (value < lowest || value > highest))
		return;
	i = entry_of(mt_dynamic_name(d, r));
	if (i < 0 || !real_of((uint32_t)i) || !(families >> entries[i].family & 1) ||
	    (!lazy && value != real_of((uint32_t)i)) || is_unfinished(p, d, slot))
		return;
	if (mt_slots_count < CHANGED_MAX && slot_write(p, slot, (uintptr_t)entries[i].hook))
		changed[mt_slots_count++] = (struct changed){ slot, (uint32_t)i, 0 };
}

static int is_seen(const void *section)
{
	for (uint32_t i = 0; i < seen_count; i++)
		if (seen[i] == section)
			return 1;
	if (seen_count < SEEN_MAX)
		seen[seen_count++] = section;
	return 0;
}

static int module_change(struct dl_phdr_info *info, size_t size, void *data)
{
	struct pages *p = data;
	unsigned int families;
	uint32_t before = mt_slots_count;
	struct mt_dynamic d;

	(void)size;
	if (info->dlpi_subs != unloads) { /* another may be in the place of one */
		unloads = info->dlpi_subs;
		seen_count = 0;
	}
	families = families_of(info);
	if (!families || mt_dynamic_read(&d, info) < 0 || is_seen(d.section))
		return 0;
	for (const ElfW(Rela) *r = d.data.first; r < d.data.end; r++)
		slot_change(p, &d, r, families);
	for (const ElfW(Rela) *r = d.calls.first; r < d.calls.end; r++)
		slot_change(p, &d, r, families);
	pages_close(p);
	mt_slots_modules += mt_slots_count != before;
	return 0;
}

static int change_all(void)
{
	struct pages p = { .text = maps_read() };

	if (!p.text)
		return -ENOMEM;
	p.line = p.text;
	dl_iterate_phdr(module_change, &p);
	mt_sys_munmap((void *)(uintptr_t)p.text, MAPS_BYTES);
	return 0;
}

int mt_slots_install(int cxx)
{
	int err = -ENOMEM;

	if (!take(1))
		return -EBUSY;
	with_cxx = cxx;
	if (!changed) {
		mt_slots_count = mt_slots_modules = seen_count = 0;
		changed = mt_sys_mmap(CHANGED_MAX * sizeof(*changed), PROT_READ | PROT_WRITE,
				      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	}
	if (changed)
		err = change_all();
	mt_slots_unlock();
	return err;
}

/* ---- modules that are loaded later --------------------------------------------------------------- */

/*
 * A program's dlopen. The caller counts for a name without a slash (its RUNPATH is searched) and for
 * $ORIGIN: then the real one is jumped to, so that it sees its caller, and what it loads is changed
 * after the next one.
 */
__attribute__((used)) static int dlopen_is_ours(const char *file)
{
	return file && strchr(file, '/') && !strchr(file, '$');
}

__attribute__((used)) static void *dlopen_and_change(const char *file, int mode)
{
	void *handle = dlopen_real(file, mode);
	int saved = errno;
	uint32_t guard = mt_tls.guard;

	if (handle && take(1)) {
		mt_tls.guard = MT_GUARD_SELF;
		if (changed)
			change_all();
		mt_tls.guard = guard;
		mt_slots_unlock();
	}
	errno = saved;
	return handle;
}

#if defined(__x86_64__)
__asm__(".text\n"
	".hidden	dlopen_hook\n"
	".globl	dlopen_hook\n"
	".type	dlopen_hook, @function\n"
	"dlopen_hook:\n"
	"	pushq	%rdi\n"
	"	pushq	%rsi\n"
	"	subq	$8, %rsp\n"
	"	call	dlopen_is_ours\n"
	"	addq	$8, %rsp\n"
	"	popq	%rsi\n"
	"	popq	%rdi\n"
	"	testl	%eax, %eax\n"
	"	jnz	dlopen_and_change\n"
	"	jmp	*dlopen_real(%rip)\n"
	".size	dlopen_hook, .-dlopen_hook\n");
#else
const char dlopen_hook[1];
#endif

/* ---- changing back ------------------------------------------------------------------------------- */

/* The slot's present value, without trusting that it is mapped. (It pins the page, which gives a
 * forked child a copy of its own; but the slot is written to right after, and that copies it too.) */
static int slot_read(uintptr_t slot, uintptr_t *value)
{
	struct iovec to = { value, sizeof(*value) }, from = { (void *)slot, sizeof(*value) };

	return mt_sys_call(SYS_process_vm_readv, mt_sys_getpid(), (long)&to, 1, (long)&from, 1,
			   0) == sizeof(*value);
}

int mt_slots_remove(void)
{
	struct pages p = { 0 };

	if (!changed)
		return 1;
	if (__atomic_load_n(&mt_modules_unloading, __ATOMIC_SEQ_CST) || !take(0))
		return 0;
	p.text = p.line = maps_read();
	for (uint32_t i = 0; p.text && i < mt_slots_count; i++) {
		const struct entry *e = &entries[changed[i].entry];
		uintptr_t value;

		if (slot_read(changed[i].slot, &value) && value == (uintptr_t)e->hook)
			slot_write(&p, changed[i].slot, real_of(changed[i].entry));
	}
	if (p.text) {
		pages_close(&p);
		mt_sys_munmap((void *)(uintptr_t)p.text, MAPS_BYTES);
		mt_sys_munmap(changed, CHANGED_MAX * sizeof(*changed));
		changed = NULL;
	}
	mt_slots_unlock();
	return !changed;
}
