/*
 * Who touched what a forked process copied: faults and walks made by hand.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "model/cow.h"
#include "support/replayed.h"

using memtrace_test::Replayed;
using memtrace_test::Root;
using memtrace_test::Stream;
using memtrace_test::TraceWriter;

namespace
{

const uint64_t kPage = 4096, kBase = 0x10000000;
const uint32_t kShared = MT_PAGE_PRESENT, kOwn = MT_PAGE_PRESENT | MT_PAGE_EXCLUSIVE;

uint64_t At(uint64_t page)
{
	return kBase + page * kPage;
}

struct Pages {
	uint32_t state;
	uint64_t pages;
};

/* A walk of one range from kBase on. */
void Put(Stream &s, uint64_t time, mt_scan_reason reason, const std::vector<Pages> &runs)
{
	static uint64_t next;
	uint8_t coded[64], *p = coded;
	mt_ev_scan scan = {};
	mt_ev_range range = {};

	scan.time = range.time = time;
	scan.id = range.scan = ++next;
	scan.reason = reason;
	scan.page_bytes = kPage;
	scan.scope = MT_SCAN_PRIVATE;
	s.put(scan);
	for (const Pages &run : runs) {
		p = mt_put_varint(p, run.state);
		p = mt_put_varint(p, run.pages);
		range.pages += run.pages;
	}
	range.start = kBase;
	range.prot = 3;
	range.runs = mt_str{ reinterpret_cast<const char *>(coded),
			     static_cast<uint32_t>(p - coded) };
	s.put(range);
	s.put(mt_ev_scan_end{ time, next, 1, 1 });
}

/* A fault on a page; native: who. */
mt_ev_touch Fault(uint64_t time, uint64_t page, uint64_t native, uint64_t weight = 1)
{
	mt_ev_touch e = {};

	e.time = time;
	e.addr = At(page) + 8;
	e.weight = weight;
	e.native = native;
	return e;
}

/* Sorted, of one owner: what each stack touched. Owner NO_ID: nobody. */
std::vector<uint64_t> TouchedOf(const process_cow &cow, uint32_t site)
{
	std::vector<uint64_t> bytes;

	for (size_t i = 0; i < cow.touch_count; i++)
		if (cow.touches[i].site == site)
			bytes.push_back(cow.touches[i].bytes);
	std::sort(bytes.begin(), bytes.end());
	return bytes;
}

TEST(TouchJoin, WhoTouchedAPageFirstIsToldBesideWhoseItWas)
{
	TraceWriter w;
	Stream &parent = w.process(Root());

	parent.alloc(1, At(0), 300 * kPage, 1); /* and pages 300 to 399 are nobody's */
	Stream &child = w.fork(parent, 10, 200);
	Put(child, 11, MT_SCAN_START, { { kShared, 500 } });
	for (uint64_t page = 0; page < 100; page++)
		child.put(Fault(20, page, 7));
	for (uint64_t page = 50; page < 250; page++) /* the first 50 again: not first */
		child.put(Fault(21, page, 8));
	for (uint64_t page = 300; page < 340; page++)
		child.put(Fault(22, page, 7));
	child.put(Fault(23, 450, 9)); /* not copied */
	child.put(Fault(24, 1000, 9)); /* not even there */
	child.put(Fault(25, 260, 9, 0)); /* damaged: no weight */
	Put(child, 90, MT_SCAN_EXIT, { { kOwn, 400 }, { kShared, 100 } });
	Replayed run(w);
	const process_cow &cow = *run.P(200).cow;

	ASSERT_EQ(cow.site_count, 1u);
	EXPECT_EQ(TouchedOf(cow, cow.sites[0].site),
		  (std::vector<uint64_t>{ 100 * kPage, 150 * kPage }))
		<< "and 50 pages by nobody known";
	EXPECT_EQ(TouchedOf(cow, NO_ID), (std::vector<uint64_t>{ 40 * kPage }));
}

TEST(TouchJoin, AFaultThatStandsForManyCountsForThem)
{
	TraceWriter w;
	Stream &parent = w.process(Root());

	parent.alloc(1, At(0), 400 * kPage, 1);
	Stream &child = w.fork(parent, 10, 200);
	Put(child, 11, MT_SCAN_START, { { kShared, 400 } });
	for (uint64_t page = 0; page < 100; page++)
		child.put(Fault(20, page, 7));
	for (uint64_t page = 100; page < 400; page += 4)
		child.put(Fault(21, page, 8, 4));
	Put(child, 90, MT_SCAN_EXIT, { { kOwn, 400 } });
	Replayed run(w);
	const process_cow &cow = *run.P(200).cow;

	EXPECT_EQ(TouchedOf(cow, cow.sites[0].site),
		  (std::vector<uint64_t>{ 100 * kPage, 300 * kPage }));
	/* And never more than was copied: */
	TraceWriter more;
	Stream &other = more.process(Root());
	other.alloc(1, At(0), 400 * kPage, 1);
	Stream &worker = more.fork(other, 10, 200);
	Put(worker, 11, MT_SCAN_START, { { kShared, 400 } });
	for (uint64_t page = 0; page < 400; page++)
		worker.put(Fault(20, page, 7, 4));
	Put(worker, 90, MT_SCAN_EXIT, { { kOwn, 400 } });
	Replayed again(more);

	EXPECT_EQ(TouchedOf(*again.P(200).cow, again.P(200).cow->sites[0].site),
		  (std::vector<uint64_t>{ 400 * kPage }));
}

} // namespace
