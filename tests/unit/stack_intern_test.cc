/*
 * preload/stack/intern.c: maps that only grow, and the trie of stacks written before it is shown.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "stack_sink.h"

extern "C" {
#include "stack/intern.h"
}

namespace
{

uint64_t spread(uint64_t i)
{
	return i * UINT64_C(0x9e3779b97f4a7c15) ^ i << 7;
}

TEST(InternMap, FindsWhatWasInsertedAcrossManySegments)
{
	mt_map map = {};

	map.first_bits = 4;
	map.limit = 1u << 20;
	for (uint32_t i = 1; i <= 200000; i++) {
		ASSERT_EQ(mt_map_find(&map, spread(i)), 0u);
		ASSERT_EQ(mt_map_insert(&map, spread(i), i), i);
	}
	EXPECT_GT(map.count, 3u);
	for (uint32_t i = 1; i <= 200000; i++)
		ASSERT_EQ(mt_map_find(&map, spread(i)), i);
	EXPECT_EQ(mt_map_find(&map, spread(200001)), 0u);
}

TEST(InternMap, KeyZeroIsAKey)
{
	mt_map map = {};

	map.first_bits = 4;
	map.limit = 100;
	EXPECT_EQ(mt_map_find(&map, 0), 0u);
	EXPECT_EQ(mt_map_insert(&map, 0, 7), 7u);
	EXPECT_EQ(mt_map_find(&map, 0), 7u);
}

TEST(InternMap, FullMapRefusesAndKeepsWhatItHas)
{
	mt_map map = {};

	map.first_bits = 4;
	map.limit = 50;
	for (uint32_t i = 1; i <= 50; i++)
		EXPECT_EQ(mt_map_insert(&map, spread(i), i), i);
	EXPECT_EQ(mt_map_insert(&map, spread(51), 51), 0u);
	EXPECT_EQ(mt_map_find(&map, spread(51)), 0u);
	EXPECT_EQ(mt_map_find(&map, spread(50)), 50u);
	mt_map_remove(&map, spread(3));
	EXPECT_EQ(mt_map_insert(&map, spread(51), 51), 51u);
}

TEST(InternMap, RemovedKeysComeBackWithOtherValuesInTheSameRoom)
{
	mt_map map = {};

	map.first_bits = 6;
	map.limit = 1000;
	for (uint32_t round = 1; round <= 1000; round++) {
		for (uint64_t key = 0; key < 20; key++)
			ASSERT_EQ(mt_map_insert(&map, key, round), round);
		for (uint64_t key = 0; key < 20; key++) {
			ASSERT_EQ(mt_map_find(&map, key), round);
			mt_map_remove(&map, key);
			ASSERT_EQ(mt_map_find(&map, key), 0u);
		}
	}
	EXPECT_EQ(map.count, 1u);
	EXPECT_EQ(map.entries, 0u);
}

TEST(InternMap, ChildInsertsLeaveTheParentsPagesAlone)
{
	mt_map map = {};
	std::vector<mt_map_entry> before;
	mt_map_segment *first;

	map.first_bits = 10;
	map.limit = 10000;
	for (uint32_t i = 1; i <= 100; i++)
		mt_map_insert(&map, spread(i), i);
	first = map.segments[0];
	before.assign(first->entries, first->entries + (1u << first->bits));
	mt_map_child(&map);
	for (uint32_t i = 101; i <= 400; i++)
		mt_map_insert(&map, spread(i), i);
	EXPECT_EQ(memcmp(before.data(), first->entries, before.size() * sizeof(before[0])), 0);
	for (uint32_t i = 1; i <= 400; i++)
		EXPECT_EQ(mt_map_find(&map, spread(i)), i);
}

TEST(InternMap, LongChainsOfForksGoOnWorking)
{
	mt_map map = {};
	uint32_t n = 0;

	map.first_bits = 4;
	map.limit = 10000;
	for (int generation = 0; generation < 100; generation++) {
		mt_map_child(&map);
		for (int i = 0; i < 5; i++, n++)
			ASSERT_EQ(mt_map_insert(&map, spread(n), n + 1), n + 1);
	}
	for (uint32_t i = 0; i < n; i++)
		ASSERT_EQ(mt_map_find(&map, spread(i)), i + 1);
}

TEST(InternMap, ThreadsAgreeOnWhatTheyFind)
{
	static mt_map map;
	constexpr uint32_t kKeys = 60000;
	std::vector<std::thread> threads;
	std::atomic<uint32_t> wrong{ 0 };

	map = {};
	map.first_bits = 4;
	map.limit = 1u << 24;
	for (uint32_t id = 1; id <= 4; id++)
		threads.emplace_back([id, &wrong] {
			for (uint32_t i = 0; i < kKeys; i++) {
				uint32_t value = mt_map_find(&map, spread(i));

				if (!value)
					value = mt_map_insert(&map, spread(i), i * 8 + id);
				/* Whoever was first: it is this key's value, and it stays known. */
				if (value / 8 != i || mt_map_find(&map, spread(i)) / 8 != i)
					wrong++;
			}
		});
	for (std::thread &t : threads)
		t.join();
	EXPECT_EQ(wrong, 0u);
}

TEST(InternNodes, EveryStackIsWrittenOnceAndBeforeItsChildren)
{
	Sink sink;
	std::vector<uint32_t> ids;
	size_t written = 0;
	uint32_t again;

	for (uint32_t i = 0; i < 5000; i++)
		ids.push_back(mt_node_intern(&sink.t, i < 10 ? 0 : ids[i - 10], 1000000 + i % 500));
	for (const mt_record &r : sink.drain()) {
		ASSERT_EQ(r.id, unsigned(MT_EV_NODE));
		ASSERT_TRUE(!r.u.node.parent || Dictionary::all().nodes.count(r.u.node.parent));
		written++;
	}
	EXPECT_EQ(written, 5000u);
	for (uint32_t i = 0; i < 5000; i++) {
		again = mt_node_intern(&sink.t, i < 10 ? 0 : ids[i - 10], 1000000 + i % 500);
		ASSERT_EQ(again, ids[i]);
		ASSERT_EQ(Dictionary::all().nodes.at(ids[i]).frame, 1000000 + i % 500);
	}
	EXPECT_TRUE(sink.drain().empty());
}

TEST(InternNodes, AnUnwrittenStackIsNotRemembered)
{
	Sink sink;
	uint8_t *end = sink.t.end;
	uint32_t id;

	sink.t.end = sink.t.at; /* no room; and no chunk can be had in a unit test */
	id = mt_node_intern(&sink.t, 0, 2000001);
	EXPECT_EQ(id, 0u);
	sink.t.end = end;
	id = mt_node_intern(&sink.t, 0, 2000001);
	EXPECT_NE(id, 0u);
	sink.drain();
	EXPECT_EQ(Dictionary::all().nodes.at(id).frame, 2000001u);
}

TEST(InternNodes, ThreadsNeverSeeAnIdBeforeItsRecord)
{
	constexpr int kThreads = 4, kRounds = 20000;
	std::vector<std::unique_ptr<Sink>> sinks;
	std::vector<std::thread> threads;
	std::vector<std::vector<uint32_t>> got(kThreads);

	for (int i = 0; i < kThreads; i++)
		sinks.push_back(std::make_unique<Sink>());
	for (int id = 0; id < kThreads; id++)
		threads.emplace_back([&, id] {
			uint32_t node = 0;

			for (uint32_t i = 0; i < kRounds; i++) {
				node = mt_node_intern(&sinks[size_t(id)]->t, i % 50 ? node : 0,
						      3000000 + i % 977);
				got[size_t(id)].push_back(node);
			}
		});
	for (std::thread &t : threads)
		t.join();
	for (auto &sink : sinks)
		sink->drain();
	for (int id = 0; id < kThreads; id++)
		for (uint32_t i = 0; i < kRounds; i++) {
			const auto &node = Dictionary::all().nodes.at(got[size_t(id)][i]);

			ASSERT_EQ(node.frame, 3000000 + i % 977);
			ASSERT_EQ(node.parent, i % 50 ? got[size_t(id)][i - 1] : 0u);
		}
}

} // namespace
