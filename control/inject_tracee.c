/*
 * Memory, modules and exported functions of another process. Everything is read from its memory and
 * not from files: those may have been replaced since, or lie in another mount namespace.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "inject_parts.h"

int tracee_read(pid_t pid, uint64_t address, void *to, size_t size)
{
	struct iovec local = { to, size }, remote = { (void *)(uintptr_t)address, size };

	return process_vm_readv(pid, &local, 1, &remote, 1, 0) == (ssize_t)size ? 0 : -1;
}

int tracee_write(pid_t pid, uint64_t address, const void *from, size_t size)
{
	struct iovec local = { (void *)(uintptr_t)from, size };
	struct iovec remote = { (void *)(uintptr_t)address, size };

	return process_vm_writev(pid, &local, 1, &remote, 1, 0) == (ssize_t)size ? 0 : -1;
}

/* ---- modules --------------------------------------------------------------------------------- */

static int begins(const char *text, const char *with)
{
	return !strncmp(text, with, strlen(with));
}

static enum module_kind kind_of(const char *path)
{
	static const struct {
		const char *begin;
		enum module_kind kind;
	} kinds[] = {
		{ "libc.so.", MODULE_LIBC },	   { "libc-2.", MODULE_LIBC },
		{ "libpthread", MODULE_LIBC },	   { "libdl.so.", MODULE_LIBC },
		{ "libdl-2.", MODULE_LIBC },	   { "ld-linux", MODULE_LOADER },
		{ "ld-2.", MODULE_LOADER },	   { "ld.so", MODULE_LOADER },
		{ "libgcc_s", MODULE_UNWINDER },   { "libunwind", MODULE_UNWINDER },
		{ "libmemtrace.so", MODULE_SHIM },
	};
	const char *base = strrchr(path, '/');

	if (!strcmp(path, "[vdso]"))
		return MODULE_KERNEL;
	base = base ? base + 1 : path;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (begins(base, kinds[i].begin))
			return kinds[i].kind;
	return MODULE_OTHER;
}

/* The module that this mapping of `path` continues, or a new one; NULL: neither. */
static struct module *module_for(struct tracee *t, const char *path, uint64_t start,
				 uint64_t offset)
{
	struct module *m = t->count ? &t->modules[t->count - 1] : NULL;

	if (m && !strcmp(m->path, path) && offset)
		return m;
	if (offset || (path[0] != '/' && strcmp(path, "[vdso]") != 0))
		return NULL;
	m = realloc(t->modules, (t->count + 1) * sizeof(*m));
	if (!m)
		return NULL;
	t->modules = m;
	m += t->count;
	*m = (struct module){ .path = strdup(path), .start = start, .kind = kind_of(path) };
	if (!m->path)
		return NULL;
	t->count++;
	return m;
}

static int modules_read(struct tracee *t)
{
	char name[64], *line = NULL;
	size_t room = 0;
	FILE *f;

	snprintf(name, sizeof(name), "/proc/%d/maps", t->pid);
	f = fopen(name, "re");
	if (!f)
		return -1;
	while (getline(&line, &room, f) > 0) {
		unsigned long start, end, offset;
		struct module *m;
		char perms[8];
		int at = 0;

		if (sscanf(line, "%lx-%lx %7s %lx %*s %*s %n", &start, &end, perms, &offset, &at) <
			    4 ||
		    !at)
			continue;
		line[at + (int)strcspn(line + at, "\n")] = '\0';
		m = module_for(t, line + at, start, offset);
		if (!m)
			continue;
		m->end = end;
		if (perms[2] == 'x' && !m->code) {
			m->code = start;
			m->code_end = end;
		}
	}
	free(line);
	fclose(f);
	return t->count ? 0 : -1;
}

const struct module *tracee_module_at(const struct tracee *t, uint64_t address)
{
	for (size_t i = 0; i < t->count; i++)
		if (address >= t->modules[i].start && address < t->modules[i].end)
			return &t->modules[i];
	return NULL;
}

/* ---- symbols --------------------------------------------------------------------------------- */

/* The tables of a module that the loader's look-up uses, as addresses in the target. */
struct tables {
	uint64_t bias, symbols, strings, hash, strings_size;
};

static int tables_read(pid_t pid, const struct module *m, struct tables *out)
{
	uint64_t dynamic = 0, first = UINT64_MAX, *to;
	Elf64_Ehdr e;
	Elf64_Phdr p;
	Elf64_Dyn d;

	if (tracee_read(pid, m->start, &e, sizeof(e)) < 0 || memcmp(e.e_ident, ELFMAG, SELFMAG) ||
	    e.e_phentsize != sizeof(p))
		return -1;
	for (unsigned int i = 0; i < e.e_phnum; i++) {
		if (tracee_read(pid, m->start + e.e_phoff + i * sizeof(p), &p, sizeof(p)) < 0)
			return -1;
		if (p.p_type == PT_LOAD && first == UINT64_MAX)
			first = p.p_vaddr & ~UINT64_C(4095);
		if (p.p_type == PT_DYNAMIC)
			dynamic = p.p_vaddr;
	}
	if (!dynamic || first == UINT64_MAX)
		return -1;
	*out = (struct tables){ .bias = m->start - first };
	for (dynamic += out->bias; tracee_read(pid, dynamic, &d, sizeof(d)) == 0 && d.d_tag;
	     dynamic += sizeof(d)) {
		to = d.d_tag == DT_SYMTAB     ? &out->symbols
		     : d.d_tag == DT_STRTAB   ? &out->strings
		     : d.d_tag == DT_GNU_HASH ? &out->hash
					      : NULL;
		if (to) /* the loader has added the base, or not (vdso) */
			*to = d.d_un.d_ptr + (d.d_un.d_ptr < out->bias ? out->bias : 0);
		if (d.d_tag == DT_STRSZ)
			out->strings_size = d.d_un.d_val;
	}
	return out->symbols && out->strings && out->hash ? 0 : -1;
}

static uint32_t gnu_hash(const char *name)
{
	uint32_t h = 5381;

	while (*name)
		h = h * 33 + (uint8_t)*name++;
	return h;
}

static int symbol_is(pid_t pid, const struct tables *t, uint32_t index, const char *name,
		     Elf64_Sym *s)
{
	char have[64];
	size_t length = strlen(name) + 1;

	return length <= sizeof(have) &&
	       tracee_read(pid, t->symbols + index * sizeof(*s), s, sizeof(*s)) == 0 &&
	       s->st_shndx != SHN_UNDEF && s->st_value &&
	       tracee_read(pid, t->strings + s->st_name, have, length) == 0 &&
	       !memcmp(have, name, length);
}

/* As the loader looks a name up, by DT_GNU_HASH. 1: found. */
static int symbol_find(pid_t pid, const struct tables *t, const char *name, Elf64_Sym *s)
{
	uint32_t head[4], h = gnu_hash(name), index, have;
	uint64_t buckets, chains;

	if (tracee_read(pid, t->hash, head, sizeof(head)) < 0 || !head[0])
		return 0;
	buckets = t->hash + sizeof(head) + head[2] * sizeof(uint64_t);
	chains = buckets + head[0] * sizeof(uint32_t);
	if (tracee_read(pid, buckets + h % head[0] * sizeof(index), &index, sizeof(index)) < 0 ||
	    index < head[1])
		return 0;
	do {
		if (tracee_read(pid, chains + (index - head[1]) * sizeof(have), &have,
				sizeof(have)) < 0)
			return 0;
		if ((have | 1) == (h | 1) && symbol_is(pid, t, index, name, s))
			return 1;
		index++;
	} while (!(have & 1));
	return 0;
}

/* One past the last symbol: the end of the last chain of the hash table. */
static uint32_t symbol_count(pid_t pid, const struct tables *t)
{
	uint32_t head[4], last = 0, *buckets, have = 0;
	uint64_t at;

	if (tracee_read(pid, t->hash, head, sizeof(head)) < 0 || !head[0] || head[0] > 1u << 20)
		return 0;
	at = t->hash + sizeof(head) + head[2] * sizeof(uint64_t);
	buckets = malloc(head[0] * sizeof(*buckets));
	if (buckets && tracee_read(pid, at, buckets, head[0] * sizeof(*buckets)) == 0)
		for (uint32_t i = 0; i < head[0]; i++)
			last = buckets[i] > last ? buckets[i] : last;
	free(buckets);
	if (last < head[1])
		return 0;
	at += head[0] * sizeof(uint32_t);
	while (!(have & 1))
		if (tracee_read(pid, at + (last++ - head[1]) * sizeof(have), &have, sizeof(have)) <
		    0)
			return 0;
	return last;
}

/* Adds the exported functions of a part of libc. The strings are never freed: names point there. */
static void functions_add(struct tracee *target, const struct module *m)
{
	struct tables t;
	struct function *f;
	Elf64_Sym *symbols;
	uint32_t count;
	char *strings;

	if (tables_read(target->pid, m, &t) < 0)
		return;
	count = symbol_count(target->pid, &t);
	symbols = malloc(count * sizeof(*symbols) + 1);
	strings = malloc(t.strings_size + 1);
	f = realloc(target->functions, (target->function_count + count) * sizeof(*f) + 1);
	if (f)
		target->functions = f;
	if (symbols && strings && f &&
	    tracee_read(target->pid, t.symbols, symbols, count * sizeof(*symbols)) == 0 &&
	    tracee_read(target->pid, t.strings, strings, t.strings_size) == 0) {
		strings[t.strings_size] = '\0';
		for (uint32_t i = 0; i < count; i++) {
			const Elf64_Sym *s = &symbols[i];

			if (ELF64_ST_TYPE(s->st_info) != STT_FUNC || s->st_shndx == SHN_UNDEF ||
			    s->st_name >= t.strings_size)
				continue;
			f[target->function_count++] =
				(struct function){ t.bias + s->st_value,
						   t.bias + s->st_value + s->st_size,
						   strings + s->st_name };
		}
	}
	free(symbols);
}

const char *tracee_function_at(const struct tracee *t, uint64_t address)
{
	for (size_t i = 0; i < t->function_count; i++)
		if (address >= t->functions[i].start && address < t->functions[i].end)
			return t->functions[i].name;
	return NULL;
}

uint64_t tracee_find(const struct tracee *t, const char *name)
{
	for (size_t i = 0; i < t->function_count; i++)
		if (!strcmp(t->functions[i].name, name))
			return t->functions[i].start;
	return 0;
}

/* An allocator of its own, and where ld.so keeps its locks. */
static void look_closer(struct tracee *t, struct module *m)
{
	struct tables tables;
	Elf64_Sym s;

	if (m->kind != MODULE_OTHER && m->kind != MODULE_LOADER)
		return;
	if (tables_read(t->pid, m, &tables) < 0)
		return;
	if (m->kind == MODULE_OTHER) {
		if (symbol_find(t->pid, &tables, "malloc", &s))
			m->kind = MODULE_ALLOCATOR;
	} else if (symbol_find(t->pid, &tables, "_rtld_global", &s)) {
		t->loader_state = tables.bias + s.st_value;
		t->loader_state_end = t->loader_state + s.st_size;
	}
}

int tracee_open(struct tracee *t, pid_t pid, char *why, size_t size)
{
	int libc = 0;

	*t = (struct tracee){ .pid = pid };
	if (modules_read(t) < 0) {
		snprintf(why, size, "its memory can't be read: %s", strerror(errno));
		return -1;
	}
	for (size_t i = 0; i < t->count; i++) {
		look_closer(t, &t->modules[i]);
		if (t->modules[i].kind != MODULE_LIBC)
			continue;
		libc = 1;
		functions_add(t, &t->modules[i]);
	}
	if (!libc)
		snprintf(why, size,
			 "there is no glibc in it (a program in Go, or one that has not "
			 "started yet?)");
	else if (!t->function_count)
		snprintf(why, size,
			 "its memory can't be read; in a container run memtrace with "
			 "--cap-add SYS_PTRACE");
	return libc && t->function_count ? 0 : -1;
}

void tracee_close(struct tracee *t)
{
	for (size_t i = 0; i < t->count; i++)
		free(t->modules[i].path);
	free(t->modules);
	free(t->functions);
	*t = (struct tracee){ 0 };
}
