/*
 * Addresses at which a block was handed out since recording fell from full to sampled. Before, every
 * block was recorded; so a block that is freed now was recorded in full exactly if its address is
 * not among these, and its free must be recorded too. One bit for 8 bytes of address space, only
 * where something was handed out: at most 1/64 of the heap, and only in a process that had to
 * thin its recording out.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_SINCE_H
#define MEMTRACE_PRELOAD_SINCE_H

/* Without memory for it: the block's free will be recorded though the block was not; the reader
 * leaves such a free out. */
void mt_since_add(const void *block);
int mt_since_has(const void *block);

/* Forgets all. */
void mt_since_reset(void);

#endif
