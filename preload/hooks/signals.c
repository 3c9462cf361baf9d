/*
 * Interposed: all by which a program may ask or change what SIGTRAP does. With MEMTRACE_COW_TOUCH the
 * shim uses that signal in forked children, and gives way before the program has it: it finds what it
 * would find without us. All other signals, and all else, pass through.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>

#include "core/guard.h"
#include "core/real.h"
#include "record/touch.h"

/* A library that is initialised ahead of us, before any other hook was called. */
static MT_COLD void start(void)
{
	if (mt_state == MT_STATE_NEW && &mt_on_first_call)
		mt_on_first_call();
}

#define PASS(name, failed, number, ...)                                                            \
	do {                                                                                       \
		if (mt_unlikely(!mt_real.name))                                                    \
			start();                                                                   \
		if (mt_unlikely(!mt_real.name)) {                                                  \
			errno = ENOSYS;                                                            \
			return failed;                                                             \
		}                                                                                  \
		if (mt_unlikely((number) == SIGTRAP))                                              \
			mt_touch_yield(number);                                                    \
		return mt_real.name(number, ##__VA_ARGS__);                                        \
	} while (0)

MT_EXPORT int sigaction(int number, const struct sigaction *action, struct sigaction *old)
{
	PASS(sigaction, -1, number, action, old);
}

extern int __sigaction(int number, const struct sigaction *action, struct sigaction *old);

MT_EXPORT int __sigaction(int number, const struct sigaction *action, struct sigaction *old)
{
	PASS(__sigaction, -1, number, action, old);
}

/* One name each of what the C library has for old programs; not all of them are in its headers. */
#define OLD_SIGNAL(name)                                                                           \
	extern mt_signal_handler name(int number, mt_signal_handler handler);                      \
	MT_EXPORT mt_signal_handler name(int number, mt_signal_handler handler)                    \
	{                                                                                          \
		PASS(name, SIG_ERR, number, handler);                                              \
	}

OLD_SIGNAL(signal)
OLD_SIGNAL(bsd_signal)
OLD_SIGNAL(ssignal)
OLD_SIGNAL(sysv_signal)
OLD_SIGNAL(__sysv_signal)
OLD_SIGNAL(sigset)

MT_EXPORT int sigignore(int number)
{
	PASS(sigignore, -1, number);
}
