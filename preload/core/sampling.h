/*
 * How much is recorded, in words that every part of the shim may read: hooks, to leave at once what
 * needs no record; the trace file, to thin recording when it nears its cap; the recorder's sampler
 * (record/sample.h), which does it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_SAMPLING_H
#define MEMTRACE_PRELOAD_SAMPLING_H

#include <stdint.h>

enum mt_light {
	MT_LIGHT_NONE, /* every heap call is looked at */
	MT_LIGHT_SAMPLE, /* what the sampler does not pick needs no record, and its free none */
	MT_LIGHT_PASS, /* nothing is recorded: dormant, or off for good */
};

extern uint32_t mt_light; /* set at start, before any other thread */

/* Mean bytes between samples; 0: every allocation is recorded. Atomic: it may rise at any time.
 * Recorders read it after the real call: who gets an address that was handed out unrecorded before
 * has then seen, by way of the allocator, that sampling is on. */
extern uint64_t mt_sample_mean;

/* Recording was full until mt_sample_mean was set: blocks from before are in the trace. */
extern uint32_t mt_sample_degraded;

/* The free of a block from before is recorded; how many since the last question. */
void mt_sampling_old_free(void);
uint64_t mt_sampling_old_frees(void);

/* The trace has `used` bytes of the `cap` it may have, frees of blocks from before left out: thins
 * recording out as it fills. */
void mt_sampling_pressure(uint64_t used, uint64_t cap);

/* Recording has ended: the next one begins in full. */
void mt_sampling_reset(void);

#endif
