/*
 * The functions of memtrace/memtrace.h: what a program says about itself.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define MEMTRACE_NO_GUARD
#include "memtrace/memtrace.h"

#include <errno.h>

#include "core/guard.h"
#include "record/record.h"

static void mark(enum mt_mark_kind kind, uint64_t value, const char *label)
{
	int saved = errno;
	struct mt_thread *t = mt_enter();

	if (t) {
		mt_record_mark(t, kind, value, label);
		mt_leave(t);
	}
	errno = saved;
}

MT_EXPORT void memtrace_phase(const char *name)
{
	mark(MT_MARK_PHASE, 0, name);
}

MT_EXPORT void memtrace_step(uint64_t n)
{
	__atomic_store_n(&mt_record_has_steps, 1, __ATOMIC_RELAXED);
	mark(MT_MARK_STEP, n, NULL);
}

MT_EXPORT void memtrace_mark(const char *label)
{
	mark(MT_MARK_MARK, 0, label);
}

MT_EXPORT void memtrace_pause(void)
{
	mark(MT_MARK_PAUSE, 0, NULL);
	__atomic_store_n(&mt_record_paused, 1, __ATOMIC_RELAXED);
}

MT_EXPORT void memtrace_resume(void)
{
	__atomic_store_n(&mt_record_paused, 0, __ATOMIC_RELAXED);
	mark(MT_MARK_RESUME, 0, NULL);
}
