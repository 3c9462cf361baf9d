/*
 * Mapped ELF files. See elf.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "stack/elf.h"

#include <string.h>

enum { NOTE_HEADER = 12, CHAIN_MAX = 4096 };

/* Is [p, p + size) inside a segment that can be read? */
static const ElfW(Phdr) *
	segment_of(uintptr_t bias, const ElfW(Phdr) * phdr, size_t count, uintptr_t p, size_t size)
{
	for (size_t i = 0; i < count; i++) {
		uintptr_t low = bias + phdr[i].p_vaddr;

		if (phdr[i].p_type == PT_LOAD && (phdr[i].p_flags & PF_R) && p >= low &&
		    p - low <= phdr[i].p_memsz && size <= phdr[i].p_memsz - (p - low))
			return &phdr[i];
	}
	return NULL;
}

static void build_id_read(struct mt_elf *elf, const uint8_t *p, size_t size, size_t align)
{
	uint32_t header[3]; /* sizes of name and contents, type */
	size_t name, contents;

	align = align == 8 ? 8 : 4;
	while (size >= NOTE_HEADER) {
		memcpy(header, p, sizeof(header));
		name = ((size_t)header[0] + 3) & ~(size_t)3;
		contents = NOTE_HEADER + name;
		contents = (contents + align - 1) & ~(align - 1);
		if (contents > size || header[1] > size - contents)
			return;
		if (header[2] == NT_GNU_BUILD_ID && header[0] == 4 &&
		    !memcmp(p + NOTE_HEADER, "GNU", 4) && header[1] <= MT_BUILD_ID_MAX) {
			elf->build_id_bytes = header[1];
			memcpy(elf->build_id, p + contents, header[1]);
			return;
		}
		contents += (header[1] + align - 1) & ~(align - 1);
		if (contents > size)
			return;
		p += contents;
		size -= contents;
	}
}

/* .eh_frame_hdr says where .eh_frame begins; its segment bounds what may be read there. */
static void cfi_read(struct mt_elf *elf, const ElfW(Phdr) * phdr, size_t count, uintptr_t hdr,
		     size_t size)
{
	const ElfW(Phdr) *segment = segment_of(elf->bias, phdr, count, hdr, size);
	int32_t relative;

	if (!segment || size < 8)
		return;
	elf->cfi.hdr = (const uint8_t *)hdr;
	elf->cfi.hdr_end = elf->cfi.hdr + size;
	if (elf->cfi.hdr[1] == 0x1b) { /* pcrel, sdata4: what every linker writes */
		memcpy(&relative, elf->cfi.hdr + 4, sizeof(relative));
		segment = segment_of(elf->bias, phdr, count,
				     hdr + 4 + (uintptr_t)(intptr_t)relative, 4);
	}
	if (!segment) {
		elf->cfi.hdr = NULL;
		return;
	}
	elf->cfi.low = (const uint8_t *)(elf->bias + segment->p_vaddr);
	elf->cfi.high = elf->cfi.low + segment->p_memsz;
}

int mt_elf_read(struct mt_elf *elf, uintptr_t bias, const ElfW(Phdr) * phdr, size_t count)
{
	memset(elf, 0, sizeof(*elf));
	elf->bias = bias;
	elf->start = UINTPTR_MAX;
	for (size_t i = 0; i < count; i++) {
		uintptr_t at = bias + phdr[i].p_vaddr;

		switch (phdr[i].p_type) {
		case PT_LOAD:
			if (at < elf->start)
				elf->start = at & ~(uintptr_t)4095;
			if (at + phdr[i].p_memsz > elf->end)
				elf->end = at + phdr[i].p_memsz;
			break;
		case PT_NOTE:
			if (!elf->build_id_bytes &&
			    segment_of(bias, phdr, count, at, phdr[i].p_memsz))
				build_id_read(elf, (const uint8_t *)at, phdr[i].p_memsz,
					      phdr[i].p_align);
			break;
		case PT_GNU_EH_FRAME:
			cfi_read(elf, phdr, count, at, phdr[i].p_memsz);
			break;
		case PT_DYNAMIC:
			if (at % sizeof(ElfW(Addr)) == 0 &&
			    segment_of(bias, phdr, count, at, phdr[i].p_memsz)) {
				elf->dynamic = (const ElfW(Dyn) *)at;
				elf->dynamic_entries = phdr[i].p_memsz / sizeof(ElfW(Dyn));
			}
			break;
		}
	}
	return elf->end > elf->start ? 0 : -1;
}

const ElfW(Phdr) * mt_elf_headers(uintptr_t start, uintptr_t end, size_t *count)
{
	const ElfW(Ehdr) *e = (const ElfW(Ehdr) *)start;

	if (end - start < sizeof(*e) || memcmp(e->e_ident, ELFMAG, SELFMAG) ||
	    e->e_phentsize != sizeof(ElfW(Phdr)) || e->e_phoff > end - start || e->e_phoff % 8 ||
	    (end - start - e->e_phoff) / sizeof(ElfW(Phdr)) < e->e_phnum)
		return NULL;
	*count = e->e_phnum;
	return (const ElfW(Phdr) *)(start + e->e_phoff);
}

/* ---- dynamic symbols ------------------------------------------------------------------------- */

/* ld.so rewrites most of these pointers to addresses, but not those of every object. */
static uintptr_t dynamic_pointer(const struct mt_elf *elf, ElfW(Sxword) tag)
{
	for (size_t i = 0; i < elf->dynamic_entries; i++) {
		uintptr_t p = elf->dynamic[i].d_un.d_ptr;

		if (elf->dynamic[i].d_tag == DT_NULL)
			break;
		if (elf->dynamic[i].d_tag == tag)
			return p >= elf->start && p < elf->end ? p : p + elf->bias;
	}
	return 0;
}

static size_t dynamic_value(const struct mt_elf *elf, ElfW(Sxword) tag)
{
	for (size_t i = 0; i < elf->dynamic_entries; i++) {
		if (elf->dynamic[i].d_tag == DT_NULL)
			break;
		if (elf->dynamic[i].d_tag == tag)
			return elf->dynamic[i].d_un.d_val;
	}
	return 0;
}

static int inside(const struct mt_elf *elf, uintptr_t p, size_t size)
{
	return p >= elf->start && p < elf->end && size <= elf->end - p;
}

static uint32_t gnu_hash(const char *name)
{
	uint32_t h = 5381;

	while (*name)
		h = h * 33 + (uint8_t)*name++;
	return h;
}

static uintptr_t symbol_match(const struct mt_elf *elf, const ElfW(Sym) * symbol,
			      const char *strings, size_t strings_size, const char *name)
{
	size_t size = strlen(name) + 1;
	unsigned int type;

	if ((uintptr_t)symbol % 8 || !inside(elf, (uintptr_t)symbol, sizeof(*symbol)) ||
	    symbol->st_name >= strings_size || size > strings_size - symbol->st_name ||
	    memcmp(strings + symbol->st_name, name, size))
		return 0;
	type = symbol->st_info & 15;
	if (symbol->st_shndx == SHN_UNDEF || (type != STT_FUNC && type != STT_OBJECT))
		return 0;
	return elf->bias + symbol->st_value;
}

uintptr_t mt_elf_symbol(const struct mt_elf *elf, const char *name)
{
	uintptr_t table = dynamic_pointer(elf, DT_GNU_HASH);
	uintptr_t strings = dynamic_pointer(elf, DT_STRTAB);
	size_t strings_size = dynamic_value(elf, DT_STRSZ);
	const ElfW(Sym) *symbols = (const ElfW(Sym) *)dynamic_pointer(elf, DT_SYMTAB);
	uint32_t head[4], hash = gnu_hash(name), index, chain;
	uintptr_t buckets, chains, address;

	if (!elf->dynamic || !inside(elf, table, sizeof(head)) ||
	    !inside(elf, strings, strings_size) || !symbols)
		return 0;
	memcpy(head, (const void *)table,
	       sizeof(head)); /* buckets, first symbol, bloom words, shift */
	buckets = table + sizeof(head) + head[2] * sizeof(ElfW(Addr));
	chains = buckets + head[0] * sizeof(uint32_t);
	if (!head[0] || !inside(elf, buckets, head[0] * sizeof(uint32_t)))
		return 0;
	memcpy(&index, (const void *)(buckets + hash % head[0] * sizeof(uint32_t)), sizeof(index));
	if (index < head[1])
		return 0;
	for (int i = 0; i < CHAIN_MAX; i++, index++) {
		uintptr_t at = chains + (uintptr_t)(index - head[1]) * sizeof(chain);

		if (!inside(elf, at, sizeof(chain)))
			return 0;
		memcpy(&chain, (const void *)at, sizeof(chain));
		if ((chain | 1) == (hash | 1)) {
			address = symbol_match(
				elf,
				(const ElfW(Sym) *)((uintptr_t)symbols + index * sizeof(*symbols)),
				(const char *)strings, strings_size, name);
			if (address)
				return address;
		}
		if (chain & 1)
			return 0;
	}
	return 0;
}
