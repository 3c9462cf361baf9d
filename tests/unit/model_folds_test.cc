/*
 * Traces whose short-lived allocations were folded, written by hand with known truth: what the
 * nursery still held, what was counted, and in which order it all happened.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "support/replayed.h"

using memtrace_test::Replayed;
using memtrace_test::Root;
using memtrace_test::str;
using memtrace_test::Stream;
using memtrace_test::TraceWriter;
using memtrace_test::young;

namespace
{

mt_cell Cell(uint32_t native, uint64_t count, uint64_t bytes, uint64_t first, uint64_t last,
	     uint64_t largest = 64, uint64_t brief = 0)
{
	return { native, 0, MT_KIND_HEAP, 0, count, bytes, brief, largest, first, last };
}

const site &SiteOf(const Replayed &run, uint64_t bytes_allocated)
{
	for (size_t i = 0; i < run.m->site_count; i++)
		if (run.m->sites[i].bytes_allocated == bytes_allocated)
			return run.m->sites[i];
	static const site none = {};
	ADD_FAILURE() << "no site of " << bytes_allocated << " bytes";
	return none;
}

/* The stacks have no frames here, and that is all that is missing. */
void ExpectSound(const Replayed &run)
{
	for (int c = 0; c < COUNTS; c++)
		EXPECT_TRUE(!pipeline_count_rows[c].is_problem || c == COUNT_MISSING_ENTRIES ||
			    !run.report.checks[0].counts[c])
			<< pipeline_count_rows[c].key;
}

TEST(Folds, CellsCountAsIfTheirAllocationsWereListed)
{
	TraceWriter w;

	w.process(Root())
		.fact("events", "folded")
		.put(mt_ev_frame{ 1, 0, 0x1234, 0 })
		.put(mt_ev_node{ 7, 0, 1 })
		.put(mt_ev_node{ 8, 7, 1 })
		.alloc(10, 0x1000, 100, 7)
		.cells({ Cell(7, 1000, 5000, 20, 90, 64, 900), Cell(8, 10, 100, 30, 40) });
	Replayed run(w);

	ExpectSound(run);
	EXPECT_EQ(run.P(100).allocations, 1011u);
	EXPECT_EQ(run.P(100).frees, 1010u);
	EXPECT_EQ(run.P(100).bytes_allocated, 5200u);
	EXPECT_EQ(run.P(100).live_bytes, 100u);
	EXPECT_EQ(run.P(100).kinds[MT_KIND_HEAP].allocations, 1011u);
	EXPECT_EQ(run.P(100).end, 90) << "the last thing it did was a free";
	EXPECT_EQ(run.m->events, 2021u);
	ASSERT_EQ(run.m->site_count, 2u);
	EXPECT_EQ(SiteOf(run, 5100).short_lived_count, 900u);
	EXPECT_EQ(SiteOf(run, 5100).live_bytes, 100u);
	EXPECT_EQ(SiteOf(run, 100).peak_bytes, 64u);
}

TEST(Folds, CellsOfTwoStreamsAddUp)
{
	TraceWriter w;
	Stream &a = w.process(Root());
	Stream &b = a.thread(5, 101);

	a.cells({ Cell(7, 3, 30, 6, 9, 10) });
	b.cells({ Cell(7, 4, 70, 6, 9) });
	Replayed run(w);

	ASSERT_EQ(run.m->site_count, 1u);
	EXPECT_EQ(run.m->sites[0].allocations, 7u);
	EXPECT_EQ(run.m->sites[0].bytes_allocated, 100u);
}

TEST(Folds, AFoldIsASnapshotOfItsCellAndStandsForItWhereThatIsMissing)
{
	TraceWriter with, without;

	for (TraceWriter *w : { &with, &without }) {
		Stream &s = w->process(Root());

		s.put(mt_ev_fold{ 20, MT_KIND_HEAP, 100, 1000, 50, 64, 7, 0 });
		s.put(mt_ev_fold{ 30, MT_KIND_HEAP, 150, 1500, 60, 64, 7, 0 });
		if (w == &with)
			s.cells({ Cell(7, 160, 1600, 1, 35, 64, 61) });
	}
	Replayed whole(with), cut(without);

	EXPECT_EQ(whole.m->sites[0].allocations, 160u);
	EXPECT_EQ(whole.m->sites[0].short_lived_count, 61u);
	EXPECT_EQ(cut.m->sites[0].allocations, 150u);
	EXPECT_EQ(cut.m->sites[0].bytes_allocated, 1500u);
	EXPECT_EQ(cut.m->events, 300u);
}

TEST(Folds, WhatIsInTheNurseryIsAlive)
{
	TraceWriter w;

	w.process(Root())
		.nursery({ young(20, 0x1000, 10, 7), mt_young{}, young(30, 0x2000, 5, 7),
			   young(40, 0x1000, 3, 8, MT_KIND_PYTHON) })
		.alloc(50, 0x3000, 100, 9);
	Replayed run(w);

	ExpectSound(run);
	EXPECT_EQ(run.P(100).allocations, 4u);
	EXPECT_EQ(run.P(100).live_bytes, 118u);
	EXPECT_EQ(run.P(100).kinds[MT_KIND_PYTHON].live_bytes, 3u);
	EXPECT_EQ(run.P(100).missed_frees, 0u);
}

/* The writer was killed between listing a block and emptying its entry. */
TEST(Folds, ABlockThatIsListedAndStillInTheNurseryIsOne)
{
	TraceWriter w;
	Stream &s = w.process(Root());

	s.alloc(50, 0x3000, 100, 9).survivor(20, 0x1000, 10, 7).survivor(30, 0x1000, 7, 7);
	s.nursery({ young(20, 0x1000, 10, 7), young(20, 0x1008, 1, 7),
		    young(30, 0x1000, 9, 7, MT_KIND_PYTHON) });
	Replayed run(w);

	EXPECT_EQ(run.P(100).allocations, 5u) << "only kind, address and time together are one";
	EXPECT_EQ(run.P(100).missed_frees, 1u) << "0x1000 at 20 and 30";
	EXPECT_EQ(run.P(100).live_bytes, 100u + 7 + 1 + 9);
}

TEST(Folds, APendingFoldIsDone)
{
	TraceWriter w;
	mt_nursery head = {};
	Stream &s = w.process(Root());

	s.cells({ Cell(7, 10, 100, 20, 90), Cell(8, 1, 8, 20, 30, 8) });
	head.fold_entry = 2;
	head.fold = Cell(7, 11, 116, 20, 95);
	s.nursery({ young(80, 0x1000, 5, 7), young(85, 0x2000, 16, 7) }, head);
	Replayed run(w);

	EXPECT_EQ(run.P(100).allocations, 13u);
	EXPECT_EQ(run.P(100).frees, 12u);
	EXPECT_EQ(run.P(100).live_bytes, 5u);
	EXPECT_EQ(run.P(100).bytes_allocated, 100u + 16 + 8 + 5);
}

/* The same, when the fold is done but the note of it is still there; and the first of its site. */
TEST(Folds, APendingFoldThatWasDoneIsNotDoneTwice)
{
	TraceWriter w;
	mt_nursery head = {};
	Stream &s = w.process(Root());

	s.cells({ Cell(7, 11, 116, 20, 95) });
	head.fold_entry = 1;
	head.fold = Cell(7, 11, 116, 20, 95);
	s.nursery({ mt_young{} }, head);
	Stream &t = s.thread(30, 101);

	head.fold = Cell(9, 1, 6, 40, 45, 6);
	t.nursery({ young(40, 0x2000, 6, 9) }, head);
	Replayed run(w);

	EXPECT_EQ(run.P(100).allocations, 12u);
	EXPECT_EQ(run.P(100).bytes_allocated, 122u);
	EXPECT_EQ(run.P(100).live_count, 0u);
}

TEST(Folds, ASurvivorComesWhenItWasBorn)
{
	TraceWriter w;
	Stream &a = w.process(Root());
	Stream &b = a.thread(5, 101);

	w.chunk_units = 1;
	/* a's block of 20 is listed late, long after b freed it and got the address itself. */
	b.free(30, 0x1000).alloc(40, 0x1000, 7, 8).free(50, 0x1000).alloc(60, 0x9000, 1, 8);
	for (uint64_t i = 0; i < 100; i++)
		a.alloc(70 + i, 0x100000 + 16 * i, 1, 9);
	a.survivor(20, 0x1000, 16, 7).survivor(55, 0x1000, 32, 7);
	Replayed run(w);

	ExpectSound(run);
	EXPECT_EQ(run.P(100).live_bytes, 100u + 1 + 32);
	EXPECT_EQ(run.P(100).peak_live_bytes, 133u);
	EXPECT_EQ(run.P(100).unknown_frees, 0u);
	EXPECT_EQ(run.P(100).missed_frees, 0u);
	EXPECT_EQ(run.P(100).frees, 2u);
}

/* An entry of the nursery that another thread freed, and an older block at the same address. */
TEST(Folds, EntriesAndSurvivorsOfSeveralStreamsAreInOneOrder)
{
	TraceWriter w;
	Stream &a = w.process(Root());
	Stream &b = a.thread(5, 101), &c = a.thread(6, 102);

	a.nursery({ young(100, 0x1000, 1, 7), young(300, 0x2000, 2, 7) });
	b.nursery({ young(500, 0x1000, 4, 8) });
	c.free(200, 0x1000).free(350, 0x2000).free(450, 0x1000).alloc(600, 0x2000, 8, 9);
	b.alloc(510, 0x3000, 16, 8).survivor(400, 0x1000, 32, 8);
	Replayed run(w);

	ExpectSound(run);
	EXPECT_EQ(run.P(100).allocations, 6u);
	EXPECT_EQ(run.P(100).frees, 3u);
	EXPECT_EQ(run.P(100).live_bytes, 4u + 8 + 16);
	EXPECT_EQ(run.P(100).unknown_frees, 0u);
	EXPECT_EQ(run.P(100).missed_frees, 0u);
}

TEST(Folds, AChildInheritsWhatWasYoungAtItsFork)
{
	TraceWriter w;
	Stream &a = w.process(Root());

	a.alloc(10, 0x1000, 1, 7);
	Stream &child = w.fork(a, 50, 200);

	child.free(60, 0x2000).free(61, 0x3000).free(62, 0x4000);
	child.cells({ Cell(1007, 5, 50, 70, 80, 20) });
	a.alloc(100, 0x5000, 16, 7);
	/* Both were young at the fork; the third was not there yet. */
	a.survivor(20, 0x2000, 2, 7).nursery({ young(30, 0x3000, 4, 7), young(51, 0x4000, 8, 7) });
	Replayed run(w);

	EXPECT_EQ(run.P(200).inherited_freed_count, 2u);
	EXPECT_EQ(run.P(200).inherited_freed_bytes, 6u);
	EXPECT_EQ(run.P(200).inherited_live_bytes, 1u);
	EXPECT_EQ(run.P(200).unknown_frees, 1u);
	EXPECT_EQ(run.P(200).allocations, 5u);
	EXPECT_EQ(run.P(100).live_bytes, 31u);
}

TEST(Folds, PeaksAreWithinTheirError)
{
	TraceWriter w;
	Stream &a = w.process(Root());
	Stream &b = a.thread(5, 101);

	a.fact("events", "folded").alloc(10, 0x1000, 1000, 7).free(50, 0x1000);
	/* At 20 there were 300 young bytes: 100 of them became a survivor, 200 were folded. */
	a.alloc(60, 0x2000, 10, 7).survivor(15, 0x3000, 100, 7);
	a.put(mt_ev_young{ 20, 200, 300, 20 });
	b.put(mt_ev_young{ 55, 40, 90, 50 });
	Replayed run(w);

	EXPECT_EQ(run.P(100).peak_live_bytes, 1300u);
	EXPECT_EQ(run.P(100).peak_live_time, 20);
	EXPECT_EQ(run.P(100).peak_error_bytes, 1100u + 300 + 90 - 1300);
}

TEST(Folds, ThePresentWindowHasAPeakToo)
{
	TraceWriter w;
	mt_nursery head = {};
	Stream &a = w.process(Root());

	a.alloc(10, 0x1000, 1000, 7);
	head.young_time = 30;
	head.young_bytes = 500; /* 200 of them in a block that is still there */
	head.young_most = 600;
	head.young_since = 20;
	a.nursery({ young(30, 0x2000, 200, 7), young(35, 0x3000, 50, 7) }, head);
	Replayed run(w);

	EXPECT_EQ(run.P(100).peak_live_bytes, 1500u);
	EXPECT_EQ(run.P(100).peak_live_time, 30);
	EXPECT_EQ(run.P(100).peak_error_bytes, 1250u + 600 - 1500);
}

bool SaysThatItCuts(const Replayed &run)
{
	for (size_t i = 0; i < run.m->note_count; i++)
		if (std::string(run.m->notes[i]).find("ten seconds") != std::string::npos)
			return true;
	return false;
}

TEST(Folds, AWindowTakesTheDifferenceOfItsEnds)
{
	TraceWriter w;
	Stream &s = w.process(Root());
	pipeline_options opt = {};

	s.put(mt_ev_fold{ 90, MT_KIND_HEAP, 10, 100, 5, 64, 7, 0 });
	s.put(mt_ev_mark{ 100, MT_MARK_MARK, 0, str("from") });
	s.put(mt_ev_fold{ 190, MT_KIND_HEAP, 40, 400, 25, 64, 7, 0 });
	s.put(mt_ev_mark{ 200, MT_MARK_MARK, 0, str("to") });
	s.cells({ Cell(7, 100, 1000, 10, 300, 64, 50) });
	opt.from = "@from";
	opt.to = "@to";
	Replayed both(w, opt);

	EXPECT_EQ(both.P(100).allocations, 30u);
	EXPECT_EQ(both.P(100).bytes_allocated, 300u);
	EXPECT_EQ(both.m->sites[0].short_lived_count, 20u);
	EXPECT_EQ(both.m->events, 60u);
	EXPECT_FALSE(SaysThatItCuts(both));
	opt.to = nullptr;
	EXPECT_EQ(Replayed(w, opt).P(100).allocations, 90u);
	opt.from = nullptr;
	opt.to = "@from";
	EXPECT_EQ(Replayed(w, opt).P(100).allocations, 10u);
}

TEST(Folds, AWindowThatCutsThroughACountSaysSo)
{
	TraceWriter w;
	Stream &s = w.process(Root());
	pipeline_options opt = {};

	s.put(mt_ev_fold{ 90, MT_KIND_HEAP, 10, 100, 5, 64, 7, 0 });
	s.put(mt_ev_fold{ 190, MT_KIND_HEAP, 40, 400, 25, 64, 7, 0 });
	opt.from = "0.00000015";
	Replayed run(w, opt);

	EXPECT_EQ(run.P(100).allocations, 30u);
	EXPECT_TRUE(SaysThatItCuts(run));
}

TEST(Folds, ValuesThatCannotBeTrueAreDamage)
{
	mt_cell good = Cell(7, 10, 100, 20, 90);
	std::vector<mt_cell> bad(6, good);

	bad[0].kind = 9;
	bad[1].brief = 11;
	bad[2].largest = 101;
	bad[3].first = 91;
	bad[4].count = 1ull << 60;
	bad[5].bytes = 1ull << 60;
	for (const mt_cell &cell : bad) {
		TraceWriter w;

		w.process(Root()).cells({ good, cell }).nursery({ young(20, 0x1000, 1) });
		Replayed run(w);

		EXPECT_EQ(run.P(100).allocations, 11u);
		EXPECT_EQ(run.count(COUNT_BAD_BYTES), sizeof(mt_cell));
		EXPECT_TRUE(run.m->traces[0].recovered);
	}
	for (const mt_young &entry : { young(20, 0x1000, 1ull << 57), young(20, 0x1000, 1, 0, 0x40),
				       young(20, 0, 1, 0, 3) }) {
		TraceWriter w;

		w.process(Root()).nursery({ entry, young(20, 0x2000, 1) });
		Replayed run(w);

		EXPECT_EQ(run.P(100).allocations, 1u);
		EXPECT_EQ(run.count(COUNT_BAD_BYTES), sizeof(mt_young));
	}
}

TEST(Folds, AFoldThatContradictsItsCellIsDamageAndTheEntryStays)
{
	TraceWriter w;
	mt_nursery head = {};
	Stream &s = w.process(Root());

	s.cells({ Cell(7, 10, 100, 20, 90) });
	head.fold_entry = 1;
	head.fold = Cell(7, 9, 116, 20, 95);
	s.nursery({ young(80, 0x1000, 5, 7) }, head);
	Replayed run(w);

	EXPECT_EQ(run.P(100).allocations, 11u);
	EXPECT_GT(run.count(COUNT_BAD_BYTES), 0u);
}

TEST(Folds, ChunksAreNumberedByKind)
{
	TraceWriter w;
	Stream &s = w.process(Root());

	s.nursery({ young(20, 0x1000, 1) }).cells({ Cell(7, 1, 8, 5, 6, 8) });
	s.seal().alloc(30, 0x2000, 1).cells({ Cell(8, 1, 8, 5, 6, 8) });
	Replayed run(w);

	ExpectSound(run);
	EXPECT_EQ(run.count(COUNT_STREAMS), 1u);
	EXPECT_EQ(run.count(COUNT_CHUNKS), 5u);
	EXPECT_EQ(run.P(100).allocations, 4u);
}

} // namespace
