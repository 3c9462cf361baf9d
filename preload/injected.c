/*
 * The shim in a process that was started without it. The injector (control/inject.c) loads it by dlopen
 * and calls memtrace_injected(): the process is then as one that was started dormant, and is armed
 * through its control page. When recording ends the slots are changed back and the page goes, so
 * nothing is left but the library, which does nothing; attaching again begins with the same call.
 *
 * What a start with the shim does and this does not: `environ` is left alone (other threads may be
 * reading it), so programs that are started from here do not load the shim; and Python's allocators
 * are not wrapped, because other threads may be using them.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>

#include "core/control.h"
#include "core/guard.h"
#include "init.h"
#include "slots.h"
#include "stack/stack.h"
#include "sys/sys.h"

int memtrace_injected(const void *unused);

int mt_injected;
static int prepared;
static uint32_t busy; /* atomic; pid of who comes or goes */

/* Two may come at once: a memtrace that was killed leaves a thread on its way here, and the next
 * memtrace sends another one. What a forked child finds taken is nobody's. */
static int take(void)
{
	uint32_t self = (uint32_t)mt_sys_getpid(), owner = __atomic_load_n(&busy, __ATOMIC_RELAXED);

	return owner != self && __atomic_compare_exchange_n(&busy, &owner, self, 0,
							    __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

static void give(void)
{
	__atomic_store_n(&busy, 0, __ATOMIC_RELEASE);
}

/* The page's last word is that nobody answers there any more. */
static void page_leave(void)
{
	mt_control_own.state = MT_CONTROL_LEFT;
	mt_control_set_light(MT_LIGHT_PASS);
	mt_control_publish();
	mt_control_unmake();
	mt_control_own.state = MT_CONTROL_DORMANT;
}

static int enter(void)
{
	int err = mt_late_start(!prepared);

	if (err)
		return err;
	prepared = 1;
	err = mt_slots_install(mt_cxx_records());
	if (!err)
		mt_injected = 1;
	else if (mt_slots_remove())
		page_leave();
	return err;
}

/* Called by the injector in a thread that is at a safe moment: ld.so's lock may be taken. -EALREADY:
 * it is done, or another thread does it or undoes it just now. */
MT_EXPORT int memtrace_injected(const void *unused)
{
	int saved = errno, err;

	(void)unused;
	if (!mt_late)
		return -EEXIST; /* here from the program's start */
	if (!take())
		return -EALREADY;
	mt_tls.guard = MT_GUARD_SELF;
	err = mt_injected ? -EALREADY : enter();
	mt_tls.guard = MT_GUARD_NONE;
	give();
	errno = saved;
	return err;
}

void mt_injected_leave(void)
{
	if (!take())
		return;
	if (mt_injected && mt_slots_remove()) {
		mt_injected = 0;
		page_leave();
	}
	give();
}
