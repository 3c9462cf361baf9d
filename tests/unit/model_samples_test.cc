/*
 * Samples: whose they are, and what the whole tree had at a time.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include "support/replayed.h"

using memtrace_test::Replayed;
using memtrace_test::Root;
using memtrace_test::Stream;
using memtrace_test::TraceWriter;

namespace
{

TEST(ModelSamples, BelongToTheProcessTheyAreOf)
{
	TraceWriter w;
	Stream &parent = w.process(Root());

	parent.alloc(5, 0x1000, 77);
	Stream &child = w.fork(parent, 10, 200);
	mt_ev_sample own = {}, other = {};

	child.alloc(15, 0x2000, 1);
	own.time = 20;
	own.rss = 1001;
	own.pss = 501;
	other.time = 30;
	other.pid = 200;
	other.pss = 401;
	parent.put(own).put(other);
	Replayed run(w);

	ASSERT_EQ(run.P(100).sample_count, 1u);
	EXPECT_EQ(run.P(100).samples[0].live_bytes, 77u);
	EXPECT_EQ(run.P(100).peak_rss, 1000u);
	EXPECT_EQ(run.P(100).peak_pss, 500u);
	ASSERT_EQ(run.P(200).sample_count, 1u);
	EXPECT_EQ(run.P(200).samples[0].live_bytes, SAMPLE_LIVE_UNKNOWN);
	EXPECT_EQ(run.P(200).end, 30) << "it was seen alive then";
	EXPECT_EQ(run.m->tree_peak_pss, 900u);
	EXPECT_LT(run.m->tree_peak_time, 20) << "what is first sampled was there a little before";
}

TEST(ModelSamples, TheTreesPeakLeavesOutTheDead)
{
	TraceWriter w;
	Stream &parent = w.process(Root());
	Stream &a = w.fork(parent, 10, 200);
	Stream &b = w.fork(parent, 35, 201);
	mt_ev_sample s = {};

	s.time = 30;
	s.pss = 101;
	a.put(s);
	s.time = 40;
	s.pss = 151;
	b.put(s);
	Replayed run(w);

	EXPECT_EQ(run.m->tree_peak_pss, 150u) << "the first had ended at 30";
}

TEST(ModelSamples, WhatWasReadBeforeAForkIsNoPartOfTheTreesPeak)
{
	TraceWriter w;
	Stream &parent = w.process(Root());
	mt_ev_sample s = {};

	s.time = 1000;
	s.pss = 1001;
	parent.put(s); /* alone with all of it */
	for (uint32_t k = 0; k < 3; k++) {
		Stream &child = w.fork(parent, 2000 + 10 * k, 200 + k);

		s.time = 2100 + k;
		s.pss = 251; /* a quarter each */
		child.put(s);
	}
	s.time = 3000;
	s.pss = 251;
	parent.put(s);
	Replayed run(w);

	EXPECT_EQ(run.m->tree_peak_pss, 1000u) << "and not 1750";
	ASSERT_EQ(run.P(100).pss_count, 3u);
	EXPECT_EQ(run.P(100).pss[1].time, run.P(200).start) << "from the first fork on";
	EXPECT_EQ(run.P(100).pss[1].bytes, 250u);
}

TEST(ModelSamples, AGrowingParentIsNotTakenDownByAFork)
{
	TraceWriter w;
	Stream &parent = w.process(Root());
	mt_ev_sample s = {};

	s.time = 1000;
	s.pss = 101;
	parent.put(s);
	w.fork(parent, 2000, 200).alloc(2001, 0x1000, 1);
	s.time = 3000;
	s.pss = 501;
	parent.put(s);
	Replayed run(w);

	ASSERT_EQ(run.P(100).pss_count, 2u);
	EXPECT_EQ(run.m->tree_peak_pss, 500u);
}

TEST(ModelSamples, AWatchersSamplesAreOfOthersAndItIsNoProcess)
{
	TraceWriter w;
	Stream &root = w.process(Root());
	mt_ev_process ev = {};
	mt_ev_sample s = {};

	root.alloc(5, 0x1000, 7);
	ev.time = 20;
	ev.pid = 99;
	ev.reason = MT_PROCESS_WATCHER;
	Stream &watcher = w.process(ev);

	s.time = 30;
	s.pid = 100;
	s.rss = 801;
	s.pss = 701;
	watcher.put(s).put(mt_ev_wait{ 40, 100, 9, 0 });
	Replayed run(w);

	ASSERT_EQ(run.m->process_count, 1u);
	EXPECT_EQ(run.P(100).peak_rss, 800u);
	EXPECT_EQ(run.P(100).peak_pss, 700u);
	EXPECT_EQ(run.P(100).end_kind, END_SIGNAL);
	EXPECT_EQ(run.P(100).end_code, 9);
	EXPECT_EQ(run.P(100).end, 30);
	EXPECT_TRUE(run.m->traces[0].complete);
}

} // namespace
