/*
 * See parts.h. Bytes that look like a direct jump with a 32-bit distance are taken for one wherever
 * they stand: by chance one in some hundred thousand such bytes leads into a program's code. A function
 * is left by jumps only for the first byte of another one (a tail call) or for a part of itself; and
 * that part leads back into the middle of the function, again and again.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "symbols/parts.h"

#include <gelf.h>
#include <string.h>

#define WAYS_BACK 4 /* fewer jumps back are chance */
#define CODE_MAX (16u << 20)

struct code {
	const uint8_t *bytes;
	uint64_t start, size;
};

static bool code_of(Elf *elf, uint64_t start, uint64_t size, struct code *code)
{
	size_t count = 0;
	GElf_Phdr p;

	if (size > CODE_MAX || elf_getphdrnum(elf, &count) != 0)
		return false;
	for (size_t i = 0; i < count; i++) {
		Elf_Data *data;

		if (!gelf_getphdr(elf, (int)i, &p) || p.p_type != PT_LOAD || !(p.p_flags & PF_X) ||
		    start < p.p_vaddr || start - p.p_vaddr > p.p_filesz ||
		    size > p.p_filesz - (start - p.p_vaddr))
			continue;
		data = elf_getdata_rawchunk(elf, (int64_t)(p.p_offset + (start - p.p_vaddr)), size,
					    ELF_T_BYTE);
		if (!data || data->d_size < size)
			return false;
		*code = (struct code){ data->d_buf, start, size };
		return true;
	}
	return false;
}

/* Where a jump at byte i leads to, or 0: there is none. */
static uint64_t jump_at(const struct code *c, uint64_t i)
{
	const uint8_t *p = c->bytes + i;
	uint64_t length = 0;
	int32_t distance;

	if (p[0] == 0xe9 && i + 5 <= c->size)
		length = 5;
	else if (p[0] == 0x0f && i + 6 <= c->size && p[1] >= 0x80 && p[1] <= 0x8f)
		length = 6;
	if (!length)
		return 0;
	memcpy(&distance, p + length - 4, 4);
	return c->start + i + length + (uint64_t)(int64_t)distance;
}

/*
 * The search table of .eh_frame_hdr: where each piece of code with unwind information begins, in order.
 * A piece ends where the next one begins.
 */
struct pieces {
	const uint8_t *table; /* pairs of 32-bit distances from `base` */
	uint64_t base;
	uint32_t count;
};

static bool pieces_of(Elf *elf, struct pieces *p)
{
	/* Version 1; pointer: pc-relative, 4 bytes; count: 4 bytes; table: from here, 4 bytes. */
	static const uint8_t usual[4] = { 1, 0x1b, 3, 0x3b };
	size_t count = 0;
	GElf_Phdr ph;
	Elf_Data *data;

	if (elf_getphdrnum(elf, &count) != 0)
		return false;
	for (size_t i = 0; i < count; i++) {
		if (!gelf_getphdr(elf, (int)i, &ph) || ph.p_type != PT_GNU_EH_FRAME)
			continue;
		data = elf_getdata_rawchunk(elf, (int64_t)ph.p_offset, ph.p_filesz, ELF_T_BYTE);
		if (!data || data->d_size < 12 || memcmp(data->d_buf, usual, 4) != 0)
			return false;
		memcpy(&p->count, (const uint8_t *)data->d_buf + 8, 4);
		p->table = (const uint8_t *)data->d_buf + 12;
		p->base = ph.p_vaddr;
		return p->count && p->count <= (data->d_size - 12) / 8;
	}
	return false;
}

static uint64_t piece_start(const struct pieces *p, uint32_t i)
{
	int32_t distance;

	memcpy(&distance, p->table + 8 * (size_t)i, 4);
	return p->base + (uint64_t)(int64_t)distance;
}

/* The piece that an address lies in; the last one has no known end. */
static bool range_of(const struct pieces *p, uint64_t address, uint64_t *low, uint64_t *high)
{
	uint32_t from = 0, to = p->count;

	while (from < to) {
		uint32_t mid = from + (to - from) / 2;

		if (piece_start(p, mid) <= address)
			from = mid + 1;
		else
			to = mid;
	}
	if (!from || from == p->count)
		return false;
	*low = piece_start(p, from - 1);
	*high = piece_start(p, from);
	return true;
}

static bool leads_back(Elf *elf, uint64_t low, uint64_t high, const struct code *function)
{
	struct code part;
	unsigned int ways = 0;

	if (!code_of(elf, low, high - low, &part))
		return false;
	for (uint64_t i = 0; i < part.size && ways < WAYS_BACK; i++)
		ways += jump_at(&part, i) - function->start - 1 < function->size - 1;
	return ways >= WAYS_BACK;
}

bool parts_find(Elf *elf, uint64_t start, uint64_t size, uint64_t *low, uint64_t *high)
{
	uint64_t refused_low = 0, refused_size = 0, target;
	struct code function;
	struct pieces pieces;
	GElf_Ehdr header;

	if (!gelf_getehdr(elf, &header) || header.e_machine != EM_X86_64 || size < 2 ||
	    !pieces_of(elf, &pieces) || !code_of(elf, start, size, &function))
		return false;
	for (uint64_t i = 0; i < size; i++) {
		target = jump_at(&function, i);
		if (!target || target - start < size || target - refused_low < refused_size ||
		    !range_of(&pieces, target, low, high) || target == *low)
			continue;
		if (leads_back(elf, *low, *high, &function))
			return true;
		refused_low = *low;
		refused_size = *high - *low;
	}
	return false;
}
