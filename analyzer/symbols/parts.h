/*
 * The other part of a function that a compiler or an optimizer after it (BOLT) laid out in two: the
 * common path here, the rest far away. The rest has a symbol of its own only where the file was not
 * stripped of its local symbols; unwind tables show where it begins and ends, and jumps whose it is.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_PARTS_H
#define MEMTRACE_ANALYZER_PARTS_H

#include <stdbool.h>
#include <stdint.h>

#include <libelf.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Of the function [start, start + size): the addresses of its other part. x86-64 only. */
bool parts_find(Elf *elf, uint64_t start, uint64_t size, uint64_t *low, uint64_t *high);

#ifdef __cplusplus
}
#endif

#endif
