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

int memtrace_injected(const void *unused);

int mt_injected;
static int prepared;

/* Called by the injector in a thread that is at a safe moment: ld.so's lock may be taken. */
MT_EXPORT int memtrace_injected(const void *unused)
{
	int saved = errno, err;

	(void)unused;
	if (!mt_late)
		return -EEXIST; /* here from the program's start */
	if (mt_injected)
		return -EALREADY;
	mt_tls.guard = MT_GUARD_SELF;
	err = mt_late_start(!prepared);
	if (!err) {
		prepared = 1;
		err = mt_slots_install(mt_cxx_records());
		mt_injected = 1;
		if (err < 0)
			mt_injected_leave();
	}
	mt_tls.guard = MT_GUARD_NONE;
	errno = saved;
	return err;
}

void mt_injected_leave(void)
{
	if (!mt_injected || !mt_slots_remove())
		return;
	mt_injected = 0;
	mt_control_own.state = MT_CONTROL_LEFT;
	mt_control_set_light(MT_LIGHT_PASS);
	mt_control_publish();
	mt_control_unmake();
	mt_control_own.state = MT_CONTROL_DORMANT;
}
