/*
 * What `memtrace run` was told of devices, brought to the processes it is about: when it may count,
 * and whose it is.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <string>

#include "model/gpu.h"
#include "support/replayed.h"

using memtrace_test::Replayed;
using memtrace_test::Root;
using memtrace_test::str;
using memtrace_test::Stream;
using memtrace_test::TraceWriter;

namespace
{

const uint64_t kMiB = 1 << 20, kMs = 1000000;
const std::string kUuid(16, '\x10'), kOther(16, '\x11');

/* The process uses device 0, and takes so much of it. */
void Use(Stream &s, uint64_t time, uint64_t bytes)
{
	mt_ev_gpu_device device = {};
	mt_ev_gpu_take take = {};

	device.time = take.time = time;
	device.device = take.device = 1;
	device.uuid = str(kUuid);
	take.kind = MT_KIND_DEVICE;
	take.addr = 0x7000000000 + time;
	take.size = bytes;
	s.put(device);
	s.put(take);
}

Stream &Watcher(TraceWriter &w)
{
	mt_ev_process ev = {};

	ev.pid = 99;
	ev.reason = MT_PROCESS_WATCHER;
	return w.process(ev);
}

/* Asked at `asked`, answered 1 ms later, written down another 100 ms later. own: MiB; -1: not told. */
void See(Stream &watcher, uint64_t asked, uint64_t pid, long own, const std::string &uuid = kUuid)
{
	mt_ev_gpu_seen e = {};

	e.time = asked + 101 * kMs;
	e.asked = 101 * kMs;
	e.took = kMs;
	e.pid = pid;
	e.uuid = str(uuid);
	e.own = own < 0 ? 0 : static_cast<uint64_t>(own) * kMiB + 1;
	watcher.put(e);
}

/* MiB; -1: not known */
long Unattributed(const Replayed &run, uint32_t pid)
{
	const gpu_process *g = run.P(pid).gpu;

	EXPECT_NE(g, nullptr) << pid;
	if (!g || !g->device_count || !g->devices[0].unattributed)
		return -1;
	EXPECT_EQ(g->devices[0].from, GPU_FROM_DRIVER);
	return static_cast<long>((g->devices[0].unattributed - 1) / kMiB);
}

} // namespace

TEST(GpuSeenModel, IsTheDriversNumberLessWhatWasTakenThen)
{
	TraceWriter w;
	Stream &p = w.process(Root()), &watcher = Watcher(w);

	Use(p, 10 * kMs, 8 * kMiB);
	See(watcher, 500 * kMs, 100, 520);
	Use(p, 800 * kMs, 100 * kMiB); /* afterwards */
	Replayed run(w);

	EXPECT_EQ(Unattributed(run, 100), 512);
	EXPECT_EQ(run.P(100).gpu->devices[0].used - 1, 520 * kMiB);
	EXPECT_EQ(run.m->process_count, 1u) << "the watcher is not of the tree";
}

TEST(GpuSeenModel, AnAnswerDuringWhichMemoryWasTakenDoesNotCount)
{
	TraceWriter w;
	Stream &p = w.process(Root()), &watcher = Watcher(w);

	Use(p, 10 * kMs, 8 * kMiB);
	Use(p, 500 * kMs + kMs / 2, 4 * kMiB); /* between question and answer */
	See(watcher, 500 * kMs, 100, 600);
	Replayed run(w);
	EXPECT_EQ(Unattributed(run, 100), -1);

	/* The next one does, and the last that can is taken. */
	See(watcher, 700 * kMs, 100, 522);
	See(watcher, 900 * kMs, 100, 532);
	Use(p, 1100 * kMs + kMs / 2, 4 * kMiB);
	See(watcher, 1100 * kMs, 100, 700);
	Replayed later(w);
	EXPECT_EQ(Unattributed(later, 100), 520);
}

/* The driver may have served a call already that is recorded when it returns, and the other way about
 * not yet a free: an answer so near to either is none. */
TEST(GpuSeenModel, NorDoesOneNextToACall)
{
	for (uint64_t call : { 490, 511 }) {
		TraceWriter w;
		Stream &p = w.process(Root()), &watcher = Watcher(w);

		Use(p, 10 * kMs, 8 * kMiB);
		Use(p, call * kMs, 4 * kMiB);
		See(watcher, 500 * kMs, 100, 520);
		Replayed run(w);

		EXPECT_EQ(Unattributed(run, 100), -1) << call;
	}
}

TEST(GpuSeenModel, NothingIsKnownOfWhatIsNotToldOrNotTheProcesss)
{
	TraceWriter w;
	Stream &p = w.process(Root()), &watcher = Watcher(w);

	See(watcher, 5 * kMs, 100, 520); /* it had not begun */
	Use(p, 10 * kMs, 8 * kMiB);
	See(watcher, 300 * kMs, 100, -1);
	See(watcher, 400 * kMs, 100, 520, kOther);
	See(watcher, 500 * kMs, 101, 520);
	See(watcher, 600 * kMs, 100, 520, "short");
	Replayed run(w);

	EXPECT_EQ(Unattributed(run, 100), -1);
}

TEST(GpuSeenModel, ANamelessClientIsTheOnlyProcessThatUsesTheDevice)
{
	TraceWriter w;
	Stream &p = w.process(Root()), &q = w.fork(p, kMs, 200), &watcher = Watcher(w);
	mt_ev_exit end = {};

	Use(p, 10 * kMs, 8 * kMiB);
	See(watcher, 200 * kMs, 0, 7); /* less than was taken: of somebody else */
	See(watcher, 300 * kMs, 0, 520);
	Use(q, 500 * kMs, 2 * kMiB);
	See(watcher, 600 * kMs, 0, 900); /* of whom? */
	Replayed both(w);
	EXPECT_EQ(Unattributed(both, 100), 512) << "as it was";
	EXPECT_EQ(Unattributed(both, 200), -1);

	end.time = 700 * kMs;
	p.put(end);
	See(watcher, 800 * kMs, 0, 102); /* one is left */
	Replayed run(w);

	EXPECT_EQ(Unattributed(run, 100), 512);
	EXPECT_EQ(Unattributed(run, 200), 100);
}

TEST(GpuSeenModel, WhatTheProgramWasToldItselfGoesFirst)
{
	TraceWriter w;
	Stream &p = w.process(Root()), &watcher = Watcher(w);
	mt_ev_gpu_used used = {};

	Use(p, 10 * kMs, 8 * kMiB);
	used.time = 100 * kMs;
	used.device = 1;
	used.own = 308 * kMiB + 1;
	p.put(used);
	See(watcher, 500 * kMs, 100, 520);
	Replayed run(w);

	EXPECT_EQ(run.P(100).gpu->devices[0].from, GPU_FROM_PROGRAM);
	EXPECT_EQ(run.P(100).gpu->devices[0].unattributed - 1, 300 * kMiB);
}
