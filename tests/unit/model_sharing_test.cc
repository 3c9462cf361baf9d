/*
 * What forked processes copied: walks made by hand, so that every page can be told in advance.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <csignal>
#include <vector>

#include "model/cow.h"
#include "support/replayed.h"

using memtrace_test::Replayed;
using memtrace_test::Root;
using memtrace_test::str;
using memtrace_test::Stream;
using memtrace_test::TraceWriter;

namespace
{

const uint64_t kPage = 4096, kBase = 0x10000000;
const uint32_t kShared = MT_PAGE_PRESENT, kOwn = MT_PAGE_PRESENT | MT_PAGE_EXCLUSIVE;
const uint32_t kHuge = kOwn | MT_PAGE_HUGE, kSwapped = MT_PAGE_SWAPPED;

uint64_t At(uint64_t page)
{
	return kBase + page * kPage;
}

struct Pages {
	uint32_t state;
	uint64_t pages;
};

/* A walk of one range from kBase on. faults: 0 not measured. pid: of another process. */
struct Look {
	uint64_t time;
	mt_scan_reason reason;
	std::vector<Pages> runs;
	uint64_t faults = 0;
	uint64_t pid = 0;
	uint64_t complete = 1;
	uint64_t scope = MT_SCAN_PRIVATE;
	uint64_t flags = 0;
	uint64_t part = 512;
};

void Put(Stream &s, const Look &look)
{
	static uint64_t next;
	uint8_t coded[256], *p = coded;
	mt_ev_scan scan = {};
	mt_ev_range range = {};

	scan.time = range.time = look.time;
	scan.id = range.scan = ++next;
	scan.pid = look.pid;
	scan.reason = look.reason;
	scan.page_bytes = kPage;
	scan.minflt = look.faults ? look.faults + 1 : 0;
	scan.scope = look.scope;
	scan.part = look.part;
	s.put(scan);
	for (const Pages &run : look.runs) {
		p = mt_put_varint(p, run.state);
		p = mt_put_varint(p, run.pages);
		range.pages += run.pages;
	}
	range.start = kBase;
	range.prot = 3;
	range.flags = look.flags;
	range.runs = mt_str{ reinterpret_cast<const char *>(coded),
			     static_cast<uint32_t>(p - coded) };
	if (range.pages)
		s.put(range);
	s.put(mt_ev_scan_end{ look.time, next, look.complete, 1 });
}

const process_cow &CowOf(const Replayed &run, uint32_t pid)
{
	static const process_cow none = {};
	const process_cow *cow = run.P(pid).cow;

	EXPECT_NE(cow, nullptr) << pid << " was not forked, or never walked";
	return cow ? *cow : none;
}

/* Root 100 forks 200 at 10; the child is walked when it begins and when it ends. */
struct One {
	explicit One(std::vector<Pages> begin, std::vector<Pages> end, uint64_t faults = 0,
		     uint64_t faults_at_start = 0)
	{
		Stream &parent = w.process(Root());
		Stream &child = w.fork(parent, 10, 200);

		Put(child, { 11, MT_SCAN_START, begin, faults_at_start });
		Put(child, { 90, MT_SCAN_EXIT, end, faults });
		parent.alloc(100, 0x100, 1);
	}
	TraceWriter w;
};

TEST(Sharing, APageThatWasSharedAndIsItsOwnWasCopied)
{
	One one({ { kShared, 100 } }, { { kOwn, 30 }, { kShared, 60 }, { 0, 10 } });
	Replayed run(one.w);
	const process_cow &cow = CowOf(run, 200);

	EXPECT_TRUE(cow.has_baseline);
	EXPECT_FALSE(cow.by_relative);
	EXPECT_EQ(cow.shared, 100 * kPage);
	EXPECT_EQ(cow.copied, 30 * kPage);
	EXPECT_EQ(cow.eager, 0u);
	EXPECT_EQ(cow.unknown, 0u);
	EXPECT_EQ(cow.scan_time, 90);
}

TEST(Sharing, WhatWasNotThereAtTheForkIsNewAndNotCopied)
{
	One one({ { kShared, 10 }, { 0, 50 } }, { { kShared, 10 }, { kOwn, 50 } });
	Replayed run(one.w);

	EXPECT_EQ(CowOf(run, 200).copied, 0u);
	EXPECT_EQ(CowOf(run, 200).shared, 10 * kPage);
}

/* Groups of 512: the first has its sample in the middle, the second at its end, the third is told. */
TEST(Sharing, PagesThatWereNotReadAreAsThoseOfTheirGroupThatWere)
{
	TraceWriter w;
	Stream &parent = w.process(Root());
	Stream &child = w.fork(parent, 10, 200);
	Look last = { 20,
		      MT_SCAN_EXIT,
		     { { MT_PAGE_LIKE, 128 },
		       { kOwn, 4 },
		       { kShared, 12 },
		       { MT_PAGE_LIKE, 368 + 496 },
		       { 0, 8 },
		       { kOwn, 8 },
		       { kOwn, 100 },
		       { kShared, 412 } } };

	last.part = 16;
	Put(child, { 11, MT_SCAN_START, { { kShared, 1536 } } });
	Put(child, last);
	Replayed run(w);
	const process_cow &cow = CowOf(run, 200);

	EXPECT_EQ(cow.shared, 1536 * kPage);
	EXPECT_EQ(cow.copied, (512 / 4 + 512 / 2 + 100) * kPage);
	/* 128, 256 and 100: 1.96 x the root of 31/32 x 3/4 x (128^2 + 156^2) pages. */
	EXPECT_NEAR((double)cow.copied_error, 1.96 * 172.0 * kPage, kPage);
}

TEST(Sharing, AGroupOfWhichNothingWasReadIsDamage)
{
	TraceWriter w;
	Stream &parent = w.process(Root());
	Stream &child = w.fork(parent, 10, 200);

	Put(child, { 20, MT_SCAN_INTERVAL, { { kOwn, 512 }, { MT_PAGE_LIKE, 512 } } });
	Put(child, { 30, MT_SCAN_INTERVAL, { { kOwn, 40 }, { MT_PAGE_LIKE, 60 } } });
	Replayed run(w);

	EXPECT_EQ(CowOf(run, 200).point_count, 1u);
	EXPECT_EQ(CowOf(run, 200).copied_error, 0u);
}

TEST(Sharing, MemoryThatTheChildMappedItselfIsNew)
{
	TraceWriter w;
	Stream &parent = w.process(Root());
	Stream &child = w.fork(parent, 10, 200);

	Put(child, { 11, MT_SCAN_START, { { kShared, 100 } } });
	child.unmap(20, At(0), 40 * kPage);
	child.map(30, At(0), 40 * kPage);
	Put(child, { 90, MT_SCAN_EXIT, { { kOwn, 60 }, { kShared, 40 } } });
	Replayed run(w);

	EXPECT_EQ(CowOf(run, 200).copied, 20 * kPage) << "the first 40 pages are new";
}

TEST(Sharing, NoMoreThanThereWereFaults)
{
	One one({ { kShared, 100 } }, { { kOwn, 80 }, { kShared, 20 } }, 25, 5);
	Replayed run(one.w);

	EXPECT_EQ(CowOf(run, 200).copied, 25 * kPage)
		<< "the others are the originals: the rest of the family copied";
}

TEST(Sharing, WhatIsItsOwnAtOnceWasCopiedByTheForkUnlessItFaultedItself)
{
	/* 12 faults before the first walk: 12 of the 50 pages may be its own doing. */
	One one({ { kOwn, 50 }, { kShared, 50 } }, { { kOwn, 60 }, { kShared, 40 } }, 1000, 12);
	Replayed run(one.w);
	const process_cow &cow = CowOf(run, 200);

	EXPECT_EQ(cow.eager, 38 * kPage);
	EXPECT_EQ(cow.copied, (10 + 12) * kPage);
}

/* A registered range that does not begin with a page, one that was given up before the fork, and one
 * that came pinned. Only what lies on pages that the fork copied counts. */
TEST(Sharing, WhatTheForkCopiedOfPinnedMemoryIsChargedToWhoPinnedIt)
{
	TraceWriter w;
	Stream &parent = w.process(Root());
	mt_ev_gpu_pin pin = {};
	mt_ev_gpu_take take = {};

	pin.time = take.time = 1;
	pin.addr = At(10) + 100;
	pin.size = 20 * kPage;
	parent.put(pin);
	pin.addr = At(70);
	parent.put(pin);
	pin.size = 0;
	parent.put(pin);
	take.kind = MT_KIND_PINNED;
	take.addr = At(60);
	take.size = 5 * kPage;
	parent.put(take);
	Stream &child = w.fork(parent, 10, 200);
	for (uint64_t time : { 11, 90 })
		Put(child, { time,
			     time == 11 ? MT_SCAN_START : MT_SCAN_EXIT,
			     { { kOwn, 20 }, { kShared, 30 }, { kOwn, 50 } } });
	Replayed run(w);
	const process_cow &cow = CowOf(run, 200);

	EXPECT_EQ(cow.eager, 70 * kPage);
	ASSERT_EQ(cow.pinned_count, 2u);
	EXPECT_EQ(cow.pinned[0].bytes, 10 * kPage);
	EXPECT_TRUE(cow.pinned[0].is_registered);
	EXPECT_EQ(cow.pinned[1].bytes, 5 * kPage);
	EXPECT_FALSE(cow.pinned[1].is_registered);
}

TEST(Sharing, SwappedPagesAreUnknown)
{
	One one({ { kSwapped, 10 }, { kShared, 90 } },
		{ { kOwn, 10 }, { kSwapped, 20 }, { kOwn, 5 }, { kShared, 65 } });
	Replayed run(one.w);
	const process_cow &cow = CowOf(run, 200);

	EXPECT_EQ(cow.unknown, 30 * kPage) << "10 swapped in alone, 20 swapped out";
	EXPECT_EQ(cow.copied, 5 * kPage);
}

/* The kernel shows bit 56 of a huge page's first page for all of it: it was not copied. One that it
 * wrote to is mapped by small pages from then on. */
TEST(Sharing, AHugePageWasNotCopied)
{
	One one({ { kShared, 1024 } }, { { kHuge, 512 }, { kOwn, 1 }, { kShared, 511 } });
	Replayed run(one.w);

	EXPECT_EQ(CowOf(run, 200).copied, kPage);
}

TEST(Sharing, ToolAndSharedAndFilePagesAreNoPartOfIt)
{
	for (uint64_t flags : { MT_RANGE_TOOL, MT_RANGE_SHARED }) {
		TraceWriter w;
		Stream &parent = w.process(Root());
		Stream &child = w.fork(parent, 10, 200);

		Put(child, { 11, MT_SCAN_START, { { kShared, 10 } }, 0, 0, 1, 1, flags });
		Put(child, { 90, MT_SCAN_EXIT, { { kOwn, 10 } }, 0, 0, 1, 1, flags });
		EXPECT_EQ(CowOf(Replayed(w), 200).shared, 0u) << flags;
	}
	One one({ { kShared | MT_PAGE_FILE, 10 } }, { { kOwn | MT_PAGE_FILE, 10 } });
	EXPECT_EQ(CowOf(Replayed(one.w), 200).copied, 0u);
}

TEST(Sharing, AWalkThatWasCutShortDoesNotCount)
{
	TraceWriter w;
	Stream &parent = w.process(Root());
	Stream &child = w.fork(parent, 10, 200);

	Put(child, { 11, MT_SCAN_START, { { kShared, 100 } } });
	Put(child, { 50, MT_SCAN_INTERVAL, { { kOwn, 7 }, { kShared, 93 } } });
	Put(child, { 90, MT_SCAN_EXIT, { { kOwn, 50 } }, 0, 0, 0 });
	Replayed run(w);

	EXPECT_EQ(CowOf(run, 200).copied, 7 * kPage);
	EXPECT_EQ(CowOf(run, 200).scan_time, 50);
}

/* Nothing faulted: the last walk stands, and is as new as the look that saw it. */
TEST(Sharing, AWalkThatStillStandsIsOneMore)
{
	TraceWriter w;
	Stream &parent = w.process(Root());
	Stream &child = w.fork(parent, 10, 200);

	Put(child, { 11, MT_SCAN_START, { { kShared, 100 } } });
	Put(parent, { 40, MT_SCAN_INTERVAL, { { kOwn, 8 }, { kShared, 92 } }, 8, 200 });
	Put(parent, { 60, MT_SCAN_INTERVAL, {}, 8, 200, 1, MT_SCAN_NONE });
	Put(parent, { 70, MT_SCAN_INTERVAL, {}, 8, 200, 1, MT_SCAN_NONE });
	Put(parent, { 75, MT_SCAN_INTERVAL, {}, 8, 200, 1, MT_SCAN_NONE });
	Put(parent, { 80, MT_SCAN_INTERVAL, {}, 8, 200, 1, MT_SCAN_NONE });
	Replayed run(w);
	const process_cow &cow = CowOf(run, 200);

	EXPECT_EQ(cow.copied, 8 * kPage);
	EXPECT_EQ(cow.scan_time, 80);
	EXPECT_TRUE(cow.by_relative);
	ASSERT_EQ(cow.point_count, 4u) << "of many only the first and the last are kept";
	EXPECT_EQ(cow.points[0].copied, 0u);
	for (size_t i = 1; i < 4; i++)
		EXPECT_EQ(cow.points[i].copied, 8 * kPage);
}

TEST(Sharing, AWalkThatStillStandsOfNoneIsNone)
{
	TraceWriter w;
	Stream &parent = w.process(Root());
	Stream &child = w.fork(parent, 10, 200);

	Put(child, { 11, MT_SCAN_START, { { kShared, 100 } } });
	Put(parent, { 60, MT_SCAN_INTERVAL, {}, 8, 200, 1, MT_SCAN_NONE });
	Replayed run(w);

	EXPECT_EQ(CowOf(run, 200).scan_time, 11);
	EXPECT_EQ(CowOf(run, 200).point_count, 1u);
}

/* ---- whose ---------------------------------------------------------------------------------------- */

TEST(Sharing, CopiedPagesAreChargedToWhatLivedThereAtTheFork)
{
	TraceWriter w;
	Stream &parent = w.process(Root());

	/* Pages 0 and 1 are one block's; 2 is shared three to one; 3 is free; 4 has a freed block. */
	parent.alloc(1, At(0), 2 * kPage, 1);
	parent.alloc(2, At(2), 3072, 2).alloc(3, At(2) + 3072, 1024, 3);
	parent.alloc(4, At(4), 100, 4).free(5, At(4));
	parent.alloc(6, At(8), kPage, 5); /* is not copied */
	Stream &child = w.fork(parent, 10, 200);
	Put(child, { 11, MT_SCAN_START, { { kShared, 10 + 512 } } });
	child.free(20, At(0)).alloc(21, At(0), 16, 6); /* what it does itself does not matter */
	Put(child, { 90, MT_SCAN_EXIT, { { kOwn, 5 }, { kShared, 5 }, { kOwn, 512 } } });
	Replayed run(w);
	const process_cow &cow = CowOf(run, 200);
	uint64_t by_size[4] = { 0 };

	EXPECT_EQ(cow.copied, (5 + 512) * kPage);
	EXPECT_EQ(cow.reused, (2 + 512) * kPage);
	ASSERT_EQ(cow.site_count, 3u) << "largest first";
	for (size_t i = 0; i < cow.site_count; i++)
		by_size[i] = cow.sites[i].copied;
	EXPECT_EQ(by_size[0], 2 * kPage);
	EXPECT_EQ(by_size[1], 3072u);
	EXPECT_EQ(by_size[2], 1024u);
	EXPECT_EQ(cow.sites[0].blocks, 1u);
}

TEST(Sharing, AMappingWithoutBlocksIsItsSites)
{
	TraceWriter w;
	Stream &parent = w.process(Root());

	parent.map(1, At(0), 400 * kPage, MT_KIND_MMAP | MT_KIND_BACKING);
	Stream &child = w.fork(parent, 10, 200);
	Put(child, { 11, MT_SCAN_START, { { kShared, 500 } } });
	Put(child, { 90, MT_SCAN_EXIT, { { kOwn, 300 }, { kShared, 200 } } });
	Replayed run(w);
	const process_cow &cow = CowOf(run, 200);

	ASSERT_EQ(cow.site_count, 1u);
	EXPECT_EQ(cow.sites[0].copied, 300 * kPage);
	EXPECT_EQ(cow.sites[0].blocks, 0u) << "none is known";
	EXPECT_EQ(cow.reused, 0u);
	ASSERT_EQ(cow.backing_count, 1u);
	EXPECT_EQ(cow.backing[0].shared, 400 * kPage);
	EXPECT_EQ(cow.backing[0].copied, 300 * kPage);
}

/* ---- the family ------------------------------------------------------------------------------------ */

/* Parent and children at one moment; what each sees of the same pages. */
uint64_t Extra(const std::vector<Pages> &parent_sees,
	       const std::vector<std::vector<Pages>> &children)
{
	TraceWriter w;
	Stream &parent = w.process(Root());
	uint64_t pages = 0;

	for (const Pages &run : children[0])
		pages += run.pages;
	for (uint32_t i = 0; i < children.size(); i++)
		Put(w.fork(parent, 10 + i, 200 + i),
		    { 20 + i, MT_SCAN_START, { { kShared, pages } } });
	Put(parent, { 50, MT_SCAN_INTERVAL, parent_sees });
	for (uint32_t i = 0; i < children.size(); i++)
		Put(parent, { 51 + i, MT_SCAN_INTERVAL, children[i], 0, 200 + i });
	for (uint32_t i = 0; i < children.size(); i++)
		parent.put(mt_ev_wait{ 90, 200 + i, SIGKILL, 0 });
	parent.alloc(100, 0x100, 1);
	Replayed run(w);

	EXPECT_TRUE(run.m->cow_known);
	return run.m->cow_extra / kPage;
}

TEST(Family, EachCopyCountsOnceAndOneOfThemIsTheOriginal)
{
	std::vector<Pages> shared = { { kShared, 10 } }, own = { { kOwn, 10 } };

	EXPECT_EQ(Extra(shared, { shared, shared }), 0u);
	EXPECT_EQ(Extra(shared, { own, shared }), 10u) << "a copied";
	EXPECT_EQ(Extra(own, { shared, shared }), 10u) << "the parent copied";
	EXPECT_EQ(Extra(own, { own, shared }), 20u) << "both did";
	EXPECT_EQ(Extra(own, { own, own }), 20u) << "nobody shares: one holds the original";
	EXPECT_EQ(Extra(own, { own }), 10u);
	EXPECT_EQ(Extra({ { kShared, 4 }, { kOwn, 6 } }, { { { kOwn, 8 }, { kShared, 2 } } }),
		  4u + 4u + 2u);
}

TEST(Family, HugePagesAreNoCopies)
{
	std::vector<Pages> shared = { { kShared, 512 } }, huge = { { kHuge, 512 } };
	std::vector<Pages> wrote = { { kOwn, 1 }, { kShared, 511 } };

	EXPECT_EQ(Extra(huge, { wrote, shared }), 1u);
	EXPECT_EQ(Extra(huge, { shared, shared }), 0u);
}

/* Workers of one epoch after the other never held anything at the same time. */
TEST(Family, OnlyThoseThatLiveTogetherAreSummed)
{
	TraceWriter w;
	Stream &parent = w.process(Root());

	for (uint32_t i = 0; i < 3; i++) {
		Stream &child = w.fork(parent, 100 * i + 10, 200 + i);

		Put(child, { 100 * i + 20, MT_SCAN_START, { { kShared, 10 } } });
		Put(child, { 100 * i + 80, MT_SCAN_EXIT, { { kOwn, 10 } } });
		Put(parent, { 100 * i + 85, MT_SCAN_INTERVAL, { { kShared, 10 } } });
		parent.put(mt_ev_wait{ 100 * i + 90, 200 + i, 0, 0 });
	}
	parent.alloc(400, 0x100, 1);
	Replayed run(w);

	EXPECT_LE(run.m->cow_extra, 10 * kPage) << "not 30";
	EXPECT_TRUE(run.m->cow_known);
}

/* ---- what can't be true ---------------------------------------------------------------------------- */

TEST(Sharing, RunsThatDoNotFitMakeTheWalkUseless)
{
	TraceWriter w;
	Stream &parent = w.process(Root());
	Stream &child = w.fork(parent, 10, 200);
	const uint8_t too_many[] = { 1, 200, 1 }; /* 200 pages, in a range of 10 */
	mt_ev_scan scan = {};
	mt_ev_range range = {};

	Put(child, { 11, MT_SCAN_START, { { kShared, 100 } } });
	scan.time = range.time = 90;
	scan.id = range.scan = 1u << 30;
	scan.reason = MT_SCAN_EXIT;
	scan.page_bytes = kPage;
	scan.scope = MT_SCAN_PRIVATE;
	range.start = kBase;
	range.pages = 10;
	range.runs = mt_str{ reinterpret_cast<const char *>(too_many), 3 };
	child.put(scan).put(range).put(mt_ev_scan_end{ 91, scan.id, 1, 1 });
	Replayed run(w);

	EXPECT_EQ(CowOf(run, 200).scan_time, 11);
	EXPECT_EQ(run.count(COUNT_BAD_VALUES), 1u);
}

} // namespace
