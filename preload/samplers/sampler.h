/*
 * Periodic samples of the process and its cgroup, taken on the slow path of an event (core/tick.h):
 * a shim must not start a thread. A process that makes no event for a while is sampled by a relative
 * that does (relatives.c).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_SAMPLER_H
#define MEMTRACE_PRELOAD_SAMPLER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/thread.h"

/* Starts sampling every interval_ns; the first sample is taken at once, but where recording begins in
 * mid-run. */
void mt_sampler_init(struct mt_thread *t, uint64_t interval_ns, int late);

/* In a forked child: the next event samples it. */
void mt_sampler_child(void);

/* Recording has ended. */
void mt_sampler_forget(void);
void mt_sampler_descriptors_forget(void);
void mt_sampler_relatives_forget(void);
void mt_pressure_forget(void);

/* pressure.c: marks and says that a limit is near; `s` was just taken. */
void mt_pressure_look(struct mt_thread *t, const struct mt_ev_sample *s);
extern void (*mt_pressure_mark)(struct mt_thread *t, const char *label); /* set by init.c */
void mt_pressure_gpu(struct mt_thread *t);
extern const unsigned int mt_pressure_memory[3], mt_pressure_devices[3]; /* per cent */
/* 0 to 3: how many thresholds `used` has passed; before: how many it had. limit >= 10000. */
unsigned int mt_pressure_level(const unsigned int at[3], uint64_t used, uint64_t limit,
			       unsigned int before);

/* GPU_LEVEL records, where there is something to say. */
void mt_sampler_gpu(struct mt_thread *t);

/*
 * Samplers: each fills its fields of the record; values are one more than measured, 0: could not.
 * s->pid is whose memory it is: 0 for this process, else one that has been silent.
 */
struct mt_sampler {
	const char *name;
	void (*sample)(struct mt_ev_sample *s);
	uint64_t cost_share; /* at most 1/cost_share of the time goes into this one */
};

/* What this thread has had of the CPU: on a busy machine the wait for it is no cost of a sample. */
uint64_t mt_sampler_cpu_ns(void);

/* Reads /proc/PID/NAME of the process that s is about; bytes or -errno. */
ssize_t mt_sampler_slurp(const struct mt_ev_sample *s, const char *name, char *text, size_t size);

/* Writes DESCRIPTORS, unless there is nothing to say. */
void mt_sampler_descriptors(struct mt_thread *t);
void mt_sampler_descriptors_child(void);

/* Samples processes of the tree that have made no event for an interval. */
void mt_sampler_relatives(struct mt_thread *t, uint64_t interval_ns);
void mt_sampler_relatives_child(void);

/* For tests: looks anew, for proc/ and sys/ in that folder. It is kept; "": the machine's own. */
void mt_sampler_cgroup_at(const char *folder);

extern const struct mt_sampler mt_sampler_status, mt_sampler_smaps, mt_sampler_cgroup;

#endif
