/*
 * Memory that is resident and holds nothing: free in whole pages (returnable), free beside live
 * blocks (pinned), free in Python's pools; and memory that nobody's call explains. Judged by the
 * last walk over a process's pages: what counts is what it went on holding.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "analysis/common.h"
#include "analysis/findings.h"
#include "analysis/resident.h"

#define INFO_BYTES (UINT64_C(8) << 20)
#define INFO_SHARE 0.1 /* of what is resident */
#define WARNING_BYTES (UINT64_C(32) << 20)
#define WARNING_SHARE 0.2
#define UNCOVERED_SHARE 0.05
#define SITES_NAMED 5

/* What a rule looks at. */
struct look {
	struct findings *all;
	const struct process *p;
	const struct resident *r;
	struct allocator_sum glibc; /* name NULL: nothing of it is resident */
	struct allocator_sum other; /* that serves malloc instead; likewise */
};

static struct finding *finding_of(const struct look *l, const char *kind, uint64_t bytes)
{
	double share = l->r->bytes ? (double)bytes / (double)l->r->bytes : 0;
	struct finding *f;

	if (bytes < INFO_BYTES || share < INFO_SHARE)
		return NULL;
	f = finding_new(l->all, kind,
			bytes >= WARNING_BYTES && share >= WARNING_SHARE ? SEVERITY_WARNING
									 : SEVERITY_INFO);
	finding_bytes(f, bytes);
	finding_process(f, l->p->id);
	finding_int(f, "rss_bytes", l->r->bytes);
	finding_float(f, "share_of_rss", share);
	finding_float(f, "at_s", process_seconds(l->all->in->m, l->p, l->r->time));
	return f;
}

static void site_add(const struct look *l, struct strbuf *sb, uint32_t site)
{
	const struct model *m = l->all->in->m;
	struct stack st;

	stack_merge(m, l->all->in->symbols, m->sites[site].native, m->sites[site].python, &st);
	place_add(sb, &st);
	stack_release(&st);
}

static void moment_add(const struct look *l, struct strbuf *sb)
{
	strbuf_addf(sb, " at %.1f s ", process_seconds(l->all->in->m, l->p, l->r->time));
	strbuf_addstr(sb, "in ");
	process_name_add(sb, l->p);
}

/* ---- returnable ------------------------------------------------------------------------------------ */

/* Was one of these settings of glibc's given to the process? Either spelling. */
static bool is_set(const struct look *l, const char *const *names, size_t count)
{
	const char *set = process_fact(l->all->in->m, l->p, "malloc_settings");

	for (size_t i = 0; set && i < count; i++)
		if (strstr(set, names[i]))
			return true;
	return false;
}

/* Any of them ends the adjusting of both thresholds (mallopt(3)). */
static const char *const fixing[] = {
	"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_",	 "MALLOC_TOP_PAD_",
	"MALLOC_MMAP_MAX_",	  "glibc.malloc.mmap_threshold", "glibc.malloc.trim_threshold",
	"glibc.malloc.top_pad",	  "glibc.malloc.mmap_max",
};
static const char *const limiting[] = { "MALLOC_ARENA_MAX", "glibc.malloc.arena_max" };
#define IS_SET(l, names) is_set(l, names, sizeof(names) / sizeof((names)[0]))

static void say_threshold(const struct look *l, struct finding *f, uint64_t bytes)
{
	uint64_t avoided = l->glibc.run_bytes;

	if (avoided > l->r->large_in_heap)
		avoided = l->r->large_in_heap;
	if (!l->r->large_freed || IS_SET(l, fixing) || avoided < bytes / 2)
		return;
	finding_int(f, "largest_freed_block_bytes", l->r->large_freed);
	finding_int(f, "returnable_run_bytes", l->glibc.run_bytes);
	strbuf_addstr(&f->detail, " glibc's dynamic threshold has a part in it: once a block of ");
	size_add(&f->detail, l->r->large_freed);
	strbuf_addstr(&f->detail, " had been freed");
	if (l->r->large_site != NO_ID) {
		strbuf_addstr(&f->detail, " (of ");
		site_add(l, &f->detail, l->r->large_site);
		strbuf_addch(&f->detail, ')');
	}
	strbuf_addstr(&f->detail,
		      ", blocks up to that size come from the heap and no longer from mappings of "
		      "their own, which are given back at once; and the heap's end is cut off only "
		      "above twice that size.");
	strbuf_addstr(&f->advice, " Or fix the threshold: MALLOC_MMAP_THRESHOLD_=131072 would have "
				  "avoided at most ");
	size_add(&f->advice, avoided);
	strbuf_addstr(&f->advice, " of it, for the price of more page faults.");
}

/* One small block on top of it all. */
static void say_cliff(const struct look *l, struct finding *f, uint64_t bytes)
{
	for (size_t i = 0; i < l->r->heap_count; i++) {
		const struct resident_heap *h = &l->r->heaps[i];

		if (h->kind != HEAP_MAIN || !h->cliff[0].count || h->cliff[0].bytes < bytes / 2 ||
		    h->top_site == NO_ID)
			continue;
		strbuf_addstr(&f->detail, " One block of ");
		size_add(&f->detail, h->top_size);
		strbuf_addstr(&f->detail, " from ");
		site_add(l, &f->detail, h->top_site);
		strbuf_addstr(&f->detail, " lies on top of ");
		size_add(&f->detail, h->cliff[0].bytes);
		strbuf_addstr(&f->detail,
			      " of it: the heap can shrink by itself only from its end.");
		finding_int(f, "topmost_block_bytes", h->top_size);
		finding_int(f, "held_by_topmost_bytes", h->cliff[0].bytes);
		f->site = h->top_site;
	}
}

static void say_arenas(const struct look *l, struct finding *f, uint64_t bytes)
{
	if (!l->glibc.arenas || l->glibc.arena_free < bytes / 2)
		return;
	finding_int(f, "arenas", l->glibc.arenas);
	finding_int(f, "arena_free_bytes", l->glibc.arena_free);
	strbuf_addf(&f->detail, " %llu arenas that glibc made for threads hold ",
		    (unsigned long long)l->glibc.arenas);
	size_add(&f->detail, l->glibc.arena_free);
	strbuf_addstr(&f->detail, " of free memory; what one thread freed another can't use.");
	if (IS_SET(l, limiting)) {
		strbuf_addstr(&f->detail, " Their number is limited already.");
		return;
	}
	strbuf_addstr(&f->advice, " Fewer arenas (MALLOC_ARENA_MAX=2) share what is free and would "
				  "have avoided at most ");
	size_add(&f->advice, l->glibc.arena_free);
	strbuf_addstr(&f->advice, " of it, for the price of threads waiting for each other.");
}

static void find_returnable(const struct look *l)
{
	uint64_t bytes = l->glibc.name ? l->glibc.returnable : 0;
	struct finding *f = finding_of(l, "fragmentation-returnable", bytes);

	if (!f)
		return;
	strbuf_addstr(&f->title, "freed but held: ");
	size_add(&f->title, bytes);
	strbuf_addstr(&f->title, " of whole free pages in glibc's heap");
	moment_add(l, &f->title);
	strbuf_addf(&f->detail,
		    "Nothing lives in %.0f %% of the resident memory, but malloc keeps ",
		    100.0 * (double)bytes / (double)l->r->bytes);
	strbuf_addstr(&f->detail, "it for later; live in the heap are ");
	size_add(&f->detail, l->glibc.live);
	strbuf_addstr(&f->detail, ". This is no leak.");
	finding_int(f, "live_bytes", l->glibc.live);
	finding_int(f, "resident_heap_bytes", l->glibc.resident);
	strbuf_addstr(&f->advice,
		      "malloc_trim(0) gives it back: from Python, every few hundred steps, "
		      "ctypes.CDLL('libc.so.6').malloc_trim(0).");
	say_cliff(l, f, bytes);
	say_arenas(l, f, bytes);
	say_threshold(l, f, bytes);
}

/* jemalloc and its likes keep free pages for a while, each for as long as it is told. */
static void find_returnable_other(const struct look *l)
{
	static const struct {
		const char *name, *advice;
	} known[] = {
		{ "jemalloc", "MALLOC_CONF=background_thread:true,dirty_decay_ms:1000,"
			      "muzzy_decay_ms:0 gives free pages back sooner; "
			      "mallctl(\"arena.4096.purge\") at once." },
		{ "tcmalloc", "TCMALLOC_RELEASE_RATE=10 gives free pages back sooner; "
			      "MallocExtension::instance()->ReleaseFreeMemory() at once." },
		{ "mimalloc", "MIMALLOC_PURGE_DELAY=0 gives free pages back sooner; "
			      "mi_collect(true) at once." },
	};
	struct finding *f = l->other.name
				    ? finding_of(l, "fragmentation-returnable", l->other.returnable)
				    : NULL;

	if (!f)
		return;
	strbuf_addstr(&f->title, "freed but held: ");
	size_add(&f->title, l->other.returnable);
	strbuf_addf(&f->title, " of pages without a live block in memory of %s", l->other.name);
	moment_add(l, &f->title);
	strbuf_addf(&f->detail,
		    "Nothing lives in %.0f %% of the resident memory, but %s keeps it for later, "
		    "with what it needs itself; live there are ",
		    100.0 * (double)l->other.returnable / (double)l->r->bytes, l->other.name);
	size_add(&f->detail, l->other.live);
	strbuf_addstr(&f->detail, ". This is no leak; malloc_trim() does not reach it.");
	finding_int(f, "live_bytes", l->other.live);
	finding_int(f, "resident_heap_bytes", l->other.resident);
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (!strcmp(known[i].name, l->other.name))
			strbuf_addstr(&f->advice, known[i].advice);
}

/* ---- pinned -------------------------------------------------------------------------------------------- */

/* Sites that alone hold it, into detail and evidence. Returns what the first of them, f->site, holds. */
static uint64_t name_pins(const struct look *l, struct finding *f, bool python)
{
	uint64_t most = 0;
	size_t named = 0;

	for (size_t i = 0; i < l->r->pin_count && named < SITES_NAMED; i++) {
		const struct resident_pin *pin = &l->r->pins[i];
		struct strbuf sb = STRBUF_INIT;

		if (pin->site == NO_ID ||
		    (python ? pin->kind != HEAP_PYTHON : !heap_is_glibc(pin->kind)))
			continue;
		site_add(l, &sb, pin->site);
		strbuf_addf(&sb, ": %llu blocks, ", (unsigned long long)pin->blocks);
		size_add(&sb, pin->block_bytes);
		strbuf_addf(&sb, ", %.1f s old on average, alone on %llu pages with ",
			    pin->age / 1e9, (unsigned long long)pin->pages);
		size_add(&sb, pin->pinned);
		strbuf_addstr(&sb, " free");
		finding_item(f, "pinning_sites", sb.buf);
		if (!named++) {
			f->site = pin->site;
			most = pin->pinned;
			strbuf_addstr(&f->detail, " The site that alone holds most of it: ");
			strbuf_addstr(&f->detail, sb.buf);
			strbuf_addch(&f->detail, '.');
		}
		strbuf_release(&sb);
	}
	return most;
}

/* ", most beside blocks of train.py:12", or how much of it. */
static void pin_title_add(const struct look *l, struct finding *f, uint64_t held, uint64_t bytes,
			  const char *what)
{
	strbuf_addstr(&f->title, ", ");
	if (held < bytes / 2) {
		size_add(&f->title, held);
		strbuf_addstr(&f->title, " of it");
	} else {
		strbuf_addstr(&f->title, "most");
	}
	strbuf_addf(&f->title, " beside %s of ", what);
	site_add(l, &f->title, f->site);
}

static void find_pinned(const struct look *l)
{
	uint64_t bytes = l->glibc.name ? l->glibc.pinned : 0;
	bool arenas = l->glibc.arena_top > bytes / 2;
	struct finding *f = finding_of(l, "fragmentation-pinned", bytes);
	uint64_t held;

	if (!f)
		return;
	finding_int(f, "live_bytes", l->glibc.live);
	finding_int(f, "arena_top_bytes", l->glibc.arena_top);
	strbuf_addstr(&f->detail, "malloc_trim() can't give this back: ");
	if (arenas) {
		size_add(&f->detail, l->glibc.arena_top);
		strbuf_addf(&f->detail,
			    " lie at the ends of %llu arenas that glibc made for threads, which "
			    "trimming leaves alone.",
			    (unsigned long long)l->glibc.arenas);
		strbuf_addstr(&f->advice, "Fewer arenas (MALLOC_ARENA_MAX=2) or fewer threads that "
					  "allocate; a fixed MALLOC_TRIM_THRESHOLD_=131072 makes "
					  "arenas give back their ends.");
	} else {
		strbuf_addstr(&f->detail, "it is in pages on which something lives.");
		strbuf_addstr(&f->advice,
			      "Allocate what stays before, or apart from, what comes and goes "
			      "(a pool, one array, a mapping of its own); or free these blocks.");
	}
	held = name_pins(l, f, false);
	strbuf_addstr(&f->title, "pinned: ");
	size_add(&f->title, bytes);
	strbuf_addstr(&f->title, " free in glibc's heap that can't be given back");
	if (held && !arenas)
		pin_title_add(l, f, held, bytes, "blocks");
	strbuf_addch(&f->title, ',');
	moment_add(l, &f->title);
}

/* ---- Python ------------------------------------------------------------------------------------------ */

/* What its pools say of themselves. */
static void say_pools(struct finding *f, const struct resident_heap *h)
{
	strbuf_addf(&f->detail, " In use: %llu blocks, ", (unsigned long long)h->blocks);
	size_add(&f->detail, h->live);
	strbuf_addf(&f->detail, ", spread over %u arenas (", h->parts);
	size_add(&f->detail, h->resident);
	strbuf_addstr(&f->detail, " resident); of the free memory ");
	size_add(&f->detail, h->free_pool_bytes);
	strbuf_addf(&f->detail,
		    " are whole pools in %llu arenas that are held by others, the rest lies "
		    "between objects.",
		    (unsigned long long)h->pinned_arenas);
	finding_int(f, "live_bytes", h->live);
	finding_int(f, "live_blocks", h->blocks);
	finding_int(f, "arenas_pinned", h->pinned_arenas);
	finding_int(f, "free_pool_bytes", h->free_pool_bytes);
}

static void find_python_free(const struct look *l)
{
	uint64_t bytes = l->r->parts[RESIDENT_PYTHON], held;
	struct finding *f = finding_of(l, "python-fragmentation", bytes);

	if (!f)
		return;
	strbuf_addstr(&f->detail,
		      "Its small-object allocator gives an arena back only when nothing "
		      "in it is alive.");
	for (size_t i = 0; i < l->r->heap_count; i++)
		if (l->r->heaps[i].kind == HEAP_PYTHON)
			say_pools(f, &l->r->heaps[i]);
	held = name_pins(l, f, true);
	strbuf_addstr(&f->title, "Python holds ");
	size_add(&f->title, bytes);
	strbuf_addstr(&f->title, " of free memory in its arenas");
	if (held) {
		pin_title_add(l, f, held, bytes, "objects");
		strbuf_addch(&f->title, ',');
	}
	moment_add(l, &f->title);
	strbuf_addstr(&f->advice,
		      "Python uses it again for objects, so it does not grow without end. If it "
		      "matters: make the objects that stay before the many that go, keep data in "
		      "arrays, or do the work that needs many objects in a process that ends.");
	if (!l->p->kinds[MT_KIND_PYTHON].allocations)
		strbuf_addstr(&f->advice, " MEMTRACE_PYTHON=objects shows which lines made the "
					  "objects that stay.");
}

/* ---- nobody's ---------------------------------------------------------------------------------------- */

static void find_untraced(const struct look *l)
{
	uint64_t bytes = l->r->parts[RESIDENT_UNTRACED];
	struct finding *f;

	if (bytes < INFO_BYTES || (double)bytes < UNCOVERED_SHARE * (double)l->r->bytes)
		return;
	f = finding_new(l->all, "uncovered-memory", SEVERITY_INFO);
	finding_bytes(f, bytes);
	finding_process(f, l->p->id);
	strbuf_addstr(&f->title, "not explained: ");
	size_add(&f->title, bytes);
	strbuf_addstr(&f->title, " of resident memory");
	moment_add(l, &f->title);
	for (size_t i = 0; i < l->r->name_count; i++) {
		const struct resident_name *n = &l->r->names[i];

		if (n->part != RESIDENT_UNTRACED)
			continue;
		strbuf_addstr(&f->detail, "The largest part, ");
		size_add(&f->detail, n->bytes);
		strbuf_addf(&f->detail, " at %llx: %s.", (unsigned long long)n->start, n->reason);
		finding_text(f, "reason", n->reason);
		break;
	}
	strbuf_addstr(&f->advice,
		      "memtrace-report --json lists every such range under rss; a program that was "
		      "recorded from its start, in full, has few.");
	finding_int(f, "rss_bytes", l->r->bytes);
}

void find_fragmentation(struct findings *all)
{
	const struct model *m = all->in->m;

	for (size_t i = 0; i < m->process_count; i++) {
		struct look l = { .all = all,
				  .p = &m->processes[i],
				  .r = resident_at_end(&m->processes[i]) };
		struct allocator_sum sums[8];
		size_t count;

		if (!l.r)
			continue;
		if (!l.r->sampled) {
			count = allocator_sums(m, l.r, sums);
			for (size_t k = 0; k < count; k++)
				if (sums[k].is_glibc)
					l.glibc = sums[k];
				else if (l.r->other_malloc &&
					 !strcmp(sums[k].name, l.r->other_malloc))
					l.other = sums[k];
			find_returnable(&l);
			find_returnable_other(&l);
			find_pinned(&l);
			find_python_free(&l);
		}
		find_untraced(&l);
	}
}
