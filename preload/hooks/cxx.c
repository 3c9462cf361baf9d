/*
 * C++ operators new and delete, interposed only where another allocator brings its own.
 *
 * libstdc++'s operators end in malloc and are seen there. Those of jemalloc, tcmalloc and mimalloc
 * do not, so in a process with such an allocator behind us these hooks record them. In any other
 * process they must not exist: a C++ library that is loaded later, even with RTLD_LOCAL, would bind
 * to them, and the libstdc++ it brings along may be out of our reach. mt_cxx_decide() therefore takes
 * the operators out of our own symbol table at the first call of any hook. What the loader bound
 * before that passes through: then an operator was in the global scope, and RTLD_NEXT has found it.
 *
 * A throwing new may leave through our frame. So no guard is held while it runs: memory comes from
 * the nothrow variant under the guard, and only if that fails the throwing one is called without.
 * With a new-handler installed the handler, which is the program's code, runs inside either: then
 * both are called without the guard and recorded after.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "core/bootstrap.h"
#include "core/guard.h"
#include "core/real.h"
#include "init.h"
#include "record/record.h"
#include "sys/sys.h"

static enum { UNKNOWN, PASS, RECORD } role; /* set once, by the first call of any hook */
static void *(*get_handler)(void); /* std::get_new_handler, where there is a libstdc++ */
static const char nothrow; /* std::nothrow: its address counts, it has no content */

static int has_handler(void)
{
	return get_handler && get_handler();
}

static int starts(void)
{
	if (role == UNKNOWN && &mt_on_first_call)
		mt_on_first_call();
	return role == RECORD;
}

/* The guard: blocks are counted here, and what an operator takes from malloc or maps is theirs. */
static inline struct mt_thread *enter(void)
{
	struct mt_thread *t = mt_enter();

	if (t)
		mt_tls.guard = MT_GUARD_DOMAIN;
	return t;
}

/* ---- without a provider ------------------------------------------------------------------------- */

/*
 * Only a weak reference can lead here: nothing in the process had the operator when we were
 * loaded. A throwing new must not return NULL: a libstdc++ that came later knows how to throw.
 */
static void *allocate(size_t size, size_t alignment, const char *thrower)
{
	void *p = NULL, *library;
	union {
		void *symbol;
		void *(*call)(size_t size, size_t alignment);
	} operator_new = { NULL };

	if (!alignment)
		p = malloc(size ? size : 1);
	else if (posix_memalign(&p, alignment < sizeof(p) ? sizeof(p) : alignment, size))
		p = NULL;
	if (p || !thrower)
		return p;
	library = dlopen("libstdc++.so.6", RTLD_NOLOAD | RTLD_LAZY);
	if (library)
		operator_new.symbol = dlsym(library, thrower);
	return operator_new.call ? operator_new.call(size, alignment) : NULL;
}

/* ---- new ---------------------------------------------------------------------------------------- */

/* Was p recorded already? jemalloc's operators try again by malloc after the handler. */
static void record_after(void *p, size_t size, struct mt_caller caller)
{
	struct mt_thread *t = p ? enter() : NULL;

	if (!t)
		return;
	if (t->last_block != p)
		mt_record_alloc(t, MT_KIND_HEAP, p, size, caller);
	mt_leave(t);
}

/* call: of this operator; nothrow_call: of its nothrow variant, which the allocator may lack. */
#define NEW_BODY(name, call, nothrow_name, nothrow_call, alignment, thrower)                       \
	struct mt_thread *t;                                                                       \
	void *p;                                                                                   \
                                                                                                   \
	if (mt_unlikely(role != RECORD) && !starts())                                              \
		return mt_real.name ? mt_real.call : allocate(size, alignment, thrower);           \
	if (mt_unlikely(!mt_real.name))                                                            \
		return allocate(size, alignment, thrower);                                         \
	t = enter();                                                                               \
	if (!t)                                                                                    \
		return mt_real.call;                                                               \
	t->last_block = NULL;                                                                      \
	if (!mt_real.nothrow_name || has_handler()) {                                              \
		mt_leave(t);                                                                       \
	} else {                                                                                   \
		p = mt_real.nothrow_call;                                                          \
		if (p)                                                                             \
			mt_record_alloc(t, MT_KIND_HEAP, p, size, MT_CALLER());                    \
		mt_leave(t);                                                                       \
		if (p || !(thrower))                                                               \
			return p;                                                                  \
	}                                                                                          \
	p = mt_real.call;                                                                          \
	record_after(p, size, MT_CALLER());                                                        \
	return p;

static void *new_plain(size_t size)
{
	NEW_BODY(_Znwm, _Znwm(size), _ZnwmRKSt9nothrow_t, _ZnwmRKSt9nothrow_t(size, &nothrow), 0,
		 "_Znwm")
}

static void *new_array(size_t size)
{
	NEW_BODY(_Znam, _Znam(size), _ZnamRKSt9nothrow_t, _ZnamRKSt9nothrow_t(size, &nothrow), 0,
		 "_Znam")
}

static void *new_aligned(size_t size, size_t alignment)
{
	NEW_BODY(_ZnwmSt11align_val_t, _ZnwmSt11align_val_t(size, alignment),
		 _ZnwmSt11align_val_tRKSt9nothrow_t,
		 _ZnwmSt11align_val_tRKSt9nothrow_t(size, alignment, &nothrow), alignment,
		 "_ZnwmSt11align_val_t")
}

static void *new_array_aligned(size_t size, size_t alignment)
{
	NEW_BODY(_ZnamSt11align_val_t, _ZnamSt11align_val_t(size, alignment),
		 _ZnamSt11align_val_tRKSt9nothrow_t,
		 _ZnamSt11align_val_tRKSt9nothrow_t(size, alignment, &nothrow), alignment,
		 "_ZnamSt11align_val_t")
}

#define NEW_NOTHROW_BODY(name, call, alignment) NEW_BODY(name, call, name, call, alignment, NULL)

static void *new_nothrow(size_t size, const void *tag)
{
	NEW_NOTHROW_BODY(_ZnwmRKSt9nothrow_t, _ZnwmRKSt9nothrow_t(size, tag), 0)
}

static void *new_array_nothrow(size_t size, const void *tag)
{
	NEW_NOTHROW_BODY(_ZnamRKSt9nothrow_t, _ZnamRKSt9nothrow_t(size, tag), 0)
}

static void *new_aligned_nothrow(size_t size, size_t alignment, const void *tag)
{
	NEW_NOTHROW_BODY(_ZnwmSt11align_val_tRKSt9nothrow_t,
			 _ZnwmSt11align_val_tRKSt9nothrow_t(size, alignment, tag), alignment)
}

static void *new_array_aligned_nothrow(size_t size, size_t alignment, const void *tag){
	NEW_NOTHROW_BODY(_ZnamSt11align_val_tRKSt9nothrow_t,
			 _ZnamSt11align_val_tRKSt9nothrow_t(size, alignment, tag), alignment)
}

/* ---- delete ------------------------------------------------------------------------------------- */

#define DELETE_BODY(name, ...)                                                                     \
	struct mt_thread *t;                                                                       \
                                                                                                   \
	if (!block || mt_unlikely(mt_bootstrap_owns(block)))                                       \
		return;                                                                            \
	if (mt_unlikely(role != RECORD) && !starts()) {                                            \
		if (mt_real.name)                                                                  \
			mt_real.name(__VA_ARGS__);                                                 \
		else                                                                               \
			free(block);                                                               \
		return;                                                                            \
	}                                                                                          \
	t = mt_real.name ? enter() : NULL;                                                         \
	if (t)                                                                                     \
		mt_record_free(t, MT_KIND_HEAP, block);                                            \
	if (mt_real.name)                                                                          \
		mt_real.name(__VA_ARGS__);                                                         \
	else                                                                                       \
		free(block);                                                                       \
	if (t)                                                                                     \
		mt_leave(t);

#define DELETES(letter)                                                                            \
	static void letter##_plain(void *block)                                                    \
	{                                                                                          \
		DELETE_BODY(_Zd##letter##Pv, block)                                                \
	}                                                                                          \
	static void letter##_sized(void *block, size_t size)                                       \
	{                                                                                          \
		DELETE_BODY(_Zd##letter##Pvm, block, size)                                         \
	}                                                                                          \
	static void letter##_nothrow(void *block, const void *tag)                                 \
	{                                                                                          \
		DELETE_BODY(_Zd##letter##PvRKSt9nothrow_t, block, tag)                             \
	}                                                                                          \
	static void letter##_aligned(void *block, size_t alignment)                                \
	{                                                                                          \
		DELETE_BODY(_Zd##letter##PvSt11align_val_t, block, alignment)                      \
	}                                                                                          \
	static void letter##_sized_aligned(void *block, size_t size, size_t alignment)             \
	{                                                                                          \
		DELETE_BODY(_Zd##letter##PvmSt11align_val_t, block, size, alignment)               \
	}                                                                                          \
	static void letter##_aligned_nothrow(void *block, size_t alignment, const void *tag)       \
	{                                                                                          \
		DELETE_BODY(_Zd##letter##PvSt11align_val_tRKSt9nothrow_t, block, alignment, tag)   \
	}

DELETES(l) /* delete */
	DELETES(a) /* delete[] */

/* ---- the exported names ------------------------------------------------------------------------- */

#define OPERATORS(X)                                                                               \
	X(void *, _Znwm, (size_t), new_plain)                                                      \
	X(void *, _Znam, (size_t), new_array)                                                      \
	X(void *, _ZnwmRKSt9nothrow_t, (size_t, const void *), new_nothrow)                        \
	X(void *, _ZnamRKSt9nothrow_t, (size_t, const void *), new_array_nothrow)                  \
	X(void *, _ZnwmSt11align_val_t, (size_t, size_t), new_aligned)                             \
	X(void *, _ZnamSt11align_val_t, (size_t, size_t), new_array_aligned)                       \
	X(void *, _ZnwmSt11align_val_tRKSt9nothrow_t, (size_t, size_t, const void *),              \
	  new_aligned_nothrow)                                                                     \
	X(void *, _ZnamSt11align_val_tRKSt9nothrow_t, (size_t, size_t, const void *),              \
	  new_array_aligned_nothrow)                                                               \
	X(void, _ZdlPv, (void *), l_plain)                                                         \
	X(void, _ZdaPv, (void *), a_plain)                                                         \
	X(void, _ZdlPvm, (void *, size_t), l_sized)                                                \
	X(void, _ZdaPvm, (void *, size_t), a_sized)                                                \
	X(void, _ZdlPvRKSt9nothrow_t, (void *, const void *), l_nothrow)                           \
	X(void, _ZdaPvRKSt9nothrow_t, (void *, const void *), a_nothrow)                           \
	X(void, _ZdlPvSt11align_val_t, (void *, size_t), l_aligned)                                \
	X(void, _ZdaPvSt11align_val_t, (void *, size_t), a_aligned)                                \
	X(void, _ZdlPvmSt11align_val_t, (void *, size_t, size_t), l_sized_aligned)                 \
	X(void, _ZdaPvmSt11align_val_t, (void *, size_t, size_t), a_sized_aligned)                 \
	X(void, _ZdlPvSt11align_val_tRKSt9nothrow_t, (void *, size_t, const void *),               \
	  l_aligned_nothrow)                                                                       \
	X(void, _ZdaPvSt11align_val_tRKSt9nothrow_t, (void *, size_t, const void *),               \
	  a_aligned_nothrow)

#define EXPORT(result, name, parameters, body)                                                     \
	MT_EXPORT result name parameters __attribute__((alias(#body)));
	OPERATORS(EXPORT)

	/* Not the exported names: those may be another module's. */
	static const uintptr_t bodies[] = {
#define BODY(result, name, parameters, body) (uintptr_t) body,
		OPERATORS(BODY)
	};

/* ---- which it is -------------------------------------------------------------------------------- */

extern const ElfW(Ehdr) __ehdr_start __attribute__((visibility("hidden")));

static const void *dynamic_table(ElfW(Sxword) tag)
{
	uintptr_t base = (uintptr_t)&__ehdr_start;

	for (const ElfW(Dyn) *d = _DYNAMIC; d->d_tag != DT_NULL; d++)
		if (d->d_tag == tag) /* the loader may have added the base, or not */
			return (const void *)(d->d_un.d_ptr + (d->d_un.d_ptr < base ? base : 0));
	return NULL;
}

/* One past the last symbol: the end of the last chain of the hash table. */
static uint32_t symbol_count(void)
{
	const uint32_t *hash = dynamic_table(DT_GNU_HASH), *buckets, *chains;
	uint32_t last = 0;

	if (!hash)
		return 0;
	buckets = hash + 4 + hash[2] * (sizeof(ElfW(Addr)) / sizeof(*hash));
	chains = buckets + hash[0];
	for (uint32_t i = 0; i < hash[0]; i++)
		if (buckets[i] > last)
			last = buckets[i];
	if (last < hash[1])
		return 0;
	while (!(chains[last - hash[1]] & 1))
		last++;
	return last + 1;
}

static int is_ours(const ElfW(Sym) * symbol)
{
	for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++)
		if (symbol->st_shndx != SHN_UNDEF &&
		    (uintptr_t)&__ehdr_start + symbol->st_value == bodies[i])
			return 1;
	return 0;
}

/* What the pages of our symbol table were mapped with. */
static int protection(const void *p)
{
	const char *base = (const char *)&__ehdr_start;
	const ElfW(Phdr) *h = (const void *)(base + __ehdr_start.e_phoff);

	for (int i = 0; i < __ehdr_start.e_phnum; i++, h++)
		if (h->p_type == PT_LOAD &&
		    (uintptr_t)p - (uintptr_t)(base + h->p_vaddr) < h->p_memsz)
			return (h->p_flags & PF_R ? PROT_READ : 0) |
			       (h->p_flags & PF_W ? PROT_WRITE : 0) |
			       (h->p_flags & PF_X ? PROT_EXEC : 0);
	return PROT_READ;
}

/* A symbol of value 0 is none: the loader's lookup goes on to the next module. */
static void hide(void)
{
	ElfW(Sym) *symbols = (ElfW(Sym) *)(uintptr_t)dynamic_table(DT_SYMTAB);
	uint32_t count = symbol_count();
	uintptr_t from = (uintptr_t)symbols & ~(uintptr_t)4095;
	size_t size = (uintptr_t)(symbols + count) - from;
	int before = protection(symbols);

	if (!symbols || !count || mt_sys3(SYS_mprotect, from, size, PROT_READ | PROT_WRITE) < 0)
		return; /* then they stay, and pass through */
	for (uint32_t i = 1; i < count; i++)
		if (is_ours(&symbols[i])) {
			symbols[i].st_shndx = SHN_UNDEF;
			symbols[i].st_value = 0;
		}
	mt_sys3(SYS_mprotect, from, size, before);
}

static const void *module_of(void *function)
{
	Dl_info info;

	return function && dladdr(function, &info) ? info.dli_fbase : NULL;
}

int mt_cxx_records(void)
{
	return role == RECORD;
}

void mt_cxx_decide(int recording)
{
	const void *of_new = module_of((void *)(uintptr_t)mt_real._Znwm);

	if (recording && of_new && of_new == module_of((void *)(uintptr_t)mt_real.malloc)) {
		*(void **)&get_handler = dlsym(RTLD_DEFAULT, "_ZSt15get_new_handlerv");
		role = RECORD;
		return;
	}
	hide();
	role = PASS;
}
