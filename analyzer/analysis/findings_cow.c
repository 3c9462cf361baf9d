/*
 * Copy-on-write, as findings: which line built what forked workers copied, why they did, and what
 * would avoid it. In `frames` mode Python's small objects are seen as the arenas they lie in: the
 * line that ran when an arena was mapped most likely built what is in it, and is called likely.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "analysis/common.h"
#include "analysis/findings.h"
#include "analysis/sharing.h"
#include "analysis/touched.h"
#include "util/hashmap.h"

#define MIN_IN_WORKER (UINT64_C(4) << 20) /* of one place in one worker; torch's own is below */
#define MIN_IMPORTED (UINT64_C(16) << 20) /* of what modules made when they were imported */
#define MIN_PLACED (UINT64_C(16) << 10) /* smaller parts are not looked up */

/* What all workers copied of what one line built. */
struct place {
	char *text; /* as place_add() */
	uint32_t site; /* the largest */
	uint64_t site_copied;
	uint64_t copied, largest; /* in all workers, in one */
	uint64_t blocks;
	uint64_t imported; /* of copied: made while a module was imported */
	uint64_t arenas; /* of copied: pages of Python's arenas, whose objects are not known */
	enum cow_cause cause; /* in the worker that copied most */
	VEC(uint32_t) processes;
	uint64_t here; /* in the worker being looked at */
};

struct places {
	struct findings *all;
	struct sharing_view v;
	VEC(struct place) list;
	struct hashmap by_text;
	uint32_t *of_site; /* index + 1; 0: not looked up */
	struct touched by;
};

static struct place *place_of(struct places *ps, uint32_t site)
{
	const struct site *s = &ps->all->in->m->sites[site];
	struct strbuf sb = STRBUF_INIT;
	struct stack st;
	char *through;
	uint64_t *slot;
	bool is_new;

	if (ps->of_site[site])
		return &ps->list.items[ps->of_site[site] - 1];
	stack_merge(ps->all->in->m, ps->all->in->symbols, s->native, s->python, &st);
	place_add(&sb, &st);
	through = s->python ? strstr(sb.buf, ", through ") : NULL;
	if (through) { /* the interpreter's way there says nothing */
		*through = '\0';
		sb.len = (size_t)(through - sb.buf);
	}
	stack_release(&st);
	slot = hashmap_slot(&ps->by_text, sb.buf, sb.len, &is_new);
	if (is_new) {
		struct place *p = vec_push(&ps->list);

		*slot = ps->list.count - 1;
		p->text = xstrdup(sb.buf);
		p->site = NO_ID;
	}
	strbuf_release(&sb);
	ps->of_site[site] = (uint32_t)*slot + 1;
	return &ps->list.items[*slot];
}

static void add_part(struct places *ps, const struct cow_site *part)
{
	struct place *p = place_of(ps, part->site);

	p->here += part->copied;
	p->blocks += part->blocks;
	if (ps->v.imports[part->site])
		p->imported += part->copied;
	if (ps->v.arena[part->site])
		p->arenas += part->copied;
	if (part->copied > p->site_copied) {
		p->site_copied = part->copied;
		p->site = part->site;
	}
}

/* Adds a worker's parts; places that were new are summed afterwards. */
static void add_worker(struct places *ps, const struct process *process, enum cow_cause cause)
{
	const struct process_cow *cow = process->cow;

	for (size_t i = 0; i < cow->site_count; i++)
		if (cow->sites[i].site != NO_ID && cow->sites[i].copied >= MIN_PLACED)
			add_part(ps, &cow->sites[i]);
	for (size_t i = 0; i < ps->list.count; i++) {
		struct place *p = &ps->list.items[i];

		if (p->here >= MIN_PLACED * 4)
			*vec_push(&p->processes) = process->id;
		if (p->here > p->largest) {
			p->largest = p->here;
			p->cause = cause;
		}
		p->copied += p->here;
		p->here = 0;
	}
}

static void places_release(struct places *ps)
{
	for (size_t i = 0; i < ps->list.count; i++) {
		free(ps->list.items[i].text);
		vec_release(&ps->list.items[i].processes);
	}
	vec_release(&ps->list);
	hashmap_release(&ps->by_text);
	free(ps->of_site);
}

/* ---- words --------------------------------------------------------------------------------------- */

static void say_workers(struct strbuf *sb, const struct model *m, const uint32_t *ids, size_t n)
{
	if (n == 1)
		process_name_add(sb, &m->processes[ids[0]]);
	else
		strbuf_addf(sb, "%zu forked workers", n);
}

static const char *const why[] = {
	[COW_REFCOUNT] = "Reading a Python object writes its reference count, and the kernel then "
			 "copies the page it lies on: this memory was only read.",
	[COW_GC] =
		"A garbage collection in the worker wrote to the header of every container, also "
		"of those that nobody reads there; the kernel copied their pages.",
	[COW_WRITES] =
		"The workers wrote to this memory; what is not a Python object is copied only "
		"then.",
	[COW_REUSE] = "These pages were free when the process forked, and the workers' own "
		      "allocations took them into use.",
	[COW_MIXED] = "There is more than one reason: reference counts, garbage collection or "
		      "writes; none of them stands out.",
};

static void advise(struct strbuf *sb, enum cow_cause cause, uint64_t saved)
{
	switch (cause) {
	case COW_GC:
		strbuf_addstr(sb,
			      "Call gc.collect() and gc.freeze() just before the workers are "
			      "started: what is alive then is left alone by later collections.");
		return;
	case COW_REUSE:
		strbuf_addstr(sb, "Give freed memory back before the workers start (malloc_trim(0) "
				  "through ctypes), or start them before the temporary data is "
				  "made.");
		return;
	case COW_WRITES:
		strbuf_addstr(sb, "Let each worker make its own, smaller buffer, or put this one "
				  "into shared memory (tensor.share_memory_(), numpy.memmap).");
		return;
	default:
		break;
	}
	strbuf_addstr(sb, "Keep the data where Python counts no references: one numpy array or "
			  "tensor of numbers, or one byte buffer (pickled records) and an array of "
			  "offsets. gc.freeze() does not help against reference counts. With one "
			  "worker less, ");
	size_add(sb, saved);
	strbuf_addstr(sb, " less is copied.");
}

/* How far it has come, and how far it could. */
static void say_course(struct places *ps, struct finding *f, const uint32_t *ids, size_t n)
{
	const struct model *m = ps->all->in->m;
	size_t level = 0, rising = 0;
	uint64_t most = 0;

	for (size_t i = 0; i < n; i++) {
		const struct process_cow *cow = m->processes[ids[i]].cow;
		uint64_t countable = sharing_countable(&ps->v, cow);
		enum cow_course course = sharing_course(&ps->v, cow);

		level += course == COW_LEVEL;
		rising += course == COW_RISING;
		most = countable > most ? countable : most;
	}
	if (rising) {
		strbuf_addf(&f->detail, " It was still growing in %zu of them when last looked at.",
			    rising);
		finding_text(f, "levelled_off", "no");
	} else if (level) {
		strbuf_addstr(&f->detail, " It has levelled off.");
		finding_text(f, "levelled_off", "yes");
	}
	if (!most)
		return;
	strbuf_addstr(&f->detail, " All small Python objects that one worker shares are ");
	size_add(&f->detail, most);
	strbuf_addstr(&f->detail, ": so much it can copy by reading.");
	finding_int(f, "forecast_in_one_worker", most);
}

static void put_numbers(struct finding *f, enum cow_cause cause, uint64_t copied, uint64_t largest,
			size_t workers)
{
	finding_int(f, "copied_bytes", copied);
	finding_int(f, "most_in_one_worker", largest);
	finding_int(f, "workers", workers);
	if (cow_cause_names[cause])
		finding_text(f, "cause", cow_cause_names[cause]);
}

static void put_place(struct places *ps, const struct place *p)
{
	const struct model *m = ps->all->in->m;
	struct finding *f = finding_new(ps->all, "cow-blowup", SEVERITY_WARNING);
	bool likely = p->arenas > p->copied / 2; /* some blocks of it may be known all the same */
	double factor = likely ? 0 : sharing_amplification(&ps->v, p->site, p->copied, p->blocks);

	finding_bytes(f, p->copied);
	f->site = p->site;
	say_workers(&f->title, m, p->processes.items, p->processes.count);
	strbuf_addstr(&f->title, " copied ");
	size_add(&f->title, p->copied);
	strbuf_addf(&f->title, " of what %s built", p->text);
	if (likely)
		strbuf_addstr(&f->title, " (likely line)");
	strbuf_addstr(&f->detail, "At most ");
	size_add(&f->detail, p->largest);
	strbuf_addf(&f->detail, " in one worker. %s", why[p->cause ? p->cause : COW_MIXED]);
	if (factor > 0)
		strbuf_addf(&f->detail,
			    " At least %.0f bytes were copied for each one that changed.", factor);
	if (likely)
		strbuf_addstr(&f->detail,
			      " The objects themselves are not in this trace: the line is the one "
			      "that ran when Python asked for the arenas they lie in. "
			      "MEMTRACE_PYTHON=objects gives exact lines.");
	touched_say(&ps->by, f, ps->of_site, (uint32_t)(p - ps->list.items) + 1, p->processes.items,
		    p->processes.count);
	if (p->cause == COW_REFCOUNT)
		say_course(ps, f, p->processes.items, p->processes.count);
	advise(&f->advice, p->cause ? p->cause : COW_MIXED, p->largest);
	for (size_t i = 0; i < p->processes.count; i++)
		finding_process(f, p->processes.items[i]);
	put_numbers(f, p->cause, p->copied, p->largest, p->processes.count);
	finding_text(f, "line", p->text);
	finding_text(f, "line_is", likely ? "likely" : "exact");
}

/* Workers in which one cause did it all, whoever built what was copied. */
struct together {
	uint64_t copied, largest;
	VEC(uint32_t) processes;
};

static void put_together(struct places *ps, enum cow_cause cause, const struct together *t)
{
	const struct model *m = ps->all->in->m;
	struct finding *f = finding_new(ps->all, "cow-blowup", SEVERITY_WARNING);
	const struct place *most = NULL;

	for (size_t i = 0; i < ps->list.count; i++)
		if (!most || ps->list.items[i].copied > most->copied)
			most = &ps->list.items[i];
	finding_bytes(f, t->copied);
	strbuf_addstr(&f->title,
		      cause == COW_GC ? "garbage collection in " : "memory used again in ");
	say_workers(&f->title, m, t->processes.items, t->processes.count);
	strbuf_addstr(&f->title, " copied ");
	size_add(&f->title, t->copied);
	strbuf_addf(&f->detail, "%s At most ", why[cause]);
	size_add(&f->detail, t->largest);
	strbuf_addstr(&f->detail, " in one worker.");
	touched_say(&ps->by, f, NULL, 0, t->processes.items, t->processes.count);
	if (cause == COW_GC && most && most->site != NO_ID) {
		f->site = most->site;
		strbuf_addf(&f->title, ", most of it of what %s built", most->text);
		finding_text(f, "line", most->text);
	}
	advise(&f->advice, cause, t->largest);
	for (size_t i = 0; i < t->processes.count; i++)
		finding_process(f, t->processes.items[i]);
	put_numbers(f, cause, t->copied, t->largest, t->processes.count);
}

static void collect(struct places *ps, enum cow_cause only, struct together *t)
{
	const struct model *m = ps->all->in->m;

	for (size_t i = 0; i < m->process_count; i++) {
		const struct process *p = &m->processes[i];
		enum cow_cause cause = p->cow ? sharing_cause(&ps->v, p->cow) : COW_NONE;
		bool whole = cause == COW_GC || cause == COW_REUSE;

		if (cause == COW_NONE || (only == COW_NONE ? whole : cause != only))
			continue;
		add_worker(ps, p, cause);
		t->copied += p->cow->copied;
		t->largest = p->cow->copied > t->largest ? p->cow->copied : t->largest;
		*vec_push(&t->processes) = p->id;
	}
}

/* only COW_NONE: place by place, of all workers that are not of those that stand for themselves. */
static void find_of_cause(struct findings *all, enum cow_cause only)
{
	struct places ps = { .all = all };
	struct together t = { 0 };

	sharing_view_init(&ps.v, all->in);
	touched_init(&ps.by, all->in);
	ps.of_site = xcalloc(all->in->m->site_count, sizeof(*ps.of_site));
	collect(&ps, only, &t);
	if (only != COW_NONE && t.largest >= 2 * MIN_IN_WORKER)
		put_together(&ps, only, &t);
	for (size_t i = 0; only == COW_NONE && i < ps.list.count; i++) {
		const struct place *p = &ps.list.items[i];

		if (p->largest >= (p->imported > p->copied / 2 ? MIN_IMPORTED : MIN_IN_WORKER))
			put_place(&ps, p);
	}
	vec_release(&t.processes);
	places_release(&ps);
	touched_release(&ps.by);
	sharing_view_release(&ps.v);
}

void find_cow(struct findings *all)
{
	const struct model *m = all->in->m;
	bool any = false;

	for (size_t i = 0; i < m->process_count; i++)
		any |= m->processes[i].cow && m->processes[i].cow->site_count;
	if (!any)
		return;
	find_of_cause(all, COW_NONE);
	find_of_cause(all, COW_GC);
	find_of_cause(all, COW_REUSE);
}
