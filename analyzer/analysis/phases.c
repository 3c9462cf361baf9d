/*
 * The section on phases that the program told of, or that its DataLoader's workers tell of, and the
 * finding on memory that a phase left behind.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "analysis/common.h"
#include "analysis/findings.h"
#include "util/alloc.h"

#define MIN_KEPT (UINT64_C(1) << 20)
#define MIN_SHARE 0.05 /* of the process's peak */
#define WARN_BYTES (UINT64_C(16) << 20)
#define WARN_SHARE 0.25
#define MIN_AFTER 0.05 /* of the process's life goes on after it */

static void put_sites(struct analysis_input *in, struct result *doc, struct rvalue *o,
		      const struct process *p, size_t phase)
{
	struct rvalue *list = r_array(doc, o, "sites");

	for (size_t i = 0; i < p->phase_site_count; i++) {
		const struct phase_site *s = &p->phase_sites[i];
		struct rvalue *e;

		if (s->phase != phase || s->site == NO_ID)
			continue;
		e = r_push_object(doc, list);
		r_int(doc, e, "site", s->site);
		put_count(doc, e, "kept_bytes", (uint64_t)s->bytes);
		in->listed[s->site] = true;
	}
}

void analyse_phases(struct analysis_input *in, struct result *doc)
{
	struct rvalue *list = r_array(doc, result_root(doc), "phases");
	const struct model *m = in->m;

	for (size_t i = 0; i < m->process_count; i++) {
		const struct process *p = &m->processes[i];

		for (size_t k = 0; k < p->phase_count; k++) {
			const struct phase *ph = &p->phases[k];
			struct rvalue *o = r_push_object(doc, list);

			r_string(doc, o, "name", ph->name);
			r_int(doc, o, "proc", p->id);
			r_int(doc, o, "pid", p->pid);
			r_float(doc, o, "start_s", process_seconds(m, p, ph->start));
			r_float(doc, o, "end_s", process_seconds(m, p, ph->end));
			r_bool(doc, o, "open", ph->open);
			r_string(doc, o, "from", ph->by_workers ? "workers" : "program");
			put_count(doc, o, "peak_bytes", ph->peak_bytes);
			put_count(doc, o, "held_at_end_bytes", ph->end_bytes);
			put_count(doc, o, "kept_bytes", ph->kept_bytes);
			put_sites(in, doc, o, p, k);
		}
	}
}

/* ---- the finding ----------------------------------------------------------------------------- */

/* All phases of one name in a process. */
struct left {
	uint64_t bytes, end_bytes;
	size_t times;
	int64_t last_end;
	VEC(struct phase_site) sites; /* each once */
};

static void left_site(struct left *l, const struct phase_site *s)
{
	for (size_t i = 0; i < l->sites.count; i++)
		if (l->sites.items[i].site == s->site) {
			l->sites.items[i].bytes += s->bytes;
			return;
		}
	*vec_push(&l->sites) = *s;
}

static struct left left_by(const struct process *p, size_t first)
{
	struct left l = { 0 };

	for (size_t k = first; k < p->phase_count; k++) {
		const struct phase *ph = &p->phases[k];

		if (ph->open || strcmp(ph->name, p->phases[first].name) != 0)
			continue;
		l.bytes += ph->kept_bytes;
		l.end_bytes += ph->end_bytes;
		l.times++;
		l.last_end = ph->end;
		for (size_t i = 0; i < p->phase_site_count; i++)
			if (p->phase_sites[i].phase == k && p->phase_sites[i].site != NO_ID)
				left_site(&l, &p->phase_sites[i]);
	}
	return l;
}

static bool is_first_of_name(const struct process *p, size_t k)
{
	for (size_t i = 0; i < k; i++)
		if (!strcmp(p->phases[i].name, p->phases[k].name))
			return false;
	return true;
}

/* The place of a site; whole: with what it is in and what it calls. */
static void place_of(struct findings *all, struct strbuf *sb, uint32_t site, bool whole)
{
	const struct site *s = &all->in->m->sites[site];
	const struct stack_frame *f;
	struct stack st;

	stack_merge(all->in->m, all->in->symbols, s->native, s->python, &st);
	f = stack_place(&st);
	if (!whole && f && f->f.line)
		stack_place_add(sb, f);
	else
		place_add(sb, &st);
	stack_release(&st);
}

/* What one line kept, however it was reached: in `most`, with its largest site. */
static void most_of(struct findings *all, const struct left *l, struct phase_site *most)
{
	struct strbuf *places = xcalloc(l->sites.count + 1, sizeof(*places));

	*most = (struct phase_site){ .site = NO_ID };
	for (size_t i = 0; i < l->sites.count; i++) {
		strbuf_init(&places[i]);
		place_of(all, &places[i], l->sites.items[i].site, false);
	}
	for (size_t i = 0; i < l->sites.count; i++) {
		struct phase_site sum = { .site = l->sites.items[i].site };
		double largest = l->sites.items[i].bytes;

		for (size_t k = 0; k < l->sites.count; k++) {
			if (strcmp(places[i].buf, places[k].buf) != 0)
				continue;
			sum.bytes += l->sites.items[k].bytes;
			if (l->sites.items[k].bytes > largest) {
				largest = l->sites.items[k].bytes;
				sum.site = l->sites.items[k].site;
			}
		}
		if (sum.bytes > most->bytes)
			*most = sum;
	}
	for (size_t i = 0; i < l->sites.count; i++)
		strbuf_release(&places[i]);
	free(places);
}

static void put_left(struct findings *all, const struct process *p, const struct phase *ph,
		     const struct left *l)
{
	/* Not named by the program: weights and the optimizer's state are of the training, too. */
	bool much = !ph->by_workers && l->bytes >= WARN_BYTES &&
		    (double)l->bytes >= WARN_SHARE * (double)p->peak_live_bytes;
	struct finding *f = finding_new(all, "not-released-after-phase",
					much ? SEVERITY_WARNING : SEVERITY_INFO);
	struct phase_site most;

	most_of(all, l, &most);
	finding_bytes(f, l->bytes);
	finding_process(f, p->id);
	f->site = most.site;
	size_add(&f->title, l->bytes);
	if (ph->by_workers)
		strbuf_addstr(&f->title, " of the training kept after it, to the end of ");
	else
		strbuf_addf(&f->title, " of phase '%s' kept to the end of ", ph->name);
	process_name_add(&f->title, p);
	if (most.site != NO_ID) {
		strbuf_addstr(&f->title, ", most of it (");
		size_add(&f->title, (uint64_t)most.bytes);
		strbuf_addstr(&f->title, ") from ");
		place_of(all, &f->title, most.site, true);
	}
	strbuf_addf(&f->detail, "When %s ended (at %.1f s) ",
		    ph->by_workers ? "the last worker of its DataLoaders" : "the phase",
		    process_seconds(all->in->m, p, l->last_end));
	size_add(&f->detail, l->end_bytes);
	strbuf_addstr(&f->detail, " of what it had allocated were held");
	if (l->times > 1)
		strbuf_addf(&f->detail, " (sum of the %zu times it ran)", l->times);
	strbuf_addstr(&f->detail, ", and ");
	size_add(&f->detail, l->bytes);
	strbuf_addstr(&f->detail, " still when the process wound up.");
	strbuf_addstr(&f->advice, "What later phases don't need, drop at its end (del, clear(), a "
				  "scope of its own). What they do need, is meant to stay.");
	finding_int(f, "held_when_it_ended_bytes", l->end_bytes);
	finding_int(f, "of_this_line_bytes", (uint64_t)most.bytes);
	finding_int(f, "times", l->times);
	finding_text(f, "phase", ph->name);
}

void find_not_released(struct findings *all)
{
	const struct model *m = all->in->m;

	for (size_t i = 0; i < m->process_count; i++) {
		const struct process *p = &m->processes[i];
		int64_t end = p->shutdown ? p->shutdown : p->end;

		for (size_t k = 0; k < p->phase_count && !p->live_unknown; k++) {
			struct left l;

			if (!is_first_of_name(p, k))
				continue;
			l = left_by(p, k);
			if (l.bytes >= MIN_KEPT &&
			    (double)l.bytes >= MIN_SHARE * (double)p->peak_live_bytes &&
			    (double)(end - l.last_end) >= MIN_AFTER * (double)(end - p->start))
				put_left(all, p, &p->phases[k], &l);
			vec_release(&l.sites);
		}
	}
}
