/*
 * Opening a trace and reading bytes of it. See reader.h; the search for chunks is salvage.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "trace/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "trace/internal.h"
#include "util/strbuf.h"

__attribute__((format(printf, 2, 3))) static int fail(char **error, const char *fmt, ...)
{
	struct strbuf sb = STRBUF_INIT;
	va_list ap;

	va_start(ap, fmt);
	strbuf_vaddf(&sb, fmt, ap);
	va_end(ap);
	*error = strbuf_detach(&sb);
	return -1;
}

size_t trace_read(const struct trace *t, uint64_t offset, uint8_t *to, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(t->fd, to + done, len - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		done += (size_t)n;
	}
	return done;
}

const uint8_t *trace_at(struct trace *t, uint64_t offset, size_t len)
{
	if (offset > t->size || len > t->size - offset)
		return NULL;
	if (t->data)
		return t->data + offset;
	if (offset < t->window_at || offset - t->window_at > t->window_len ||
	    len > t->window_len - (offset - t->window_at)) {
		if (!t->window)
			t->window = xmalloc(WINDOW_BYTES);
		t->window_at = offset;
		t->window_len = trace_read(t, offset, t->window, WINDOW_BYTES);
		if (len > t->window_len)
			return NULL;
	}
	return t->window + (offset - t->window_at);
}

void trace_follow(struct trace *t, uint64_t wanted)
{
	struct stat st;

	if (t->fd < 0 || wanted <= t->size || fstat(t->fd, &st) < 0)
		return;
	if ((uint64_t)st.st_size < wanted)
		wanted = (uint64_t)st.st_size;
	if (wanted > t->size) {
		t->size = wanted;
		t->window_len = 0;
	}
}

const uint8_t *trace_payload(struct trace *t, const struct trace_chunk *chunk, uint8_t **buf,
			     size_t *room, uint32_t *used, uint32_t *slack)
{
	uint64_t from = chunk->offset + sizeof(struct mt_chunk);
	size_t want = (size_t)chunk->used + chunk->slack, got;

	*used = chunk->used;
	*slack = chunk->slack;
	if (chunk->copied)
		return chunk->copy;
	if (t->data)
		return t->data + from;
	if (want > *room) {
		*room = want;
		*buf = xrealloc(*buf, want, 1);
	}
	got = want ? trace_read(t, from, *buf, want) : 0;
	if (got < *used) {
		t->problems.missing_bytes += *used - got;
		*used = (uint32_t)got;
	}
	*slack = (uint32_t)(got - *used);
	return *buf;
}

/* An impossible value is replaced by the format's own: the chunks may be all right. */
static void header_repair(struct trace *t)
{
	struct mt_file_header *h = &t->header;

	if (h->header_bytes != MT_HEADER_BYTES) {
		h->header_bytes = MT_HEADER_BYTES;
		t->problems.header_damage++;
	}
	if (h->unit_bytes != MT_UNIT_BYTES) {
		h->unit_bytes = MT_UNIT_BYTES;
		t->problems.header_damage++;
	}
	if (h->time_shift > 32) {
		h->time_shift = 0;
		t->problems.header_damage++;
	}
	if (h->page_size < 1024 || h->page_size & (h->page_size - 1)) {
		h->page_size = 4096;
		t->problems.header_damage++;
	}
	h->boot_id[sizeof(h->boot_id) - 1] = '\0';
}

static int header_read(struct trace *t, char **error)
{
	static const char zeros[8];
	const uint8_t *p;

	if (!t->size)
		return fail(error,
			    "%s: the file is empty: nothing was recorded, or the program has "
			    "just started",
			    t->path);
	p = trace_at(t, 0, t->size < 8 ? (size_t)t->size : 8);
	if (!p)
		return fail(error, "%s: cannot be read: %s", t->path,
			    strerror(errno ? errno : EIO));
	if (t->size >= 8 && !memcmp(p, zeros, 8))
		return fail(error,
			    "%s: not a memtrace trace: it starts with zeros, where a trace has "
			    "its name (offset 0)",
			    t->path);
	if (memcmp(p, MT_FILE_MAGIC, t->size < 8 ? (size_t)t->size : 8))
		return fail(error,
			    "%s: not a memtrace trace: it does not start with \"%s\" "
			    "(offset 0)",
			    t->path, MT_FILE_MAGIC);
	p = trace_at(t, 0, sizeof(t->header));
	if (!p)
		return fail(error,
			    "%s: too short: %llu bytes, a trace's header alone has %zu; it was "
			    "cut off, copy it again",
			    t->path, (unsigned long long)t->size, sizeof(t->header));
	memcpy(&t->header, p, sizeof(t->header));
	if (t->header.version > MT_FORMAT_VERSION)
		return fail(error,
			    "%s: format version %u (offset 8), this memtrace-report reads up to "
			    "%u: use the memtrace-report of the version that recorded it",
			    t->path, t->header.version, MT_FORMAT_VERSION);
	if (!t->header.version)
		return fail(error,
			    "%s: damaged header: format version 0 (offset 8); copy it again if "
			    "you can",
			    t->path);
	if (t->size < MT_HEADER_BYTES)
		return fail(error,
			    "%s: too short: %llu bytes, the first record is at %u; it was cut "
			    "off, copy it again",
			    t->path, (unsigned long long)t->size, MT_HEADER_BYTES);
	header_repair(t);
	return 0;
}

bool trace_chunk_grew(struct trace *t, const struct trace_chunk *chunk)
{
	struct mt_chunk now;

	return t->fd >= 0 &&
	       trace_read(t, chunk->offset, (uint8_t *)&now, sizeof(now)) == sizeof(now) &&
	       now.used > chunk->used;
}

static struct trace *trace_new(const char *path)
{
	struct trace *t = xcalloc(1, sizeof(*t));

	t->path = xstrdup(path);
	t->fd = -1;
	return t;
}

static struct trace *trace_start(struct trace *t, char **error)
{
	if (header_read(t, error) < 0) {
		trace_close(t);
		return NULL;
	}
	trace_index(t);
	free(t->window); /* only the index jumps about in small steps */
	t->window = NULL;
	t->window_len = 0;
	return t;
}

struct trace *trace_open(const char *path, char **error)
{
	struct trace *t = trace_new(path);
	struct stat st;

	t->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (t->fd < 0 || fstat(t->fd, &st) < 0) {
		fail(error, "%s: cannot be opened: %s", path, strerror(errno));
	} else if (!S_ISREG(st.st_mode)) {
		fail(error,
		     "%s: not a regular file: a trace is read at many places, copy it to a file "
		     "first",
		     path);
	} else {
		t->size = (uint64_t)st.st_size;
		return trace_start(t, error);
	}
	trace_close(t);
	return NULL;
}

struct trace *trace_open_buffer(const void *data, size_t size, const char *name, char **error)
{
	struct trace *t = trace_new(name);

	t->data = size ? data : (const void *)"";
	t->size = size;
	return trace_start(t, error);
}

void trace_close(struct trace *t)
{
	if (!t)
		return;
	if (t->fd >= 0)
		close(t->fd);
	for (size_t i = 0; i < t->copies.count; i++)
		free(t->copies.items[i].bytes);
	vec_release(&t->copies);
	vec_release(&t->chunks);
	vec_release(&t->streams);
	vec_release(&t->processes);
	free(t->window);
	free(t->path);
	free(t);
}

const char *trace_path(const struct trace *t)
{
	return t->path;
}

uint64_t trace_bytes(const struct trace *t)
{
	return t->size;
}

const struct mt_file_header *trace_header(const struct trace *t)
{
	return &t->header;
}

struct trace_problems *trace_damage(struct trace *t)
{
	return &t->problems;
}

bool trace_is_folded(const struct trace *t)
{
	return t->folded;
}

void trace_set_folded(struct trace *t)
{
	t->folded = true;
}

const struct trace_chunk *trace_chunks(const struct trace *t, size_t *count)
{
	*count = t->chunks.count;
	return t->chunks.items;
}

const struct trace_stream *trace_streams(const struct trace *t, size_t *count)
{
	*count = t->streams.count;
	return t->streams.items;
}

const struct trace_process *trace_processes(const struct trace *t, size_t *count)
{
	*count = t->processes.count;
	return t->processes.items;
}

const struct trace_process *trace_find(const struct trace *t, uint32_t proc)
{
	size_t low = 0, high = t->processes.count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (t->processes.items[mid].proc < proc)
			low = mid + 1;
		else
			high = mid;
	}
	if (low < t->processes.count && t->processes.items[low].proc == proc)
		return &t->processes.items[low];
	return NULL;
}
