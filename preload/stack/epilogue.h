/*
 * Code that was made at run time without unwind information: CPython's trampolines of -X perf, small
 * stubs of other compilers. What such a function does after a call, up to its return, says how to
 * leave its frame, if it does nothing but that.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_EPILOGUE_H
#define MEMTRACE_PRELOAD_EPILOGUE_H

#include <stdint.h>

/*
 * The rule (rules.h) for a return address, from the code around it, of which `before` bytes ahead of
 * it and `size` from it on are readable. MT_RULE_NOINFO when there is no call before it, or anything but
 * the taking down of a frame behind it. Never for an interrupted address.
 */
uint64_t mt_epilogue_rule(const uint8_t *code, uint32_t before, uint32_t size);

#endif
