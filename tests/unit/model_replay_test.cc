/*
 * What is counted where: CONTRACT section 4 line by line, on synthetic traces.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>

#include "support/replayed.h"

using memtrace_test::Replayed;
using memtrace_test::Root;
using memtrace_test::str;
using memtrace_test::Stream;
using memtrace_test::TraceWriter;

namespace
{

TEST(Model, CountsAllocationsFreesAndWhatIsLeft)
{
	TraceWriter w;
	Stream &s = w.process(Root());

	s.alloc(10, 0x1000, 100).alloc(20, 0x2000, 50).free(30, 0x1000).alloc(40, 0x1000, 0);
	Replayed run(w);
	const process &p = run.P(100);

	EXPECT_EQ(p.allocations, 3u);
	EXPECT_EQ(p.frees, 1u);
	EXPECT_EQ(p.bytes_allocated, 150u);
	EXPECT_EQ(p.live_bytes, 50u);
	EXPECT_EQ(p.live_count, 2u) << "a block of 0 bytes is a block";
	EXPECT_EQ(p.peak_live_bytes, 150u);
	EXPECT_EQ(p.peak_live_time, 20);
	EXPECT_EQ(p.end, 40);
	EXPECT_EQ(run.m->events, 4u);
	EXPECT_TRUE(run.m->traces[0].complete);
	EXPECT_FALSE(run.m->traces[0].recovered);
}

// What a site held when its process held most: by the definition, computed here event by event.
TEST(Model, ASiteHasWhatItHeldAtTheProcesssPeak)
{
	struct event {
		bool free;
		uint64_t addr, size;
		mt_kind kind;
	};
	// A random walk over three kinds of blocks of one size each, so that sites are the kinds.
	static const mt_kind kinds[] = { MT_KIND_HEAP, MT_KIND_PYTHON, MT_KIND_DEVICE };
	for (unsigned int seed = 1; seed <= 50; seed++) {
		std::mt19937 random(seed);
		std::map<uint64_t, event> live;
		std::map<mt_kind, uint64_t> held, at_peak;
		uint64_t most = 0, time = 10;
		TraceWriter w;
		Stream &s = w.process(Root());

		for (int i = 0; i < 200; i++, time++) {
			uint64_t addr = 0x1000 + random() % 24 * 0x100;
			auto known = live.find(addr);

			if (known != live.end()) {
				held[known->second.kind] -= known->second.size;
				s.free(time, addr, known->second.kind);
				live.erase(known);
				continue;
			}
			event e = { false, addr, 1 + random() % 900, kinds[random() % 3] };

			s.alloc(time, addr, e.size, 0, 0, e.kind);
			live[addr] = e;
			held[e.kind] += e.size;
			// Device memory is not the process's own: it makes no peak.
			if (held[MT_KIND_HEAP] + held[MT_KIND_PYTHON] > most) {
				most = held[MT_KIND_HEAP] + held[MT_KIND_PYTHON];
				at_peak = held;
			}
		}
		Replayed run(w);

		ASSERT_EQ(run.P(100).peak_live_bytes, most) << seed;
		for (size_t i = 0; i < run.m->site_count; i++) {
			const struct site &site = run.m->sites[i];

			EXPECT_EQ(site.at_peak_bytes, at_peak[static_cast<mt_kind>(site.kind)])
				<< "seed " << seed << ", kind " << int(site.kind);
		}
	}
}

TEST(Model, AReallocationIsOneFreeAndOneAllocation)
{
	TraceWriter w;

	w.process(Root()).alloc(10, 0x1000, 100).realloc(20, 0x1000, 5, 0x1000, 300);
	Replayed run(w);
	const process &p = run.P(100);

	EXPECT_EQ(p.allocations, 2u);
	EXPECT_EQ(p.frees, 1u);
	EXPECT_EQ(p.bytes_allocated, 400u);
	EXPECT_EQ(p.live_bytes, 300u);
	EXPECT_EQ(p.live_count, 1u);
	EXPECT_EQ(p.missed_frees, 0u);
	EXPECT_EQ(p.unknown_frees, 0u);
}

TEST(Model, AnAddressReusedByAnotherThreadIsInOrder)
{
	TraceWriter w;
	Stream &a = w.process(Root());
	Stream &b = a.thread(1, 101);

	/* a frees, b gets the address in the same unit of time; and the other way round. */
	a.alloc(10, 0x1000, 100).free(20, 0x1000);
	b.alloc(20, 0x1000, 200).free(30, 0x1000);
	a.alloc(30, 0x1000, 300);
	/* a's realloc gives 0x1000 up at 40; b takes it before a's realloc returns at 50. */
	a.realloc(40, 0x1000, 10, 0x2000, 400);
	b.alloc(45, 0x1000, 500);
	Replayed run(w);
	const process &p = run.P(100);

	EXPECT_EQ(p.missed_frees, 0u);
	EXPECT_EQ(p.unknown_frees, 0u);
	EXPECT_EQ(p.allocations, 5u);
	EXPECT_EQ(p.frees, 3u);
	EXPECT_EQ(p.live_bytes, 900u);
	EXPECT_EQ(p.live_count, 2u);
	EXPECT_EQ(p.thread_count, 1u);
}

TEST(Model, AMissedFreeClosesTheOldBlock)
{
	TraceWriter w;

	w.process(Root()).alloc(10, 0x1000, 100).alloc(20, 0x1000, 30).free(25, 0x1000);
	Replayed run(w);
	const process &p = run.P(100);

	EXPECT_EQ(p.missed_frees, 1u);
	EXPECT_EQ(p.live_bytes, 0u);
	EXPECT_EQ(p.live_count, 0u);
	EXPECT_EQ(p.frees, 1u) << "the missed one was not seen";
	EXPECT_EQ(run.m->missed_frees, 1u);
	EXPECT_EQ(run.count(COUNT_MISSED_FREES), 1u);
}

TEST(Model, AFreeOfAnUnknownAddressIsCountedNotFatal)
{
	TraceWriter w;

	w.process(Root()).free(10, 0x1000).alloc(20, 0x1000, 30);
	Replayed run(w);

	EXPECT_EQ(run.P(100).unknown_frees, 1u);
	EXPECT_EQ(run.P(100).frees, 1u);
	EXPECT_EQ(run.P(100).live_bytes, 30u);
}

TEST(Model, ShortLivedIsLessThanTheNumberOfUnitsThatWritersUse)
{
	TraceWriter w;

	w.process(Root())
		.alloc(0, 0x1000, 1, 7)
		.free(MT_BRIEF_UNITS - 1, 0x1000)
		.alloc(1000000, 0x1000, 1, 7)
		.free(1000000 + MT_BRIEF_UNITS, 0x1000);
	Replayed run(w);

	ASSERT_EQ(run.m->site_count, 1u);
	EXPECT_EQ(run.m->sites[0].short_lived_count, 1u);
	EXPECT_EQ(run.m->sites[0].frees, 2u);
	EXPECT_EQ(run.m->brief_ns, MT_BRIEF_UNITS) << "the clock counts nanoseconds here";
}

/* ---- fork ------------------------------------------------------------------------------------ */

TEST(ModelFork, AChildInheritsWhatWasLiveAtTheFork)
{
	TraceWriter w;
	Stream &parent = w.process(Root());

	parent.alloc(10, 0x1000, 100).alloc(20, 0x2000, 50).free(30, 0x2000).alloc(40, 0x3000, 7);
	Stream &child = w.fork(parent, 50, 200);

	parent.free(60, 0x1000).alloc(70, 0x1000, 1);
	child.free(80, 0x1000).alloc(90, 0x1000, 11).alloc(95, 0x4000, 12).free(99, 0x4000);
	Replayed run(w);
	const process &p = run.P(100), &c = run.P(200);

	EXPECT_EQ(c.inherited_live_bytes, 7u) << "0x3000 is still held at its end";
	EXPECT_EQ(c.inherited_live_count, 1u);
	EXPECT_EQ(c.inherited_freed_bytes, 100u);
	EXPECT_EQ(c.inherited_freed_count, 1u);
	EXPECT_EQ(c.allocations, 2u);
	EXPECT_EQ(c.frees, 1u) << "freeing an inherited block is counted apart";
	EXPECT_EQ(c.live_bytes, 11u);
	EXPECT_EQ(c.live_count, 1u);
	EXPECT_EQ(c.peak_live_bytes, 107u) << "own and inherited: at the fork";
	EXPECT_EQ(c.missed_frees + c.unknown_frees, 0u);
	EXPECT_EQ(c.parent, p.id);
	EXPECT_EQ(p.live_bytes, 8u);
	EXPECT_EQ(p.inherited_live_bytes, 0u);
	EXPECT_STREQ(c.role, "forked");
	EXPECT_STREQ(p.role, "main");
}

TEST(ModelFork, TheSnapshotDoesNotNeedTheParentsForkRecord)
{
	TraceWriter w;
	Stream &parent = w.process(Root());

	parent.alloc(10, 0x1000, 100);
	mt_ev_process ev = {};

	ev.time = 21;
	ev.pid = 200;
	ev.reason = MT_PROCESS_FORK;
	ev.parent = 1;
	ev.fork_time = 20;
	w.process(ev).free(40, 0x1000).free(41, 0x6000);
	parent.alloc(20, 0x6000, 200).free(30, 0x1000).alloc(31, 0x5000, 9);
	Replayed run(w);

	EXPECT_EQ(run.P(200).inherited_freed_bytes, 300u) << "also what came at that very time";
	EXPECT_EQ(run.P(200).unknown_frees, 0u);
	EXPECT_EQ(run.P(200).inherited_live_bytes, 0u) << "0x5000 came after the fork";
}

TEST(ModelFork, ThreeLevelsDeep)
{
	TraceWriter w;
	Stream &a = w.process(Root(1));

	a.alloc(10, 0x1000, 1);
	Stream &b = w.fork(a, 20, 2);

	b.alloc(30, 0x2000, 10).free(31, 0x1000);
	Stream &c = w.fork(b, 40, 3);

	c.alloc(50, 0x3000, 100).free(51, 0x2000);
	Stream &d = w.fork(c, 60, 4);

	d.free(70, 0x3000).alloc(71, 0x1000, 1000);
	a.free(80, 0x1000);
	Replayed run(w);

	EXPECT_EQ(run.P(1).live_bytes, 0u);
	EXPECT_EQ(run.P(2).live_bytes, 10u);
	EXPECT_EQ(run.P(2).inherited_freed_bytes, 1u);
	EXPECT_EQ(run.P(3).live_bytes, 100u);
	EXPECT_EQ(run.P(3).inherited_live_bytes, 0u);
	EXPECT_EQ(run.P(3).inherited_freed_bytes, 10u);
	EXPECT_EQ(run.P(4).live_bytes, 1000u);
	EXPECT_EQ(run.P(4).inherited_freed_bytes, 100u);
	EXPECT_EQ(run.P(4).missed_frees, 0u) << "0x1000 was free in this line of descent";
	EXPECT_EQ(run.m->unknown_frees, 0u);
}

TEST(ModelFork, IdsBelowTheBasesAreTheParents)
{
	TraceWriter w;
	Stream &parent = w.process(Root());

	parent.put(mt_ev_module{ 1, 1, 0, 0x1000, 0x2000, 0, str("/bin/x"), str("id") });
	parent.put(mt_ev_frame{ 1, 1, 0x1234, 0 });
	parent.put(mt_ev_node{ 1, 0, 1 });
	parent.alloc(10, 0x1000, 5, 1);
	Stream &child = w.fork(parent, 20, 200);

	/* The same call chain, reached through a node of its own below the parent's. */
	child.put(mt_ev_frame{ 1000, 1, 0x5678, 0 });
	child.put(mt_ev_node{ 1000, 1, 1000 });
	child.alloc(30, 0x2000, 6, 1).alloc(40, 0x3000, 7, 1000);
	/* Another frame of the parent's that comes later in the parent's stream. */
	parent.put(mt_ev_frame{ 2, 1, 0x9999, 0 });
	parent.put(mt_ev_node{ 2, 1, 2 });
	child.alloc(50, 0x4000, 8, 2);
	Replayed run(w);

	ASSERT_EQ(run.m->site_count, 3u);
	EXPECT_EQ(run.count(COUNT_MISSING_ENTRIES), 0u);
	EXPECT_EQ(run.m->sites[0].live_bytes, 11u) << "the parent's and the child's are one site";
	EXPECT_EQ(run.m->sites[0].use_count, 2u);
	const native_node &inner = run.m->native[run.m->sites[1].native];

	EXPECT_EQ(inner.parent, run.m->sites[0].native);
	EXPECT_STREQ(run.m->modules[inner.module].path, "/bin/x");
	EXPECT_EQ(run.m->module_count, 1u);
}

/* ---- restrictions ---------------------------------------------------------------------------- */

TEST(ModelWindow, CountsInsideHoldsWhatIsLiveAtItsEnd)
{
	TraceWriter w;
	pipeline_options opt = {};

	w.process(Root())
		.alloc(100, 0x1000, 1000)
		.alloc(200, 0x2000, 500)
		.free(1000000100, 0x1000)
		.alloc(1000000200, 0x3000, 70)
		.alloc(2000000100, 0x4000, 9)
		.free(2000000200, 0x3000);
	opt.from = "1";
	opt.to = "2";
	Replayed run(w, opt);
	const process &p = run.P(100);

	EXPECT_EQ(p.allocations, 1u);
	EXPECT_EQ(p.frees, 1u);
	EXPECT_EQ(p.bytes_allocated, 70u);
	EXPECT_EQ(p.live_bytes, 570u);
	EXPECT_EQ(p.live_count, 2u);
	EXPECT_EQ(p.peak_live_bytes, 1500u) << "held when the window opened";
	EXPECT_TRUE(run.m->restricted);
}

TEST(ModelWindow, CanBeginAtAMark)
{
	TraceWriter w;
	pipeline_options opt = {};

	w.process(Root())
		.alloc(100, 0x1000, 1000)
		.put(mt_ev_mark{ 150, MT_MARK_MARK, 0, str("warm") })
		.alloc(200, 0x2000, 500);
	opt.from = "@warm";
	Replayed run(w, opt);

	EXPECT_EQ(run.P(100).allocations, 1u);
	ASSERT_EQ(run.m->mark_count, 1u);
	EXPECT_STREQ(run.m->marks[0].label, "warm");
	opt.from = "@cold";
	Replayed none(w, opt);

	EXPECT_EQ(none.m, nullptr);
	EXPECT_TRUE(none.report.usage_error);
	EXPECT_NE(std::string(none.report.errors[0]).find("cold"), std::string::npos);
}

TEST(ModelRestrict, APidLeavesOnlyItsOwnNumbers)
{
	TraceWriter w;
	pipeline_options opt = {};
	Stream &parent = w.process(Root());

	parent.alloc(10, 0x1000, 100, 1);
	Stream &child = w.fork(parent, 20, 200);

	child.alloc(30, 0x2000, 7, 1).free(40, 0x1000);
	opt.pid = 200;
	Replayed run(w, opt);

	ASSERT_EQ(run.m->process_count, 1u);
	EXPECT_EQ(run.m->processes[0].pid, 200u);
	EXPECT_EQ(run.m->processes[0].id, 0u);
	EXPECT_EQ(run.m->processes[0].parent, NO_ID);
	EXPECT_EQ(run.m->processes[0].inherited_freed_bytes, 100u) << "its ancestors are replayed";
	ASSERT_EQ(run.m->site_count, 1u);
	EXPECT_EQ(run.m->sites[0].live_bytes, 7u);
	opt.pid = 0;
	opt.role = "main";
	Replayed by_role(w, opt);

	ASSERT_EQ(by_role.m->process_count, 1u);
	EXPECT_EQ(by_role.m->processes[0].pid, 100u);
	EXPECT_EQ(by_role.m->processes[0].children[0].process, NO_ID);
}

} // namespace
