/*
 * Control pages of other processes. See page.h and memtrace/control.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "page.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "control.h"

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void sleep_ms(int ms)
{
	struct timespec t = { ms / 1000, ms % 1000 * 1000000L };

	nanosleep(&t, NULL);
}

/* ---- finding -------------------------------------------------------------------------------------- */

/* Maps the page behind /proc/PID/fd/N; 0: it is one. */
static int try_open(struct target *t, pid_t pid, const char *number)
{
	static const char name[] = "/memfd:" MT_CONTROL_NAME;
	char path[320], link[128];
	struct stat st;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/fd/%s", (int)pid, number);
	n = readlink(path, link, sizeof(link) - 1);
	if (n < (ssize_t)sizeof(name) - 1 || memcmp(link, name, sizeof(name) - 1) != 0)
		return -1;
	t->fd = open(path, O_RDWR | O_CLOEXEC);
	if (t->fd < 0)
		return -1;
	t->page = MAP_FAILED;
	if (fstat(t->fd, &st) == 0 && st.st_size == (off_t)sizeof(struct mt_control))
		t->page = mmap(NULL, sizeof(*t->page), PROT_READ | PROT_WRITE, MAP_SHARED, t->fd,
			       0);
	if (t->page != MAP_FAILED)
		return 0;
	close(t->fd);
	t->fd = -1;
	return -1;
}

/* The pid that the process knows itself by: the last of NSpid. */
static uint32_t inner_pid(pid_t pid)
{
	char path[64], line[512];
	uint32_t inner = (uint32_t)pid;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, "NSpid:", 6)) {
			const char *last = strrchr(line, '\t');

			inner = (uint32_t)strtoul(last ? last + 1 : line + 6, NULL, 10);
		}
	if (f)
		fclose(f);
	return inner;
}

static int has_shim(pid_t pid)
{
	char path[64], line[4096];
	int found = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	f = fopen(path, "re");
	while (f && !found && fgets(line, sizeof(line), f))
		found = strstr(line, "/libmemtrace.so") != NULL;
	if (f)
		fclose(f);
	return found;
}

static enum reach no_folder(pid_t pid, char *why, size_t size)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%d", (int)pid);
	if (stat(path, &st) < 0) {
		snprintf(why, size, "there is no such process");
		return NO_PROCESS;
	}
	if (st.st_uid != geteuid() && process_field(pid, "status", "Uid") == geteuid())
		snprintf(why, size,
			 "it has changed its privileges (a setuid program); run memtrace as root");
	else if (st.st_uid != geteuid())
		snprintf(why, size,
			 "it belongs to another user (uid %u); only that user and root may attach",
			 (unsigned int)st.st_uid);
	else
		snprintf(why, size,
			 "its /proc/%d/fd can't be read (%s): it may have given up being "
			 "looked at (PR_SET_DUMPABLE)",
			 (int)pid, strerror(EACCES));
	return NOT_ALLOWED;
}

/* Did its environment load the shim, or an attach? */
static int was_preloaded(pid_t pid)
{
	char path[64], text[4096];
	size_t keep = 0, n;
	int found = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/environ", (int)pid);
	f = fopen(path, "re");
	while (f && !found && (n = fread(text + keep, 1, sizeof(text) - keep, f)) > 0) {
		n += keep;
		found = memmem(text, n, "libmemtrace", 11) != NULL;
		keep = n < 10 ? n : 10; /* it may lie across two pieces */
		memmove(text, text + n - keep, keep);
	}
	if (f)
		fclose(f);
	return found;
}

static enum reach not_found(pid_t pid, int strange, char *why, size_t size)
{
	if (!has_shim(pid)) {
		snprintf(why, size,
			 "it is not being recorded: it was started without the shim, and nobody "
			 "attached to it (memtrace attach)");
		return NO_SHIM;
	}
	if (strange)
		snprintf(why, size, "its control page is damaged and not renewed yet");
	else if (!was_preloaded(pid))
		snprintf(why, size,
			 "it is not being recorded: the shim is there from an attach that is over");
	else
		snprintf(why, size,
			 "it has the shim, but its control page can't be reached: it closed all "
			 "its descriptors, or has not begun yet");
	return NO_PAGE;
}

/* What has no page of its own, whatever its descriptors are. */
static enum reach no_process(pid_t pid, char *why, size_t size)
{
	int64_t leader = process_field(pid, "status", "Tgid");

	if (leader >= 0 && leader != pid)
		snprintf(why, size, "it is a thread of process %lld; give that number",
			 (long long)leader);
	else if (leader >= 0 && process_is_gone(pid))
		snprintf(why, size, "it has ended, and its parent has not waited for it yet");
	else
		return REACHED;
	return NO_PROCESS;
}

enum reach target_open(struct target *t, pid_t pid, char *why, size_t size)
{
	uint32_t inner = inner_pid(pid);
	struct dirent *entry;
	char path[64];
	int strange = 0;
	DIR *dir;

	*t = (struct target){ .pid = pid, .fd = -1, .page = MAP_FAILED };
	t->start = process_start(pid);
	if (no_process(pid, why, size) != REACHED)
		return NO_PROCESS;
	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	if (!dir)
		return no_folder(pid, why, size);
	while ((entry = readdir(dir))) {
		if (try_open(t, pid, entry->d_name) < 0)
			continue;
		if (!memcmp(t->page->self.magic, MT_CONTROL_MAGIC, sizeof(t->page->self.magic)) &&
		    t->page->self.version == MT_CONTROL_VERSION && t->page->self.pid == inner) {
			if (t->page->self.state != MT_CONTROL_LEFT)
				break;
			target_close(t); /* about to go */
			continue;
		}
		/* Its parent's, or overwritten: a call without a request makes it put that right. */
		__atomic_store_n(&t->page->self.word, MT_CONTROL_CALL, __ATOMIC_SEQ_CST);
		strange = 1;
		target_close(t);
	}
	closedir(dir);
	return t->fd >= 0 ? REACHED : not_found(pid, strange, why, size);
}

int target_has_page(const struct target *t)
{
	struct stat ours, there;
	struct dirent *entry;
	char path[320];
	int found = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)t->pid);
	dir = fstat(t->fd, &ours) == 0 ? opendir(path) : NULL;
	while (dir && !found && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "/proc/%d/fd/%s", (int)t->pid, entry->d_name);
		found = stat(path, &there) == 0 && there.st_dev == ours.st_dev &&
			there.st_ino == ours.st_ino;
	}
	if (dir)
		closedir(dir);
	return found;
}

void target_close(struct target *t)
{
	if (t->page != MAP_FAILED)
		munmap(t->page, sizeof(*t->page));
	if (t->fd >= 0)
		close(t->fd);
	t->page = MAP_FAILED;
	t->fd = -1;
}

/* ---- asking --------------------------------------------------------------------------------------- */

static int lock(int fd)
{
	uint64_t end = now_ns() + 1000000000u;

	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return -1;
		if (now_ns() > end)
			return -1;
		sleep_ms(5);
	}
	return 0;
}

int target_ask(struct target *t, enum mt_control_command command, uint32_t flags, uint64_t until_ns,
	       const struct mt_control_before *before, const char *older, const char *text,
	       size_t text_bytes)
{
	struct mt_control_request *to = &t->page->request, r = { .command = command };
	size_t rest = offsetof(struct mt_control_request, command);

	if (text_bytes > MT_CONTROL_TEXT || lock(t->fd) < 0)
		return -1;
	t->number = __atomic_load_n(&t->page->self.answered, __ATOMIC_ACQUIRE) + 1;
	/* Of a controller that was killed there may be one: half of it and half of ours is garbage. */
	__atomic_store_n(&to->number, t->number - 1, __ATOMIC_SEQ_CST);
	r.number = t->number;
	r.flags = flags;
	r.until_ns = until_ns;
	r.text_bytes = (uint32_t)text_bytes;
	if (before)
		r.before = *before;
	if (before && older)
		memcpy(t->page->older, older, before->older_bytes);
	/* The number last: whoever looks before that finds nothing asked. */
	memcpy((char *)to + rest, (char *)&r + rest, sizeof(r) - rest);
	memcpy(t->page->text, text, text_bytes);
	to->check = mt_control_check(&r, t->page->text);
	__atomic_store_n(&to->number, r.number, __ATOMIC_RELEASE);
	__atomic_store_n(&t->page->self.word, MT_CONTROL_CALL, __ATOMIC_SEQ_CST);
	return 0;
}

int target_is_gone(const struct target *t)
{
	return process_is_gone(t->pid) || process_start(t->pid) != t->start;
}

int target_answered(struct target *t, int *result)
{
	struct mt_control *page = t->page;

	if (__atomic_load_n(&page->self.answered, __ATOMIC_ACQUIRE) == t->number) {
		*result = page->self.result;
		return 1;
	}
	if (target_is_gone(t))
		return -1;
	/* Again: the process may just have thrown away what stood there before. */
	__atomic_store_n(&page->request.number, t->number, __ATOMIC_RELEASE);
	__atomic_store_n(&page->self.word, MT_CONTROL_CALL, __ATOMIC_SEQ_CST);
	return 0;
}

void target_done(struct target *t)
{
	if (t->number)
		t->page->request.number = __atomic_load_n(&t->page->self.answered,
							  __ATOMIC_ACQUIRE);
	t->number = 0;
	flock(t->fd, LOCK_UN);
}

int target_call(struct target *t, enum mt_control_command command, uint32_t flags, const char *text,
		size_t text_bytes, int ms, int *result)
{
	uint64_t end = now_ns() + (uint64_t)ms * 1000000u;
	int answered;

	*result = -EBUSY;
	if (target_ask(t, command, flags, 0, NULL, NULL, text, text_bytes) < 0)
		return 0;
	while ((answered = target_answered(t, result)) == 0 && now_ns() < end)
		sleep_ms(1);
	target_done(t);
	return answered;
}

/* "id:dev:inode:root pid:root fd:proc:path" */
void target_trace(const struct target *t, char *out, size_t size)
{
	const char *p = t->page->token;
	size_t n = strnlen(p, MT_CONTROL_TEXT - 1);
	const char *end = p + n;

	for (int colons = 0; p && colons < 6; colons++) {
		p = memchr(p, ':', (size_t)(end - p));
		p = p ? p + 1 : NULL;
	}
	n = p ? (size_t)(end - p) : 0;
	n = n < size ? n : size - 1;
	memcpy(out, p ? p : "", n);
	out[n] = '\0';
}
