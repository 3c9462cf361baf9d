/*
 * Periodic samples of the process and its cgroup, taken on the slow path of an event (core/tick.h):
 * a shim must not start a thread. A process that makes no event for a while has no sample for it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_SAMPLER_H
#define MEMTRACE_PRELOAD_SAMPLER_H

#include <stdint.h>

#include "core/thread.h"

/* Starts sampling every interval_ns; the first sample is taken at once. */
void mt_sampler_init(struct mt_thread *t, uint64_t interval_ns);

/* In a forked child: the next event samples it. */
void mt_sampler_child(void);

/* GPU_LEVEL records, where there is something to say. */
void mt_sampler_gpu(struct mt_thread *t);

/* Samplers: each fills its fields of the record; values are one more than measured, 0: could not. */
struct mt_sampler {
	const char *name;
	void (*sample)(struct mt_ev_sample *s);
	uint64_t cost_share; /* at most 1/cost_share of the time goes into this one */
};

extern const struct mt_sampler mt_sampler_status, mt_sampler_smaps, mt_sampler_cgroup;

#endif
