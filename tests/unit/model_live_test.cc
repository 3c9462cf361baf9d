/*
 * The layered live set against a naive model of it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <vector>

#include "model/live.h"

namespace
{

live_block Block(uint64_t key, uint64_t size, uint32_t owner = 0)
{
	live_block b = {};

	b.key = key;
	b.size = size;
	b.owner = owner;
	return b;
}

using Naive = std::map<uint64_t, uint64_t>; /* key to size */

void Collect(void *arg, const live_block *b)
{
	auto &seen = *static_cast<Naive *>(arg);

	EXPECT_EQ(seen.count(b->key), 0u) << "a block was visited twice";
	seen[b->key] = b->size;
}

void ExpectSame(const live_set &set, const Naive &naive)
{
	Naive seen;

	ASSERT_TRUE(live_is_valid(&set));
	live_each(&set, Collect, &seen);
	EXPECT_EQ(seen, naive);
	EXPECT_EQ(set.count, naive.size());
}

TEST(LiveSet, AddFindRemove)
{
	live_set set = {};
	live_block b = Block(0x1000, 64), out;

	EXPECT_FALSE(live_find(&set, 0x1000, &out));
	EXPECT_FALSE(live_remove(&set, 0x1000, &out));
	EXPECT_FALSE(live_add(&set, &b, &out));
	EXPECT_TRUE(live_find(&set, 0x1000, &out));
	EXPECT_EQ(out.size, 64u);
	EXPECT_TRUE(live_remove(&set, 0x1000, &out));
	EXPECT_FALSE(live_remove(&set, 0x1000, &out));
	EXPECT_EQ(set.count, 0u);
	live_release(&set);
}

TEST(LiveSet, AddOverALiveBlockReturnsTheOldOne)
{
	live_set set = {};
	live_block a = Block(16, 1), b = Block(16, 2), old;

	EXPECT_FALSE(live_add(&set, &a, &old));
	EXPECT_TRUE(live_add(&set, &b, &old));
	EXPECT_EQ(old.size, 1u);
	EXPECT_EQ(set.count, 1u);
	live_release(&set);
}

TEST(LiveSet, ChildAndParentDoNotSeeEachOthersChanges)
{
	live_set parent = {}, child = {};
	live_block a = Block(16, 1), b = Block(32, 2), c = Block(16, 3), out;

	live_add(&parent, &a, &out);
	live_add(&parent, &b, &out);
	live_fork(&parent, &child);
	EXPECT_TRUE(live_remove(&child, 16, &out));
	EXPECT_FALSE(live_find(&child, 16, &out));
	EXPECT_TRUE(live_find(&parent, 16, &out));
	EXPECT_FALSE(live_add(&child, &c, &out)) << "it was freed, so it is not a missed free";
	EXPECT_TRUE(live_remove(&child, 16, &out));
	EXPECT_EQ(out.size, 3u);
	EXPECT_FALSE(live_find(&child, 16, &out)) << "the parent's block must stay hidden";
	EXPECT_TRUE(live_remove(&parent, 32, &out));
	EXPECT_TRUE(live_find(&child, 32, &out));
	ExpectSame(parent, { { 16, 1 } });
	ExpectSame(child, { { 32, 2 } });
	live_release(&child);
	live_release(&parent);
}

TEST(LiveSet, AForkCopiesNothingAndTheParentGetsItsTableBack)
{
	live_set parent = {};
	live_block out;

	for (uint64_t i = 1; i <= 100000; i++) {
		live_block b = Block(i * 16, i);

		live_add(&parent, &b, &out);
	}
	const size_t before = live_memory(&parent);

	for (int i = 0; i < 1000; i++) {
		live_set child = {};
		live_block b = Block(1, 1);

		live_fork(&parent, &child);
		live_add(&child, &b, &out);
		EXPECT_LE(live_memory(&child), before + 8192);
		live_release(&child);
		live_remove(&parent, static_cast<uint64_t>(i + 1) * 16, &out);
	}
	EXPECT_LE(live_memory(&parent), before + 8192);
	EXPECT_EQ(parent.count, 99000u);
	EXPECT_TRUE(live_is_valid(&parent));
	live_release(&parent);
}

TEST(LiveSet, OverlappingGenerationsStayWithinTheLayerLimit)
{
	std::vector<live_set> sets(1);
	std::vector<Naive> naive(1);
	live_block out;

	/* A chain of 40 forks, each with changes, all alive at the same time. */
	for (uint64_t depth = 0; depth < 40; depth++) {
		for (uint64_t i = 0; i < 50; i++) {
			live_block b = Block((depth * 37 + i + 1) * 16, depth,
					     static_cast<uint32_t>(depth));

			live_add(&sets.back(), &b, &out);
			naive.back()[b.key] = depth;
			if (i % 3 == 0 &&
			    live_remove(&sets.back(), (depth * 31 + i + 1) * 16, &out))
				naive.back().erase((depth * 31 + i + 1) * 16);
		}
		live_set child = {};

		live_fork(&sets.back(), &child);
		sets.push_back(child);
		naive.push_back(naive.back());
	}
	for (size_t i = 0; i < sets.size(); i++) {
		struct Own {
			uint32_t owner;
			size_t count = 0;
		} all = { static_cast<uint32_t>(i) }, own = all;
		auto count = [](void *arg, const live_block *b) {
			auto *o = static_cast<Own *>(arg);

			o->count += b->owner == o->owner;
		};

		ExpectSame(sets[i], naive[i]);
		live_each(&sets[i], count, &all);
		live_each_own(&sets[i], count, &own);
		EXPECT_EQ(own.count, all.count) << "set " << i;
	}
	for (auto &s : sets)
		live_release(&s);
}

TEST(LiveSet, RandomOperationsAndForksAgreeWithANaiveModel)
{
	for (unsigned seed = 1; seed <= 20; seed++) {
		std::mt19937 random(seed);
		std::vector<live_set> sets(1);
		std::vector<Naive> naive(1);

		for (int step = 0; step < 4000; step++) {
			size_t which = random() % sets.size();
			uint64_t key = (random() % 300 + 1) * 16;
			live_block b = Block(key, random() % 1000), old = {};
			unsigned what = random() % 100;

			if (what < 50) {
				bool was = naive[which].count(key);

				ASSERT_EQ(live_add(&sets[which], &b, &old), was);
				if (was) {
					ASSERT_EQ(old.size, naive[which][key]);
				}
				naive[which][key] = b.size;
			} else if (what < 97) {
				bool was = naive[which].count(key);

				ASSERT_EQ(live_remove(&sets[which], key, &old), was);
				if (was) {
					ASSERT_EQ(old.size, naive[which][key]);
				}
				naive[which].erase(key);
			} else if (what < 99 && sets.size() < 12) {
				live_set child = {};

				live_fork(&sets[which], &child);
				sets.push_back(child);
				naive.push_back(naive[which]);
			} else if (sets.size() > 1) {
				live_release(&sets[which]);
				sets.erase(sets.begin() + which);
				naive.erase(naive.begin() + which);
			}
			if (step % 200 == 0)
				for (size_t i = 0; i < sets.size(); i++)
					ExpectSame(sets[i], naive[i]);
		}
		for (size_t i = 0; i < sets.size(); i++)
			ExpectSame(sets[i], naive[i]);
		for (auto &s : sets)
			live_release(&s);
	}
}

TEST(LiveSet, KindsHaveTheirOwnAddressSpaces)
{
	EXPECT_NE(live_key(0x7f0000001000, 0), live_key(0x7f0000001000, 4));
	EXPECT_EQ(live_key(0x7f0000001000, 0), 0x7f0000001000u) << "the heap's keys are addresses";
}

} // namespace
