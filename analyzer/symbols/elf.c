/*
 * See elf.h. libdwfl finds separate debug files (.gnu_debuglink, build-id folders) and embedded
 * ones (.gnu_debugdata). Its own search by address walks all symbols each time, which is too slow
 * for libraries with half a million; hence the sorted copy.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "symbols/elf.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <elfutils/libdwelf.h>

#include "symbols/parts.h"
#include "util/alloc.h"
#include "util/strbuf.h"
#include "util/vec.h"

#define DEBUG_ROOT "/usr/lib/debug"
#define LOOK_BACK 16 /* symbols may nest, but not deeply */

struct symbol {
	uint64_t start, size;
	const char *name; /* libdwfl's */
	bool global;
};

struct elf_file {
	Dwfl *dwfl;
	Dwfl_Module *module;
	Dwfl_Callbacks callbacks;
	char *debug_path;
	uint64_t bias; /* libdwfl's addresses are higher than ELF's */
	VEC(struct symbol) symbols; /* by start */
	bool has_symbols; /* they were read */
};

/* As libdwfl's own, but never from the network, whatever the environment says. */
static int find_debuginfo(Dwfl_Module *module, void **data, const char *name, Dwarf_Addr base,
			  const char *file, const char *link, GElf_Word crc, char **found)
{
	unsetenv("DEBUGINFOD_URLS");
	return dwfl_standard_find_debuginfo(module, data, name, base, file, link, crc, found);
}

static char *debug_path_of(const char *sysroot)
{
	struct strbuf sb = STRBUF_INIT;

	strbuf_addstr(&sb, ":.debug:"); /* beside the file, its .debug folder, then roots */
	if (sysroot)
		strbuf_addf(&sb, "%s" DEBUG_ROOT ":", sysroot);
	strbuf_addstr(&sb, DEBUG_ROOT);
	return strbuf_detach(&sb);
}

static bool is_regular(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

static enum elf_state check_build_id(Dwfl_Module *module, const uint8_t *id, size_t len)
{
	GElf_Addr bias;
	Elf *elf = dwfl_module_getelf(module, &bias);
	const void *found;
	ssize_t n;

	if (!elf)
		return ELF_MISSING;
	if (!len)
		return ELF_OK;
	n = dwelf_elf_gnu_build_id(elf, &found);
	return n == (ssize_t)len && !memcmp(found, id, len) ? ELF_OK : ELF_OTHER;
}

static enum elf_state open_at(const char *path, const uint8_t *id, size_t len, const char *sysroot,
			      struct elf_file **out)
{
	struct elf_file *f;
	enum elf_state state = ELF_MISSING;

	if (!is_regular(path))
		return ELF_MISSING;
	f = xcalloc(1, sizeof(*f));
	f->debug_path = debug_path_of(sysroot);
	f->callbacks.find_debuginfo = find_debuginfo;
	f->callbacks.section_address = dwfl_offline_section_address;
	f->callbacks.debuginfo_path = &f->debug_path;
	f->dwfl = dwfl_begin(&f->callbacks);
	if (f->dwfl) {
		dwfl_report_begin(f->dwfl);
		f->module = dwfl_report_offline(f->dwfl, path, path, -1);
		dwfl_report_end(f->dwfl, NULL, NULL);
	}
	if (f->module)
		state = check_build_id(f->module, id, len);
	if (state == ELF_OK && dwfl_module_getelf(f->module, &f->bias)) {
		*out = f;
		return ELF_OK;
	}
	elf_close(f);
	return state;
}

/* root/usr/lib/debug/.build-id/ab/cdef....debug */
static char *debug_file_of(const char *root, const uint8_t *id, size_t len)
{
	struct strbuf sb = STRBUF_INIT;

	strbuf_addf(&sb, "%s" DEBUG_ROOT "/.build-id/%02x/", root, id[0]);
	for (size_t i = 1; i < len; i++)
		strbuf_addf(&sb, "%02x", id[i]);
	strbuf_addstr(&sb, ".debug");
	return strbuf_detach(&sb);
}

enum elf_state elf_open(const char *path, const uint8_t *id, size_t len, const char *sysroot,
			struct elf_file **out)
{
	struct strbuf under = STRBUF_INIT;
	char *candidates[4] = { NULL };
	enum elf_state state = ELF_MISSING;
	size_t n = 0;

	*out = NULL;
	if (sysroot && *path == '/') {
		strbuf_addf(&under, "%s%s", sysroot, path);
		candidates[n++] = strbuf_detach(&under);
	}
	/* Without a build-id nothing tells the target's file from this machine's. */
	if (*path == '/' && (!sysroot || len))
		candidates[n++] = xstrdup(path);
	if (len > 1) {
		if (sysroot)
			candidates[n++] = debug_file_of(sysroot, id, len);
		candidates[n++] = debug_file_of("", id, len);
	}
	for (size_t i = 0; i < n; i++) {
		enum elf_state now = *out ? ELF_OK : open_at(candidates[i], id, len, sysroot, out);

		if (now == ELF_OK || state == ELF_MISSING)
			state = now;
		free(candidates[i]);
	}
	return state;
}

void elf_close(struct elf_file *f)
{
	if (!f)
		return;
	if (f->dwfl)
		dwfl_end(f->dwfl);
	vec_release(&f->symbols);
	free(f->debug_path);
	free(f);
}

static int by_start(const void *a, const void *b)
{
	const struct symbol *x = a, *y = b;

	if (x->start != y->start)
		return x->start < y->start ? -1 : 1;
	/* Of several names for one function the last is taken: global, then larger, then by name.
	 */
	if (x->global != y->global)
		return (int)x->global - (int)y->global;
	if (x->size != y->size)
		return x->size < y->size ? -1 : 1;
	return strcmp(y->name, x->name);
}

/*
 * CPython's evaluation loop is known by its name, and a stripped interpreter names only the part of it
 * that its compiler took for the common one.
 */
static void add_part_of_loop(struct elf_file *f)
{
	static const char loop[] = "_PyEval_EvalFrameDefault",
			  part[] = "_PyEval_EvalFrameDefault.cold";
	uint64_t start = 0, size = 0, low, high;
	Elf *elf = dwfl_module_getelf(f->module, &(GElf_Addr){ 0 });

	for (size_t i = 0; i < f->symbols.count; i++) {
		const struct symbol *s = &f->symbols.items[i];

		if (!strcmp(s->name, loop)) {
			start = s->start;
			size = s->size;
		} else if (!strncmp(s->name, part, sizeof(part) - 1)) {
			return;
		}
	}
	if (size && parts_find(elf, start, size, &low, &high))
		*vec_push(&f->symbols) = (struct symbol){ low, high - low, part, false };
}

static void read_symbols(struct elf_file *f)
{
	int count = dwfl_module_getsymtab(f->module);

	f->has_symbols = true;
	for (int i = 1; i < count; i++) {
		GElf_Sym sym;
		GElf_Addr address;
		const char *name = dwfl_module_getsym_info(f->module, i, &sym, &address, NULL, NULL,
							   NULL);
		unsigned int type = GELF_ST_TYPE(sym.st_info);
		struct symbol *s;

		if (!name || !*name || sym.st_shndx == SHN_UNDEF ||
		    (type != STT_FUNC && type != STT_GNU_IFUNC))
			continue;
		s = vec_push(&f->symbols);
		s->start = address - f->bias;
		s->size = sym.st_size;
		s->name = name;
		s->global = GELF_ST_BIND(sym.st_info) != STB_LOCAL;
	}
	add_part_of_loop(f);
	if (f->symbols.count)
		qsort(f->symbols.items, f->symbols.count, sizeof(*f->symbols.items), by_start);
}

const char *elf_symbol(struct elf_file *f, uint64_t address)
{
	size_t low = 0, high;

	if (!f->has_symbols)
		read_symbols(f);
	high = f->symbols.count;
	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (f->symbols.items[mid].start <= address)
			low = mid + 1;
		else
			high = mid;
	}
	for (size_t back = 0; back < LOOK_BACK && back < low; back++) {
		const struct symbol *s = &f->symbols.items[low - 1 - back];

		/* Hand-written assembly may give no size: it reaches to the next symbol. */
		if (address - s->start < s->size || (!s->size && !back))
			return s->name;
	}
	return NULL;
}

Dwarf *elf_dwarf(struct elf_file *f, uint64_t *bias)
{
	Dwarf_Addr above = 0;
	Dwarf *dw = dwfl_module_getdwarf(f->module, &above);

	*bias = above - f->bias;
	return dw;
}
