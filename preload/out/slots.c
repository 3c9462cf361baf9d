/*
 * The table of live processes in the file header: how a stranger that wants the file's name can
 * tell a finished trace from one that is still written. A slot whose process is gone is free.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "core/clock.h"
#include "out/file.h"
#include "sys/sys.h"

static struct mt_proc_slot *own;

static int slot_try(struct mt_proc_slot *slot, uint32_t seen, uint32_t proc, uint32_t pid,
		    uint64_t start)
{
	if (!__atomic_compare_exchange_n(&slot->pid, &seen, pid, 0, __ATOMIC_ACQ_REL,
					 __ATOMIC_RELAXED))
		return 0;
	slot->proc = proc;
	slot->start = start;
	mt_file.header->walked[slot - mt_file.slots] = 0;
	own = slot;
	mt_file_slot_sampled(mt_clock_monotonic_ns() / MT_SLOT_TIME_NS);
	return 1;
}

void mt_file_slot_take(uint32_t proc, uint32_t pid, uint64_t start)
{
	for (size_t i = 0; i < MT_PROC_SLOTS; i++) { /* an earlier image of this very process */
		struct mt_proc_slot *slot = &mt_file.slots[i];

		if (slot->pid == pid && slot->start == start &&
		    slot_try(slot, pid, proc, pid, start))
			return;
	}
	for (size_t i = 0; i < MT_PROC_SLOTS; i++)
		if (!mt_file.slots[i].pid && slot_try(&mt_file.slots[i], 0, proc, pid, start))
			return;
	for (size_t i = 0; i < MT_PROC_SLOTS; i++) {
		struct mt_proc_slot *slot = &mt_file.slots[i];
		uint32_t seen = slot->pid;

		if (mt_process_start(seen) != slot->start && slot_try(slot, seen, proc, pid, start))
			return;
	}
	__atomic_store_n(&mt_file.header->table_full, 1, __ATOMIC_RELAXED);
}

void mt_file_slot_drop(void)
{
	if (own)
		__atomic_store_n(&own->pid, 0, __ATOMIC_RELEASE);
	own = NULL;
}

uint32_t *mt_file_slot_walked(void)
{
	return own ? &mt_file.header->walked[own - mt_file.slots] : NULL;
}

void mt_file_child(void)
{
	own = NULL;
}

void mt_file_slot_sampled(uint64_t when)
{
	if (own)
		__atomic_store_n(&mt_file.header->sampled[own - mt_file.slots], (uint16_t)when,
				 __ATOMIC_RELAXED);
}

uint32_t mt_file_slot_silent(size_t *at, uint64_t age, uint64_t now)
{
	for (; *at < MT_PROC_SLOTS; ++*at) {
		struct mt_proc_slot *slot = &mt_file.slots[*at];
		uint16_t *sampled = &mt_file.header->sampled[*at];
		uint32_t pid = __atomic_load_n(&slot->pid, __ATOMIC_ACQUIRE);
		uint16_t seen = __atomic_load_n(sampled, __ATOMIC_RELAXED);

		if (!pid || slot == own || !slot->start || (int16_t)(now - seen) < (int64_t)age)
			continue;
		if (!__atomic_compare_exchange_n(sampled, &seen, (uint16_t)now, 0, __ATOMIC_RELAXED,
						 __ATOMIC_RELAXED))
			continue;
		if (mt_process_start(pid) == slot->start) {
			++*at;
			return pid;
		}
	}
	return 0;
}

void mt_file_slot_rest(size_t at, uint64_t when)
{
	__atomic_store_n(&mt_file.header->sampled[at - 1], (uint16_t)when, __ATOMIC_RELAXED);
}

static int same_machine(const struct mt_file_header *header)
{
	char boot[64] = "";
	struct stat st;

	if (mt_sys_slurp("/proc/sys/kernel/random/boot_id", boot, sizeof(boot)) < 36 ||
	    memcmp(boot, header->boot_id, 36) != 0)
		return 0;
	return mt_sys4(SYS_newfstatat, AT_FDCWD, "/proc/self/ns/pid", &st, 0) == 0 &&
	       st.st_ino == header->pid_namespace;
}

/* Another host or pid namespace can't be asked: there a file that was touched of late counts as in
 * use. A full table may hide a live process, so it is treated the same. */
int mt_file_in_use(const struct mt_file_header *header, const struct mt_proc_slot *slots,
		   uint64_t idle_s)
{
	if (!same_machine(header))
		return idle_s < 600;
	for (size_t i = 0; i < MT_PROC_SLOTS; i++) {
		uint32_t pid = __atomic_load_n(&slots[i].pid, __ATOMIC_ACQUIRE);
		uint64_t start = pid ? mt_process_start(pid) : 0;

		if (start && (start == slots[i].start || !slots[i].start))
			return 1;
	}
	return header->table_full ? idle_s < 600 : 0;
}
