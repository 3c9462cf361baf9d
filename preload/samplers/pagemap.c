/*
 * The states of pages. See pagemap.h. An entry of pagemap is 64 bits a page; of interest are
 * present (63), swapped (62), file or shared (61) and mapped exclusively (56), which need no
 * privilege in the process itself or in another of the same user.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "samplers/pagemap.h"

#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "memtrace/format.h"
#include "memtrace/varint.h"
#include "sys/sys.h"

#define PRESENT (UINT64_C(1) << 63)
#define SWAPPED (UINT64_C(1) << 62)
#define FILE_PAGE (UINT64_C(1) << 61)
#define EXCLUSIVE (UINT64_C(1) << 56)
#define WANTED (PRESENT | SWAPPED | FILE_PAGE | EXCLUSIVE)

#define PAGE_SHIFT 12
#define PAGE_BYTES (UINT64_C(1) << PAGE_SHIFT)
#define HUGE_PAGES 512u /* of 4 KiB in a huge page of x86-64 */
#define HUGE_BYTES (HUGE_PAGES * PAGE_BYTES)

/* One page of as many is asked whether it is exclusive. */
#define FORKED_SAMPLED_BYTES (UINT64_C(1) << 20)
#define OWN_SAMPLED_BYTES HUGE_BYTES

/* linux/fs.h of 6.7; older headers don't have it. */
struct scan_argument {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t inverted, mask, anyof_mask, return_mask;
};
#define SCAN_IOCTL _IOWR('f', 16, struct scan_argument)
#define SCAN_IS_PRESENT 8u
#define SCAN_IS_SWAPPED 16u
#define SCAN_IS_ZERO 32u
#define SCAN_IS_HUGE 64u

void mt_pagemap_begin(struct mt_pagemap *m)
{
	m->run_state = 0;
	m->run_pages = 0;
	m->seen = 0;
	m->used = 0;
}

/* The first region of [start, end) that has any of the categories; 0: none, -errno. */
static long scan_first(const struct mt_pagemap *m, uint64_t start, uint64_t end, uint64_t any,
		       struct mt_scan_region *found)
{
	struct scan_argument a = { .size = sizeof(a),
				   .start = start,
				   .end = end,
				   .vec = (uint64_t)(uintptr_t)found,
				   .vec_len = 1,
				   .max_pages = 1,
				   .anyof_mask = any,
				   .return_mask = any };

	return mt_sys3(SYS_ioctl, m->fd, SCAN_IOCTL, &a);
}

uint64_t mt_pagemap_skip(struct mt_pagemap *m, uint64_t start, uint64_t end)
{
	struct mt_scan_region found = { 0 };
	long n;

	if (m->no_scan)
		return start;
	n = scan_first(m, start, end, SCAN_IS_PRESENT | SCAN_IS_SWAPPED, &found);
	if (n < 0) {
		m->no_scan = 1;
		return start;
	}
	return n && found.start >= start && found.start < end ? found.start : end;
}

static uint32_t state_of(uint64_t entry)
{
	uint32_t state = 0;

	if (entry & PRESENT)
		state = MT_PAGE_PRESENT | (entry & EXCLUSIVE ? MT_PAGE_EXCLUSIVE : 0) |
			(entry & FILE_PAGE ? MT_PAGE_FILE : 0);
	else if (entry & SWAPPED)
		state = MT_PAGE_SWAPPED | (entry & FILE_PAGE ? MT_PAGE_FILE : 0);
	return state;
}

static void close_run(struct mt_pagemap *m)
{
	uint8_t *p = m->runs + m->used;

	if (!m->run_pages)
		return;
	p = mt_put_varint(p, m->run_state);
	p = mt_put_varint(p, m->run_pages);
	m->used = (uint32_t)(p - m->runs);
	m->run_pages = 0;
}

static void add_run(struct mt_pagemap *m, uint32_t state, uint64_t pages)
{
	if (state & MT_PAGE_PRESENT)
		m->resident += pages;
	if ((state & (MT_PAGE_PRESENT | MT_PAGE_EXCLUSIVE | MT_PAGE_FILE)) == MT_PAGE_PRESENT)
		m->shared += pages;
	m->seen += pages;
	if (state != m->run_state) {
		close_run(m);
		m->run_state = state;
	}
	m->run_pages += pages;
}

/*
 * Where a whole aligned 2 MiB is exclusive it may be one huge page, of which bit 56 of one page is
 * shown for all. One page is asked for: the kernel answers for the entry that maps all of them.
 */
static int is_huge(struct mt_pagemap *m, uint64_t start)
{
	struct mt_scan_region found;

	return !m->no_scan && scan_first(m, start, start + PAGE_BYTES, SCAN_IS_HUGE, &found) == 1;
}

/* Marks the 2 MiB that these pages, `from` to `to` of what is read from `start` on, lie in. */
static void mark_mixed(struct mt_pagemap *m, uint64_t start, uint64_t from, uint64_t to)
{
	uint64_t offset = start >> PAGE_SHIFT & (HUGE_PAGES - 1);

	for (uint64_t i = (offset + from) / HUGE_PAGES; i <= (offset + to - 1) / HUGE_PAGES; i++)
		m->mixed |= UINT32_C(1) << i;
}

/* Equal entries, `from` to `to` of what is read from `start` on, taken apart where huge pages may be. */
static void add_entries(struct mt_pagemap *m, uint64_t entry, uint64_t start, uint64_t from,
			uint64_t to)
{
	uint32_t state = state_of(entry);

	if ((entry & (PRESENT | EXCLUSIVE | FILE_PAGE)) == (PRESENT | EXCLUSIVE)) {
		uint64_t head = (-(start >> PAGE_SHIFT) - from) & (HUGE_PAGES - 1);

		for (; to - from >= head + HUGE_PAGES; head = 0) {
			uint32_t huge;

			if (head)
				add_run(m, state, head);
			from += head;
			huge = is_huge(m, start + from * PAGE_BYTES) ? MT_PAGE_HUGE : 0;
			if (huge)
				mark_mixed(m, start, from, from + HUGE_PAGES);
			add_run(m, state | huge, HUGE_PAGES);
			from += HUGE_PAGES;
		}
	} else if (entry) {
		mark_mixed(m, start, from, to);
	}
	if (to > from)
		add_run(m, state, to - from);
}

int mt_pagemap_read(struct mt_pagemap *m, uint64_t start, uint32_t pages)
{
	ssize_t bytes = mt_sys_pread(m->fd, m->entries, (size_t)pages * sizeof(uint64_t),
				     start >> PAGE_SHIFT << 3);
	uint32_t n = bytes > 0 ? (uint32_t)bytes / 8 : 0, from = 0;

	if (bytes < 0)
		return (int)bytes;
	while (from < n) {
		uint64_t entry = m->entries[from] & WANTED;
		uint32_t to = from + 1;

		while (to < n && (m->entries[to] & WANTED) == entry)
			to++;
		add_entries(m, entry, start, from, to);
		from = to;
	}
	if (n < pages)
		add_run(m, 0, pages - n);
	return 0;
}

/* ---- what is there, without looking at each page --------------------------------------------------- */

/* How the pages that are there are taken to be, unless the one that is asked is not. */
struct taken {
	uint64_t start; /* of it all */
	uint32_t state;
	uint64_t sampled; /* bytes of which one page is asked */
};

/* Is this page, which is there, exclusive and no part of a huge page? */
static int is_own(struct mt_pagemap *m, uint64_t address)
{
	uint64_t entry = 0;

	if (mt_sys_pread(m->fd, &entry, sizeof(entry), address >> PAGE_SHIFT << 3) != sizeof(entry))
		return 0;
	return (entry & (PRESENT | FILE_PAGE | EXCLUSIVE)) == (PRESENT | EXCLUSIVE);
}

/* Reads a part; what it finds mixed is of the whole. */
static int read_part(struct mt_pagemap *m, const struct taken *k, uint64_t at, uint32_t pages)
{
	uint32_t before = m->mixed;
	uint64_t base = at / HUGE_BYTES - k->start / HUGE_BYTES;
	int error;

	m->mixed = 0;
	error = mt_pagemap_read(m, at, pages);
	m->mixed = before | m->mixed << base;
	return error;
}

/* A stretch of pages that are there: those of a MiB, or two, are taken to be as its middle. */
static int add_present(struct mt_pagemap *m, const struct taken *k, uint64_t at, uint64_t end)
{
	int error = 0;

	while (at < end && !error) {
		uint64_t next = (at | (k->sampled - 1)) + 1;
		uint32_t pages;

		next = next < end ? next : end;
		pages = (uint32_t)((next - at) >> PAGE_SHIFT);
		if (is_own(m, at + ((uint64_t)pages / 2 << PAGE_SHIFT)) !=
		    !!(k->state & MT_PAGE_EXCLUSIVE))
			error = read_part(m, k, at, pages);
		else
			add_run(m, k->state, pages);
		at = next;
	}
	return error;
}

/* A page of zeros that was only read is not shared with anybody: writing to it copies nothing. */
static int add_region(struct mt_pagemap *m, const struct taken *k, const struct mt_scan_region *r)
{
	uint64_t pages = (r->end - r->start) >> PAGE_SHIFT;

	if (r->categories & SCAN_IS_PRESENT && r->categories & SCAN_IS_HUGE)
		return read_part(m, k, r->start, (uint32_t)pages);
	if (r->categories & SCAN_IS_PRESENT && !(r->categories & SCAN_IS_ZERO))
		return add_present(m, k, r->start, r->end);
	add_run(m, r->categories & SCAN_IS_SWAPPED ? MT_PAGE_SWAPPED : 0, pages);
	return 0;
}

static int read_taken(struct mt_pagemap *m, const struct taken *k, uint32_t pages, uint64_t huge)
{
	uint64_t at = k->start, end = at + ((uint64_t)pages << PAGE_SHIFT);

	while (at < end) {
		struct scan_argument a = { .size = sizeof(a),
					   .start = at,
					   .end = end,
					   .vec = (uint64_t)(uintptr_t)m->regions,
					   .vec_len = MT_SCAN_REGIONS,
					   .anyof_mask = SCAN_IS_PRESENT | SCAN_IS_SWAPPED,
					   .return_mask = SCAN_IS_PRESENT | SCAN_IS_SWAPPED |
							  SCAN_IS_ZERO | huge };
		long n = m->no_scan ? -1 : mt_sys3(SYS_ioctl, m->fd, SCAN_IOCTL, &a);

		if (n < 0)
			return read_part(m, k, at, (uint32_t)((end - at) >> PAGE_SHIFT));
		for (long i = 0; i < n; i++) {
			const struct mt_scan_region *r = &m->regions[i];
			int error;

			if (r->start < at || r->end > end || r->end <= r->start)
				continue;
			add_run(m, 0, (r->start - at) >> PAGE_SHIFT);
			error = add_region(m, k, r);
			if (error < 0)
				return error;
			at = r->end;
		}
		if (n < (long)MT_SCAN_REGIONS)
			break;
	}
	add_run(m, 0, (end - at) >> PAGE_SHIFT);
	return 0;
}

int mt_pagemap_read_forked(struct mt_pagemap *m, uint64_t start, uint32_t pages)
{
	struct taken k = { start, MT_PAGE_PRESENT, FORKED_SAMPLED_BYTES };

	return read_taken(m, &k, pages, 0);
}

int mt_pagemap_read_own(struct mt_pagemap *m, uint64_t start, uint32_t pages)
{
	struct taken k = { start, MT_PAGE_PRESENT | MT_PAGE_EXCLUSIVE, OWN_SAMPLED_BYTES };

	return read_taken(m, &k, pages, SCAN_IS_HUGE);
}

void mt_pagemap_unseen(struct mt_pagemap *m, uint64_t pages)
{
	add_run(m, MT_PAGE_UNSEEN, pages);
}

int mt_pagemap_is_full(const struct mt_pagemap *m)
{
	return m->used > MT_RUNS_BYTES / 4;
}

void mt_pagemap_end(struct mt_pagemap *m)
{
	if (m->run_state)
		close_run(m);
	m->run_pages = 0;
}
