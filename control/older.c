/*
 * What a process holds when recording begins in mid-run, seen from outside: from /proc/PID/smaps what is
 * resident of what, and from its memory and /proc/PID/pagemap what libc's and CPython's allocators have
 * put there. The process does nothing for it, and is not stopped. Its memory is read by /proc/PID/mem: by
 * process_vm_readv the kernel would copy pages that it shares with forked children. Pages that were
 * never touched are not read.
 *
 * The text is of lines "BYTES WHAT", see docs/FORMAT.md 3.11.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "page.h"

#define PAGE UINT64_C(4096)
#define STACK_BYTES (UINT64_C(8) << 20) /* of a thread, as most have it */
#define PIECE 8192u /* pages whose states are read at once */
#define PATIENCE_NS UINT64_C(2000000000) /* then it is not measured */
#define LIBRARIES 512
#define NAMED 12 /* of them, the largest */

struct library {
	char name[64];
	uint64_t bytes;
};

struct older {
	struct library libraries[LIBRARIES];
	size_t count;
	int memory, pagemap; /* descriptors */
	int failed;
	uint64_t until_ns;
	uint64_t other; /* resident bytes of private mappings that no allocator of libc has */
	uint64_t pools, blocks; /* of these: in pools of CPython's, and in blocks of such pools */
	uint64_t skip; /* up to there it is libc's, or a stack */
	uint64_t from, resident; /* bytes seen from there on */
	uint64_t states[PIECE];
};

/* ---- allocators ---------------------------------------------------------------------------------- */

#define HEAP_BYTES (UINT64_C(64) << 20) /* further heaps of glibc begin at multiples of it */

/* The first words of a page, as whatever they may be. */
union words {
	uint64_t word[6];
	struct {
		uint64_t arena, previous, size, usable;
	} heap;
	struct {
		uint64_t previous_size, size;
	} chunk;
	struct {
		uint32_t used, unused;
		uint64_t free_block, next, previous;
		uint32_t arena, size_class, next_offset, last_offset;
	} pool;
};

static uint64_t heap_at(const union words *w, uint64_t at, uint64_t end)
{
	uint64_t first = w->heap.arena & ~(HEAP_BYTES - 1);

	if (at % HEAP_BYTES || !w->heap.size || w->heap.size % PAGE || at + w->heap.size > end ||
	    w->heap.size > w->heap.usable || w->heap.usable > HEAP_BYTES || w->heap.arena & 15 ||
	    w->heap.arena - first < 32 || w->heap.arena - first > 64)
		return 0;
	return w->heap.size;
}

/* A block of libc's with a mapping of its own: bit 1 of its size says so. */
static uint64_t chunk_at(const union words *w, uint64_t at, uint64_t end)
{
	uint64_t size = w->chunk.size & ~UINT64_C(7), whole = size + w->chunk.previous_size;

	if ((w->chunk.size & 7) != 2 || whole % PAGE || size < 4 * PAGE || at + size > end ||
	    w->chunk.previous_size >= whole)
		return 0;
	return size;
}

/* Size of the pool, 0: it is none. Its header says twice how large its blocks are. */
static uint64_t pool_at(const union words *w, uint64_t at)
{
	static const uint64_t sizes[] = { 16384, 4096 }; /* since 3.10, and before */
	uint64_t block = ((uint64_t)w->pool.size_class + 1) * 16;

	for (size_t i = 0; i < 2; i++)
		if (at % sizes[i] == 0 && w->pool.size_class < 32 &&
		    w->pool.last_offset == sizes[i] - block && w->pool.next_offset >= 48 + block &&
		    w->pool.used * block <= sizes[i] - 48 &&
		    (!w->pool.free_block || w->pool.free_block - at < sizes[i]))
			return sizes[i];
	return 0;
}

/* ---- mappings ------------------------------------------------------------------------------------ */

static void look_at_page(struct older *o, uint64_t at, uint64_t end, uint64_t state)
{
	union words w;
	uint64_t libc, pool;

	o->other += PAGE;
	if (!(state >> 63)) /* swapped out: what it is is not known */
		return;
	if (pread(o->memory, &w, sizeof(w), (off_t)at) != (ssize_t)sizeof(w)) {
		o->failed = 1;
		return;
	}
	libc = heap_at(&w, at, end);
	if (!libc)
		libc = chunk_at(&w, at, end);
	if (libc) {
		o->other -= PAGE;
		o->skip = at + libc;
		return;
	}
	pool = pool_at(&w, at);
	o->pools += pool;
	o->blocks += pool ? w.pool.used * ((uint64_t)w.pool.size_class + 1) * 16 : 0;
}

static void look_at_mapping(struct older *o, uint64_t start, uint64_t end)
{
	for (uint64_t at = start; at < end && !o->failed; at += PIECE * PAGE) {
		uint64_t pages = (end - at) / PAGE < PIECE ? (end - at) / PAGE : PIECE;

		if (now_ns() > o->until_ns ||
		    pread(o->pagemap, o->states, pages * 8, (off_t)(at / PAGE * 8)) !=
			    (ssize_t)(pages * 8)) {
			o->failed = 1;
			return;
		}
		for (uint64_t i = 0; i < pages; i++) {
			if (!(o->states[i] >> 62))
				continue;
			o->resident += at + i * PAGE >= o->from ? PAGE : 0;
			if (at + i * PAGE >= o->skip)
				look_at_page(o, at + i * PAGE, end, o->states[i]);
		}
	}
}

/* One mapping of smaps; what was ahead of it tells a thread's stack: the guard below it. */
struct mapping {
	unsigned long long start, end;
	int writable, shared, guard; /* guard: can't be touched, and small */
	int after_guard;
	char name[256];
};

static int mapping_read(const char *line, struct mapping *m)
{
	char perms[8] = "";

	m->name[0] = '\0';
	if (sscanf(line, "%llx-%llx %7s %*s %*s %*s %255[^\n]", &m->start, &m->end, perms,
		   m->name) < 3 ||
	    strlen(perms) != 4)
		return 0;
	m->writable = perms[1] == 'w';
	m->shared = perms[3] == 's';
	m->guard = !strncmp(perms, "---", 3) && m->end - m->start <= 1 << 16;
	return 1;
}

static void add_library(struct older *o, const char *path, uint64_t bytes)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	size_t length = strcspn(name, "\t\n");
	size_t i = 0;

	length = length < sizeof(o->libraries[0].name) ? length : sizeof(o->libraries[0].name) - 1;
	for (; i < o->count; i++)
		if (!strncmp(o->libraries[i].name, name, length) && !o->libraries[i].name[length])
			break;
	if (i == o->count && o->count < LIBRARIES) {
		memcpy(o->libraries[i].name, name, length);
		o->libraries[o->count++].name[length] = '\0';
	}
	if (i < o->count)
		o->libraries[i].bytes += bytes;
}

/* Bytes of the mapping that are no stack: the kernel joins it with what is mapped above. */
static uint64_t above_stack(struct older *o, const struct mapping *m)
{
	if (m->end - m->start <= STACK_BYTES)
		return 0;
	o->skip = o->from = m->start + STACK_BYTES;
	o->resident = 0;
	look_at_mapping(o, m->start, m->end);
	return o->resident;
}

static void mapping_count(struct older *o, const struct mapping *m, uint64_t bytes,
			  struct mt_control_before *b)
{
	int stack = !m->name[0] && m->writable && m->after_guard;

	if (!strcmp(m->name, "[heap]")) {
		b->heap += bytes;
	} else if (!strncmp(m->name, "[stack", 6) || stack) {
		uint64_t above = stack && bytes ? above_stack(o, m) : 0;

		b->stacks += bytes > above ? bytes - above : 0;
	} else if (m->name[0] == '/' || !strncmp(m->name, "[anon:memtrace", 14)) {
		b->libraries += bytes;
		if (m->name[0] == '/' && bytes)
			add_library(o, m->name, bytes);
	} else if (!m->shared && bytes) {
		look_at_mapping(o, m->start, m->end);
	}
}

static void walk(struct older *o, FILE *smaps, struct mt_control_before *before)
{
	struct mapping m = { 0 };
	unsigned long long kib, swap = 0, anonymous = 0;
	char line[4096];

	while (fgets(line, sizeof(line), smaps)) {
		struct mapping next = { 0 };

		if (sscanf(line, "Anonymous: %llu", &kib) == 1) {
			anonymous = kib;
		} else if (sscanf(line, "Swap: %llu", &kib) == 1) {
			swap = kib;
		} else if (mapping_read(line, &next)) {
			mapping_count(o, &m, (anonymous + swap) * 1024, before);
			next.after_guard = m.guard && m.end == next.start;
			m = next;
			anonymous = swap = 0;
		}
	}
	mapping_count(o, &m, (anonymous + swap) * 1024, before);
}

/* ---- the text ------------------------------------------------------------------------------------ */

static int by_bytes(const void *a, const void *b)
{
	const struct library *x = a, *y = b;

	return (x->bytes < y->bytes) - (x->bytes > y->bytes);
}

static void write_text(struct older *o, struct mt_control_before *before, char *text)
{
	size_t used = 0;

	if (!o->failed)
		used = (size_t)snprintf(
			text, MT_CONTROL_OLDER,
			"%llu other_mappings\n%llu python_blocks\n%llu python_pools\n",
			(unsigned long long)o->other, (unsigned long long)o->blocks,
			(unsigned long long)o->pools);
	qsort(o->libraries, o->count, sizeof(o->libraries[0]), by_bytes);
	for (size_t i = 0; i < o->count && i < NAMED && used + 128 < MT_CONTROL_OLDER; i++)
		used += (size_t)snprintf(text + used, MT_CONTROL_OLDER - used, "%llu library %s\n",
					 (unsigned long long)o->libraries[i].bytes,
					 o->libraries[i].name);
	before->older_bytes = (uint32_t)used;
	before->older_check = mt_control_hash(text, (uint32_t)used);
}

static uint64_t plus_one(int64_t kib)
{
	return kib < 0 ? 0 : (uint64_t)kib * 1024 + 1;
}

static int open_file(pid_t pid, const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	return open(path, O_RDONLY | O_CLOEXEC);
}

void process_measure(pid_t pid, struct mt_control_before *before, char older[MT_CONTROL_OLDER])
{
	struct older *o = calloc(1, sizeof(*o));
	int fd = open_file(pid, "smaps");
	FILE *smaps = fd < 0 ? NULL : fdopen(fd, "re");

	*before = (struct mt_control_before){
		.anon = plus_one(process_field(pid, "status", "RssAnon")),
		.swap = plus_one(process_field(pid, "status", "VmSwap")),
		.file = plus_one(process_field(pid, "status", "RssFile")),
		.shmem = plus_one(process_field(pid, "status", "RssShmem")),
	};
	if (o && smaps) {
		before->heap = before->stacks = before->libraries = 1;
		o->memory = open_file(pid, "mem");
		o->pagemap = open_file(pid, "pagemap");
		o->failed = o->memory < 0 || o->pagemap < 0;
		o->until_ns = now_ns() + PATIENCE_NS;
		walk(o, smaps, before);
		write_text(o, before, older);
		close(o->memory);
		close(o->pagemap);
	}
	if (smaps)
		fclose(smaps);
	free(o);
}
