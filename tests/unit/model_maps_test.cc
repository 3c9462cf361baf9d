/*
 * Mappings: what a partial unmap, a remap or a mapping over another one frees.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <string>

#include "support/replayed.h"

using memtrace_test::Replayed;
using memtrace_test::Root;
using memtrace_test::str;
using memtrace_test::Stream;
using memtrace_test::TraceWriter;

namespace
{

TEST(ModelMaps, APartialUnmapFreesThePart)
{
	TraceWriter w;

	w.process(Root()).map(10, 0x100000, 0x10000).unmap(20, 0x104000, 0x4000);
	Replayed run(w);
	const kind_totals &k = run.P(100).kinds[MT_KIND_MMAP];

	EXPECT_EQ(k.allocations, 1u);
	EXPECT_EQ(k.frees, 1u);
	EXPECT_EQ(k.bytes_allocated, 0x10000u);
	EXPECT_EQ(k.live_bytes, 0xc000u);
	EXPECT_EQ(k.live_count, 2u) << "a hole makes two of one";
	EXPECT_EQ(run.P(100).allocations, 0u) << "mappings are no part of the process's totals";
}

TEST(ModelMaps, TheBytesAskedForCountAndAreAllFreed)
{
	TraceWriter w;

	w.process(Root())
		.map(10, 0x100000, 0x1234)
		.map(20, 0x200000, 0x1234)
		.unmap(30, 0x100000, 1)
		.unmap(31, 0x101000, 1)
		.unmap(40, 0x200000, 0x1234);
	Replayed run(w);

	EXPECT_EQ(run.P(100).kinds[MT_KIND_MMAP].bytes_allocated, 0x2468u);
	EXPECT_EQ(run.P(100).kinds[MT_KIND_MMAP].live_bytes, 0u);
	EXPECT_EQ(run.P(100).kinds[MT_KIND_MMAP].live_count, 0u);
	EXPECT_EQ(run.P(100).unknown_frees, 0u);
}

TEST(ModelMaps, AFixedMappingReplacesWhatLiesUnderIt)
{
	TraceWriter w;

	w.process(Root()).map(10, 0x100000, 0x4000).map(20, 0x101000, 0x1000, MT_KIND_SHM, 0x10);
	Replayed run(w);
	const process &p = run.P(100);

	EXPECT_EQ(p.kinds[MT_KIND_MMAP].live_bytes, 0x3000u);
	EXPECT_EQ(p.kinds[MT_KIND_MMAP].frees, 1u);
	EXPECT_EQ(p.kinds[MT_KIND_SHM].live_bytes, 0x1000u);
	EXPECT_EQ(p.missed_frees, 0u);
}

TEST(ModelMaps, AMappingOverALiveOneIsAMissedUnmap)
{
	TraceWriter w;

	w.process(Root()).map(10, 0x100000, 0x4000).map(20, 0x100000, 0x4000);
	Replayed run(w);

	EXPECT_EQ(run.P(100).missed_frees, 1u);
	EXPECT_EQ(run.P(100).kinds[MT_KIND_MMAP].live_bytes, 0x4000u);
	EXPECT_EQ(run.P(100).kinds[MT_KIND_MMAP].frees, 0u);
}

TEST(ModelMaps, ARemapIsOneFreeAndOneAllocationOfTheSameKind)
{
	TraceWriter w;
	Stream &s = w.process(Root());
	mt_ev_remap e = {};

	s.map(10, 0x100000, 0x4000, MT_KIND_SHM);
	e.time = 20;
	e.old_addr = 0x100000;
	e.old_size = 0x4000;
	e.took = 5;
	e.addr = 0x200000;
	e.size = 0x8000;
	s.put(e);
	Replayed run(w);
	const kind_totals &k = run.P(100).kinds[MT_KIND_SHM];

	EXPECT_EQ(k.allocations, 2u);
	EXPECT_EQ(k.frees, 1u);
	EXPECT_EQ(k.live_bytes, 0x8000u);
	EXPECT_EQ(k.live_count, 1u);
}

TEST(ModelMaps, AnUnmapOfSizeZeroIsTheWholeMapping)
{
	TraceWriter w;

	w.process(Root()).map(10, 0x100000, 0x5000, MT_KIND_SHM).unmap(20, 0x100000, 0);
	Replayed run(w);

	EXPECT_EQ(run.P(100).kinds[MT_KIND_SHM].live_bytes, 0u);
	EXPECT_EQ(run.P(100).kinds[MT_KIND_SHM].frees, 1u);
}

TEST(ModelMaps, TheBreakGrowsAndShrinks)
{
	TraceWriter w;
	Stream &s = w.process(Root());

	s.put(mt_ev_brk{ 10, 0x500010, 0x508000, MT_KIND_MMAP, 0, 0 });
	s.put(mt_ev_brk{ 20, 0x508000, 0x510000, MT_KIND_MMAP, 0, 0 });
	s.put(mt_ev_brk{ 30, 0x510000, 0x504010, MT_KIND_MMAP, 0, 0 });
	Replayed run(w);
	const kind_totals &k = run.P(100).kinds[MT_KIND_MMAP];

	EXPECT_EQ(k.allocations, 2u);
	EXPECT_EQ(k.live_bytes, 0x4000u);
	EXPECT_EQ(k.live_count, 1u);
	EXPECT_EQ(run.P(100).missed_frees, 0u);
}

TEST(ModelMaps, BackingMappingsAreInNoLiveTotal)
{
	TraceWriter w;

	w.process(Root())
		.map(10, 0x100000, 0x4000, MT_KIND_MMAP | MT_KIND_BACKING)
		.map(20, 0x200000, 0x1000)
		.alloc(30, 0x100010, 100);
	Replayed run(w);
	const process &p = run.P(100);

	EXPECT_EQ(p.kinds[MT_KIND_MMAP].allocations, 2u);
	EXPECT_EQ(p.kinds[MT_KIND_MMAP].live_bytes, 0x1000u);
	EXPECT_EQ(p.live_bytes, 100u);
	ASSERT_EQ(run.m->site_count, 3u);
	EXPECT_TRUE(run.m->sites[0].backing);
	EXPECT_EQ(run.m->sites[0].live_bytes, 0x4000u);
	ASSERT_EQ(p.backing_count, 1u);
	EXPECT_EQ(p.backing[0].site, 0u);
	EXPECT_EQ(p.backing[0].delta, 0x4000);
	EXPECT_EQ(p.backing[0].time, 10);
}

TEST(ModelMaps, BackingMappingsAreFollowedAlsoWhenNothingIsLeft)
{
	TraceWriter w;
	Stream &s = w.process(Root());

	s.alloc(5, 0x5000, 100000).map(10, 0x100000, 0x4000, MT_KIND_MMAP | MT_KIND_BACKING);
	Stream &child = w.fork(s, 15, 200);

	child.unmap(16, 0x100000, 0x4000);
	s.unmap(20, 0x101000, 0x1000).unmap(30, 0x100000, 0x4000);
	Replayed run(w);
	const process &p = run.P(100);
	const int64_t want[] = { 0x4000, -0x1000, -0x1000, -0x2000 };

	ASSERT_EQ(p.backing_count, 4u);
	for (size_t i = 0; i < 4; i++) {
		EXPECT_EQ(p.backing[i].delta, want[i]);
		EXPECT_TRUE(run.m->sites[p.backing[i].site].backing);
	}
	EXPECT_EQ(run.P(200).backing_count, 0u);
}

TEST(ModelMaps, AChildUnmappingItsParentsMappingChangesNothingElsewhere)
{
	TraceWriter w;
	Stream &parent = w.process(Root());

	parent.map(10, 0x100000, 0x4000);
	Stream &child = w.fork(parent, 20, 200);

	child.unmap(30, 0x100000, 0x2000);
	parent.unmap(40, 0x102000, 0x2000);
	Replayed run(w);

	EXPECT_EQ(run.P(100).kinds[MT_KIND_MMAP].live_bytes, 0x2000u);
	EXPECT_EQ(run.P(200).kinds[MT_KIND_MMAP].frees, 0u);
	EXPECT_EQ(run.P(200).kinds[MT_KIND_MMAP].live_bytes, 0u);
	EXPECT_EQ(run.m->unknown_frees, 0u);
}

} // namespace
