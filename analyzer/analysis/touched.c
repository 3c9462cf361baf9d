/*
 * See touched.h. Stacks are put together by the line a person would name, as in places.c: a Python
 * line needs no symbols; of native stacks those are looked up that touched more than a few pages.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "analysis/touched.h"

#include <stdlib.h>
#include <string.h>

#include "analysis/common.h"
#include "analysis/findings.h"
#include "analysis/stack.h"
#include "util/alloc.h"

#define MIN_LOOKED_UP (UINT64_C(16) << 10) /* bytes of a native stack */
#define MIN_SAID 0.05 /* of what was copied */
#define MOST_SAID 3

/* ---- was it measured ----------------------------------------------------------------------------- */

/* A fact of the process itself: what its parent has is not its own. */
static const char *own_fact(const struct process *p, const char *key)
{
	for (char **f = p->facts; f && f[0] && f[1]; f += 2)
		if (!strcmp(f[0], key))
			return f[1];
	return NULL;
}

static bool is_measured(const struct process *p)
{
	const char *fact = own_fact(p, "cow_touch");

	return p->cow && fact && !strcmp(fact, "on");
}

bool touched_wanted(const struct model *m)
{
	for (size_t i = 0; i < m->process_count; i++)
		if (own_fact(&m->processes[i], "cow_touch"))
			return true;
	return false;
}

const char *touched_why_not(const struct model *m)
{
	for (size_t i = 0; i < m->process_count; i++) {
		const char *fact = own_fact(&m->processes[i], "cow_touch");

		if (fact && strcmp(fact, "on") != 0)
			return fact;
	}
	return NULL;
}

/* ---- by line ------------------------------------------------------------------------------------- */

static void module_add(struct strbuf *sb, const struct model *m, uint32_t native)
{
	const char *path = NULL, *slash;

	for (uint32_t n = native; n && !path; n = m->native[n].parent)
		if (m->native[n].module != NO_ID)
			path = m->modules[m->native[n].module].path;
	slash = path ? strrchr(path, '/') : NULL;
	strbuf_addstr(sb, slash ? slash + 1 : path ? path : "(unknown)");
}

static uint32_t by_line(struct touched *t, const char *text, const char *function)
{
	struct strbuf key = STRBUF_INIT;
	uint64_t *slot;
	bool is_new;

	strbuf_addf(&key, "%s\n%s", text, function ? function : "");
	slot = hashmap_slot(&t->by_text, key.buf, key.len, &is_new);
	strbuf_release(&key);
	if (is_new) {
		struct toucher *p = vec_push(&t->touchers);

		*slot = t->touchers.count - 1;
		p->text = xstrdup(text);
		p->function = function ? xstrdup(function) : NULL;
	}
	return (uint32_t)*slot;
}

/* The frames that the process was forked with are its parent's: no line of theirs runs in it. */
static void drop_inherited(const struct model *m, struct stack *st, uint32_t python,
			   const bool *inherited)
{
	size_t own = 0;

	for (uint32_t n = python; n && !inherited[n]; n = m->python[n].parent)
		own++;
	if (own && own < st->frames.count)
		st->frames.count = own;
}

/* native 0: by its Python part. */
static uint32_t look_up(struct touched *t, uint32_t native, uint32_t python, const bool *inherited,
			bool symbols)
{
	struct strbuf text = STRBUF_INIT;
	const struct stack_frame *f;
	uint32_t found = NO_ID;
	struct stack st;

	if (symbols) {
		stack_merge(t->in->m, t->in->symbols, native, python, &st);
		if (!native)
			drop_inherited(t->in->m, &st, python, inherited);
		f = stack_place(&st);
		if (f) {
			stack_place_add(&text, f);
			found = by_line(t, text.buf, f->f.line ? f->f.function : NULL);
		}
		stack_release(&st);
	}
	if (found == NO_ID) {
		strbuf_reset(&text);
		module_add(&text, t->in->m, native);
		found = by_line(t, text.buf, NULL);
	}
	strbuf_release(&text);
	return found;
}

/* What each native stack without Python frames touched, in bytes. */
static void sum_native(const struct model *m, struct hashmap *sums)
{
	for (size_t i = 0; i < m->process_count; i++)
		for (size_t k = 0; m->processes[i].cow && k < m->processes[i].cow->touch_count;
		     k++) {
			const struct cow_touch *c = &m->processes[i].cow->touches[k];
			bool is_new;

			if (!c->python)
				*hashmap_slot(sums, &c->native, sizeof(c->native),
					      &is_new) += c->bytes;
		}
}

static uint32_t toucher_of(struct touched *t, const struct cow_touch *c, uint32_t fork,
			   const bool *inherited, const struct hashmap *native)
{
	uint32_t key[3] = { c->python ? 0 : c->native, c->python, c->python ? fork : 0 };
	const uint64_t *bytes = hashmap_get(native, &c->native, sizeof(c->native));
	uint64_t *slot;
	bool is_new;

	slot = hashmap_slot(&t->by_stack, key, sizeof(key), &is_new);
	if (is_new)
		*slot = look_up(t, key[0], key[1], inherited,
				c->python || (bytes && *bytes >= MIN_LOOKED_UP));
	return (uint32_t)*slot;
}

static int by_site(const void *a, const void *b)
{
	const struct touch_row *x = a, *y = b;

	if (x->site != y->site)
		return x->site < y->site ? -1 : 1;
	if (x->process != y->process)
		return x->process < y->process ? -1 : 1;
	return x->toucher < y->toucher ? -1 : x->toucher > y->toucher;
}

/* The Python stack of the call that forked it; 0: none. */
static uint32_t fork_of(const struct model *m, const struct process *p)
{
	const struct process *parent = p->parent == NO_ID ? NULL : &m->processes[p->parent];

	for (size_t i = 0; parent && i < parent->child_count; i++)
		if (parent->children[i].process == p->id)
			return parent->children[i].python;
	return 0;
}

static void add_worker(struct touched *t, const struct process *p, const struct hashmap *native)
{
	const struct process_cow *cow = p->cow;
	bool *inherited = xcalloc(t->in->m->python_count, sizeof(*inherited));
	uint32_t fork = fork_of(t->in->m, p);

	for (uint32_t n = fork; n; n = t->in->m->python[n].parent)
		inherited[n] = true;
	t->measured = true;
	t->all += cow->copied;
	for (size_t i = 0; i < cow->site_count; i++)
		if (cow->sites[i].site != NO_ID)
			t->copied[cow->sites[i].site] += cow->sites[i].copied;
	for (size_t i = 0; i < cow->touch_count; i++) {
		const struct cow_touch *c = &cow->touches[i];
		uint32_t id = toucher_of(t, c, fork, inherited, native);
		struct toucher *by = &t->touchers.items[id];

		*vec_push(&t->rows) = (struct touch_row){ c->site, p->id, id, c->bytes };
		if (c->bytes > by->most || !by->most) {
			by->most = c->bytes;
			by->native = c->native;
			by->python = c->python;
		}
	}
	free(inherited);
}

void touched_init(struct touched *t, struct analysis_input *in)
{
	const struct model *m = in->m;
	struct hashmap native = HASHMAP_INIT;

	memset(t, 0, sizeof(*t));
	t->in = in;
	t->copied = xcalloc(m->site_count, sizeof(*t->copied));
	sum_native(m, &native);
	for (size_t i = 0; i < m->process_count; i++)
		if (is_measured(&m->processes[i]))
			add_worker(t, &m->processes[i], &native);
	if (t->rows.count)
		qsort(t->rows.items, t->rows.count, sizeof(*t->rows.items), by_site);
	hashmap_release(&native);
}

void touched_release(struct touched *t)
{
	for (size_t i = 0; i < t->touchers.count; i++) {
		free(t->touchers.items[i].text);
		free(t->touchers.items[i].function);
	}
	vec_release(&t->touchers);
	vec_release(&t->rows);
	hashmap_release(&t->by_stack);
	hashmap_release(&t->by_text);
	free(t->copied);
}

/* ---- sums ---------------------------------------------------------------------------------------- */

struct sum {
	uint32_t toucher;
	uint64_t bytes;
};

static int by_bytes(const void *a, const void *b)
{
	const struct sum *x = a, *y = b;

	if (x->bytes != y->bytes)
		return x->bytes > y->bytes ? -1 : 1;
	return x->toucher < y->toucher ? -1 : x->toucher > y->toucher;
}

typedef VEC(struct sum) sums;

static void sums_add(sums *s, const struct touch_row *r)
{
	*vec_push(s) = (struct sum){ r->toucher, r->bytes };
}

static int by_toucher(const void *a, const void *b)
{
	const struct sum *x = a, *y = b;

	return x->toucher < y->toucher ? -1 : x->toucher > y->toucher;
}

/* One for each toucher, largest first. */
static void sums_settle(sums *s)
{
	size_t kept = 0;

	if (!s->count)
		return;
	qsort(s->items, s->count, sizeof(*s->items), by_toucher);
	for (size_t i = 1; i < s->count; i++) {
		if (s->items[i].toucher == s->items[kept].toucher)
			s->items[kept].bytes += s->items[i].bytes;
		else
			s->items[++kept] = s->items[i];
	}
	s->count = kept + 1;
	qsort(s->items, s->count, sizeof(*s->items), by_bytes);
}

/* What one fault in many stands for may be a little more than there is. */
static double share_of(uint64_t bytes, uint64_t copied)
{
	return bytes < copied ? (double)bytes / (double)copied : 1;
}

static void put_stack(const struct touched *t, struct result *doc, struct rvalue *o,
		      const struct toucher *by)
{
	struct rvalue *list = r_array(doc, o, "stack");
	struct stack st;

	stack_merge(t->in->m, t->in->symbols, by->native, by->python, &st);
	for (size_t i = 0; i < st.frames.count; i++)
		stack_put_frame(doc, list, &st.frames.items[i]);
	stack_release(&st);
}

static void put_processes(const struct touched *t, struct result *doc, struct rvalue *o,
			  uint32_t toucher)
{
	struct rvalue *list = r_array(doc, o, "procs");

	for (size_t i = 0; i < t->in->m->process_count; i++)
		for (size_t k = 0; k < t->rows.count; k++)
			if (t->rows.items[k].process == i && t->rows.items[k].toucher == toucher) {
				r_push_int(doc, list, (int64_t)i);
				break;
			}
}

/* Settles and releases the sums. whole: with stacks and processes. */
static void put_sums(const struct touched *t, struct result *doc, struct rvalue *o, sums *s,
		     uint64_t copied, bool whole)
{
	struct rvalue *list = r_array(doc, o, "touched_by");

	sums_settle(s);
	for (size_t i = 0; i < s->count && s->items[i].bytes && i < t->in->top; i++) {
		const struct toucher *by = &t->touchers.items[s->items[i].toucher];
		struct rvalue *row = r_push_object(doc, list);

		r_string(doc, row, "place", by->text);
		r_string(doc, row, "function", by->function);
		put_count(doc, row, "bytes", s->items[i].bytes);
		if (copied)
			r_float(doc, row, "share", share_of(s->items[i].bytes, copied));
		else
			r_null(doc, row, "share");
		if (whole) {
			put_processes(t, doc, row, s->items[i].toucher);
			put_stack(t, doc, row, by);
		}
	}
	vec_release(s);
}

static size_t first_of_site(const struct touched *t, uint32_t site)
{
	size_t low = 0, high = t->rows.count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (t->rows.items[mid].site < site)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

void put_touched_site(const struct touched *t, struct result *doc, struct rvalue *o, uint32_t site)
{
	sums s = VEC_INIT;

	if (!t->measured) {
		r_null(doc, o, "touched_by");
		return;
	}
	for (size_t i = first_of_site(t, site); i < t->rows.count && t->rows.items[i].site == site;
	     i++)
		sums_add(&s, &t->rows.items[i]);
	put_sums(t, doc, o, &s, t->copied[site], false);
}

void put_touched_worker(const struct touched *t, struct result *doc, struct rvalue *o,
			const struct process *p)
{
	sums s = VEC_INIT;

	if (!is_measured(p)) {
		r_null(doc, o, "touched_by");
		return;
	}
	for (size_t i = 0; i < t->rows.count; i++)
		if (t->rows.items[i].process == p->id)
			sums_add(&s, &t->rows.items[i]);
	put_sums(t, doc, o, &s, p->cow->copied, false);
}

void put_touched_all(const struct touched *t, struct result *doc, struct rvalue *o)
{
	const struct model *m = t->in->m;
	const char *why = touched_why_not(m);
	struct strbuf note = STRBUF_INIT;
	sums s = VEC_INIT;

	r_bool(doc, o, "touch_wanted", touched_wanted(m));
	r_string(doc, o, "touch_not_measured", why);
	if (why && t->in->notes) {
		strbuf_addf(&note, "which line touched what was copied was not measured: %s", why);
		r_push_string(doc, t->in->notes, note.buf);
	}
	strbuf_release(&note);
	if (!t->measured) {
		r_null(doc, o, "touched_by");
		return;
	}
	for (size_t i = 0; i < t->rows.count; i++)
		sums_add(&s, &t->rows.items[i]);
	put_sums(t, doc, o, &s, t->all, true);
}

/* ---- in findings --------------------------------------------------------------------------------- */

static void toucher_add(struct strbuf *sb, const struct toucher *by)
{
	strbuf_addstr(sb, by->text);
	if (by->function)
		strbuf_addf(sb, " in %s", by->function);
}

/* What was copied of them, where it was measured. */
static uint64_t copied_of(const struct touched *t, const uint32_t *of_site, uint32_t mark,
			  const bool *counts)
{
	const struct model *m = t->in->m;
	uint64_t bytes = 0;

	for (size_t i = 0; i < m->process_count; i++) {
		const struct process_cow *cow = m->processes[i].cow;

		if (!counts[i] || !is_measured(&m->processes[i]))
			continue;
		bytes += of_site ? 0 : cow->copied;
		for (size_t k = 0; of_site && k < cow->site_count; k++)
			if (cow->sites[k].site != NO_ID && of_site[cow->sites[k].site] == mark)
				bytes += cow->sites[k].copied;
	}
	return bytes;
}

void touched_say(const struct touched *t, struct finding *f, const uint32_t *of_site, uint32_t mark,
		 const uint32_t *processes, size_t count)
{
	bool *counts = xcalloc(t->in->m->process_count, sizeof(*counts));
	struct strbuf by = STRBUF_INIT;
	sums s = VEC_INIT;
	uint64_t copied;
	size_t said = 0;

	for (size_t i = 0; i < count; i++)
		counts[processes[i]] = true;
	copied = copied_of(t, of_site, mark, counts);
	for (size_t i = 0; i < t->rows.count; i++) {
		const struct touch_row *r = &t->rows.items[i];

		if (counts[r->process] &&
		    (!of_site || (r->site != NO_ID && of_site[r->site] == mark)))
			sums_add(&s, r);
	}
	sums_settle(&s);
	for (size_t i = 0; copied && i < s.count && said < MOST_SAID; i++, said++) {
		double share = share_of(s.items[i].bytes, copied);

		if (share < MIN_SAID)
			break;
		strbuf_reset(&by);
		toucher_add(&by, &t->touchers.items[s.items[i].toucher]);
		strbuf_addf(&f->detail, "%s %s (%.0f %%%s)", said ? "," : " Touched by", by.buf,
			    100 * share, said ? "" : " of the pages");
		finding_item(f, "touched_by", by.buf);
		if (!said)
			finding_float(f, "touched_share", share);
	}
	if (said)
		strbuf_addch(&f->detail, '.');
	strbuf_release(&by);
	vec_release(&s);
	free(counts);
}
