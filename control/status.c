/*
 * memtrace status: what is being recorded, where to, since when, and what was lost. What the
 * process says of itself stands in its control page; the rest is read from the trace.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "control.h"
#include "page.h"

#define ASK_MS 200 /* for a page that does not tell the trace's name yet */

struct sums {
	uint64_t bytes; /* of the trace, in use */
	uint64_t lost; /* events */
	uint32_t processes; /* that recorded something */
	uint32_t error;
};

/* Chunk headers only: a chunk leads to the next one. */
static void chunks_count(const char *base, uint64_t size, struct sums *s)
{
	uint64_t at = MT_HEADER_BYTES;

	while (at + sizeof(struct mt_chunk) <= size) {
		const struct mt_chunk *c = (const struct mt_chunk *)(base + at);
		uint32_t units = c->units;

		if (c->magic != MT_CHUNK_MAGIC || c->self != at || !units ||
		    units > MT_CHUNK_MAX_UNITS) {
			at += MT_UNIT_BYTES;
			continue;
		}
		s->lost += c->lost;
		at += (uint64_t)units * MT_UNIT_BYTES;
	}
}

static int trace_look(pid_t pid, const char *path, struct sums *s)
{
	const struct mt_file_header *h;
	char full[PATH_MAX + 64];
	struct stat st;
	void *base;
	int fd;

	*s = (struct sums){ 0 };
	snprintf(full, sizeof(full), "/proc/%d/root%s", (int)pid, path);
	fd = open(full, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	base = fstat(fd, &st) == 0 && st.st_size >= (off_t)MT_HEADER_BYTES
		       ? mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0)
		       : MAP_FAILED;
	close(fd);
	if (base == MAP_FAILED)
		return -1;
	h = base;
	s->bytes = MT_HEADER_BYTES + __atomic_load_n(&h->next, __ATOMIC_RELAXED) * MT_UNIT_BYTES;
	if (s->bytes > (uint64_t)st.st_size)
		s->bytes = (uint64_t)st.st_size;
	s->processes = __atomic_load_n(&h->next_proc, __ATOMIC_RELAXED) - 1;
	s->error = __atomic_load_n(&h->error, __ATOMIC_RELAXED);
	chunks_count(base, s->bytes, s);
	munmap(base, (size_t)st.st_size);
	return 0;
}

int trace_error(pid_t pid, const char *path)
{
	struct sums s;

	return trace_look(pid, path, &s) < 0 ? 0 : (int)s.error;
}

static void command_name(pid_t pid, char *out, size_t size)
{
	char path[64];
	size_t n = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
	f = fopen(path, "re");
	if (f) {
		n = fread(out, 1, size - 1, f);
		fclose(f);
	}
	out[n] = '\0';
	for (size_t i = 0; i + 1 < n; i++)
		if (!out[i] || out[i] == '\n')
			out[i] = ' ';
}

static void say_recording(const struct target *t)
{
	const struct mt_control_self *self = &t->page->self;
	time_t since = (time_t)(self->since_ns / 1000000000u);
	char when[32] = "", path[PATH_MAX];
	struct sums s;

	strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", localtime(&since));
	target_trace(t, path, sizeof(path));
	printf("recording since %s, %ld s, mode %s%s", when, (long)(time(NULL) - since),
	       self->mode == 1 ? "sample" : "full", self->tree ? ", children too" : "");
	if (self->until_ns)
		printf(", %ld s to go", (long)((int64_t)(self->until_ns - now_ns()) / 1000000000));
	printf("\n        to %s", *path ? path : "a trace whose name it has not told yet");
	if (*path && trace_look(t->pid, path, &s) == 0) {
		printf(", %.1f MiB, %u process%s, ", (double)s.bytes / 1048576, s.processes,
		       s.processes == 1 ? "" : "es");
		if (s.lost)
			printf("%llu events lost", (unsigned long long)s.lost);
		else
			printf("nothing lost");
		if (s.error)
			printf("; recording has stopped: %s", strerror((int)s.error));
	}
	printf("\n");
}

static void say(struct target *t)
{
	static const char *const ends[] = { "", "detached", "its time was over",
					    "somebody wrote into its control page" };
	char command[60];
	uint32_t state = __atomic_load_n(&t->page->self.state, __ATOMIC_ACQUIRE);
	uint32_t ended = t->page->self.ended;
	int result;

	if (state == MT_CONTROL_RECORDING && !t->page->token[0])
		target_call(t, MT_CONTROL_LOOK, 0, "", 0, ASK_MS, &result);
	command_name(t->pid, command, sizeof(command));
	printf("%7d %s: ", (int)t->pid, command);
	if (state == MT_CONTROL_RECORDING)
		say_recording(t);
	else if (state == MT_CONTROL_OFF)
		printf("the shim is off here for good\n");
	else
		printf("%s%s%s%s\n",
		       state == MT_CONTROL_DRAINING
			       ? "records no more, and lets go of the trace at its "
				 "next allocation"
			       : "dormant",
		       ended ? " (" : "", ended < 4 ? ends[ended] : "", ended ? ")" : "");
}

static int status_all(void)
{
	struct dirent *entry;
	char why[512];
	DIR *dir = opendir("/proc");
	int found = 0;

	while (dir && (entry = readdir(dir))) {
		pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
		struct target t;

		if (pid <= 0 || target_open(&t, pid, why, sizeof(why)) != REACHED)
			continue;
		say(&t);
		target_close(&t);
		found++;
	}
	if (dir)
		closedir(dir);
	if (!found)
		printf("no process that can be reached has the shim\n");
	return fflush(stdout) ? EXIT_OWN_FAILURE : 0;
}

int command_status(int argc, char **argv)
{
	char why[512];
	struct target t;
	pid_t pid;
	int err;

	if (argc < 2)
		return status_all();
	if (argc > 2) {
		complain("status: one process, or none for all; see memtrace --help");
		return EXIT_USAGE;
	}
	err = process_argument("status", argv[1], &pid);
	if (err)
		return err;
	if (target_open(&t, pid, why, sizeof(why)) != REACHED) {
		complain("process %d: %s", (int)pid, why);
		return 1;
	}
	say(&t);
	target_close(&t);
	return fflush(stdout) ? EXIT_OWN_FAILURE : 0;
}
