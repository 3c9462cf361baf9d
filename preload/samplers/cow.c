/*
 * Whose pages are walked when. See cow.h. Processes of the tree know of each other by the table in
 * the trace's header; the time of the last walk stands beside each entry, and whoever wants to walk
 * takes it by a swap, so that no two do.
 *
 * Every copy is a page fault of who copies, so a process without one since it was walked has what it
 * had: that is written down instead of a walk. It is exact also for the sum over the family: what
 * others copied meanwhile shows in them, and who has not faulted still maps what it mapped. (A fork
 * would share its pages anew; but it makes its caller fault, on its stack, before it returns.)
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "samplers/cow.h"

#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "core/clock.h"
#include "core/mem.h"
#include "core/tick.h"
#include "out/file.h"
#include "out/process.h"
#include "samplers/pages.h"
#include "sys/fmt.h"
#include "sys/sys.h"

#define WALKED_SHIFT 24 /* of ns; see mt_file_header.walked */
#define COST_SHARE 100 /* a process's own walks take at most this part of its time */
#define OTHERS_SHARE 50 /* and those of others, but for one a round */
#define PARENT_FRESH_NS UINT64_C(250000000) /* a walk of it this old will do for a child's end */

/* Of a process's own faults since its last walk: so few pages can have been copied. Events fault,
 * too: on the trace's pages. */
#define FEW_FAULTS 64

/* A walk that stands in the trace. */
struct looked_at {
	uint32_t pid;
	uint64_t tag; /* forks when it began: after others pages may be shared anew; 0: none */
	uint64_t faults; /* of the process then; 0: not known */
};

static struct looked_at *others; /* by slot; mapped by who walks others, of no use to a child */
static struct looked_at own;
static uint64_t own_forks; /* each makes its pages shared again */
static uint64_t walk_faults; /* that its own walks have made: no copies of the program's */
static uint64_t interval; /* ns; 0: not started */
static uint64_t next_own; /* ns: not before */
static uint64_t last_round; /* ns */
static int is_child, wants_start;

void (*mt_cow_began)(struct mt_thread *t);

static uint32_t stamp(uint64_t ns)
{
	return (uint32_t)(ns >> WALKED_SHIFT) | 1;
}

static uint64_t age_ns(uint32_t walked, uint64_t now)
{
	return (uint64_t)(uint32_t)(stamp(now) - walked) << WALKED_SHIFT;
}

static void mark_own(uint64_t now)
{
	uint32_t *walked = mt_file_slot_walked();

	if (walked)
		__atomic_store_n(walked, stamp(now), __ATOMIC_RELAXED);
}

void mt_cow_init(uint64_t interval_ns)
{
	interval = interval_ns;
}

void mt_cow_forked(void)
{
	uint32_t *walked = mt_file_slot_walked();

	own_forks++;
	if (interval && walked && !*walked)
		mark_own(mt_clock_monotonic_ns());
}

void mt_cow_child(void)
{
	mt_pages_child();
	is_child = wants_start = 1;
	next_own = walk_faults = 0;
	others = NULL;
	own_forks++;
	if (interval)
		mark_own(mt_clock_monotonic_ns());
}

/* ---- others -------------------------------------------------------------------------------------- */

/* Parent of a process, 0: it can't be read. */
static uint32_t parent_of(uint32_t pid)
{
	char path[64], stat[1024];
	const char *p;

	mt_fmt(path, sizeof(path), "/proc/%u/stat", pid);
	if (mt_sys_slurp(path, stat, sizeof(stat)) <= 0)
		return 0;
	p = strrchr(stat, ')');
	if (!p || strlen(p) < 5)
		return 0;
	p += 4; /* ") S " */
	return (uint32_t)mt_parse_number(&p, 10);
}

/* Pids are used again, and mean something else in another namespace: is it still the one that took
 * the slot? A child without any record has no start there, and only its parent can tell. */
static int is_same(const struct mt_proc_slot *slot, uint32_t pid)
{
	uint64_t start = slot->start;

	if (start)
		return mt_process_start(pid) == start;
	return parent_of(pid) == mt_process.pid;
}

/*
 * Forks of others share their pages again. Who was forked has a place in the table from then on, so
 * the table tells; 0: it is full, and tells nothing.
 */
static uint64_t forks_of_all(void)
{
	uint64_t sum = 1;
	int is_full = 1;

	for (size_t i = 0; i < MT_PROC_SLOTS; i++) {
		uint32_t pid = __atomic_load_n(&mt_file.slots[i].pid, __ATOMIC_RELAXED);

		sum = (sum ^ pid ^ mt_file.slots[i].start << 24) * UINT64_C(0x100000001b3) + i;
		is_full &= pid != 0;
	}
	return is_full ? 0 : sum | 1;
}

/* The last walk that this process made of who has slot i; NULL: nothing can be kept. */
static struct looked_at *last_of(size_t i, uint32_t pid)
{
	if (!others)
		others = mt_mem_map(MT_PROC_SLOTS * sizeof(*others));
	if (!others)
		return NULL;
	if (others[i].pid != pid)
		others[i] = (struct looked_at){ .pid = pid };
	return &others[i];
}

/* Walks over pages (pid 0: this process's), unless what the last walk found stands. ns it took. */
static int64_t look_at(struct mt_thread *t, enum mt_scan_reason reason, uint32_t pid,
		       struct looked_at *last, uint64_t tag, uint64_t faults)
{
	uint64_t few = pid ? 1 : FEW_FAULTS;
	int64_t took;

	if (last && reason == MT_SCAN_INTERVAL && tag && last->tag == tag && last->faults &&
	    faults >= last->faults && faults - last->faults < few) {
		mt_pages_same(t, pid);
		return 0;
	}
	took = mt_pages_walk(t, reason, MT_SCAN_PRIVATE, pid);
	/* The faults of before: what is copied meanwhile is looked at again. */
	if (last && took >= 0)
		*last = (struct looked_at){ pid, tag, faults };
	return took;
}

/* Walks the process of slot i if nobody has for so long. ns it took. */
static uint64_t walk_other(struct mt_thread *t, size_t i, uint64_t now, uint64_t old_enough)
{
	const struct mt_proc_slot *slot = &mt_file.slots[i];
	uint32_t *walked = &mt_file.header->walked[i];
	uint32_t seen = __atomic_load_n(walked, __ATOMIC_RELAXED);
	uint32_t pid = __atomic_load_n(&slot->pid, __ATOMIC_ACQUIRE);
	int64_t took;

	if (!seen || !pid || pid == mt_process.pid || age_ns(seen, now) < old_enough)
		return 0;
	if (!__atomic_compare_exchange_n(walked, &seen, stamp(now), 0, __ATOMIC_RELAXED,
					 __ATOMIC_RELAXED))
		return 0;
	if (!is_same(slot, pid))
		return 0;
	took = look_at(t, MT_SCAN_INTERVAL, pid, last_of(i, pid), forks_of_all(),
		       mt_pages_faults(pid));
	return took > 0 ? (uint64_t)took : 0;
}

static void walk_others(struct mt_thread *t, uint64_t now)
{
	uint64_t budget = last_round ? (now - last_round) / OTHERS_SHARE : 0, spent = 0;

	for (size_t i = 0; i < MT_PROC_SLOTS && spent <= budget; i++)
		if (mt_file.header->walked[i])
			spent += walk_other(t, i, now, interval - interval / 10);
	last_round = now;
}

/* What a worker copied is told from what its parent did by walking both at about the same time. */
static void walk_parent(struct mt_thread *t, uint64_t now)
{
	uint64_t fresh = interval / 4 < PARENT_FRESH_NS ? interval / 4 : PARENT_FRESH_NS;
	uint32_t parent = mt_process.parent;

	for (size_t i = 0; i < MT_PROC_SLOTS; i++)
		if (mt_file.slots[i].pid && mt_file.slots[i].proc == parent)
			walk_other(t, i, now, fresh);
}

/* ---- the round ----------------------------------------------------------------------------------- */

/* Faults of this thread, minor ones and others. */
static uint64_t thread_faults(void)
{
	struct rusage use;

	if (mt_sys2(SYS_getrusage, RUSAGE_THREAD, &use) < 0)
		return 0;
	return (uint64_t)use.ru_minflt + (uint64_t)use.ru_majflt;
}

/* Of this process's faults those that may have copied something of the program's. */
static uint64_t own_faults(void)
{
	uint64_t faults = mt_pages_faults(0);

	return faults > walk_faults ? faults - walk_faults : 0;
}

static void walk_own(struct mt_thread *t, enum mt_scan_reason reason, uint64_t now)
{
	uint64_t before;
	int64_t took;

	mark_own(now);
	before = thread_faults();
	if (reason == MT_SCAN_EXIT)
		took = mt_pages_walk(t, reason, MT_SCAN_ALL, 0);
	else
		took = look_at(t, reason, 0, &own, own_forks + 1, own_faults());
	walk_faults += thread_faults() - before;
	next_own = now + interval - interval / 4;
	if (took > 0 && next_own < now + (uint64_t)took * COST_SHARE)
		next_own = now + (uint64_t)took * COST_SHARE;
}

uint64_t mt_cow_round(struct mt_thread *t, int last)
{
	uint64_t now = mt_clock_monotonic_ns();
	uint32_t *walked = mt_file_slot_walked();
	int family = is_child || (walked && *walked);

	if (!interval || mt_file.stopped)
		return UINT64_MAX;
	if (wants_start && mt_process_number()) {
		wants_start = 0;
		walk_own(t, MT_SCAN_START, now);
		if (mt_cow_began)
			mt_cow_began(t);
	} else if (last && family) {
		walk_own(t, MT_SCAN_EXIT, now);
		if (is_child)
			walk_parent(t, now);
	} else if (!last && family) {
		if (now >= next_own)
			walk_own(t, MT_SCAN_INTERVAL, now);
		walk_others(t, now);
	}
	return interval / 8;
}

void mt_cow_forget(void)
{
	mt_pages_child();
	interval = next_own = last_round = walk_faults = 0;
	others = NULL; /* unmapped with the recording */
	own = (struct looked_at){ 0 };
	is_child = wants_start = 0;
}
