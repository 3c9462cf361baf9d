/*
 * Walks over the pages of a process. See pages.h. All memory that a walk needs is mapped for its
 * duration: a forked worker keeps nothing of it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "samplers/pages.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "core/clock.h"
#include "core/config.h"
#include "core/mem.h"
#include "core/state.h"
#include "out/file.h"
#include "out/process.h"
#include "out/stream.h"
#include "samplers/allocs.h"
#include "samplers/pagemap.h"
#include "sys/fmt.h"
#include "sys/sys.h"

#define PAGE_BYTES 4096u
#define ALIGNED_BYTES (UINT64_C(2) << 20) /* pieces begin there: with whole groups and huge pages */
#define PAUSE_NS 200000 /* between pieces: lets an mmap of another thread have the lock */
#define MAX_CPU_NS UINT64_C(2000000000) /* of a walk: then it ends incomplete */
#define NAME_MAX_BYTES 512u
/* The kernel's counters lag by some pages of each CPU, and what was allocated since they were read. */
#define ZEROS_SHARE 64
#define ZEROS_BYTES (UINT64_C(1) << 20)

struct mapping {
	uint64_t start, end, offset, dev, inode;
	uint32_t prot, flags;
	const char *name;
	uint32_t name_length;
};

struct walk {
	struct mt_thread *t;
	uint64_t id, cpu_start;
	enum mt_scan_scope scope;
	int shared; /* others may wait for the lock of this memory */
	int stopped; /* cut short */
	int forked; /* just now: nearly all of its pages are shared */
	uint32_t unpaused; /* pages looked at since the last rest, as if read */
	uint64_t anon; /* resident, bytes; 0: not known */
	uint64_t last_dev, last_inode; /* of the last RANGE with a name */
	int maps; /* descriptor */
	uint32_t pid; /* whose; 0: this process */
	struct mt_allocs allocs;
	size_t have, at; /* text[at..have) is not read yet */
	char text[16384];
	struct mt_pagemap map;
};

void (*mt_pages_before)(void);

static uint32_t walking; /* atomic */
static uint64_t walks; /* of this process, so far */
static int ended;
static int has_zeros; /* much memory shows the kernel's page of zeros */

int mt_pages_ended(void)
{
	return ended;
}

void mt_pages_child(void)
{
	walking = 0;
	walks = 0;
	ended = 0;
}

static uint64_t cpu_ns(void)
{
	struct timespec ts = { 0, 0 };

	mt_sys2(SYS_clock_gettime, CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ---- /proc/PID/maps ------------------------------------------------------------------------------ */

/* The next line, terminated; NULL at the end. A line longer than the buffer is passed over. */
static char *next_line(struct walk *w)
{
	for (;;) {
		char *line = w->text + w->at;
		char *end = memchr(line, '\n', w->have - w->at);
		ssize_t n;

		if (end) {
			*end = '\0';
			w->at = (size_t)(end + 1 - w->text);
			return line;
		}
		memmove(w->text, line, w->have - w->at);
		w->have -= w->at;
		w->at = 0;
		if (w->have == sizeof(w->text))
			w->have = 0;
		n = mt_sys_read(w->maps, w->text + w->have, sizeof(w->text) - w->have);
		if (n <= 0) {
			w->stopped |= n < 0;
			return NULL;
		}
		w->have += (size_t)n;
	}
}

static int ends_in(const char *name, size_t length, const char *end)
{
	size_t n = strlen(end);

	return length >= n && !memcmp(name + length - n, end, n);
}

static uint32_t flags_of(const struct mapping *m, int is_shared)
{
	uint32_t flags = is_shared ? MT_RANGE_SHARED : 0;

	if (!strncmp(m->name, "[heap]", 6))
		flags |= MT_RANGE_HEAP;
	if (!strncmp(m->name, "[stack]", 7))
		flags |= MT_RANGE_STACK;
	if (ends_in(m->name, m->name_length, " (deleted)"))
		flags |= MT_RANGE_DELETED;
	if ((m->inode && m->inode == mt_file.inode && m->dev == mt_file.dev) ||
	    !strncmp(m->name, "[anon:memtrace", 14) ||
	    ends_in(m->name, m->name_length, "/libmemtrace.so"))
		flags |= MT_RANGE_TOOL;
	return flags;
}

/* "7f12-7f13 rw-p 00000000 08:01 1234    /path". 0: no line of a mapping that counts. */
static int parse(const char *p, struct mapping *m)
{
	uint64_t major, minor;

	m->start = mt_parse_number(&p, 16);
	p += *p == '-';
	m->end = mt_parse_number(&p, 16);
	if (p[0] != ' ' || strnlen(p, 6) < 6)
		return 0;
	m->prot = (p[1] == 'r' ? PROT_READ : 0u) | (p[2] == 'w' ? PROT_WRITE : 0u) |
		  (p[3] == 'x' ? PROT_EXEC : 0u);
	m->flags = p[4] == 's';
	p += 6;
	m->offset = mt_parse_number(&p, 16);
	p += *p == ' ';
	major = mt_parse_number(&p, 16);
	p += *p == ':';
	minor = mt_parse_number(&p, 16);
	m->dev = makedev((unsigned int)major, (unsigned int)minor);
	p += *p == ' ';
	m->inode = mt_parse_number(&p, 10);
	while (*p == ' ')
		p++;
	m->name = p;
	m->name_length = (uint32_t)strlen(p);
	m->flags = flags_of(m, (int)m->flags);
	/* The kernel's own pages, which count as nobody's. */
	return m->end > m->start && strncmp(p, "[vsyscall]", 10) && strncmp(p, "[vvar", 5) &&
	       strncmp(p, "[vdso]", 6);
}

/* ---- one mapping --------------------------------------------------------------------------------- */

/* A file is named once while its mappings follow each other; copy-on-write needs no names. */
static struct mt_str name_of(struct walk *w, const struct mapping *m)
{
	uint32_t length = m->name_length < NAME_MAX_BYTES ? m->name_length : NAME_MAX_BYTES;

	if (w->scope != MT_SCAN_ALL || !length)
		return (struct mt_str){ "", 0 };
	if (m->inode && m->inode == w->last_inode && m->dev == w->last_dev)
		return (struct mt_str){ "", 0 };
	w->last_inode = m->inode;
	w->last_dev = m->dev;
	return (struct mt_str){ m->name, length };
}

/* Pages of [start, ...) as far as they are coded; none of them has anything: no record. */
static void emit(struct walk *w, const struct mapping *m, uint64_t start, uint64_t time)
{
	mt_pagemap_end(&w->map);
	if (w->map.used)
		w->stopped |= !MT_EMIT(
			w->t, range, .time = time, .scan = w->id, .start = start,
			.pages = w->map.seen, .prot = m->prot, .flags = m->flags, .dev = m->dev,
			.inode = m->inode, .offset = m->inode ? m->offset + (start - m->start) : 0,
			.name = name_of(w, m), .runs = { (const char *)w->map.runs, w->map.used });
	mt_pagemap_begin(&w->map);
}

/* Others get the lock of this memory; 0: the walk has to end. */
static int pause_walk(struct walk *w)
{
	if (mt_state & MT_STATE_GATE || cpu_ns() - w->cpu_start > MAX_CPU_NS)
		return 0;
	if (w->shared)
		mt_sys_nap(PAUSE_NS);
	return 1;
}

/* Pages of a file are told from copies by looking at each. */
static int look_at(struct walk *w, const struct mapping *m, uint64_t start, uint64_t end)
{
	uint32_t pages = (uint32_t)((end - start) / PAGE_BYTES);

	w->map.anonymous = !m->inode;
	if (m->inode)
		return mt_pagemap_read(&w->map, start, pages);
	if (w->forked)
		return mt_pagemap_read_forked(&w->map, start, pages);
	return mt_pagemap_sample(&w->map, start, pages);
}

/* Where nothing is for a whole piece, a new RANGE begins after it: so empty space is skipped. */
static void walk_mapping(struct walk *w, const struct mapping *m)
{
	uint64_t at = m->start, from = at, time = 0;

	mt_pagemap_begin(&w->map);
	while (at < m->end && !w->stopped) {
		uint64_t end;

		if (!w->map.seen) {
			from = mt_pagemap_skip(&w->map, at, m->end);
			if (from >= m->end)
				break;
			from &= ~(ALIGNED_BYTES - 1);
			at = from = from > at ? from : at;
			time = mt_clock_now();
		}
		end = (at + MT_PIECE_PAGES * PAGE_BYTES) & ~(ALIGNED_BYTES - 1);
		end = end < m->end ? end : m->end;
		w->stopped |= look_at(w, m, at, end) < 0;
		/* Of what is read in part the lock is held for a tenth of the time, piece by piece. */
		w->unpaused += (uint32_t)((end - at) / PAGE_BYTES) /
			       (!m->inode && w->map.part < MT_GROUP_PAGES ? 2 : 1);
		at = end;
		if (mt_pagemap_is_full(&w->map) ||
		    (!w->map.run_state && w->map.run_pages >= MT_PIECE_PAGES / 2))
			emit(w, m, from, time);
		if (w->unpaused >= MT_PIECE_PAGES) {
			w->unpaused = 0;
			w->stopped |= !pause_walk(w);
		}
	}
	emit(w, m, from, time);
}

static int is_wanted(const struct walk *w, const struct mapping *m)
{
	if (w->scope == MT_SCAN_ALL)
		return 1;
	return m->prot & PROT_WRITE && !(m->flags & MT_RANGE_SHARED);
}

/* ---- the walk ------------------------------------------------------------------------------------ */

static void path_of(char *path, size_t size, uint32_t pid, const char *name)
{
	if (pid)
		mt_fmt(path, size, "/proc/%u/%s", pid, name);
	else
		mt_fmt(path, size, "/proc/self/%s", name);
}

static int open_file(uint32_t pid, const char *name)
{
	char path[64];

	path_of(path, sizeof(path), pid, name);
	return mt_sys_open(path, O_RDONLY | O_CLOEXEC, 0);
}

/* Field `number` of /proc/PID/stat (from 1; above 2), plus one; 0: can't be read. */
static uint64_t stat_field(const char *stat, unsigned int number)
{
	const char *p = strrchr(stat, ')'); /* the name before it may hold anything */

	for (unsigned int field = 2; p && *p && field < number; field++) {
		p = strchr(p, ' ');
		p = p ? p + 1 : NULL;
	}
	return p && *p >= '0' && *p <= '9' ? mt_parse_number(&p, 10) + 1 : 0;
}

static void read_text(uint32_t pid, const char *name, char *text, size_t size)
{
	char path[64];

	path_of(path, sizeof(path), pid, name);
	text[0] = '\0';
	mt_sys_slurp(path, text, size);
}

/* A copy that had to wait for something counts as a major one. */
uint64_t mt_pages_faults(uint32_t pid)
{
	char stat[1024];
	uint64_t minor, major;

	read_text(pid, "stat", stat, sizeof(stat));
	minor = stat_field(stat, 10);
	major = stat_field(stat, 12);
	return minor && major ? minor + major - 1 : 0;
}

void mt_pages_same(struct mt_thread *t, uint32_t pid)
{
	char stat[1024];
	uint64_t id, rss, cpu_start = cpu_ns();
	uint32_t idle = 0;

	if (mt_file.stopped ||
	    !__atomic_compare_exchange_n(&walking, &idle, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
		return;
	read_text(pid, "stat", stat, sizeof(stat));
	rss = stat_field(stat, 24);
	id = ++walks;
	MT_EMIT(t, scan, .time = mt_clock_now(), .id = id, .pid = pid, .reason = MT_SCAN_INTERVAL,
		.page_bytes = PAGE_BYTES, .minflt = stat_field(stat, 10),
		.rss = rss ? (rss - 1) * PAGE_BYTES + 1 : 0, .scope = MT_SCAN_NONE);
	MT_EMIT(t, scan_end, .time = mt_clock_now(), .id = id, .complete = 1,
		.cpu_ns = cpu_ns() - cpu_start);
	__atomic_store_n(&walking, 0, __ATOMIC_RELEASE);
}

/* How the pages are to be looked at: see mt_pagemap_sample(). */
static void choose(struct walk *w, uint32_t pid, uint64_t rss_pages)
{
	char status[4096];
	int64_t anon;

	read_text(pid, "status", status, sizeof(status));
	anon = mt_find_field(status, "RssAnon"); /* KiB */
	/* To mincore() a page in the cache of the swap is there; and a filter of system calls (seccomp)
	 * may end the process for a call that it does not expect. */
	w->map.by_core = !pid && mt_find_field(status, "VmSwap") == 0 &&
			 mt_find_field(status, "Seccomp") == 0;
	w->map.exact = w->scope == MT_SCAN_ALL;
	w->map.part = mt_config.cow_touch ? MT_GROUP_PAGES
					  : mt_pagemap_part(anon >= 0 ? (uint64_t)anon << 10
								      : rss_pages * PAGE_BYTES);
	w->anon = anon > 0 ? (uint64_t)anon << 10 : 0;
	if (w->map.exact && (has_zeros || !w->map.by_core))
		w->map.part = MT_GROUP_PAGES;
}

static void begin(struct walk *w, enum mt_scan_reason reason, uint32_t pid)
{
	char stat[1024];
	uint64_t rss, threads;

	read_text(pid, "stat", stat, sizeof(stat));
	rss = stat_field(stat, 24);
	threads = stat_field(stat, 20);
	w->shared = threads != 2; /* plus one; not known: maybe */
	choose(w, pid, rss ? rss - 1 : 0);
	MT_EMIT(w->t, scan, .time = mt_clock_now(), .id = w->id, .pid = pid, .reason = reason,
		.page_bytes = PAGE_BYTES, .minflt = stat_field(stat, 10),
		.rss = rss ? (rss - 1) * PAGE_BYTES + 1 : 0,
		.brk = pid ? 0 : (uint64_t)mt_sys1(SYS_brk, 0), .scope = w->scope,
		.part = w->map.part);
}

static void walk_all(struct walk *w)
{
	int own = w->scope == MT_SCAN_ALL && !w->pid;
	struct mapping m;
	char *line;

	if (own) {
		mt_allocs_open(&w->allocs);
		mt_allocs_tool(w->t, w->id);
		mt_allocs_pools(w->t, &w->allocs);
	}
	while (!w->stopped && (line = next_line(w))) {
		/* Not the kernel's, and not the pages that this walk itself works in. */
		if (!parse(line, &m) || !is_wanted(w, &m))
			continue;
		if (own && !m.inode && !m.name_length && !(m.flags & MT_RANGE_SHARED))
			mt_allocs_mapping(w->t, &w->allocs, m.start, m.end, m.prot);
		walk_mapping(w, &m);
	}
	if (own)
		mt_allocs_close(&w->allocs);
}

/*
 * Pages of zeros that a part of the pages has not shown: more is there than the kernel counts as
 * anonymous. Then this walk does not count, and pages are read one by one from now on.
 */
static void look_for_zeros(struct walk *w)
{
	uint64_t there = w->map.there * PAGE_BYTES;

	if (!w->map.exact || w->map.part == MT_GROUP_PAGES || !w->anon ||
	    there <= w->anon + w->anon / ZEROS_SHARE + ZEROS_BYTES)
		return;
	has_zeros = 1;
	w->stopped = 1;
}

static int64_t walk_with(struct walk *w, enum mt_scan_reason reason, uint32_t pid)
{
	uint64_t took;

	w->cpu_start = cpu_ns();
	w->map.fd = open_file(pid, "pagemap");
	w->maps = w->map.fd < 0 ? -1 : open_file(pid, "maps");
	w->stopped = w->map.fd < 0 ? w->map.fd : w->maps < 0 ? w->maps : 0;
	begin(w, reason, pid);
	walk_all(w);
	look_for_zeros(w);
	if (w->maps >= 0)
		mt_sys_close(w->maps);
	if (w->map.fd >= 0)
		mt_sys_close(w->map.fd);
	took = cpu_ns() - w->cpu_start;
	w->stopped |= !MT_EMIT(w->t, scan_end, .time = mt_clock_now(), .id = w->id,
			       .complete = !w->stopped, .cpu_ns = took);
	return w->stopped ? -EAGAIN : (int64_t)took;
}

static int64_t walk_once(struct mt_thread *t, enum mt_scan_reason reason, enum mt_scan_scope scope,
			 uint32_t pid)
{
	struct walk *w = mt_mem_map(sizeof(*w));
	int64_t result;

	if (!w)
		return -ENOMEM;
	w->t = t;
	w->id = ++walks;
	w->scope = scope;
	w->pid = pid;
	w->forked = reason == MT_SCAN_START;
	w->allocs.scan = w->id;
	/* What it is going to touch counts from the start: in `rss` as in the pages. */
	for (size_t at = 0; at < sizeof(*w); at += PAGE_BYTES)
		((volatile char *)w)[at] = ((volatile char *)w)[at];
	result = walk_with(w, reason, pid);
	mt_mem_unmap(w, sizeof(*w));
	return result;
}

int64_t mt_pages_walk(struct mt_thread *t, enum mt_scan_reason reason, enum mt_scan_scope scope,
		      uint32_t pid)
{
	int known_zeros = has_zeros;
	uint32_t idle = 0;
	int64_t result;

	if (mt_file.stopped)
		return -EPERM;
	if (mt_file.header->page_size != PAGE_BYTES)
		return -ENOTSUP;
	if (!__atomic_compare_exchange_n(&walking, &idle, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
		return -EBUSY;
	if (!pid && mt_pages_before && reason != MT_SCAN_START)
		mt_pages_before();
	result = walk_once(t, reason, scope, pid);
	if (result == -EAGAIN && has_zeros != known_zeros)
		result = walk_once(t, reason, scope, pid);
	if (result >= 0 && !pid && scope == MT_SCAN_ALL && reason == MT_SCAN_EXIT)
		ended = 1;
	__atomic_store_n(&walking, 0, __ATOMIC_RELEASE);
	return result;
}
