/*
 * An independent referee: wraps the next allocator and counts, in nothing but atomic counters.
 * Works in front of another preloaded library as well as behind it. To the file COUNTING_OUT it
 * appends, per process,
 *
 *   counted pid=1 allocations=2 frees=1 bytes=30    between counting_mark("begin…") and ("end…")
 *   total pid=1 allocations=2 frees=1 bytes=30      at exit or _exit, since start or fork
 *
 * It shares no code with the shim on purpose, and nothing here depends on it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct counts {
	long allocations, frees, bytes;
};

static struct counts now, at_begin;
static pid_t own_pid;
static char out_path[4096];
static __thread int depth __attribute__((tls_model("initial-exec"))); /* inside another call */

static struct {
	void *(*malloc)(size_t);
	void *(*calloc)(size_t, size_t);
	void *(*realloc)(void *, size_t);
	void (*free)(void *);
	int (*posix_memalign)(void **, size_t, size_t);
	void *(*aligned_alloc)(size_t, size_t);
	void *(*memalign)(size_t, size_t);
	void *(*valloc)(size_t);
	void *(*pvalloc)(size_t);
	void (*_exit)(int);
} next;

static char early[1 << 16] __attribute__((aligned(64))); /* serves calls made while resolving */
static size_t early_used;
static int resolving;

static void resolve(void)
{
	static const struct {
		const char *name;
		size_t offset;
	} rows[] = {
#define ROW(name) { #name, __builtin_offsetof(__typeof__(next), name) }
		ROW(malloc), ROW(calloc), ROW(realloc), ROW(free), ROW(posix_memalign),
		ROW(aligned_alloc), ROW(memalign), ROW(valloc), ROW(pvalloc), ROW(_exit),
#undef ROW
	};

	if (resolving)
		return;
	resolving = 1;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		void *symbol = dlsym(RTLD_NEXT, rows[i].name);

		memcpy((char *)&next + rows[i].offset, &symbol, sizeof(symbol));
	}
	resolving = 0;
}

static int is_ready(void)
{
	if (__builtin_expect(!next._exit, 0))
		resolve();
	return next._exit != NULL;
}

static void *early_alloc(size_t alignment, size_t size)
{
	uintptr_t p = ((uintptr_t)early + early_used + alignment - 1) & ~(alignment - 1);

	if (size > sizeof(early) || p + size > (uintptr_t)early + sizeof(early))
		return NULL;
	early_used = p + size - (uintptr_t)early;
	return (void *)p;
}

static int is_early(const void *p)
{
	return (const char *)p >= early && (const char *)p < early + sizeof(early);
}

static void add(long *counter, long n)
{
	__atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

static void *allocated(void *p, size_t size)
{
	depth--;
	if (p && !depth) {
		add(&now.allocations, 1);
		add(&now.bytes, (long)size);
	}
	return p;
}

#define EXPORT __attribute__((visibility("default")))

EXPORT void *malloc(size_t size)
{
	if (!is_ready())
		return early_alloc(16, size);
	depth++;
	return allocated(next.malloc(size), size);
}

EXPORT void *calloc(size_t count, size_t size)
{
	if (!is_ready())
		return early_alloc(16, count * size);
	depth++;
	return allocated(next.calloc(count, size), count * size);
}

EXPORT void free(void *p)
{
	if (!p || is_early(p) || !is_ready())
		return;
	if (!depth)
		add(&now.frees, 1);
	depth++;
	next.free(p);
	depth--;
}

EXPORT void *realloc(void *old, size_t size)
{
	void *p;

	if (!is_ready() || is_early(old)) {
		p = malloc(size);
		if (p && old) /* at most as much as the arena holds behind it */
			memcpy(p, old, size < 4096 ? size : 4096);
		return p;
	}
	depth++;
	p = next.realloc(old, size);
	if (depth == 1 && old && (p || !size))
		add(&now.frees, 1);
	return allocated(p, size);
}

EXPORT void *reallocarray(void *old, size_t count, size_t size)
{
	size_t total;

	if (__builtin_mul_overflow(count, size, &total)) {
		errno = ENOMEM;
		return NULL;
	}
	return realloc(old, total);
}

EXPORT int posix_memalign(void **out, size_t alignment, size_t size)
{
	int err;

	if (!is_ready())
		return (*out = early_alloc(alignment, size)) ? 0 : ENOMEM;
	depth++;
	err = next.posix_memalign(out, alignment, size);
	allocated(err ? NULL : *out, size);
	return err;
}

EXPORT void *aligned_alloc(size_t alignment, size_t size)
{
	if (!is_ready())
		return early_alloc(alignment, size);
	depth++;
	return allocated(next.aligned_alloc(alignment, size), size);
}

EXPORT void *memalign(size_t alignment, size_t size)
{
	if (!is_ready())
		return early_alloc(alignment, size);
	depth++;
	return allocated(next.memalign(alignment, size), size);
}

EXPORT void *valloc(size_t size)
{
	if (!is_ready())
		return early_alloc(4096, size);
	depth++;
	return allocated(next.valloc(size), size);
}

EXPORT void *pvalloc(size_t size)
{
	if (!is_ready())
		return early_alloc(4096, size);
	depth++;
	return allocated(next.pvalloc(size), size);
}

/* ---- what it says ------------------------------------------------------------------------------ */

/* One write per line; opened each time, for the program may close every descriptor. */
static void say(const char *what, const struct counts *from)
{
	char line[200];
	int saved = errno, fd, n;

	if (!*out_path)
		return;
	n = snprintf(line, sizeof(line), "%s pid=%d allocations=%ld frees=%ld bytes=%ld\n", what,
		     (int)own_pid, now.allocations - from->allocations, now.frees - from->frees,
		     now.bytes - from->bytes);
	fd = open(out_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd >= 0) {
		if (write(fd, line, (size_t)n) != n)
			_exit(120);
		close(fd);
	}
	errno = saved;
}

void counting_mark(const char *label);

EXPORT void counting_mark(const char *label)
{
	if (!strncmp(label, "begin", 5))
		at_begin = now;
	else
		say("counted", &at_begin);
}

static void say_total(void)
{
	static const struct counts zero;

	if (getpid() == own_pid) /* else a vfork child in its parent's memory */
		say("total", &zero);
}

static void in_child(void)
{
	memset(&now, 0, sizeof(now));
	own_pid = getpid();
}

__attribute__((constructor)) static void start(void)
{
	const char *path = getenv("COUNTING_OUT");

	is_ready();
	own_pid = getpid();
	if (path && strlen(path) < sizeof(out_path))
		strcpy(out_path, path);
	pthread_atfork(NULL, NULL, in_child);
}

__attribute__((destructor)) static void finish(void)
{
	say_total();
}

EXPORT __attribute__((noreturn)) void _exit(int status)
{
	say_total();
	if (next._exit)
		next._exit(status);
	for (;;)
		syscall(SYS_exit_group, status);
}

EXPORT __attribute__((noreturn)) void _Exit(int status)
{
	_exit(status);
}
