/*
 * The functions behind the hooks: whatever comes next after the shim in the loader's search order,
 * which is another preloaded allocator where there is one, else the C library.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_REAL_H
#define MEMTRACE_PRELOAD_REAL_H

#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <sys/wait.h>

typedef void (*mt_signal_handler)(int);

struct mt_real {
#define MT_HOOK(family, name, result, parameters, need) result(*name) parameters;
#include "memtrace/hooks.def"
#undef MT_HOOK
};

extern struct mt_real mt_real; /* constant once resolved; members are NULL before */

/* Resolves all. 0, or -ENOSYS when a REQUIRED one is missing: the shim must stay off then. */
int mt_real_resolve(void);

#endif
