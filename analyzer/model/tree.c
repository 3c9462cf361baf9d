/*
 * Who is whose child and how each ended, from records that were written without knowing of each
 * other: a parent's FORK, SPAWN, EXEC and WAIT, a child's PROCESS and EXIT. Pids are used again, so
 * a pid alone never matches: time decides among those that have had it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "model/internal.h"

/* Between the clock readings of two processes around a fork, an exec or an exit. */
#define SLACK_NS 1000000

/* ---- who had a pid, and when ----------------------------------------------------------------- */

static int by_pid(const void *a, const void *b)
{
	const struct pid_holder *x = a, *y = b;

	if (x->trace != y->trace)
		return x->trace < y->trace ? -1 : 1;
	if (x->pid != y->pid)
		return x->pid < y->pid ? -1 : 1;
	return x->id < y->id ? -1 : x->id > y->id;
}

static void pids_build(struct builder *b)
{
	for (size_t i = 0; i < b->processes.count; i++) {
		struct pid_holder *h = vec_push(&b->pids);

		h->trace = b->processes.items[i].trace;
		h->pid = b->processes.items[i].pid;
		h->id = (uint32_t)i;
	}
	if (b->pids.count)
		qsort(b->pids.items, b->pids.count, sizeof(*b->pids.items), by_pid);
}

/* Index of the first holder of the pid in b->pids, or of where it would be. */
static size_t pids_first(const struct builder *b, uint32_t trace, uint32_t pid)
{
	struct pid_holder key = { .trace = trace, .pid = pid };
	size_t low = 0, high = b->pids.count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (by_pid(&b->pids.items[mid], &key) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

uint32_t tree_holder(const struct builder *b, uint32_t trace, uint32_t pid, int64_t time)
{
	uint32_t found = NO_ID;

	for (size_t i = pids_first(b, trace, pid); pid && i < b->pids.count; i++) {
		const struct pid_holder *h = &b->pids.items[i];

		if (h->trace != trace || h->pid != pid ||
		    b->processes.items[h->id].start > time + SLACK_NS)
			break; /* ids are in order of start */
		found = h->id;
	}
	return found;
}

/* The process before this one that had the same pid, or NO_ID. */
static uint32_t previous_holder(const struct builder *b, const struct process *out)
{
	uint32_t found = NO_ID;

	for (size_t i = pids_first(b, out->trace, out->pid); i < b->pids.count; i++) {
		const struct pid_holder *h = &b->pids.items[i];

		if (h->trace != out->trace || h->pid != out->pid || h->id >= out->id)
			break;
		found = h->id;
	}
	return found;
}

/* The next process after `id` that had the same pid, or NO_ID. */
static uint32_t next_holder(const struct builder *b, uint32_t id)
{
	const struct process *p = &b->processes.items[id];

	for (size_t i = pids_first(b, p->trace, p->pid); i < b->pids.count; i++) {
		const struct pid_holder *h = &b->pids.items[i];

		if (h->trace != p->trace || h->pid != p->pid)
			break;
		if (h->id > id)
			return h->id;
	}
	return NO_ID;
}

/* ---- parents --------------------------------------------------------------------------------- */

/* Only who began earlier can be a parent; so damaged numbers never make a ring. */
static uint32_t earlier(const struct process *out, uint32_t id)
{
	return id < out->id ? id : NO_ID;
}

/*
 * The image that this one replaced: of the same pid, and about to exec. Its number is handed down
 * in the environment, but a program may keep an older environment of its own (shells do).
 */
static uint32_t find_image(const struct builder *b, const struct process *out, uint32_t named)
{
	uint32_t before = out->id ? previous_holder(b, out) : NO_ID;

	if (named != NO_ID && b->processes.items[named].pid == out->pid)
		return named;
	return before != NO_ID && b->procs.items[before].exec_pending ? before : NO_ID;
}

static void find_parent(struct builder *b, const struct proc *p, struct process *out)
{
	uint32_t named = NO_ID;

	if (p->ev.parent && p->ev.parent < p->number)
		named = earlier(out, builder_find(b, p->trace, (uint32_t)p->ev.parent));
	/* Recording began in it when it ran: the trace was named to it by its forefather's name. */
	if (p->ev.reason == MT_PROCESS_ATTACHED) {
		out->parent = earlier(out, tree_holder(b, p->trace, out->ppid, out->start));
		if (out->parent == NO_ID)
			out->parent = named;
		return;
	}
	if (p->ev.reason == MT_PROCESS_EXEC)
		out->image_of = find_image(b, out, named);
	if (out->image_of != NO_ID) {
		out->parent = b->processes.items[out->image_of].parent;
		return;
	}
	out->parent = named;
	if (named == NO_ID && p->known && p->ev.reason != MT_PROCESS_ROOT)
		out->parent = earlier(out, tree_holder(b, p->trace, out->ppid, out->start));
}

void tree_parents(struct builder *b)
{
	pids_build(b);
	for (size_t i = 0; i < b->procs.count; i++)
		find_parent(b, &b->procs.items[i], &b->processes.items[i]);
}

/* ---- children -------------------------------------------------------------------------------- */

static int64_t distance(int64_t a, int64_t b)
{
	return a > b ? a - b : b - a;
}

/* The event of `by` that made the process: exactly by time for a fork, else the nearest in time. */
static struct child_event *find_event(struct proc *by, const struct process *child,
				      int64_t fork_time)
{
	struct child_event *best = NULL;

	while (by->first_open < by->children.count &&
	       by->children.items[by->first_open].process != NO_ID)
		by->first_open++;
	for (size_t i = by->first_open; i < by->children.count; i++) {
		struct child_event *c = &by->children.items[i];
		bool forked = c->how == CHILD_FORK;

		if (c->process != NO_ID || c->failed ||
		    forked != (child->reason == MT_PROCESS_FORK))
			continue;
		if (forked && c->time == fork_time)
			return c;
		if (c->pid == child->pid &&
		    (!best || distance(c->time, child->start) < distance(best->time, child->start)))
			best = c;
	}
	return best;
}

void tree_children(struct builder *b)
{
	for (size_t i = 0; i < b->procs.count; i++) {
		struct process *out = &b->processes.items[i];
		struct proc *p = &b->procs.items[i];
		uint32_t by = out->image_of != NO_ID ? out->image_of : out->parent;

		if (by == NO_ID)
			continue;
		p->made_by = find_event(&b->procs.items[by], out,
					builder_ns(b, out->trace, p->ev.fork_time));
		if (p->made_by)
			p->made_by->process = out->id;
	}
}

/* ---- ends ------------------------------------------------------------------------------------ */

static int by_pid_and_time(const void *a, const void *b)
{
	const struct build_wait *x = a, *y = b;

	if (x->pid != y->pid)
		return x->pid < y->pid ? -1 : 1;
	return x->time < y->time ? -1 : x->time > y->time;
}

/* What its parent was told of the process's end, or NULL. */
static const struct build_wait *find_wait(const struct builder *b, const struct process *out)
{
	uint32_t next = next_holder(b, out->id);
	int64_t before = next != NO_ID ? b->processes.items[next].start : INT64_MAX;
	size_t low = 0, high = b->waits.count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (b->waits.items[mid].pid < out->pid)
			low = mid + 1;
		else
			high = mid;
	}
	for (; low < b->waits.count && b->waits.items[low].pid == out->pid; low++) {
		const struct build_wait *w = &b->waits.items[low];

		if (b->procs.items[w->process].trace == out->trace && w->time >= out->start &&
		    w->time <= before)
			return w;
	}
	return NULL;
}

static bool read_line(const char *path, char *line, size_t size)
{
	FILE *f = fopen(path, "re");
	bool ok = f && fgets(line, (int)size, f);

	if (f)
		fclose(f);
	return ok;
}

/* Was the trace made since this machine was started, by processes whose pids we can see? */
static bool is_here(const struct mt_file_header *h)
{
	char boot_id[64];
	struct stat st;

	if (!read_line("/proc/sys/kernel/random/boot_id", boot_id, sizeof(boot_id)))
		return false;
	boot_id[strcspn(boot_id, "\n")] = '\0';
	return *boot_id && !strncmp(boot_id, h->boot_id, sizeof(h->boot_id)) &&
	       stat("/proc/self/ns/pid", &st) == 0 && st.st_ino == h->pid_namespace;
}

static bool is_alive(const struct proc *p)
{
	char path[64], line[1024], state;
	unsigned long long start;
	const char *after;

	if (!p->ev.start || p->ev.pid > INT32_MAX)
		return false;
	snprintf(path, sizeof(path), "/proc/%u/stat", (unsigned int)p->ev.pid);
	if (!read_line(path, line, sizeof(line)))
		return false;
	after = strrchr(line, ')'); /* the name before it may hold anything */
	if (!after)
		return false;
	/* state is field 3, the start time field 22 */
	if (sscanf(after + 1,
		   " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s "
		   "%llu",
		   &state, &start) != 2)
		return false;
	return start == p->ev.start && state != 'Z' && state != 'X';
}

static void find_end(struct builder *b, const struct proc *p, struct process *out, bool replaced,
		     bool here)
{
	const struct build_wait *w;

	if (replaced || p->exec_pending) {
		out->end_kind = END_EXEC;
		return;
	}
	w = find_wait(b, out);
	if (w) {
		out->end_kind = w->signal ? END_SIGNAL : END_EXIT;
		out->end_code = (int32_t)(w->signal ? w->signal & 0x7f : w->code & 0xff);
	} else if (p->exited) {
		out->end_kind = END_EXIT;
		out->end_code = p->exit_code;
	} else if (out->detached) {
		out->end_kind = END_RUNNING;
	} else if (here && is_alive(p)) {
		out->end_kind = END_RUNNING;
		b->traces.items[p->trace].running = true;
	}
}

void tree_ends(struct builder *b)
{
	bool *replaced = xcalloc(b->procs.count, sizeof(*replaced));
	bool *here = xcalloc(b->headers.count, sizeof(*here));

	for (size_t i = 0; i < b->headers.count; i++)
		here[i] = is_here(&b->headers.items[i]);
	if (b->waits.count)
		qsort(b->waits.items, b->waits.count, sizeof(*b->waits.items), by_pid_and_time);
	for (size_t i = 0; i < b->procs.count; i++)
		if (b->processes.items[i].image_of != NO_ID)
			replaced[b->processes.items[i].image_of] = true;
	for (size_t i = 0; i < b->procs.count; i++)
		find_end(b, &b->procs.items[i], &b->processes.items[i], replaced[i],
			 here[b->procs.items[i].trace]);
	free(replaced);
	free(here);
}
