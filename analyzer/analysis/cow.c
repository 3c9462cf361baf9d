/*
 * The section on copy-on-write: what forked workers copied of what they shared, and whose it was.
 *
 * The cause is read off from which memory was copied:
 *   objects of the program's own, and little of the interpreter's    reference counts
 *   objects everywhere, those of imported modules as well: nobody
 *     reads those, but a collection writes to each container         the garbage collector
 *   blocks that are no Python objects                                writes
 *   memory in which nothing was alive at the fork                    it was used again
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "analysis/common.h"
#include "analysis/sharing.h"
#include "analysis/stack.h"
#include "analysis/touched.h"
#include "util/alloc.h"

#define MIN_JUDGED (UINT64_C(2) << 20) /* copied bytes below which no cause is named */
#define MAIN_SHARE 0.6 /* of what was copied: then it is the cause */
#define GC_SHARE 0.3 /* of the objects of imported modules copied: only a collection does that */
#define MIN_IMPORTS (UINT64_C(2) << 20) /* so much of them must be there to tell */
#define SMALL_BLOCK 8192 /* larger blocks are tables and buffers, not objects */
#define ALL_SHARE 0.9 /* of the objects were copied: there is not much more to come */
#define MIN_POINTS 4 /* walks: fewer do not tell a course */
#define LEVEL_SHARE 0.05 /* of it all, in the last third of the time: that is level */
#define REFCOUNT_BYTES 8
#define GC_HEADER_BYTES 16

const char *const cow_cause_names[] = {
	[COW_NONE] = NULL,	    [COW_REFCOUNT] = "refcount", [COW_GC] = "gc",
	[COW_REUSE] = "heap-reuse", [COW_WRITES] = "writes",	 [COW_MIXED] = "mixed",
};

/* ---- sites --------------------------------------------------------------------------------------- */

static enum cow_class class_of(const struct model *m, const struct site *s)
{
	if (s->kind == MT_KIND_PYTHON)
		return COW_OBJECTS;
	if (s->backing) /* pages on which no block was alive */
		return site_is_python_arena(m, s) ? COW_OBJECTS : COW_FREE;
	/* Objects that are too big for the arenas come from malloc. */
	if (s->kind == MT_KIND_HEAP && s->python && site_from_interpreter(m, s) && s->allocations &&
	    s->bytes_allocated / s->allocations <= SMALL_BLOCK)
		return COW_OBJECTS;
	return COW_DATA;
}

void sharing_view_init(struct sharing_view *v, struct analysis_input *in)
{
	const struct model *m = in->m;
	bool *importing = stack_importing(m), objects = false;

	v->m = m;
	v->class_of = xcalloc(m->site_count, sizeof(*v->class_of));
	v->arena = xcalloc(m->site_count, sizeof(*v->arena));
	v->imports = xcalloc(m->site_count, sizeof(*v->imports));
	for (size_t i = 0; i < m->process_count; i++)
		objects |= m->processes[i].kinds[MT_KIND_PYTHON].allocations != 0;
	for (size_t i = 0; i < m->site_count; i++) {
		const struct site *s = &m->sites[i];

		v->class_of[i] = class_of(m, s);
		v->arena[i] = site_is_python_arena(m, s);
		v->imports[i] = s->python && importing[s->python];
		if (v->arena[i] && objects) /* its objects are known: where none was, it was free */
			v->class_of[i] = COW_FREE;
	}
	free(importing);
}

void sharing_view_release(struct sharing_view *v)
{
	free(v->class_of);
	free(v->arena);
	free(v->imports);
}

/* ---- one worker ---------------------------------------------------------------------------------- */

/* Did something write to the objects of imported modules, too? */
static bool is_collected(const struct sharing_view *v, const struct process_cow *cow)
{
	uint64_t shared = 0, copied = 0;

	for (size_t i = 0; i < cow->backing_count; i++) {
		uint32_t site = cow->backing[i].site;

		if (site == NO_ID || !v->arena[site] || !v->imports[site])
			continue;
		shared += cow->backing[i].shared;
		copied += cow->backing[i].copied;
	}
	return shared >= MIN_IMPORTS && (double)copied > GC_SHARE * (double)shared;
}

/* Were the program's own objects read beyond what a collection writes to? It leaves the pages
 * alone on which there is no container, and of the others it copies all. */
static bool is_read_as_well(const struct sharing_view *v, const struct process_cow *cow)
{
	uint64_t shared[2] = { 0 }, copied[2] = { 0 };

	for (size_t i = 0; i < cow->backing_count; i++) {
		uint32_t site = cow->backing[i].site;
		int of;

		if (site == NO_ID || !v->arena[site])
			continue;
		of = v->imports[site];
		shared[of] += cow->backing[i].shared;
		copied[of] += cow->backing[i].copied;
	}
	return shared[0] > shared[1] / 4 && shared[1] &&
	       (double)copied[0] / (double)shared[0] > 1.2 * (double)copied[1] / (double)shared[1];
}

enum cow_cause sharing_cause(const struct sharing_view *v, const struct process_cow *cow)
{
	double bytes[3] = { 0 };

	if (cow->copied < MIN_JUDGED || !cow->site_count)
		return COW_NONE;
	bytes[COW_FREE] = (double)cow->reused;
	for (size_t i = 0; i < cow->site_count; i++)
		if (cow->sites[i].site != NO_ID)
			bytes[v->class_of[cow->sites[i].site]] += (double)cow->sites[i].copied;
	for (int c = 0; c < 3; c++) {
		if (bytes[c] < MAIN_SHARE * (double)cow->copied)
			continue;
		if (c == COW_DATA)
			return COW_WRITES;
		if (c == COW_FREE)
			return COW_REUSE;
		if (!is_collected(v, cow))
			return COW_REFCOUNT;
		return is_read_as_well(v, cow) ? COW_MIXED : COW_GC;
	}
	return COW_MIXED;
}

uint64_t sharing_countable(const struct sharing_view *v, const struct process_cow *cow)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < cow->backing_count; i++)
		if (cow->backing[i].site != NO_ID && v->arena[cow->backing[i].site])
			bytes += cow->backing[i].shared;
	return bytes;
}

uint64_t sharing_forecast(const struct sharing_view *v)
{
	const struct model *m = v->m;
	uint64_t most = 0;

	for (size_t i = 0; i < m->process_count; i++) {
		uint64_t sum = 0;

		if (!m->processes[i].cow)
			continue;
		for (size_t k = 0; k <= i; k++)
			if (m->processes[k].cow && m->processes[k].end >= m->processes[i].start &&
			    m->processes[k].trace == m->processes[i].trace)
				sum += sharing_countable(v, m->processes[k].cow);
		most = sum > most ? sum : most;
	}
	return most;
}

enum cow_course sharing_course(const struct sharing_view *v, const struct process_cow *cow)
{
	const struct cow_point *p = cow->points, *last, *then = NULL;
	uint64_t objects = 0;

	for (size_t i = 0; i < cow->backing_count; i++)
		if (cow->backing[i].site != NO_ID && v->arena[cow->backing[i].site])
			objects += cow->backing[i].copied;
	if (objects >= MIN_JUDGED &&
	    (double)objects >= ALL_SHARE * (double)sharing_countable(v, cow))
		return COW_LEVEL;
	if (cow->point_count < MIN_POINTS)
		return COW_COURSE_UNKNOWN;
	last = &p[cow->point_count - 1];
	for (size_t i = 1; i < cow->point_count; i++)
		if (p[i].time <= last->time - (last->time - p[0].time) / 3)
			then = &p[i];
	if (!then || last->copied < MIN_JUDGED)
		return COW_COURSE_UNKNOWN;
	return (double)last->copied - (double)then->copied > LEVEL_SHARE * (double)last->copied
		       ? COW_RISING
		       : COW_LEVEL;
}

double sharing_amplification(const struct sharing_view *v, uint32_t site, uint64_t copied,
			     uint64_t blocks)
{
	if (!blocks || v->class_of[site] != COW_OBJECTS)
		return 0;
	return (double)copied / (double)(blocks * REFCOUNT_BYTES);
}

/* ---- the section --------------------------------------------------------------------------------- */

static void put_sites(struct analysis_input *in, struct result *doc, struct rvalue *o,
		      const struct process_cow *cow)
{
	struct rvalue *list = r_array(doc, o, "sites");

	for (size_t i = 0; i < cow->site_count; i++) {
		struct rvalue *s;

		if (cow->sites[i].site == NO_ID || cow->sites[i].copied < 4096)
			continue;
		if (list->count >= in->top)
			break;
		s = r_push_object(doc, list);
		put_id(doc, s, "site", cow->sites[i].site);
		put_count(doc, s, "copied_bytes", cow->sites[i].copied);
	}
}

static void put_growth(struct analysis_input *in, struct result *doc, struct rvalue *o,
		       const struct process *p)
{
	struct rvalue *list = r_array(doc, o, "growth");

	for (size_t i = 0; i < p->cow->point_count; i++) {
		struct rvalue *point = r_push_array(doc, list);

		r_push_float(doc, point, process_seconds(in->m, p, p->cow->points[i].time));
		r_push_int(doc, point, (int64_t)p->cow->points[i].copied);
	}
}

/* Of the eager bytes: what the parent had pinned for CUDA. */
static void put_pinned(struct result *doc, struct rvalue *o, const struct process_cow *cow)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < cow->pinned_count; i++)
		bytes += cow->pinned[i].bytes;
	if (cow->has_baseline)
		put_count(doc, o, "eager_pinned_bytes", bytes);
	else
		r_null(doc, o, "eager_pinned_bytes");
}

static void put_worker(struct analysis_input *in, const struct sharing_view *v,
		       const struct touched *by, struct result *doc, struct rvalue *list,
		       const struct process *p)
{
	const struct process_cow *cow = p->cow;
	struct rvalue *o = r_push_object(doc, list);

	put_id(doc, o, "proc", p->id);
	r_int(doc, o, "pid", p->pid);
	put_id(doc, o, "parent", p->parent);
	r_float(doc, o, "scan_s", process_seconds(in->m, p, cow->scan_time));
	r_bool(doc, o, "scanned_by_relative", cow->by_relative);
	put_count(doc, o, "shared_at_fork_bytes", cow->shared);
	put_count(doc, o, "copied_bytes", cow->copied);
	put_count(doc, o, "copied_error_bytes", cow->copied_error);
	if (cow->has_baseline)
		put_count(doc, o, "eager_bytes", cow->eager);
	else
		r_null(doc, o, "eager_bytes");
	put_pinned(doc, o, cow);
	put_count(doc, o, "unknown_bytes", cow->unknown);
	put_count(doc, o, "countable_bytes", sharing_countable(v, cow));
	if (cow->shared)
		r_float(doc, o, "copied_share", (double)cow->copied / (double)cow->shared);
	else
		r_null(doc, o, "copied_share");
	r_string(doc, o, "cause", cow_cause_names[sharing_cause(v, cow)]);
	if (sharing_course(v, cow) == COW_COURSE_UNKNOWN)
		r_null(doc, o, "levelled_off");
	else
		r_bool(doc, o, "levelled_off", sharing_course(v, cow) == COW_LEVEL);
	put_touched_worker(by, doc, o, p);
	put_sites(in, doc, o, cow);
	put_growth(in, doc, o, p);
}

struct site_sum {
	uint32_t site;
	uint64_t copied, blocks, workers;
};

static int by_copied(const void *a, const void *b)
{
	const struct site_sum *x = a, *y = b;

	if (x->copied != y->copied)
		return x->copied > y->copied ? -1 : 1;
	return x->site < y->site ? -1 : x->site > y->site;
}

static void put_sums(struct analysis_input *in, const struct sharing_view *v,
		     const struct touched *by, struct result *doc, struct rvalue *o)
{
	const struct model *m = in->m;
	struct rvalue *list = r_array(doc, o, "sites");
	struct site_sum *sums = xcalloc(m->site_count, sizeof(*sums));
	size_t shown = 0;

	for (uint32_t i = 0; i < m->site_count; i++)
		sums[i].site = i;
	for (size_t i = 0; i < m->process_count; i++)
		for (size_t k = 0; m->processes[i].cow && k < m->processes[i].cow->site_count;
		     k++) {
			const struct cow_site *s = &m->processes[i].cow->sites[k];

			if (s->site == NO_ID)
				continue;
			sums[s->site].copied += s->copied;
			sums[s->site].blocks += s->blocks;
			sums[s->site].workers++;
		}
	if (m->site_count)
		qsort(sums, m->site_count, sizeof(*sums), by_copied);
	for (size_t i = 0; i < m->site_count && sums[i].copied && shown < in->top; i++, shown++) {
		struct rvalue *s = r_push_object(doc, list);
		double factor = sharing_amplification(v, sums[i].site, sums[i].copied,
						      sums[i].blocks);

		put_id(doc, s, "site", sums[i].site);
		put_count(doc, s, "copied_bytes", sums[i].copied);
		put_count(doc, s, "workers", sums[i].workers);
		if (factor > 0)
			r_float(doc, s, "amplification", factor);
		else
			r_null(doc, s, "amplification");
		put_touched_site(by, doc, s, sums[i].site);
		in->listed[sums[i].site] = true;
	}
	free(sums);
}

void analyse_cow(struct analysis_input *in, struct result *doc)
{
	const struct model *m = in->m;
	struct rvalue *o = r_object(doc, result_root(doc), "cow"), *list;
	struct sharing_view v;
	struct touched by;
	bool any = false;

	for (size_t i = 0; i < m->process_count; i++)
		any |= m->processes[i].cow != NULL;
	sharing_view_init(&v, in);
	touched_init(&by, in);
	if (m->cow_known)
		put_count(doc, o, "extra_bytes", m->cow_extra);
	else
		r_null(doc, o, "extra_bytes");
	if (any)
		put_count(doc, o, "forecast_bytes", sharing_forecast(&v));
	else
		r_null(doc, o, "forecast_bytes");
	list = r_array(doc, o, "workers");
	for (size_t i = 0; i < m->process_count; i++)
		if (m->processes[i].cow)
			put_worker(in, &v, &by, doc, list, &m->processes[i]);
	put_sums(in, &v, &by, doc, o);
	put_touched_all(&by, doc, o);
	touched_release(&by);
	sharing_view_release(&v);
}
