/*
 * What happened to processes: killed by a signal, never seen by the recorder, near the limit.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/common.h"
#include "analysis/findings.h"
#include "symbols/program.h"
#include "util/hashmap.h"

/* ---- killed
 * --------------------------------------------------------------------------------------- */

static const struct {
	int number;
	const char *name, *text;
	enum severity severity;
} signals[] = {
	{ SIGKILL, "SIGKILL", "was killed", SEVERITY_CRITICAL },
	{ SIGSEGV, "SIGSEGV", "crashed (invalid memory access)", SEVERITY_CRITICAL },
	{ SIGBUS, "SIGBUS", "crashed (memory that could not be provided, often a full /dev/shm)",
	  SEVERITY_CRITICAL },
	{ SIGABRT, "SIGABRT", "aborted", SEVERITY_CRITICAL },
	{ SIGFPE, "SIGFPE", "crashed (arithmetic error)", SEVERITY_CRITICAL },
	{ SIGILL, "SIGILL", "crashed (illegal instruction)", SEVERITY_CRITICAL },
	{ SIGTERM, "SIGTERM", "was asked to end", SEVERITY_INFO },
	{ SIGINT, "SIGINT", "was interrupted", SEVERITY_INFO },
	{ SIGHUP, "SIGHUP", "lost its terminal", SEVERITY_INFO },
	{ SIGPIPE, "SIGPIPE", "wrote to a closed pipe", SEVERITY_INFO },
};

/* How far the cgroup's count of OOM kills rose while the run was watched. */
static uint64_t oom_kills(const struct model *m)
{
	uint64_t low = UINT64_MAX, high = 0, v;

	for (size_t i = 0; i < m->process_count; i++)
		for (size_t k = 0; k < m->processes[i].sample_count; k++) {
			if (!sample_value(m->processes[i].samples[k].v.oom_kills, &v))
				continue;
			low = v < low ? v : low;
			high = v > high ? v : high;
		}
	return high > low ? high - low : 0;
}

static void explain_kill(struct finding *f, const struct process *p, uint64_t kills)
{
	if (p->end_code == SIGKILL && kills) {
		strbuf_addf(&f->detail,
			    " The kernel's out-of-memory killer struck %llu time(s) in "
			    "this cgroup meanwhile: most likely it was that.",
			    (unsigned long long)kills);
		strbuf_addstr(&f->advice,
			      "Raise the memory limit, or use less: see the largest sites "
			      "and the processes with the highest peak.");
		finding_int(f, "oom_kills", kills);
	} else if (p->end_code == SIGKILL) {
		strbuf_addstr(&f->advice,
			      "Someone sent it SIGKILL: a scheduler, a supervisor, or the "
			      "out-of-memory killer of the machine (see dmesg).");
	} else {
		strbuf_addstr(&f->advice,
			      "Its recording is complete up to that moment; the timeline "
			      "and its live memory show the state it was in.");
	}
}

static void put_killed(struct findings *all, const struct process *p, uint64_t kills)
{
	const struct model *m = all->in->m;
	const char *name = NULL, *text = "ended";
	enum severity severity = SEVERITY_WARNING;
	struct finding *f;

	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		if (signals[i].number == p->end_code) {
			name = signals[i].name;
			text = signals[i].text;
			severity = signals[i].severity;
		}
	f = finding_new(all, "killed", severity);
	finding_process(f, p->id);
	process_name_add(&f->title, p);
	strbuf_addf(&f->title, " %s by ", text);
	if (name)
		strbuf_addstr(&f->title, name);
	else
		strbuf_addf(&f->title, "signal %d", p->end_code);
	strbuf_addf(&f->title, " at %.1f s", process_seconds(m, p, p->end));
	strbuf_addstr(&f->detail, "It held ");
	size_add(&f->detail, p->live_bytes + p->inherited_live_bytes);
	strbuf_addstr(&f->detail, " of live heap memory then");
	if (p->peak_rss) {
		strbuf_addstr(&f->detail, "; its highest resident size seen was ");
		size_add(&f->detail, p->peak_rss);
		finding_bytes(f, p->peak_rss);
	}
	strbuf_addch(&f->detail, '.');
	explain_kill(f, p, kills);
	finding_int(f, "signal", (uint64_t)p->end_code);
	finding_int(f, "live_bytes", p->live_bytes);
}

void find_killed(struct findings *all)
{
	const struct model *m = all->in->m;
	uint64_t kills = oom_kills(m);

	for (size_t i = 0; i < m->process_count; i++)
		if (m->processes[i].end_kind == END_SIGNAL)
			put_killed(all, &m->processes[i], kills);
}

/* ---- uncovered
 * ------------------------------------------------------------------------------------ */

struct uncovered {
	const struct child_event *first;
	VEC(uint32_t) pids;
	VEC(uint32_t) parents;
};

#define PIDS_NAMED 20

static bool is_uncovered(const struct model *m, const struct process *p,
			 const struct child_event *c)
{
	if (c->how == CHILD_FORK || c->failed || c->process != NO_ID)
		return false;
	/* It may have reported and been left out by --pid or --role, or be on its way. */
	return !c->traced ||
	       (!m->restricted && p->end_kind != END_RUNNING && !m->traces[p->trace].running);
}

/* A relative path counts from where the program was started, as far as that is known. */
static enum program_kind judge(const struct analysis_input *in, const struct process *by,
			       const char *path)
{
	const char *cwd = process_fact(in->m, by, "cwd");
	struct strbuf full = STRBUF_INIT;
	enum program_kind kind;

	if (path && *path != '/' && strchr(path, '/') && cwd)
		strbuf_addf(&full, "%s/", cwd);
	strbuf_addstr(&full, path ? path : "");
	kind = program_kind_of(full.buf, in->sysroot);
	strbuf_release(&full);
	return kind;
}

static const char *reason_of(const struct analysis_input *in, const struct process *by,
			     const struct child_event *c)
{
	if (!c->pid)
		return "system() or popen() started it inside the C library, with an environment "
		       "that other threads may be using and an attach leaves alone";
	if (!c->traced && by->late)
		return "who started it was attached to without its children (--tree), or cleared "
		       "its "
		       "environment";
	if (!c->traced)
		return "its environment no longer had LD_PRELOAD and MEMTRACE_ (cleared by who "
		       "started it)";
	switch (judge(in, by, c->path)) {
	case PROGRAM_STATIC:
		return "it is statically linked: no library can be preloaded into it";
	case PROGRAM_OTHER_ARCHITECTURE:
		return "it is built for another architecture than the shim";
	case PROGRAM_PRIVILEGED:
		return "it is set-user-id or set-group-id: the loader ignores LD_PRELOAD";
	case PROGRAM_UNKNOWN:
		break;
	}
	return "it never reported: static, of another architecture, privileged, or it ended before "
	       "the shim was loaded";
}

static const char *advice_of(const struct process *by, const struct child_event *c)
{
	if (!c->pid)
		return "If its memory matters, start the job by memtrace run --mode dormant and "
		       "attach then, or attach again with --tree while it runs.";
	if (!c->traced && by->late)
		return "If its memory matters, attach with --tree.";
	return "If its memory matters, start it so that it keeps its environment, or use a "
	       "dynamically linked build of it.";
}

static void put_uncovered(struct findings *all, const struct uncovered *u)
{
	const struct child_event *c = u->first;
	const char *path = c->path && *c->path ? c->path : "an unnamed program";
	struct finding *f = finding_new(all, "uncovered-memory", SEVERITY_INFO);
	const struct process *by = &all->in->m->processes[u->parents.items[0]];
	const char *why = reason_of(all->in, by, c);
	char pid[16];

	for (size_t i = 0; i < u->parents.count; i++)
		finding_process(f, u->parents.items[i]);
	if (!c->pid)
		strbuf_addf(&f->title, "not recorded: %s (%zu time%s", path, u->pids.count,
			    u->pids.count > 1 ? "s" : "");
	else
		strbuf_addf(&f->title, "not recorded: %s (pid %u", path, u->pids.items[0]);
	if (c->pid && u->pids.count > 1)
		strbuf_addf(&f->title, " and %zu more", u->pids.count - 1);
	strbuf_addstr(&f->title, "), started by ");
	finding_processes_add(&f->title, all->in->m, f->processes.items, f->processes.count);
	strbuf_addf(&f->detail, "Its memory is in no number of this report: %s.", why);
	strbuf_addstr(&f->advice, advice_of(by, c));
	finding_text(f, "path", path);
	finding_text(f, "reason", why);
	finding_int(f, "count", u->pids.count);
	for (size_t i = 0; i < u->pids.count && i < PIDS_NAMED; i++) {
		snprintf(pid, sizeof(pid), "%u", u->pids.items[i]);
		if (c->pid)
			finding_item(f, "uncovered_pids", pid);
	}
}

void find_uncovered(struct findings *all)
{
	const struct model *m = all->in->m;
	VEC(struct uncovered) list = VEC_INIT;
	struct hashmap paths = HASHMAP_INIT;

	for (size_t i = 0; i < m->process_count; i++) {
		const struct process *p = &m->processes[i];

		for (size_t k = 0; k < p->child_count; k++) {
			const struct child_event *c = &p->children[k];
			const char *path = c->path ? c->path : "";
			struct strbuf key = STRBUF_INIT;
			uint64_t *slot;
			bool is_new;

			if (!is_uncovered(m, p, c))
				continue;
			strbuf_addf(&key, "%d%d%s", c->traced, c->pid != 0, path);
			slot = hashmap_slot(&paths, key.buf, key.len, &is_new);
			strbuf_release(&key);
			if (is_new) {
				*slot = list.count;
				*vec_push(&list) = (struct uncovered){ .first = c };
			}
			*vec_push(&list.items[*slot].pids) = c->pid;
			*vec_push(&list.items[*slot].parents) = p->id;
		}
	}
	for (size_t i = 0; i < list.count; i++) {
		put_uncovered(all, &list.items[i]);
		vec_release(&list.items[i].pids);
		vec_release(&list.items[i].parents);
	}
	vec_release(&list);
	hashmap_release(&paths);
}

/* ---- near the limit
 * ------------------------------------------------------------------------------- */

#define WARNING_SHARE 0.8
#define CRITICAL_SHARE 0.9

void find_oom_risk(struct findings *all)
{
	struct capacity c = capacity_of(all->in->m);
	double share = c.limit && c.has_peak ? (double)c.peak / (double)c.limit : 0;
	struct finding *f;

	if (share < WARNING_SHARE)
		return;
	f = finding_new(all, "oom-risk",
			share >= CRITICAL_SHARE ? SEVERITY_CRITICAL : SEVERITY_WARNING);
	finding_bytes(f, c.peak);
	strbuf_addf(&f->title, "%.0f %% of the %s was in use at the peak: ", share * 100,
		    c.is_cgroup ? "cgroup's memory limit" : "machine's memory");
	size_add(&f->title, c.peak);
	strbuf_addstr(&f->title, " of ");
	size_add(&f->title, c.limit);
	strbuf_addstr(
		&f->detail,
		c.is_cgroup
			? "The cgroup's usage also counts the page cache, which the kernel drops "
			  "before it kills; and other programs in the same cgroup."
			: "This is the sum of the processes' proportional sizes (PSS); other "
			  "programs "
			  "on the machine come on top.");
	strbuf_addstr(&f->advice,
		      "Give the run more memory, or use less at the peak: fewer loader "
		      "workers, a smaller batch or cache. The timeline shows when it was.");
	finding_int(f, "limit_bytes", c.limit);
	finding_int(f, "peak_bytes", c.peak);
	finding_float(f, "peak_share", share);
}
