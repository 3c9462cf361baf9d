/*
 * What resident pages held: walks made by hand, so that every byte can be told in advance.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "model/resident.h"
#include "support/replayed.h"

using memtrace_test::Replayed;
using memtrace_test::Root;
using memtrace_test::str;
using memtrace_test::Stream;
using memtrace_test::TraceWriter;

namespace
{

const uint64_t kPage = 4096;

/* Records of one walk; all pages of a range are present unless runs say otherwise. */
struct Walk {
	Walk(Stream &to, uint64_t at, uint64_t rss = 0, uint64_t reason = MT_SCAN_PEAK)
	    : s(to), time(at)
	{
		mt_ev_scan e = {};

		e.time = time;
		e.id = ++next;
		e.reason = reason;
		e.page_bytes = kPage;
		e.rss = rss ? rss + 1 : 0;
		s.put(e);
	}
	Walk &Range(uint64_t start, uint64_t pages, uint64_t flags, const std::string &name,
		    std::vector<uint8_t> runs = {}, uint64_t prot = 3)
	{
		mt_ev_range e = {};
		uint8_t all[16], *p = all;

		if (runs.empty()) {
			*p++ = MT_PAGE_PRESENT | MT_PAGE_EXCLUSIVE;
			p = mt_put_varint(p, pages);
			runs.assign(all, p);
		}
		e.time = time;
		e.scan = next;
		e.start = start;
		e.pages = pages;
		e.prot = prot;
		e.flags = flags;
		e.name = str(name);
		e.runs = mt_str{ reinterpret_cast<const char *>(runs.data()),
				 static_cast<uint32_t>(runs.size()) };
		s.put(e);
		return *this;
	}
	Walk &Arena(uint64_t start, uint64_t end, uint64_t arena, uint64_t top)
	{
		mt_ev_arena e = { time, next, start, end, arena, top };

		s.put(e);
		return *this;
	}
	Walk &Pools(uint64_t start, uint64_t size, uint64_t pool, const std::vector<uint8_t> &states)
	{
		mt_ev_pools e = { time, next, start, size, pool, { nullptr, 0 } };

		e.pools = mt_str{ reinterpret_cast<const char *>(states.data()),
				  static_cast<uint32_t>(states.size()) };
		s.put(e);
		return *this;
	}
	Walk &StackOf(uint64_t tid, uint64_t end)
	{
		mt_ev_stack e = { time, next, tid, 0, end };

		s.put(e);
		return *this;
	}
	void End(uint64_t complete = 1)
	{
		mt_ev_scan_end e = { time, next, complete, 1 };

		s.put(e);
	}

	Stream &s;
	uint64_t time;
	static inline uint64_t next = 0;
};

void ExpectSum(const resident *r)
{
	uint64_t sum = 0;

	for (uint64_t part : r->parts)
		sum += part;
	EXPECT_EQ(sum, r->bytes);
}

const resident_heap *Heap(const resident *r, heap_kind kind)
{
	for (size_t i = 0; i < r->heap_count; i++)
		if (r->heaps[i].kind == kind)
			return &r->heaps[i];
	return nullptr;
}

TEST(ModelResident, APageOfTheHeapIsSplitIntoLiveRoundingAndPinned)
{
	TraceWriter w;
	Stream &s = w.process(Root());

	/* 100 bytes in the second of four pages: a chunk of 112, of which 12 are not asked for. */
	s.alloc(10, 0x10001010, 100, 0);
	Walk(s, 20, 4 * kPage).Range(0x10000000, 4, MT_RANGE_HEAP, "[heap]").End();
	Replayed run(w);
	const resident *r = run.P(100).resident_most;

	ASSERT_TRUE(r);
	EXPECT_EQ(r, run.P(100).resident_last);
	EXPECT_EQ(r->bytes, 4 * kPage);
	EXPECT_EQ(r->rss, 4 * kPage);
	EXPECT_EQ(r->parts[RESIDENT_LIVE], 100u);
	/* The allocator's own first chunk, and 12 bytes of this one. */
	EXPECT_EQ(r->parts[RESIDENT_ROUNDING], 0x290u + 12);
	/* Behind the block a free chunk begins on the same page: of the next page nothing is kept. */
	EXPECT_EQ(r->parts[RESIDENT_RETURNABLE], 2 * kPage);
	EXPECT_EQ(r->parts[RESIDENT_PINNED], 2 * kPage - 0x290 - 112);
	ExpectSum(r);
	ASSERT_EQ(r->pin_count, 1u);
	EXPECT_EQ(r->pins[0].pages, 1u);
	EXPECT_EQ(r->pins[0].pinned, kPage - 112);
	EXPECT_EQ(r->pins[0].blocks, 1u);
}

TEST(ModelResident, PiecesOfAMappingAreOneMapping)
{
	TraceWriter w;
	Stream &s = w.process(Root());

	s.alloc(10, 0x10001010, 100, 0);
	Walk(s, 20, 4 * kPage)
		.Range(0x10000000, 2, MT_RANGE_HEAP, "[heap]", { 1, 1 })
		.Range(0x10002000, 2, MT_RANGE_HEAP, "[heap]")
		.End();
	Replayed run(w);
	const resident *r = run.P(100).resident_most;

	EXPECT_EQ(r->bytes, 3 * kPage);
	EXPECT_EQ(r->parts[RESIDENT_LIVE], 0u) << "its page is not resident";
	EXPECT_EQ(r->parts[RESIDENT_RETURNABLE], 2 * kPage) << "its chunk begins before them";
	EXPECT_EQ(r->heaps[0].parts, 1u);
	ExpectSum(r);
}

TEST(ModelResident, AFreeChunkKeepsThePageOfItsHeader)
{
	TraceWriter w;
	Stream &s = w.process(Root());

	/* The chunk ends 16 bytes before a page's end: the free one's header is on two pages. */
	s.alloc(10, 0x10001010, 4096 - 32 - 8);
	Walk(s, 20).Range(0x10000000, 4, MT_RANGE_HEAP, "[heap]").End();
	Replayed run(w);

	EXPECT_EQ(run.P(100).resident_most->parts[RESIDENT_RETURNABLE], kPage);
	ExpectSum(run.P(100).resident_most);
}

TEST(ModelResident, TheTopmostChunkOfAnArenaIsNotReturned)
{
	const uint64_t start = 0x7f0000000000, page = kPage;
	TraceWriter w;
	Stream &s = w.process(Root());

	s.alloc(10, start + 4 * page + 16, 64);
	Walk(s, 20)
		.Range(start, 16, 0, "")
		.Arena(start, start + 16 * page, start + 0x30, start + 10 * page)
		.End();
	Replayed run(w);
	const resident *r = run.P(100).resident_most;

	/* Page 0: arena's state; 1 to 3 and 5 to 9: free in bins; 10 to 15: top. */
	EXPECT_EQ(r->parts[RESIDENT_RETURNABLE], (3 + 5) * page);
	ASSERT_TRUE(Heap(r, HEAP_ARENA));
	EXPECT_EQ(Heap(r, HEAP_ARENA)->top, 6 * page);
	EXPECT_EQ(Heap(r, HEAP_ARENA)->returnable, 8 * page);
	EXPECT_EQ(Heap(r, HEAP_ARENA)->resident, 16 * page);
	ExpectSum(r);
}

TEST(ModelResident, AnArenaThatWasNotAnnouncedIsKnownByItsPlaceAndItsTopIsNotPromised)
{
	const uint64_t start = 0x7f0000000000, page = kPage;
	TraceWriter w;
	Stream &s = w.process(Root());

	s.alloc(10, start + page + 16, 64);
	s.alloc(11, start + 4 * page + 16, 64);
	Walk(s, 20).Range(start, 8, 0, "").End();
	Replayed run(w);
	const resident *r = run.P(100).resident_most;

	EXPECT_EQ(r->parts[RESIDENT_RETURNABLE], 2 * page);
	EXPECT_EQ(r->parts[RESIDENT_UNTRACED], 0u);
	ExpectSum(r);
}

TEST(ModelResident, ALargeBlockInAMappingOfItsOwnIsLiveAndItsEdgesAreRounding)
{
	TraceWriter w;
	Stream &s = w.process(Root());

	s.alloc(10, 0x7f1234560010, 5 * kPage);
	Walk(s, 20).Range(0x7f1234560000, 6, 0, "").End();
	Replayed run(w);
	const resident *r = run.P(100).resident_most;

	EXPECT_EQ(r->parts[RESIDENT_LIVE], 5 * kPage);
	EXPECT_EQ(r->parts[RESIDENT_ROUNDING], kPage);
	EXPECT_EQ(Heap(r, HEAP_CHUNKS)->live, 5 * kPage);
	ExpectSum(r);
}

TEST(ModelResident, PythonsPoolsSayHowManyBlocksAreInUse)
{
	const uint64_t start = 0x7f2000100000;
	TraceWriter w;
	Stream &s = w.process(Root());

	s.map(10, start, 1 << 20, MT_KIND_MMAP | MT_KIND_BACKING);
	/* One pool with 10 blocks of 512 bytes, one that is free, and one of 48 bytes, full. */
	Walk(s, 20)
		.Range(start, 12, 0, "")
		.Range(start + 12 * kPage, 244, 0, "", { 0, 244, 1 })
		.Pools(start, 1 << 20, 16384, { 34, 10, 1, 5, 0xd4, 0x02 })
		.End();
	Replayed run(w);
	const resident *r = run.P(100).resident_most;
	const resident_heap *h = Heap(r, HEAP_PYTHON);
	const uint64_t live = 10 * 512 + 340 * 48, rounding = 2 * 48 + (16384 - 48) % 512 +
							      (16384 - 48) % 48;

	EXPECT_EQ(r->bytes, 12 * kPage);
	EXPECT_EQ(r->parts[RESIDENT_LIVE], live);
	EXPECT_EQ(r->parts[RESIDENT_ROUNDING], rounding);
	EXPECT_EQ(r->parts[RESIDENT_PYTHON], 12 * kPage - live - rounding);
	ASSERT_TRUE(h);
	EXPECT_EQ(h->blocks, 350u);
	EXPECT_EQ(h->free_pools, 1u);
	EXPECT_EQ(h->free_pool_bytes, 16384u);
	EXPECT_EQ(h->pinned_arenas, 1u);
	ExpectSum(r);
}

TEST(ModelResident, FilesSharedMemoryStacksAndToolAreToldByName)
{
	TraceWriter w;
	Stream &s = w.process(Root());

	s.map(10, 0x7f3000000000, 4 * kPage);
	Walk(s, 20)
		.Range(0x400000, 3, 0, "/usr/bin/prog", { MT_PAGE_PRESENT | MT_PAGE_FILE, 2,
							  MT_PAGE_PRESENT, 1 })
		.Range(0x403000, 1, 0, "")
		.Range(0x7f3000000000, 4, 0, "")
		.Range(0x7f4000000000, 2, MT_RANGE_SHARED, "/dev/shm/x (deleted)",
		       { MT_PAGE_PRESENT | MT_PAGE_FILE, 2 })
		.Range(0x7f5000000000, 2, MT_RANGE_TOOL, "")
		.Range(0x7f6000000000, 3, 0, "")
		.StackOf(7, 0x7f6000002f00)
		.Range(0x7f7000000000, 1, 0, "")
		.Range(0x7ffc00000000, 5, MT_RANGE_STACK, "[stack]")
		.Range(0x7ffd00000000, 1, 0, "[vdso]")
		.End();
	Replayed run(w);
	const resident *r = run.P(100).resident_most;

	EXPECT_EQ(r->parts[RESIDENT_FILE], 4 * kPage) << "with the module's variables";
	EXPECT_EQ(r->parts[RESIDENT_LIVE], 4 * kPage);
	EXPECT_EQ(r->parts[RESIDENT_SHM], 2 * kPage);
	EXPECT_EQ(r->parts[RESIDENT_TOOL], 2 * kPage);
	EXPECT_EQ(r->parts[RESIDENT_STACKS], 8 * kPage);
	EXPECT_EQ(r->parts[RESIDENT_OTHER], kPage);
	EXPECT_EQ(r->parts[RESIDENT_UNTRACED], kPage);
	ExpectSum(r);
	for (size_t i = 0; i < r->name_count; i++)
		if (r->names[i].part == RESIDENT_FILE) {
			EXPECT_STREQ(r->names[i].name, "/usr/bin/prog");
			EXPECT_EQ(r->names[i].private_bytes, 2 * kPage);
		} else if (r->names[i].part == RESIDENT_UNTRACED) {
			EXPECT_TRUE(r->names[i].reason);
			EXPECT_EQ(r->names[i].start, 0x7f7000000000u);
		}
}

TEST(ModelResident, TheLargestAndTheLastWalkAreKept)
{
	TraceWriter w;
	Stream &s = w.process(Root());

	Walk(s, 20).Range(0x10000000, 4, MT_RANGE_HEAP, "[heap]").End();
	Walk(s, 30).Range(0x10000000, 9, MT_RANGE_HEAP, "[heap]").End();
	Walk(s, 40).Range(0x10000000, 5, MT_RANGE_HEAP, "[heap]").End();
	Walk(s, 50).Range(0x10000000, 20, MT_RANGE_HEAP, "[heap]").End(0);
	Replayed run(w);

	EXPECT_EQ(run.P(100).resident_most->bytes, 9 * kPage);
	EXPECT_EQ(run.P(100).resident_last->bytes, 5 * kPage)
		<< "a walk that was cut short tells nothing of the whole";
}

TEST(ModelResident, DamagedWalksAreCountedAndLeftOut)
{
	TraceWriter w;
	Stream &s = w.process(Root());

	Walk(s, 20)
		.Range(0x10000000, 4, MT_RANGE_HEAP, "[heap]", { 1, 9 }) /* more than there are */
		.Range(0x10000123, 4, 0, "")
		.Pools(0x7f2000100000, 1 << 20, 16384, { 34, 200 })
		.End();
	Walk(s, 30).Range(0x20000000, 4, 0, "").Range(0x10000000, 4, 0, "").End();
	Replayed run(w);

	EXPECT_EQ(run.count(COUNT_BAD_VALUES), 3u);
	ASSERT_TRUE(run.P(100).resident_last);
	EXPECT_EQ(run.P(100).resident_last->bytes, 0u);
}

TEST(ModelResident, AForkedChildHoldsWhatItInherited)
{
	TraceWriter w;
	Stream &s = w.process(Root());

	s.alloc(10, 0x10001010, 100);
	Stream &child = w.fork(s, 20, 101);
	Walk(child, 30).Range(0x10000000, 4, MT_RANGE_HEAP, "[heap]").End();
	Replayed run(w);

	EXPECT_EQ(run.P(101).resident_most->parts[RESIDENT_LIVE], 100u);
	ASSERT_EQ(run.P(101).resident_most->pin_count, 1u);
	EXPECT_NE(run.P(101).resident_most->pins[0].site, NO_ID) << "the parent's site";
}

} // namespace
