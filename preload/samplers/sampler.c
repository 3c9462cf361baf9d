/*
 * The sampling round. See sampler.h. Each sampler is timed and left out until its share of the
 * time is kept: reading smaps_rollup of a large process takes milliseconds under mmap_lock, so it
 * comes round less often the larger the process is.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "samplers/sampler.h"

#include <sys/syscall.h>
#include <time.h>

#include "core/clock.h"
#include "core/control.h"
#include "core/gpu.h"
#include "core/tick.h"
#include "out/file.h"
#include "out/process.h"
#include "out/stream.h"
#include "samplers/cow.h"
#include "samplers/resident.h"
#include "sys/fmt.h"
#include "sys/sys.h"

static const struct mt_sampler *const samplers[] = {
	&mt_sampler_status,
	&mt_sampler_smaps,
	&mt_sampler_cgroup,
};

#define SAMPLERS (sizeof(samplers) / sizeof(samplers[0]))

static uint64_t interval; /* ns */
static uint64_t interval_units;
static uint64_t not_before[SAMPLERS]; /* CLOCK_MONOTONIC ns */
static uint64_t descriptors_not_before;

/* How many time units the interval is: ticks where they are nanoseconds, else measured as the
 * rounds go by; a first guess of 1 tick per ns only makes the first round early. */
static uint64_t last_ns, last_units;
static uint64_t sample_due, walk_due; /* units */

static void calibrate(uint64_t ns, uint64_t units)
{
	if (last_ns && ns > last_ns + interval / 100 && units > last_units)
		interval_units = (uint64_t)((double)interval / (double)(ns - last_ns) *
					    (double)(units - last_units));
	last_ns = ns;
	last_units = units;
}

uint64_t mt_sampler_cpu_ns(void)
{
	struct timespec ts = { 0, 0 };

	mt_sys2(SYS_clock_gettime, CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

ssize_t mt_sampler_slurp(const struct mt_ev_sample *s, const char *name, char *text, size_t size)
{
	char path[64];

	if (s->pid)
		mt_fmt(path, sizeof(path), "/proc/%u/%s", (unsigned int)s->pid, name);
	else
		mt_fmt(path, sizeof(path), "/proc/self/%s", name);
	return mt_sys_slurp(path, text, size);
}

/* Some 0.5 us per open descriptor: a process with 20,000 of them is asked every few seconds. The time is
 * that of the CPU: what a busy machine makes of it is no reason to ask less. */
static void descriptors_work(struct mt_thread *t, int last)
{
	uint64_t begin = mt_clock_monotonic_ns(), had;

	if (!last && begin < descriptors_not_before)
		return;
	had = mt_sampler_cpu_ns();
	mt_sampler_descriptors(t);
	descriptors_not_before = begin + (mt_sampler_cpu_ns() - had) * 200;
}

/* last: the process ends, everything that is not very costly is taken once more. */
static void sample(struct mt_thread *t, int last)
{
	struct mt_ev_sample s = { 0 };
	uint64_t start = mt_clock_monotonic_ns();

	for (size_t i = 0; i < SAMPLERS; i++) {
		uint64_t begin = mt_clock_monotonic_ns(), cost, had;

		if (begin < not_before[i] && !(last && not_before[i] - begin < 20 * interval))
			continue;
		had = mt_sampler_cpu_ns();
		samplers[i]->sample(&s);
		cost = mt_sampler_cpu_ns() - had;
		not_before[i] = begin + cost * samplers[i]->cost_share;
	}
	mt_process_clock(t);
	s.time = mt_clock_now();
	calibrate(start, s.time);
	uint8_t *p = mt_stream_reserve(t, mt_sample_room(&s));
	if (p)
		mt_stream_commit(t, mt_put_sample(p, &t->codec, &s));
	mt_pressure_look(t, &s);
	/* Nobody but an event can end a recording: the next one finds that somebody calls. */
	if (mt_control_own.until_ns && start >= mt_control_own.until_ns)
		__atomic_store_n(&mt_control.self.word, MT_CONTROL_CALL, __ATOMIC_RELAXED);
	descriptors_work(t, last || __atomic_load_n(&mt_tick_ending, __ATOMIC_RELAXED));
	if (mt_gpu_used)
		mt_sampler_gpu(t);
	mt_file_slot_sampled(start / MT_SLOT_TIME_NS);
	if (!last)
		mt_sampler_relatives(t, interval);
	sample_due = s.time + interval_units;
	mt_resident_round(t, s.rss ? s.rss - 1 : 0, last);
}

static void walk(struct mt_thread *t, int last)
{
	double wait = (double)mt_cow_round(t, last) / (double)interval * (double)interval_units;

	walk_due = wait < (double)(UINT64_MAX / 4) ? mt_clock_now() + (uint64_t)wait : UINT64_MAX;
}

/* now UINT64_MAX: the process ends. */
static void sampler_work(struct mt_thread *t, uint64_t now)
{
	if (now >= walk_due)
		walk(t, now == UINT64_MAX);
	if (now >= sample_due || __atomic_exchange_n(&mt_tick_hurried, 0, __ATOMIC_RELAXED))
		sample(t, now == UINT64_MAX);
	__atomic_store_n(&mt_tick_due, sample_due < walk_due ? sample_due : walk_due,
			 __ATOMIC_RELEASE);
}

void mt_sampler_init(struct mt_thread *t, uint64_t interval_ns, int late)
{
	interval = interval_ns;
	interval_units = interval_ns >> MT_TIME_SHIFT;
	mt_tick_work = sampler_work;
	if (!late) {
		sampler_work(t, mt_clock_now());
		return;
	}
	/* What it holds has just been measured from outside, and somebody is held up. */
	sample_due = mt_clock_now() + interval_units / 4;
	walk_due = sample_due;
	__atomic_store_n(&mt_tick_due, sample_due, __ATOMIC_RELEASE);
}

void mt_sampler_child(void)
{
	for (size_t i = 0; i < SAMPLERS; i++)
		not_before[i] = 0;
	descriptors_not_before = 0;
	mt_sampler_descriptors_child();
	mt_sampler_relatives_child();
	sample_due = mt_clock_now() + interval_units / 16;
	walk_due = 0; /* with the first event, before it touches more */
	mt_cow_child();
	mt_resident_child();
	if (mt_tick_work && !mt_file.stopped)
		mt_tick_due = 0;
}

void mt_sampler_forget(void)
{
	__atomic_store_n(&mt_tick_due, UINT64_MAX, __ATOMIC_RELAXED);
	for (size_t i = 0; i < SAMPLERS; i++)
		not_before[i] = 0;
	last_ns = last_units = 0;
	sample_due = walk_due = 0;
	descriptors_not_before = 0;
	mt_sampler_descriptors_forget();
	mt_sampler_relatives_forget();
	mt_pressure_forget();
	mt_cow_forget();
	mt_resident_child();
	mt_tick_hurried = 0;
}
