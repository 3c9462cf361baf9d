/*
 * memtrace-report watch TRACE [SECONDS [TIMES]]: what `memtrace top` shows, as a JSON document
 * (schema memtrace-top/1) every SECONDS, TIMES times; without SECONDS once. Between two documents
 * stands a line with the record separator of ASCII (0x1e). Each look reads only what is new
 * (live/follow.h). null is what the trace does not tell.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "live/follow.h"
#include "render/render.h"
#include "result/result.h"
#include "symbols/symbolizer.h"
#include "util/alloc.h"
#include "util/die.h"

#define SITES_NAMED 400 /* largest and fastest; the rest is in a sum */
#define SITES_SHOWN 50
#define HISTORY 64

struct place { /* sites of one name, over all processes */
	const char *name;
	double bytes, count, rate;
	uint32_t procs, last_proc;
};

struct watch {
	struct follow *f;
	struct symbolizer *symbols;
	VEC(char *) names; /* by site; NULL: not asked for yet */
	double at[HISTORY], used[HISTORY]; /* of the memory that is limited, for its rate */
	size_t looks;
};

/* ---- sites ----------------------------------------------------------------------------------------- */

static double rate_of(const struct follow *f, const struct follow_site *s)
{
	double now = follow_now(f), sum = 0, span = now < FOLLOW_WINDOW ? now : FOLLOW_WINDOW;

	for (int i = 0; i < FOLLOW_BUCKETS; i++)
		if (s->second[i] && (double)s->second[i] + FOLLOW_WINDOW > now)
			sum += s->net[i];
	return span >= 1 ? sum / span : 0;
}

static const struct follow *sorted; /* qsort takes no argument */

static double weight(uint32_t site)
{
	const struct follow_site *s = &sorted->sites.items[site];

	return s->bytes + s->young_bytes + FOLLOW_WINDOW * fabs(rate_of(sorted, s));
}

static int by_weight(const void *a, const void *b)
{
	double x = weight(*(const uint32_t *)a), y = weight(*(const uint32_t *)b);

	return (x < y) - (x > y);
}

static int by_rate(const void *a, const void *b)
{
	const struct place *x = a, *y = b;

	if (x->rate != y->rate)
		return (x->rate < y->rate) - (x->rate > y->rate);
	return (x->bytes < y->bytes) - (x->bytes > y->bytes);
}

static const char *name_of(struct watch *w, uint32_t site)
{
	while (w->names.count <= site)
		*vec_push(&w->names) = NULL;
	if (!w->names.items[site])
		w->names.items[site] = site_name(w->f, w->symbols, &w->f->sites.items[site]);
	return w->names.items[site];
}

static void add_site(struct watch *w, uint32_t site, struct place *places, size_t *count,
		     struct hashmap *by_name)
{
	const struct follow_site *s = &w->f->sites.items[site];
	const char *name = name_of(w, site);
	bool is_new;
	uint64_t *slot = hashmap_slot(by_name, name, strlen(name), &is_new);
	struct place *p;

	if (is_new) {
		*slot = (*count)++;
		places[*slot] = (struct place){ .name = name, .last_proc = UINT32_MAX };
	}
	p = &places[*slot];
	p->bytes += s->bytes + s->young_bytes;
	p->count += s->count + s->young_count;
	p->rate += rate_of(w->f, s);
	p->procs += p->last_proc != s->proc;
	p->last_proc = s->proc;
}

static void put_sites(struct watch *w, struct result *doc)
{
	struct rvalue *list = r_array(doc, result_root(doc), "sites");
	size_t n = w->f->sites.count, count = 0;
	uint32_t *order = xcalloc(n + 1, sizeof(*order));
	struct place *places = xcalloc(SITES_NAMED, sizeof(*places));
	struct hashmap by_name = HASHMAP_INIT;

	for (size_t i = 0; i < n; i++)
		order[i] = (uint32_t)i;
	sorted = w->f;
	qsort(order, n, sizeof(*order), by_weight);
	for (size_t i = 0; i < n && i < SITES_NAMED; i++)
		add_site(w, order[i], places, &count, &by_name);
	qsort(places, count, sizeof(*places), by_rate);
	for (size_t i = 0; i < count && i < SITES_SHOWN; i++) {
		struct rvalue *o = r_push_object(doc, list);

		r_string(doc, o, "where", places[i].name);
		r_int(doc, o, "live_bytes", (int64_t)places[i].bytes);
		r_int(doc, o, "live_count", (int64_t)places[i].count);
		r_float(doc, o, "bytes_per_s", places[i].rate);
		r_int(doc, o, "processes", places[i].procs);
	}
	hashmap_release(&by_name);
	free(order);
	free(places);
}

/* ---- processes ------------------------------------------------------------------------------------- */

static void put(struct result *doc, struct rvalue *o, const char *key, uint64_t stored)
{
	if (stored)
		r_int(doc, o, key, (int64_t)(stored - 1));
	else
		r_null(doc, o, key);
}

/* A forked process runs what its parent runs. */
static const char *command_of(const struct follow *f, const struct follow_proc *p)
{
	for (size_t depth = 0; !p->command && depth < f->procs.count; depth++) {
		uint32_t parent = (uint32_t)p->ev.parent;
		const uint64_t *slot = hashmap_get(&f->numbers, &parent, sizeof(parent));

		if (!slot || p->ev.reason != MT_PROCESS_FORK)
			break;
		p = &f->procs.items[*slot];
	}
	return p->command;
}

static void put_process(struct watch *w, struct result *doc, struct rvalue *list, size_t i,
			double young)
{
	const struct follow_proc *p = &w->f->procs.items[i];
	const struct mt_ev_sample *s = &p->sample;
	struct rvalue *o = r_push_object(doc, list);

	r_int(doc, o, "pid", (int64_t)p->ev.pid);
	r_int(doc, o, "ppid", (int64_t)p->ev.ppid);
	r_int(doc, o, "number", p->number);
	r_string(doc, o, "command", command_of(w->f, p));
	r_bool(doc, o, "ended", p->ended);
	r_bool(doc, o, "attached", p->late);
	put(doc, o, "private_bytes", s->uss);
	put(doc, o, "shared_bytes",
	    s->uss && s->rss > s->uss ? s->rss - s->uss + 1
	    : s->uss		      ? 1
				      : 0);
	put(doc, o, "pss_bytes", s->pss);
	put(doc, o, "rss_bytes", s->rss);
	put(doc, o, "swap_bytes", s->swap);
	put(doc, o, "device_bytes", p->ended ? 0 : devices_bytes(p));
	put(doc, o, "device_driver_bytes", p->ended ? 0 : devices_driver_bytes(p));
	put(doc, o, "cow_bytes", p->copied);
	r_int(doc, o, "live_bytes", (int64_t)(p->live_bytes + young));
	if (s->time)
		r_float(doc, o, "sample_age_s", follow_now(w->f) - p->sample_s);
	else
		r_null(doc, o, "sample_age_s");
}

static void put_processes(struct watch *w, struct result *doc)
{
	struct rvalue *list = r_array(doc, result_root(doc), "processes");
	double *young = xcalloc(w->f->procs.count + 1, sizeof(*young));

	for (size_t i = 0; i < w->f->sites.count; i++)
		young[w->f->sites.items[i].proc] += w->f->sites.items[i].young_bytes;
	for (size_t i = 0; i < w->f->procs.count; i++)
		if (w->f->procs.items[i].known &&
		    w->f->procs.items[i].ev.reason != MT_PROCESS_WATCHER)
			put_process(w, doc, list, i, young[i]);
	free(young);
}

/* ---- the limit ------------------------------------------------------------------------------------- */

struct memory {
	uint64_t limit, used;
	bool is_cgroup, has_used;
};

/* Of a cgroup with a limit what it says; else the tree's PSS against the machine's memory. */
static struct memory memory_of(const struct follow *f)
{
	struct memory m = { 0 };
	double latest = -1;

	for (size_t i = 0; i < f->procs.count; i++) {
		const struct follow_proc *p = &f->procs.items[i];

		if (!m.is_cgroup && p->memory_total)
			m.limit = p->memory_total;
		if (p->sample.cgroup_limit && p->sample.cgroup_usage && p->sample_s > latest) {
			latest = p->sample_s;
			m = (struct memory){ p->sample.cgroup_limit - 1, p->sample.cgroup_usage - 1,
					     true, true };
		} else if (!m.is_cgroup && !p->ended && p->sample.pss) {
			m.used += p->sample.pss - 1;
			m.has_used = true;
		}
	}
	return m;
}

/* Over the looks of the last minute. */
static double growth(struct watch *w, double now, double used)
{
	size_t from = w->looks < HISTORY ? 0 : w->looks - HISTORY + 1;

	w->at[w->looks % HISTORY] = now;
	w->used[w->looks % HISTORY] = used;
	while (from < w->looks && w->at[from % HISTORY] < now - 60)
		from++;
	w->looks++;
	return now - w->at[from % HISTORY] >= 2
		       ? (used - w->used[from % HISTORY]) / (now - w->at[from % HISTORY])
		       : NAN;
}

static void put_memory(struct watch *w, struct result *doc)
{
	struct rvalue *o = r_object(doc, result_root(doc), "memory");
	struct memory m = memory_of(w->f);
	double rate = growth(w, follow_now(w->f), (double)m.used);

	put(doc, o, "limit_bytes", m.limit ? m.limit + 1 : 0);
	r_string(doc, o, "limit_from", !m.limit ? NULL : m.is_cgroup ? "cgroup" : "physical");
	put(doc, o, "used_bytes", m.has_used ? m.used + 1 : 0);
	put(doc, o, "headroom_bytes",
	    m.limit && m.has_used ? (m.limit > m.used ? m.limit - m.used : 0) + 1 : 0);
	if (isnan(rate))
		r_null(doc, o, "bytes_per_s");
	else
		r_float(doc, o, "bytes_per_s", rate);
	if (!isnan(rate) && rate > 1 && m.limit > m.used)
		r_float(doc, o, "full_in_s", (double)(m.limit - m.used) / rate);
	else
		r_null(doc, o, "full_in_s");
}

static void put_warnings(struct watch *w, struct result *doc)
{
	struct rvalue *list = r_array(doc, result_root(doc), "warnings");

	for (size_t i = 0; i < w->f->notes.count; i++) {
		struct rvalue *o = r_push_object(doc, list);

		r_float(doc, o, "t", w->f->notes.items[i].s);
		r_string(doc, o, "text", w->f->notes.items[i].text);
	}
}

static void look(struct watch *w, FILE *out)
{
	struct render_options plain = { 0 };
	struct result *doc = result_new();
	struct rvalue *root = result_root(doc);

	r_string(doc, root, "schema", "memtrace-top/1");
	r_string(doc, root, "trace", w->f->path);
	r_float(doc, root, "time_s", follow_now(w->f));
	r_bool(doc, root, "running", w->f->running);
	put_memory(w, doc);
	put_processes(w, doc);
	put_sites(w, doc);
	put_warnings(w, doc);
	render_json(root, &plain, out);
	result_free(doc);
}

int cmd_watch(const struct command *self, const struct cli_options *opt)
{
	double seconds = opt->argument_count > 1 ? strtod(opt->arguments[1], NULL) : 0;
	long times = opt->argument_count > 2 ? strtol(opt->arguments[2], NULL, 10) : 0;
	struct symbolizer_options names = { .off = opt->no_symbols, .sysroot = opt->sysroot };
	struct watch w = { 0 };
	char *error = NULL;

	(void)self;
	w.f = follow_open(opt->arguments[0], &error);
	if (!w.f)
		die_status(STATUS_UNREADABLE, "%s", error ? error : "the trace can't be read");
	w.symbols = symbolizer_new(&names);
	for (long n = 0; follow_look(w.f); n++) {
		if (n)
			fputs("\x1e\n", stdout);
		look(&w, stdout);
		if (fflush(stdout) || seconds <= 0 || n + 1 == times)
			break;
		usleep((useconds_t)(seconds * 1e6));
	}
	for (size_t i = 0; i < w.names.count; i++)
		free(w.names.items[i]);
	vec_release(&w.names);
	symbolizer_free(w.symbols);
	follow_close(w.f);
	return ferror(stdout) ? STATUS_USAGE : STATUS_DONE;
}
