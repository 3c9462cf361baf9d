/*
 * See dynamic.h. Slots can be found on x86-64 only, where a process can be attached to.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core/dynamic.h"

#include <elf.h>
#include <string.h>

#define PAGE ((uintptr_t)4096)

int mt_dynamic_holds(const struct dl_phdr_info *info, uintptr_t address)
{
	for (unsigned int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];

		if (p->p_type == PT_LOAD && address - info->dlpi_addr - p->p_vaddr < p->p_memsz)
			return 1;
	}
	return 0;
}

uint32_t mt_dynamic_hash(const char *name)
{
	uint32_t h = 5381;

	while (*name)
		h = h * 33 + (uint8_t)*name++;
	return h;
}

static void segments_read(struct mt_dynamic *d, const struct dl_phdr_info *info)
{
	d->start = UINTPTR_MAX;
	for (unsigned int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];
		uintptr_t from = d->base + p->p_vaddr, to = from + p->p_memsz;

		if (p->p_type == PT_LOAD) {
			d->start = from < d->start ? from : d->start;
			d->end = to > d->end ? to : d->end;
		} else if (p->p_type == PT_GNU_RELRO) { /* whole pages only, as ld.so does it */
			d->relro = from & ~(PAGE - 1);
			d->relro_end = to & ~(PAGE - 1);
		} else if (p->p_type == PT_DYNAMIC) {
			d->section = (const ElfW(Dyn) *)from;
		}
	}
}

int mt_dynamic_read(struct mt_dynamic *d, const struct dl_phdr_info *info)
{
	uintptr_t at[DT_NUM] = { 0 }, hash = 0, versions = 0, relative = 0;

	memset(d, 0, sizeof(*d));
	d->base = info->dlpi_addr;
	segments_read(d, info);
	if (!d->section)
		return -1;
	for (const ElfW(Dyn) *e = d->section; e->d_tag != DT_NULL; e++) {
		/* The loader has added the base to addresses, or not. */
		uintptr_t value = e->d_un.d_ptr, address = value + (value < d->base ? d->base : 0);

		switch (e->d_tag) {
		case DT_SYMTAB:
		case DT_STRTAB:
		case DT_RELA:
		case DT_JMPREL:
			at[e->d_tag] = address;
			break;
		case DT_RELASZ:
		case DT_PLTRELSZ:
		case DT_PLTREL:
			at[e->d_tag] = value;
			break;
		case DT_GNU_HASH:
			hash = address;
			break;
		case DT_VERSYM:
			versions = address;
			break;
		case DT_RELACOUNT:
			relative = value;
			break;
		default:
			break;
		}
	}
	if (!at[DT_SYMTAB] || !at[DT_STRTAB])
		return -1;
	d->symbols = (const ElfW(Sym) *)at[DT_SYMTAB];
	d->strings = (const char *)at[DT_STRTAB];
	d->hash = (const uint32_t *)hash;
	d->versions = (const uint16_t *)versions;
	if (at[DT_RELA]) {
		d->data.first = (const ElfW(Rela) *)at[DT_RELA] + relative;
		d->data.end = (const ElfW(Rela) *)(at[DT_RELA] + at[DT_RELASZ]);
	}
	if (at[DT_JMPREL] && at[DT_PLTREL] == DT_RELA) {
		d->calls.first = (const ElfW(Rela) *)at[DT_JMPREL];
		d->calls.end = (const ElfW(Rela) *)(at[DT_JMPREL] + at[DT_PLTRELSZ]);
	}
	return 0;
}

static int is_default(const struct mt_dynamic *d, uint32_t index)
{
	return !d->versions || !(d->versions[index] & 0x8000);
}

void *mt_dynamic_find(const struct mt_dynamic *d, const char *name)
{
	const uint32_t *buckets, *chains;
	uint32_t h = mt_dynamic_hash(name), index;
	void *hidden = NULL;

	if (!d->hash || !d->hash[0])
		return NULL;
	buckets = d->hash + 4 + d->hash[2] * (sizeof(ElfW(Addr)) / sizeof(*d->hash));
	chains = buckets + d->hash[0];
	index = buckets[h % d->hash[0]];
	if (index < d->hash[1])
		return NULL;
	for (;; index++) {
		const ElfW(Sym) *s = &d->symbols[index];
		uint32_t have = chains[index - d->hash[1]];

		if ((have | 1) == (h | 1) && s->st_shndx != SHN_UNDEF && s->st_value &&
		    ELF64_ST_TYPE(s->st_info) == STT_FUNC &&
		    !strcmp(d->strings + s->st_name, name)) {
			if (is_default(d, index))
				return (void *)(d->base + s->st_value);
			hidden = (void *)(d->base + s->st_value);
		}
		if (have & 1)
			return hidden;
	}
}

int mt_dynamic_is_slot(const ElfW(Rela) * r)
{
#if defined(__x86_64__)
	switch (ELF64_R_TYPE(r->r_info)) {
	case R_X86_64_JUMP_SLOT:
	case R_X86_64_GLOB_DAT:
		return 1;
	case R_X86_64_64: /* a pointer in the program's data: tables of allocation functions */
		return !r->r_addend && ELF64_R_SYM(r->r_info);
	default:
		return 0;
	}
#else
	(void)r;
	return 0;
#endif
}

int mt_dynamic_is_lazy(const ElfW(Rela) * r)
{
#if defined(__x86_64__)
	return ELF64_R_TYPE(r->r_info) == R_X86_64_JUMP_SLOT;
#else
	(void)r;
	return 0;
#endif
}
