/*
 * The referee's part. See verify.h, and libunwind.h for the limits of what is asked.
 *
 * Not in a forked child: libunwind asks ld.so for its list of modules, under a lock that a thread
 * which is gone may have held. Not while a module is being unloaded either. libunwind runs with the
 * thread's struct hidden, so that what it maps for itself passes the hooks without being counted as
 * a loss.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "stack/verify.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "core/clock.h"
#include "core/guard.h"
#include "core/mem.h"
#include "out/stream.h"
#include "stack/libunwind.h"
#include "stack/native.h"
#include "sys/fmt.h"
#include "sys/log.h"

enum { ROOM = 4096, LOGGED = 8 };

/* Of one thread. */
struct mt_verify_thread {
	uint32_t wait; /* stacks until the next that is verified */
	uint64_t scratch[MT_LIBUNWIND_SCRATCH_BYTES / 8];
	uintptr_t theirs[ROOM];
	struct mt_trail ours;
	uintptr_t ours_ip[ROOM];
};

uint32_t mt_verify_every;

static int asked; /* MEMTRACE_VERIFY was set and not 0, in this process and not its parent */

/* What the fact says, in this order; each atomic. */
enum count { STACKS, KEPT, COMPARED, DIFFERENT, INCOMPLETE, UNCOVERED, UNJUDGED, MEMO, COUNTS };

static const char *const count_names[COUNTS] = { "stacks",     "kept",	    "compared", "different",
						 "incomplete", "uncovered", "unjudged", "memo" };
static uint64_t counts[COUNTS];

static void count(enum count which)
{
	__atomic_fetch_add(&counts[which], 1, __ATOMIC_RELAXED);
}

void mt_stack_verify(unsigned int every)
{
	uint32_t guard = mt_tls.guard;

	if (!every)
		return;
	asked = 1;
	mt_tls.guard = MT_GUARD_SELF;
	if (mt_libunwind_open() < 0)
		mt_log(MT_LOG_WARN, "MEMTRACE_VERIFY needs libunwind.so.8, which is not there; "
				    "stacks are not verified");
	else
		mt_verify_every = every;
	if (mt_verify_every)
		mt_native_verify(mt_tls.thread);
	mt_tls.guard = guard;
}

/* ---- one stack ------------------------------------------------------------------------------- */

static void log_first(const char *what, const struct mt_verify_thread *v, uint32_t at,
		      uint32_t theirs)
{
	static uint32_t logged;
	uintptr_t inner = at ? v->ours.ip[at - 1] : 0;

	if (__atomic_fetch_add(&logged, 1, __ATOMIC_RELAXED) >= LOGGED)
		return;
	mt_log(MT_LOG_DEBUG,
	       "verify: %s, end %u: frame %u of %u, after %lx: ours %lx; libunwind %lx of %u", what,
	       v->ours.end, at, v->ours.count, inner, at < v->ours.count ? v->ours.ip[at] : 0,
	       at < theirs ? v->theirs[at] : 0, theirs);
}

/* Ours against theirs, where both have something to say. */
static void judge(const struct mt_verify_thread *v, enum mt_libunwind_end end, uint32_t theirs)
{
	uint32_t ours = v->ours.count < ROOM ? v->ours.count : ROOM;
	uint32_t both = ours < theirs ? ours : theirs, at = 0;
	int same_length = ours == theirs || end == MT_LIBUNWIND_ROOM;

	if (v->ours.judged < ours) {
		both = both < v->ours.judged ? both : v->ours.judged;
		ours = both;
		same_length = 0;
		end = MT_LIBUNWIND_ERROR;
	}

	while (at < both && v->ours.ip[at] == v->theirs[at])
		at++;
	count(COMPARED);
	if (at < both || (!same_length && !v->ours.end && end == MT_LIBUNWIND_LAST) ||
	    (ours < theirs && !v->ours.end && v->ours.judged == UINT32_MAX)) {
		count(DIFFERENT);
		log_first("different", v, at, theirs);
	} else if (v->ours.end) {
		count(INCOMPLETE);
		log_first("incomplete", v, at, theirs);
		if (!v->ours.in_module)
			count(UNCOVERED);
	} else if (!same_length) {
		count(UNJUDGED); /* as far as libunwind came */
	}
}

static void verify_walk(struct mt_verify_thread *v, struct mt_caller caller)
{
	struct mt_thread *t = mt_tls.thread;
	enum mt_libunwind_end end;
	int saved = errno;
	uint32_t theirs;

	mt_tls.thread = NULL;
	end = mt_libunwind_walk(v->scratch, caller.slot + 8, v->theirs, ROOM, &theirs);
	mt_tls.thread = t;
	errno = saved;
	if (end == MT_LIBUNWIND_NOWHERE) {
		count(COMPARED);
		count(UNJUDGED);
	} else {
		judge(v, end, theirs);
	}
}

void mt_verify(struct mt_native_cache *c, struct mt_thread *t, struct mt_caller caller,
	       uint32_t node)
{
	uint32_t walked = c->walked, again;
	struct mt_verify_thread *v = c->verify;

	count(STACKS);
	if (!walked)
		count(KEPT);
	c->walked = 0;
	if (!v && !(v = c->verify = mt_mem_map((sizeof(*v) + 4095) & ~(size_t)4095)))
		return;
	if (v->wait > 1) {
		v->wait--;
		return;
	}
	v->wait = mt_verify_every;
	if (c->strict || !node)
		return;
	v->ours.count = 0;
	v->ours.judged = UINT32_MAX;
	v->ours.room = ROOM;
	v->ours.ip = v->ours_ip;
	c->trail = &v->ours;
	again = mt_native_walk(c, t, caller.slot, caller.rbp);
	c->trail = NULL;
	c->walked = 0;
	if (again && again != node)
		count(MEMO);
	verify_walk(v, caller);
}

/* ---- the end --------------------------------------------------------------------------------- */

void mt_stack_verify_end(struct mt_thread *t)
{
	char text[512];
	size_t n = 0;

	if (!asked)
		return;
	asked = 0;
	MT_SELF_BEGIN();
	if (!mt_verify_every)
		n = mt_fmt(text, sizeof(text), "libunwind.so.8 is missing");
	for (int i = 0; i < COUNTS && mt_verify_every; i++)
		n += mt_fmt(text + n, sizeof(text) - n, "%s%s %lu", i ? ", " : "", count_names[i],
			    __atomic_load_n(&counts[i], __ATOMIC_RELAXED));
	MT_EMIT(t, fact, .key = { "verify", 6 }, .value = { text, (uint32_t)n });
	memmove(text + 17, text, n);
	memcpy(text, "stacks verified: ", 17);
	MT_EMIT(t, note, .time = mt_clock_now(), .text = { text, (uint32_t)n + 17 });
	MT_SELF_END();
}

void mt_verify_child(void)
{
	mt_verify_every = 0;
	asked = 0;
}
