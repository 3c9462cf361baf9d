/*
 * The states of pages. See pagemap.h. An entry of pagemap is 64 bits a page; of interest are
 * present (63), swapped (62), file or shared (61) and mapped exclusively (56), which need no
 * privilege in the process itself or in another of the same user.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "samplers/pagemap.h"

#include <errno.h>
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

_Static_assert(MT_GROUP_PAGES == 1u << MT_GROUP_SHIFT, "a power of two");

#define GROUP_BYTES (MT_GROUP_PAGES * PAGE_BYTES)
#define FORKED_BYTES (UINT64_C(1) << 20) /* one page of as many is asked after a fork */

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

/*
 * Regions of [start, end) that have any of the categories: how many, or -errno. As many as fit: ask
 * again from the end of the last one. most 1: the first page of it will do.
 */
static long scan(const struct mt_pagemap *m, uint64_t start, uint64_t end, uint64_t any,
		 uint64_t tell, struct mt_scan_region *found, uint64_t most)
{
	struct scan_argument a = { .size = sizeof(a),
				   .start = start,
				   .end = end,
				   .vec = (uint64_t)(uintptr_t)found,
				   .vec_len = most,
				   .max_pages = most == 1,
				   .anyof_mask = any,
				   .return_mask = tell };

	return m->no_scan ? -ENOSYS : mt_sys3(SYS_ioctl, m->fd, SCAN_IOCTL, &a);
}

/* Has one of these pages the category? */
static int has_any(const struct mt_pagemap *m, uint64_t start, uint32_t pages, uint64_t category)
{
	struct mt_scan_region found;

	return scan(m, start, start + pages * PAGE_BYTES, category, category, &found, 1) == 1;
}

uint64_t mt_pagemap_skip(struct mt_pagemap *m, uint64_t start, uint64_t end)
{
	struct mt_scan_region found = { 0 };
	uint64_t any = SCAN_IS_PRESENT | SCAN_IS_SWAPPED;
	long n;

	n = scan(m, start, end, any, any, &found, 1);
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
static int is_huge(const struct mt_pagemap *m, uint64_t start)
{
	return has_any(m, start, 1, SCAN_IS_HUGE);
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
			add_run(m, state | huge, HUGE_PAGES);
			from += HUGE_PAGES;
		}
	}
	if (to > from)
		add_run(m, state, to - from);
}

/* Is a page of zeros among these? To mincore() it is a page as any, to pagemap one of several owners. */
static int has_zeros(const struct mt_pagemap *m, uint64_t at, uint32_t pages)
{
	return has_any(m, at, pages, SCAN_IS_ZERO);
}

/* Pages that may be others', too, or one of the kernel's pages of zeros; a huge one is said to be a file's. */
static int has_shared(const struct mt_pagemap *m, uint32_t pages)
{
	for (uint32_t i = 0; i < pages; i++)
		if ((m->entries[i] & (PRESENT | EXCLUSIVE)) == PRESENT)
			return 1;
	return 0;
}

/* A page of zeros that was only read takes no memory, and is nobody's: as if it were not there. */
static void drop_zeros(struct mt_pagemap *m, uint64_t start, uint32_t pages)
{
	uint64_t at = start, end = start + pages * PAGE_BYTES;
	long n = MT_SCAN_REGIONS;

	while (at < end && n == (long)MT_SCAN_REGIONS) {
		n = scan(m, at, end, SCAN_IS_ZERO, SCAN_IS_ZERO, m->regions, MT_SCAN_REGIONS);
		for (long i = 0; i < n; i++) {
			const struct mt_scan_region *r = &m->regions[i];

			if (r->start < at || r->end > end || r->end <= r->start)
				continue;
			for (at = r->start; at < r->end; at += PAGE_BYTES)
				m->entries[(at - start) >> PAGE_SHIFT] = 0;
		}
	}
}

int mt_pagemap_read(struct mt_pagemap *m, uint64_t start, uint32_t pages)
{
	ssize_t bytes = mt_sys_pread(m->fd, m->entries, (size_t)pages * sizeof(uint64_t),
				     start >> PAGE_SHIFT << 3);
	uint32_t n = bytes > 0 ? (uint32_t)bytes / 8 : 0, from = 0;

	if (bytes < 0)
		return (int)bytes;
	if (m->anonymous && has_shared(m, n))
		drop_zeros(m, start, n);
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

/*
 * Which of these pages are there, a byte each in m->core. mincore() reads page tables only: less than
 * a nanosecond a page, where pagemap takes 30 to 80 for the page's descriptor. 0: it can't be told so.
 */
static int ask_core(struct mt_pagemap *m, uint64_t start, uint32_t pages)
{
	if (!m->by_core || mt_sys3(SYS_mincore, start, pages * PAGE_BYTES, m->core) != 0)
		return 0;
	for (uint32_t i = 0; i < pages; i++)
		m->there += m->core[i] & 1;
	return 1;
}

/* Is this page, which is there, the process's own? */
static int is_own(struct mt_pagemap *m, uint64_t address)
{
	uint64_t entry = 0;

	if (mt_sys_pread(m->fd, &entry, sizeof(entry), address >> PAGE_SHIFT << 3) != sizeof(entry))
		return 0;
	return (entry & (PRESENT | FILE_PAGE | EXCLUSIVE)) == (PRESENT | EXCLUSIVE);
}

/* A stretch of pages that are there, of a process that was just forked: those of a MiB are shared
 * unless their middle is not. */
static int add_forked(struct mt_pagemap *m, uint64_t at, uint64_t end)
{
	int error = 0;

	while (at < end && !error) {
		uint64_t next = (at | (FORKED_BYTES - 1)) + 1;
		uint32_t pages;

		next = next < end ? next : end;
		pages = (uint32_t)((next - at) >> PAGE_SHIFT);
		if (is_own(m, at + ((uint64_t)pages / 2 << PAGE_SHIFT)))
			error = mt_pagemap_read(m, at, pages);
		else
			add_run(m, MT_PAGE_PRESENT, pages);
		at = next;
	}
	return error;
}

static int add_region(struct mt_pagemap *m, const struct mt_scan_region *r)
{
	if (r->categories & SCAN_IS_PRESENT && !(r->categories & SCAN_IS_ZERO))
		return add_forked(m, r->start, r->end);
	add_run(m, r->categories & SCAN_IS_SWAPPED ? MT_PAGE_SWAPPED : 0,
		(r->end - r->start) >> PAGE_SHIFT);
	return 0;
}

static int scan_forked(struct mt_pagemap *m, uint64_t at, uint64_t end)
{
	while (at < end) {
		long n = scan(m, at, end, SCAN_IS_PRESENT | SCAN_IS_SWAPPED,
			      SCAN_IS_PRESENT | SCAN_IS_SWAPPED | SCAN_IS_ZERO, m->regions,
			      MT_SCAN_REGIONS);

		if (n < 0)
			return mt_pagemap_read(m, at, (uint32_t)((end - at) >> PAGE_SHIFT));
		for (long i = 0; i < n; i++) {
			const struct mt_scan_region *r = &m->regions[i];
			int error;

			if (r->start < at || r->end > end || r->end <= r->start)
				continue;
			add_run(m, 0, (r->start - at) >> PAGE_SHIFT);
			error = add_region(m, r);
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
	int error = 0;

	if (m->no_scan || !ask_core(m, start, pages))
		return scan_forked(m, start, start + pages * PAGE_BYTES);
	for (uint32_t from = 0, to; from < pages && !error; from = to) {
		uint64_t at = start + from * PAGE_BYTES;
		uint32_t group = from + (uint32_t)((GROUP_BYTES - at % GROUP_BYTES) >> PAGE_SHIFT);
		uint32_t some;

		for (to = from + 1;
		     to < pages && to < group && !((m->core[to] ^ m->core[from]) & 1);)
			to++;
		some = to - from < MT_SAMPLE_LEAST ? to - from : MT_SAMPLE_LEAST;
		if (!(m->core[from] & 1))
			add_run(m, 0, to - from);
		else if (has_zeros(m, at + (to - from - some) / 2 * PAGE_BYTES, some))
			error = scan_forked(m, at, start + to * PAGE_BYTES);
		else
			error = add_forked(m, at, start + to * PAGE_BYTES);
	}
	return error;
}

/* ---- a part of them ---------------------------------------------------------------------------------- */

uint32_t mt_pagemap_part(uint64_t bytes)
{
	uint32_t part = MT_GROUP_PAGES;

	while (part > MT_SAMPLE_LEAST && bytes / MT_GROUP_PAGES * part > MT_SAMPLE_BYTES)
		part /= 2;
	return part;
}

/* The first page of a group's sample: always the same, and within that of a larger part. By the golden
 * ratio (Knuth, The Art of Computer Programming, vol. 3, 6.4) those of groups that follow each other
 * are spread evenly. */
static uint32_t sample_at(const struct mt_pagemap *m, uint64_t at)
{
	uint64_t hash = at / GROUP_BYTES * UINT64_C(0x9e3779b97f4a7c15);

	return (uint32_t)(hash >> (64 - MT_GROUP_SHIFT)) & ~(m->part - 1);
}

/* All of it, of which only some pages are there: each is as the one that is as far into the sample. */
static int add_expanded(struct mt_pagemap *m, uint64_t at, const uint8_t *core)
{
	uint32_t state = 0;

	for (uint32_t i = 0; i < m->part && !(state & MT_PAGE_PRESENT); i++)
		state = state_of(m->entries[i]);
	if (!(state & MT_PAGE_PRESENT))
		return mt_pagemap_read(m, at, MT_GROUP_PAGES);
	for (uint32_t i = 0; i < MT_GROUP_PAGES; i++) {
		uint64_t entry = m->entries[i & (m->part - 1)];

		if (entry & PRESENT)
			state = state_of(entry);
		add_run(m, core[i] & 1 ? state : 0, 1);
	}
	return 0;
}

static void add_sampled(struct mt_pagemap *m, uint32_t first)
{
	uint32_t same = 1;

	while (same < m->part && !((m->entries[same] ^ m->entries[0]) & WANTED))
		same++;
	if (same == m->part) {
		add_run(m, state_of(m->entries[0]), MT_GROUP_PAGES);
		return;
	}
	if (first)
		add_run(m, MT_PAGE_LIKE, first);
	for (uint32_t i = 0; i < m->part; i++)
		add_run(m, state_of(m->entries[i]), 1);
	if (first + m->part < MT_GROUP_PAGES)
		add_run(m, MT_PAGE_LIKE, MT_GROUP_PAGES - m->part - first);
}

/* core: what is there; NULL: that is sampled, too. */
static int sample_group(struct mt_pagemap *m, uint64_t at, const uint8_t *core)
{
	uint32_t first = sample_at(m, at), there = 0;
	ssize_t bytes;

	for (uint32_t i = 0; core && i < MT_GROUP_PAGES; i++)
		there += core[i] & 1;
	if (core && !there) {
		add_run(m, 0, MT_GROUP_PAGES);
		return 0;
	}
	bytes = mt_sys_pread(m->fd, m->entries, m->part * sizeof(uint64_t),
			     ((at >> PAGE_SHIFT) + first) << 3);
	if (bytes < 0)
		return (int)bytes;
	for (uint32_t i = (uint32_t)bytes / 8; i < m->part; i++)
		m->entries[i] = 0;
	if (has_shared(m, m->part) && has_zeros(m, at + first * PAGE_BYTES, m->part))
		return mt_pagemap_read(m, at, MT_GROUP_PAGES);
	if (core && there < MT_GROUP_PAGES)
		return add_expanded(m, at, core);
	add_sampled(m, first);
	return 0;
}

int mt_pagemap_sample(struct mt_pagemap *m, uint64_t start, uint32_t pages)
{
	uint64_t end = start + pages * PAGE_BYTES, next;
	int known = m->part < MT_GROUP_PAGES && ask_core(m, start, pages), error = 0;

	if (m->part == MT_GROUP_PAGES || (m->exact && !known))
		return mt_pagemap_read(m, start, pages);
	for (uint64_t at = start; at < end && !error; at = next) {
		next = (at | (GROUP_BYTES - 1)) + 1;
		next = next < end ? next : end;
		if (next - at < GROUP_BYTES || is_huge(m, at))
			error = mt_pagemap_read(m, at, (uint32_t)((next - at) >> PAGE_SHIFT));
		else
			error = sample_group(m, at,
					     known ? m->core + ((at - start) >> PAGE_SHIFT) : NULL);
	}
	return error;
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
