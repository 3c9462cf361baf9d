/*
 * libunwind as a referee: what it finds on the same stack. Only verify.c asks it, and only when
 * MEMTRACE_VERIFY is set; no stack in a trace comes from here.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_LIBUNWIND_H
#define MEMTRACE_PRELOAD_LIBUNWIND_H

#include <stdint.h>

#define MT_LIBUNWIND_SCRATCH_BYTES 8192

enum mt_libunwind_end {
	MT_LIBUNWIND_LAST, /* it says that there is no further frame */
	MT_LIBUNWIND_ERROR, /* it can't go on */
	MT_LIBUNWIND_ROOM, /* `room` addresses are there */
	MT_LIBUNWIND_NOWHERE, /* it never came to the frame asked for */
};

/* Loads it, so from a constructor only. 0, or -1: it is not there or not as expected. */
int mt_libunwind_open(void);

/*
 * Addresses of the frames from the one whose stack pointer is `sp` outwards. Takes ld.so's lock for
 * lists of modules, so never in a forked child and never where a thread may hold that lock for
 * long. scratch: MT_LIBUNWIND_SCRATCH_BYTES.
 */
enum mt_libunwind_end mt_libunwind_walk(void *scratch, uintptr_t sp, uintptr_t *ip, uint32_t room,
					uint32_t *count);

#endif
