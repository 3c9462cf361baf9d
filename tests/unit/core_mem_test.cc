// The shim's own memory, and the numbers handed to dictionary entries.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>
#include <thread>
#include <vector>

extern "C" {
#include "core/bootstrap.h"
#include "core/ids.h"
#include "core/mem.h"
}

TEST(Mem, BlocksAreZeroedAlignedAndDoNotOverlap)
{
	std::vector<std::pair<char *, size_t>> blocks;

	for (size_t i = 0; i < 3000; i++) {
		size_t size = 1 + i * 37 % 5000;
		char *p = static_cast<char *>(mt_mem_alloc(size));

		ASSERT_NE(p, nullptr);
		ASSERT_EQ(reinterpret_cast<uintptr_t>(p) % 64, 0u);
		for (size_t j = 0; j < size; j++)
			ASSERT_EQ(p[j], 0);
		memset(p, 0xff, size);
		blocks.emplace_back(p, size);
	}
	std::sort(blocks.begin(), blocks.end());
	for (size_t i = 1; i < blocks.size(); i++)
		ASSERT_LE(blocks[i - 1].first + blocks[i - 1].second, blocks[i].first);
}

TEST(Mem, LargeBlocksAreMappingsOfTheirOwnAndCounted)
{
	uint64_t before = mt_mem_used();
	void *p = mt_mem_alloc(8 << 20);

	ASSERT_NE(p, nullptr);
	EXPECT_GE(mt_mem_used() - before, UINT64_C(8) << 20);
	mt_mem_unmap(p, 8 << 20);
	EXPECT_EQ(mt_mem_used(), before);
}

TEST(Mem, ThreadsNeverGetTheSameBlock)
{
	std::vector<std::vector<void *>> got(4);
	std::vector<std::thread> threads;
	std::set<void *> all;

	for (auto &mine : got)
		threads.emplace_back([&mine] {
			for (int i = 0; i < 5000; i++)
				mine.push_back(mt_mem_alloc(100));
		});
	for (auto &t : threads)
		t.join();
	for (auto &mine : got)
		all.insert(mine.begin(), mine.end());
	EXPECT_EQ(all.size(), 20000u);
}

TEST(Bootstrap, ServesAlignedBlocksUntilTheArenaIsUsedUp)
{
	void *a = mt_bootstrap_alloc(16, 10), *b = mt_bootstrap_alloc(4096, 1);

	EXPECT_TRUE(mt_bootstrap_owns(a));
	EXPECT_EQ(reinterpret_cast<uintptr_t>(b) % 4096, 0u);
	EXPECT_EQ(mt_bootstrap_alloc(16, MT_BOOTSTRAP_BYTES), nullptr);
	EXPECT_EQ(errno, ENOMEM);
	EXPECT_FALSE(mt_bootstrap_owns(&a));
	EXPECT_FALSE(mt_bootstrap_owns(nullptr));
}

TEST(Ids, AreUniqueOverThreads)
{
	std::vector<std::vector<uint32_t>> got(4);
	std::vector<std::thread> threads;
	std::set<uint32_t> all;

	for (auto &mine : got)
		threads.emplace_back([&mine] {
			static thread_local struct mt_thread t;

			for (int i = 0; i < 10000; i++)
				mine.push_back(mt_id_new(&t, MT_ID_NODE));
		});
	for (auto &t : threads)
		t.join();
	for (auto &mine : got)
		all.insert(mine.begin(), mine.end());
	EXPECT_EQ(all.size(), 40000u);
	EXPECT_EQ(all.count(0), 0u);
}
