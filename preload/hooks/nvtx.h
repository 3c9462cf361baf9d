/*
 * What the two files on NVTX share.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_HOOKS_NVTX_H
#define MEMTRACE_PRELOAD_HOOKS_NVTX_H

#include <stdint.h>

/* A message's text: of bytes (1), or registered before (3); "" where it is neither. */
const char *mt_nvtx_text(int32_t type, const void *message);

#endif
