/*
 * system() and popen() where the shim was loaded late: libc starts the shell by itself, with the
 * process's `environ`, so no slot of ours is on the way. Not interposed in programs that have the shim
 * from their start, whose environment has all that children need.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <unistd.h>

#include "core/guard.h"
#include "init.h"
#include "record/record.h"
#include "slots.h"

int (*mt_system_real)(const char *command);
void *(*mt_popen_real)(const char *command, const char *type);

struct lent {
	char **own, **with; /* own NULL: nothing */
};

static struct lent lend(void)
{
	int uncovered, saved = errno;
	struct lent l;
	struct mt_thread *t;

	l.own = mt_environ_lend(&uncovered);
	l.with = environ;
	t = uncovered ? mt_enter() : NULL;
	if (t) {
		mt_record_spawn(t, 0, "/bin/sh", environ);
		mt_leave(t);
	}
	errno = saved;
	return l;
}

int mt_system_late(const char *command)
{
	struct lent l = lend();
	int result = mt_system_real(command);

	mt_environ_return(l.own, l.with);
	return result;
}

void *mt_popen_late(const char *command, const char *type)
{
	struct lent l = lend();
	void *result = mt_popen_real(command, type);

	mt_environ_return(l.own, l.with);
	return result;
}
