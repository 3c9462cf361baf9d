/*
 * What `memtrace run` adds to the trace itself. Processes record and sample in their own events, and
 * who is awake samples the silent ones (preload/samplers/relatives.c). When all are silent, workers
 * that only read and a main process that waits for them, nobody is awake: then the driver does it,
 * by the same table and the same rules. It alone is also told how the first process ended.
 *
 * It writes as a process of its own (reason MT_PROCESS_WATCHER), into small chunks, by pwrite: a
 * trace that can't take it costs the driver nothing. Whatever fails is left out for good.
 *
 * Once a process of the tree uses a GPU, NVML is asked what each of them uses of which device, by a
 * helper (nvml.h): the traced program never loads it for our sake, and nothing here waits for it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

#include "control.h"
#include "memtrace/events.h"
#include "nvml.h"
#include "page.h"

#define CHUNK_UNITS 4
#define CHUNK_BYTES (CHUNK_UNITS * MT_UNIT_BYTES)
#define GROUP_BYTES ((uint64_t)256 << 10) /* least space reserved at once */
#define COST_SHARE 100 /* as in relatives.c */
#define REST_SHARE 200

static struct watch {
	int fd; /* of the trace; -1: not found yet, or given up */
	int over; /* given up */
	struct mt_file_header *header;
	struct mt_proc_slot *slots;
	uint64_t interval; /* ns */
	uint64_t not_before; /* CLOCK_MONOTONIC ns */
	size_t next_slot; /* they take turns */
	uint32_t proc, seq;
	uint64_t offset; /* of the open chunk; 0: none */
	struct mt_codec codec;
	struct {
		struct mt_chunk header;
		uint8_t payload[CHUNK_BYTES - sizeof(struct mt_chunk)];
	} chunk;
} watch = { .fd = -1 };

/* ---- finding the trace ----------------------------------------------------------------------------- */

static int is_trace_of(const struct mt_file_header *h, pid_t pid)
{
	struct stat st;

	return !memcmp(h->magic, MT_FILE_MAGIC, sizeof(h->magic)) &&
	       h->version == MT_FORMAT_VERSION && h->unit_bytes == MT_UNIT_BYTES &&
	       h->header_bytes == MT_HEADER_BYTES && h->root_pid == (uint32_t)pid &&
	       h->root_start == process_start(pid) && stat("/proc/self/ns/pid", &st) == 0 &&
	       st.st_ino == h->pid_namespace;
}

/* Is that descriptor of the command's its trace? Only regular files are opened. */
static int try_open(pid_t pid, const char *number)
{
	struct mt_file_header h;
	struct stat st;
	char path[320];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/fd/%s", (int)pid, number);
	if (stat(path, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size < (off_t)MT_HEADER_BYTES ||
	    st.st_uid != geteuid())
		return -1;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	if (pread(fd, &h, sizeof(h), 0) != (ssize_t)sizeof(h) || !is_trace_of(&h, pid)) {
		close(fd);
		return -1;
	}
	close(fd);
	return open(path, O_RDWR | O_CLOEXEC);
}

static void find_trace(pid_t pid)
{
	struct dirent *entry;
	char path[64];
	void *p;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	while (dir && watch.fd < 0 && (entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			watch.fd = try_open(pid, entry->d_name);
	if (dir)
		closedir(dir);
	if (watch.fd < 0)
		return;
	p = mmap(NULL, MT_HEADER_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, watch.fd, 0);
	if (p == MAP_FAILED) {
		watch.over = 1;
		return;
	}
	watch.header = p;
	watch.slots = (struct mt_proc_slot *)((char *)p + 4096);
}

/* ---- writing --------------------------------------------------------------------------------------- */

static uint64_t units_now(void)
{
#if defined(__x86_64__)
	if (watch.header->flags & MT_FILE_TSC)
		return __rdtsc() >> watch.header->time_shift;
#endif
	return now_ns() >> watch.header->time_shift;
}

/* Space for the units below `end`: there already, or reserved. Under a cap of the user's nothing is
 * taken that a process of the tree did not reserve. */
static int reserve(uint64_t end)
{
	struct mt_file_header *h = watch.header;
	uint64_t limit = __atomic_load_n(&h->limit, __ATOMIC_ACQUIRE), to, old = limit;
	const char *cap = getenv("MEMTRACE_MAX_BYTES");
	struct rlimit size;

	if (end <= limit)
		return 0;
	to = (MT_HEADER_BYTES + end * MT_UNIT_BYTES + GROUP_BYTES - 1) / GROUP_BYTES * GROUP_BYTES;
	/* Beyond the limit of a file's size waits SIGXFSZ. */
	if ((cap && strcmp(cap, "0") != 0) || getrlimit(RLIMIT_FSIZE, &size) < 0 ||
	    size.rlim_cur < to ||
	    fallocate(watch.fd, 0, (off_t)(MT_HEADER_BYTES + limit * MT_UNIT_BYTES),
		      (off_t)(to - MT_HEADER_BYTES - limit * MT_UNIT_BYTES)) < 0)
		return -1;
	to = (to - MT_HEADER_BYTES) / MT_UNIT_BYTES;
	while (old < to && !__atomic_compare_exchange_n(&h->limit, &old, to, 0, __ATOMIC_RELEASE,
							__ATOMIC_RELAXED))
		;
	return 0;
}

static int write_at(const void *data, size_t n, uint64_t offset)
{
	return pwrite(watch.fd, data, n, (off_t)offset) == (ssize_t)n ? 0 : -1;
}

static void introduce(void);

static int chunk_begin(void)
{
	struct mt_file_header *h = watch.header;
	uint64_t first = __atomic_fetch_add(&h->next, CHUNK_UNITS, __ATOMIC_RELAXED);
	uint64_t after = first + CHUNK_UNITS, now = units_now();
	struct mt_chunk *c = &watch.chunk.header;

	if (reserve(after) < 0) {
		__atomic_compare_exchange_n(&h->next, &after, first, 0, __ATOMIC_RELEASE,
					    __ATOMIC_RELAXED);
		return -1;
	}
	if (!watch.proc)
		watch.proc = __atomic_fetch_add(&h->next_proc, 1, __ATOMIC_RELAXED);
	watch.offset = MT_HEADER_BYTES + first * MT_UNIT_BYTES;
	*c = (struct mt_chunk){ .magic = MT_CHUNK_MAGIC,
				.units = CHUNK_UNITS,
				.self = watch.offset,
				.proc = watch.proc,
				.seq = watch.seq++,
				.kind = MT_CHUNK_RECORDS,
				.base_time = now,
				.low_water = now };
	c->check = mt_chunk_check(c);
	mt_codec_start(&watch.codec, now);
	if (write_at(c, sizeof(*c), watch.offset) < 0)
		return -1;
	if (!c->seq)
		introduce();
	return 0;
}

/* Room for a record of at most `room` bytes; NULL: it can't be written. */
static uint8_t *record_begin(size_t room)
{
	if (watch.over)
		return NULL;
	if (!watch.offset || watch.chunk.header.used + room > sizeof(watch.chunk.payload)) {
		if (chunk_begin() < 0) {
			watch.over = 1;
			return NULL;
		}
	}
	return watch.chunk.payload + watch.chunk.header.used;
}

/* First the record, then the count of bytes: a reader never sees half of one. */
static void record_end(const uint8_t *end)
{
	struct mt_chunk *c = &watch.chunk.header;
	const uint8_t *from = watch.chunk.payload + c->used;
	uint32_t used = (uint32_t)(end - watch.chunk.payload);

	if (write_at(from, (size_t)(end - from), watch.offset + sizeof(*c) + c->used) < 0 ||
	    write_at(&used, sizeof(used), watch.offset + offsetof(struct mt_chunk, used)) < 0) {
		watch.over = 1;
		return;
	}
	c->used = used;
}

#define WRITE(name, ...)                                                                           \
	do {                                                                                       \
		struct mt_ev_##name ev_ = { __VA_ARGS__ };                                         \
		uint8_t *p_ = record_begin(mt_##name##_room(&ev_));                                \
                                                                                                   \
		if (p_)                                                                            \
			record_end(mt_put_##name(p_, &watch.codec, &ev_));                         \
	} while (0)

static void introduce(void)
{
	WRITE(process, .time = units_now(), .pid = (uint64_t)getpid(), .ppid = (uint64_t)getppid(),
	      .start = process_start(getpid()), .reason = MT_PROCESS_WATCHER);
}

/* ---- sampling -------------------------------------------------------------------------------------- */

/* One more than bytes, as SAMPLE has it. */
static uint64_t kib_field(const char *text, const char *key)
{
	const char *at = strstr(text, key);

	return at ? strtoull(at + strlen(key), NULL, 10) * 1024 + 1 : 0;
}

static void slurp(pid_t pid, const char *name, char *text, size_t size)
{
	char path[64];
	ssize_t n = -1;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		n = read(fd, text, size - 1);
		close(fd);
	}
	text[n > 0 ? n : 0] = '\0';
}

static void sample(pid_t pid)
{
	struct mt_ev_sample s = { .pid = (uint64_t)pid };
	unsigned long long minor, major;
	uint64_t clean, dirty;
	char text[8192];
	const char *p;

	slurp(pid, "status", text, sizeof(text));
	s.rss = kib_field(text, "\nVmRSS:");
	s.anon = kib_field(text, "\nRssAnon:");
	s.file = kib_field(text, "\nRssFile:");
	s.shmem = kib_field(text, "\nRssShmem:");
	s.swap = kib_field(text, "\nVmSwap:");
	slurp(pid, "stat", text, sizeof(text));
	p = strrchr(text, ')');
	if (p && sscanf(p + 1, " %*c %*s %*s %*s %*s %*s %*s %llu %*s %llu", &minor, &major) == 2) {
		s.minflt = minor + 1;
		s.majflt = major + 1;
	}
	slurp(pid, "smaps_rollup", text, sizeof(text));
	s.pss = kib_field(text, "\nPss:");
	s.pss_anon = kib_field(text, "\nPss_Anon:");
	clean = kib_field(text, "\nPrivate_Clean:");
	dirty = kib_field(text, "\nPrivate_Dirty:");
	s.uss = clean && dirty ? clean + dirty - 1 : 0;
	s.time = units_now();
	if (s.rss) {
		uint8_t *to = record_begin(mt_sample_room(&s));

		if (to)
			record_end(mt_put_sample(to, &watch.codec, &s));
	}
}

/* Takes the next slot that was not sampled for `age`; its pid, 0: none is left in this round. */
static pid_t next_silent(int64_t age, uint64_t now)
{
	for (; watch.next_slot < MT_PROC_SLOTS; watch.next_slot++) {
		struct mt_proc_slot *slot = &watch.slots[watch.next_slot];
		uint16_t *sampled = &watch.header->sampled[watch.next_slot];
		uint32_t pid = __atomic_load_n(&slot->pid, __ATOMIC_ACQUIRE);
		uint16_t seen = __atomic_load_n(sampled, __ATOMIC_RELAXED);

		if (!pid || !slot->start || (int16_t)(now - seen) < age)
			continue;
		if (__atomic_compare_exchange_n(sampled, &seen, (uint16_t)now, 0, __ATOMIC_RELAXED,
						__ATOMIC_RELAXED) &&
		    process_start((pid_t)pid) == slot->start) {
			watch.next_slot++;
			return (pid_t)pid;
		}
	}
	watch.next_slot = 0;
	return 0;
}

/* What it cost: time of the CPU, and not what a busy machine makes of it. */
static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void sample_silent(void)
{
	uint64_t begin = now_ns(), spent = 0, now = begin / MT_SLOT_TIME_NS;
	int64_t age = (int64_t)((watch.interval + watch.interval / 2) / MT_SLOT_TIME_NS) + 1;
	pid_t pid;

	/* Beyond the share of one interval the rest waits for the next round. */
	while (spent < watch.interval / COST_SHARE && (pid = next_silent(age, now))) {
		uint64_t start = cpu_ns(), cost;

		sample(pid);
		cost = cpu_ns() - start;
		__atomic_store_n(&watch.header->sampled[watch.next_slot - 1],
				 (uint16_t)(now + cost * REST_SHARE / MT_SLOT_TIME_NS),
				 __ATOMIC_RELAXED);
		spent += cost;
	}
	watch.not_before = begin + spent * COST_SHARE;
}

/* ---- devices --------------------------------------------------------------------------------------- */

static struct nvml nvml;

/* The start tells it from another process that has this number in a namespace of its own; one that is
 * gone is told by its number. */
static int is_of_tree(void *arg, pid_t number, pid_t in_proc)
{
	uint64_t start = process_start(in_proc);

	(void)arg;
	for (size_t i = 0; i < MT_PROC_SLOTS; i++)
		if (__atomic_load_n(&watch.slots[i].pid, __ATOMIC_ACQUIRE) == (uint32_t)number &&
		    (!start || watch.slots[i].start == start))
			return 1;
	return 0;
}

static void tell_client(const struct nvml_answer *a)
{
	int is_other;
	pid_t pid = nvml_match(a->pid, is_of_tree, NULL, &is_other);
	uint64_t now = units_now();

	if (!pid && (is_other || a->clients != 1))
		return;
	WRITE(gpu_seen, .time = now, .asked = now - a->asked, .took = a->answered - a->asked,
	      .pid = (uint64_t)pid, .uuid = { (const char *)a->uuid, sizeof(a->uuid) },
	      .own = a->own, .all = a->all);
}

static void look_at_devices(void)
{
	struct nvml_answer a;

	if (nvml.over || !(__atomic_load_n(&watch.header->flags, __ATOMIC_RELAXED) & MT_FILE_GPU))
		return;
	if (!nvml.helper)
		nvml_start(&nvml, watch.interval, units_now);
	while (nvml_next(&nvml, &a))
		tell_client(&a);
}

/* ---- entry ----------------------------------------------------------------------------------------- */

uint64_t watch_ns(void)
{
	if (!watch.interval)
		watch.interval = (uint64_t)option_seconds("MEMTRACE_INTERVAL");
	return watch.interval;
}

void watch_look(pid_t command)
{
	uint64_t begin = now_ns();

	if (watch.over || begin < watch.not_before)
		return;
	if (watch.fd < 0) {
		find_trace(command); /* a command may have thousands of descriptors, and no trace */
		watch.not_before = begin + (now_ns() - begin) * COST_SHARE;
	}
	if (watch.header && !watch.over) {
		sample_silent();
		look_at_devices();
	}
}

/* The kernel's count of kills is looked at once more: who was killed for want of memory can't. */
static void tell_kills(pid_t command)
{
	struct mt_ev_sample s = { .pid = (uint64_t)command };
	struct cgroup c;
	uint8_t *to;

	if (cgroup_read("", &c) < 0)
		return;
	s.cgroup_usage = c.usage + 1;
	s.cgroup_limit = c.limit ? c.limit + 1 : 0;
	s.oom_kills = c.kills + 1;
	s.time = units_now();
	to = record_begin(mt_sample_room(&s));
	if (to)
		record_end(mt_put_sample(to, &watch.codec, &s));
}

void watch_end(pid_t command, int status)
{
	if (nvml.helper && !watch.over)
		look_at_devices();
	nvml_stop(&nvml);
	if (!watch.header || watch.over)
		return;
	if (WIFSIGNALED(status)) {
		tell_kills(command);
		WRITE(wait, .time = units_now(), .pid = (uint64_t)command,
		      .signal = (uint64_t)WTERMSIG(status), .code = WCOREDUMP(status) ? 1 : 0);
	} else if (WIFEXITED(status)) {
		WRITE(wait, .time = units_now(), .pid = (uint64_t)command,
		      .code = (uint64_t)WEXITSTATUS(status));
	}
}
