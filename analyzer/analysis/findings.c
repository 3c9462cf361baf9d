/*
 * See findings.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "analysis/findings.h"

#include <stdlib.h>
#include <string.h>

#include "analysis/common.h"

static void (*const rules[])(struct findings *all) = {
	find_leaks, find_python_growth, find_churn,	    find_killed, find_uncovered,
	find_older, find_oom_risk,	find_fragmentation, find_shm,
};

/* ---- making one
 * ---------------------------------------------------------------------------------- */

struct finding *finding_new(struct findings *all, const char *kind, enum severity severity)
{
	struct finding *f = vec_push(&all->list);

	f->kind = kind;
	f->severity = severity;
	f->site = NO_ID;
	strbuf_init(&f->title);
	strbuf_init(&f->detail);
	strbuf_init(&f->advice);
	return f;
}

void finding_bytes(struct finding *f, uint64_t bytes)
{
	f->bytes = bytes;
	f->has_bytes = true;
}

void finding_process(struct finding *f, uint32_t process)
{
	for (size_t i = 0; i < f->processes.count; i++)
		if (f->processes.items[i] == process)
			return;
	*vec_push(&f->processes) = process;
}

void finding_int(struct finding *f, const char *key, uint64_t v)
{
	*vec_push(&f->evidence) =
		(struct evidence){ .key = key, .type = EVIDENCE_INT, .integer = v };
}

void finding_float(struct finding *f, const char *key, double v)
{
	*vec_push(&f->evidence) =
		(struct evidence){ .key = key, .type = EVIDENCE_FLOAT, .number = v };
}

void finding_text(struct finding *f, const char *key, const char *v)
{
	*vec_push(&f->evidence) =
		(struct evidence){ .key = key, .type = EVIDENCE_TEXT, .text = xstrdup(v) };
}

void finding_item(struct finding *f, const char *key, const char *v)
{
	*vec_push(&f->evidence) =
		(struct evidence){ .key = key, .type = EVIDENCE_ITEM, .text = xstrdup(v) };
}

void finding_processes_add(struct strbuf *sb, const struct model *m, const uint32_t *ids, size_t n)
{
	if (!n)
		return;
	process_name_add(sb, &m->processes[ids[0]]);
	if (n == 2) {
		strbuf_addstr(sb, " and ");
		process_name_add(sb, &m->processes[ids[1]]);
	} else if (n > 2) {
		strbuf_addf(sb, " and %zu others", n - 1);
	}
}

void size_add(struct strbuf *sb, uint64_t bytes)
{
	static const char *const units[] = { "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double v = (double)bytes / 1024;
	size_t i = 0;

	if (bytes < 1024) {
		strbuf_addf(sb, "%u B", (unsigned int)bytes);
		return;
	}
	for (; v >= 1023.95 && i + 1 < sizeof(units) / sizeof(units[0]); i++)
		v /= 1024;
	strbuf_addf(sb, "%.1f %s", v, units[i]);
}

void place_add(struct strbuf *sb, const struct stack *st)
{
	const struct stack_frame *f = stack_place(st), *leaf = stack_native_leaf(st);

	if (!f) {
		strbuf_addstr(sb, "an unknown place");
		return;
	}
	stack_place_add(sb, f);
	if (f->f.line) {
		strbuf_addstr(sb, " in ");
		stack_function_add(sb, f);
	}
	if (!f->f.is_python || !leaf)
		return;
	strbuf_addstr(sb, ", through ");
	stack_function_add(sb, leaf);
	if (leaf->f.line) {
		strbuf_addstr(sb, " (");
		stack_place_add(sb, leaf);
		strbuf_addch(sb, ')');
	}
}

/* What is lost comes before what grows: it is certain that nobody gives it back. */
static int rank_of(const struct finding *f)
{
	return !strcmp(f->kind, "leak") ? 1 : 0;
}

/* ---- the section
 * --------------------------------------------------------------------------------- */

static int by_weight(const void *a, const void *b)
{
	const struct finding *x = a, *y = b;

	if (x->severity != y->severity)
		return x->severity > y->severity ? -1 : 1;
	if (rank_of(x) != rank_of(y))
		return rank_of(y) - rank_of(x);
	if (x->bytes != y->bytes)
		return x->bytes > y->bytes ? -1 : 1;
	return strcmp(x->title.buf, y->title.buf);
}

static void put_evidence(struct result *doc, struct rvalue *o, const struct finding *f)
{
	struct rvalue *e = r_object(doc, o, "evidence"), *list = NULL;

	for (size_t i = 0; i < f->evidence.count; i++) {
		const struct evidence *v = &f->evidence.items[i];

		switch (v->type) {
		case EVIDENCE_INT:
			put_count(doc, e, v->key, v->integer);
			break;
		case EVIDENCE_FLOAT:
			r_float(doc, e, v->key, v->number);
			break;
		case EVIDENCE_TEXT:
			r_string(doc, e, v->key, v->text);
			break;
		case EVIDENCE_ITEM:
			if (!list || strcmp(list->key, v->key) != 0)
				list = r_array(doc, e, v->key);
			r_push_string(doc, list, v->text);
			break;
		}
	}
}

static void put_finding(struct findings *all, struct result *doc, struct rvalue *list,
			const struct finding *f)
{
	static const char *const names[] = { "info", "warning", "critical" };
	struct rvalue *o = r_push_object(doc, list), *procs, *pids;

	r_string(doc, o, "kind", f->kind);
	r_string(doc, o, "severity", names[f->severity]);
	r_string(doc, o, "title", f->title.buf);
	r_string(doc, o, "detail", f->detail.buf);
	r_string(doc, o, "advice", f->advice.buf);
	if (f->has_bytes)
		put_count(doc, o, "bytes", f->bytes);
	else
		r_null(doc, o, "bytes");
	put_id(doc, o, "site", f->site);
	procs = r_array(doc, o, "procs");
	pids = r_array(doc, o, "pids");
	for (size_t i = 0; i < f->processes.count; i++) {
		r_push_int(doc, procs, f->processes.items[i]);
		r_push_int(doc, pids, all->in->m->processes[f->processes.items[i]].pid);
	}
	put_evidence(doc, o, f);
	if (f->site != NO_ID)
		all->in->listed[f->site] = true;
}

static void release(struct finding *f)
{
	strbuf_release(&f->title);
	strbuf_release(&f->detail);
	strbuf_release(&f->advice);
	vec_release(&f->processes);
	for (size_t i = 0; i < f->evidence.count; i++)
		free(f->evidence.items[i].text);
	vec_release(&f->evidence);
}

void analyse_findings(struct analysis_input *in, struct result *doc)
{
	struct rvalue *list = r_array(doc, result_root(doc), "findings");
	struct findings all = { .in = in };

	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
		rules[i](&all);
	if (all.list.count)
		qsort(all.list.items, all.list.count, sizeof(*all.list.items), by_weight);
	for (size_t i = 0; i < all.list.count; i++) {
		put_finding(&all, doc, list, &all.list.items[i]);
		release(&all.list.items[i]);
	}
	vec_release(&all.list);
}
