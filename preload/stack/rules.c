/*
 * The shared table of known code addresses. See rules.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "stack/rules.h"

#include <string.h>

#include "core/ids.h"
#include "core/mem.h"
#include "out/stream.h"
#include "stack/intern.h"
#include "stack/modules.h"

enum { BLOCK_ENTRIES = 512, BLOCKS = 8192 };

static struct mt_map by_address = { .first_bits = 12, .limit = BLOCK_ENTRIES * BLOCKS - 1 };
struct entry {
	struct mt_ip ip;
	uint32_t older; /* entry of the same address in a module that was there before; 0: none */
};

static struct entry *blocks[BLOCKS]; /* atomic each; entries written before by_address shows them */
static uint32_t next_entry = 1; /* atomic */

uint32_t mt_rules_count(void)
{
	return __atomic_load_n(&next_entry, __ATOMIC_RELAXED) - 1;
}

static struct entry *entry_get(uint32_t index)
{
	return &__atomic_load_n(&blocks[index / BLOCK_ENTRIES],
				__ATOMIC_ACQUIRE)[index % BLOCK_ENTRIES];
}

/* A fresh entry's index, or 0. */
static uint32_t entry_new(const struct mt_ip *ip, uint32_t older)
{
	uint32_t index = __atomic_fetch_add(&next_entry, 1, __ATOMIC_RELAXED);
	struct entry **block = &blocks[index / BLOCK_ENTRIES], *fresh, *none = NULL;

	if (index >= BLOCK_ENTRIES * BLOCKS) {
		__atomic_fetch_sub(&next_entry, 1, __ATOMIC_RELAXED);
		return 0;
	}
	if (!__atomic_load_n(block, __ATOMIC_ACQUIRE)) {
		fresh = mt_mem_alloc(BLOCK_ENTRIES * sizeof(*fresh));
		if (!fresh)
			return 0;
		/* A block lost to another thread is not given back: that happens once in a while.
		 */
		__atomic_compare_exchange_n(block, &none, fresh, 0, __ATOMIC_RELEASE,
					    __ATOMIC_RELAXED);
	}
	*entry_get(index) = (struct entry){ *ip, older };
	return index;
}

/* C libraries without unwind information for the code that returns from a signal: it is known by
 * its bytes, mov $15,%rax; syscall. */
static int is_signal_return(const struct mt_module *m, uintptr_t ip)
{
	static const uint8_t code[] = { 0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05 };

	return m->elf.end - ip > sizeof(code) && !memcmp((const void *)ip, code, sizeof(code));
}

static int frame_emit(struct mt_thread *t, struct mt_ip *found, const struct mt_module *m,
		      uintptr_t ip, int interrupted)
{
	found->frame = mt_id_new(t, MT_ID_FRAME);
	return MT_EMIT(t, frame, .id = found->frame, .module = m ? m->id : 0,
		       .offset = m ? ip - m->elf.bias : ip, .flags = interrupted ? 1 : 0);
}

static uintptr_t key_code(uint64_t key)
{
	return key & MT_IP_INTERRUPTED ? (uintptr_t)(key & ~MT_IP_INTERRUPTED) : (uintptr_t)key - 1;
}

static struct mt_ip rule_new(struct mt_thread *t, uint64_t key, uint32_t index, uint32_t older)
{
	int interrupted = (key & MT_IP_INTERRUPTED) != 0;
	uintptr_t ip = (uintptr_t)(key & ~MT_IP_INTERRUPTED);
	struct mt_ip found = { .rule = MT_RULE_NOINFO, .module = index };
	struct mt_module *m = index ? mt_module_get(index) : NULL;
	uint32_t entry;

	if (m) {
		mt_module_mark_running(m);
		found.rule = mt_cfi_rule(&m->elf.cfi, ip, interrupted);
		if (found.rule == MT_RULE_NOINFO && !interrupted && is_signal_return(m, ip))
			found.rule = MT_RULE_SIGNAL;
	}
	if (!(m && m->self) && !frame_emit(t, &found, m, ip, interrupted)) {
		found.frame = UINT32_MAX;
		return found;
	}
	entry = entry_new(&found, older);
	if (!entry) {
		found.frame = UINT32_MAX;
		return found;
	}
	if (older)
		mt_map_remove(&by_address, key);
	mt_map_insert(&by_address, key, entry);
	return found;
}

/* Is it certain, without asking ld.so, that the code an entry was made for is still there? */
static int entry_holds(const struct mt_ip *found, uint64_t key)
{
	if (!found->module)
		return mt_module_holds(0, key_code(key));
	return !__atomic_load_n(&mt_modules_unloading, __ATOMIC_RELAXED) &&
	       !__atomic_load_n(&mt_module_get(found->module)->gone, __ATOMIC_ACQUIRE);
}

struct mt_ip mt_rules_find(struct mt_thread *t, uint64_t key)
{
	uint32_t first = mt_map_find(&by_address, key), entry, module;

	if (first && entry_holds(&entry_get(first)->ip, key))
		return entry_get(first)->ip;
	module = mt_module_at(t, key_code(key));
	for (entry = first; entry; entry = entry_get(entry)->older)
		if (entry_get(entry)->ip.module == module)
			return entry_get(entry)->ip;
	return rule_new(t, key, module, first);
}

void mt_rules_child(void)
{
	mt_map_child(&by_address);
}

void mt_rules_forget(void)
{
	for (uint32_t i = 0; i <= next_entry / BLOCK_ENTRIES && i < BLOCKS; i++)
		blocks[i] = NULL;
	next_entry = 1;
	mt_map_forget(&by_address);
}
