/*
 * The small containers everything in the analyzer stands on.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "util/arena.h"
#include "util/die.h"
#include "util/hashmap.h"
#include "util/index.h"
#include "util/strbuf.h"
#include "util/vec.h"

namespace
{

TEST(Strbuf, IsAlwaysATerminatedText)
{
	struct strbuf sb = STRBUF_INIT;

	EXPECT_STREQ(sb.buf, "");
	strbuf_reset(&sb);
	strbuf_addf(&sb, "%d and %s", 7, "seven");
	strbuf_addch(&sb, '!');
	strbuf_addchars(&sb, '-', 3);
	EXPECT_STREQ(sb.buf, "7 and seven!---");
	EXPECT_EQ(sb.len, 15u);
	char *text = strbuf_detach(&sb);

	EXPECT_STREQ(text, "7 and seven!---");
	EXPECT_STREQ(sb.buf, "");
	free(text);
	text = strbuf_detach(&sb);
	EXPECT_STREQ(text, "") << "also without anything in it";
	free(text);
	strbuf_release(&sb);
}

TEST(Strbuf, GrowsByWhateverIsAdded)
{
	struct strbuf sb = STRBUF_INIT;
	std::string want;

	for (int i = 0; i < 3000; i++) {
		strbuf_addf(&sb, "%d,", i);
		want += std::to_string(i) + ",";
	}
	strbuf_add(&sb, "\0x", 2);
	EXPECT_EQ(std::string(sb.buf, sb.len), want + std::string("\0x", 2));
	strbuf_release(&sb);
}

TEST(Arena, GivesZeroedAlignedMemoryThatStays)
{
	struct arena a = ARENA_INIT;
	std::map<char *, size_t> given;

	for (size_t size = 0; size < 5000; size += 7) {
		char *p = static_cast<char *>(arena_alloc(&a, size));

		EXPECT_EQ(reinterpret_cast<uintptr_t>(p) % 16, 0u);
		for (size_t i = 0; i < size; i++)
			ASSERT_EQ(p[i], 0);
		memset(p, 0x55, size);
		given[p] = size;
	}
	EXPECT_STREQ(arena_printf(&a, "%s-%d", "x", 5), "x-5");
	EXPECT_STREQ(arena_strndup(&a, "abcdef", 3), "abc");
	EXPECT_EQ(memcmp(arena_strndup(&a, "a\0b", 3), "a\0b", 4), 0);
	for (auto [p, size] : given)
		for (size_t i = 0; i < size; i++)
			ASSERT_EQ(p[i], 0x55);
	arena_release(&a);
	EXPECT_STREQ(arena_strdup(&a, "again"), "again");
	arena_release(&a);
}

TEST(Hashmap, AgreesWithStdMapAndKeepsTheOrderOfInsertion)
{
	struct hashmap map = HASHMAP_INIT;
	std::map<std::string, uint64_t> naive;
	uint64_t order = 0;

	EXPECT_EQ(hashmap_get(&map, "x", 1), nullptr);
	for (int i = 0; i < 20000; i++) {
		std::string key = "key " + std::to_string((i * 7919) % 5000);
		bool is_new, expect_new = !naive.count(key);
		uint64_t *slot = hashmap_slot(&map, key.data(), key.size(), &is_new);

		ASSERT_EQ(is_new, expect_new);
		if (is_new) {
			*slot = order;
			naive[key] = order++;
		}
		ASSERT_EQ(*slot, naive[key]);
	}
	for (auto &[key, value] : naive) {
		uint64_t *slot = hashmap_get(&map, key.data(), key.size());

		ASSERT_NE(slot, nullptr);
		EXPECT_EQ(*slot, value);
	}
	for (size_t i = 0; i < map.count; i++)
		EXPECT_EQ(map.entries[i].value, i);
	EXPECT_EQ(hashmap_get(&map, "key", 3), nullptr);
	hashmap_release(&map);
}

TEST(Hashmap, KeysAreBytes)
{
	struct hashmap map = HASHMAP_INIT;

	*hashmap_slot(&map, "a\0b", 3, nullptr) = 1;
	*hashmap_slot(&map, "a\0c", 3, nullptr) = 2;
	*hashmap_slot(&map, "", 0, nullptr) = 3;
	EXPECT_EQ(*hashmap_get(&map, "a\0b", 3), 1u);
	EXPECT_EQ(*hashmap_get(&map, "a\0c", 3), 2u);
	EXPECT_EQ(*hashmap_get(&map, "", 0), 3u);
	EXPECT_EQ(hashmap_get(&map, "a", 1), nullptr);
	hashmap_release(&map);
}

TEST(Index, FindsEveryItemAgainAmongOthersOfTheSameHash)
{
	struct index ix = {};
	std::vector<uint64_t> items;
	auto find = [&](uint64_t value, uint64_t hash) {
		index_each(&ix, hash, i) if (items[i] == value) return static_cast<long>(i);
		return -1L;
	};

	EXPECT_EQ(find(1, 1), -1);
	for (uint64_t v = 0; v < 20000; v++) {
		uint64_t hash = (v % 5000) * 0x9e3779b97f4a7c15u; /* four of each */

		ASSERT_EQ(find(v, hash), -1);
		index_add(&ix, hash, static_cast<uint32_t>(items.size()));
		items.push_back(v);
	}
	for (uint64_t v = 0; v < 20000; v++)
		ASSERT_EQ(find(v, (v % 5000) * 0x9e3779b97f4a7c15u), static_cast<long>(v));
	index_release(&ix);
	EXPECT_EQ(find(1, 1), -1);
}

TEST(Vec, PushesZeroedItems)
{
	struct item {
		int a, b;
	};
	VEC(item) v = VEC_INIT;

	for (int i = 0; i < 1000; i++) {
		v.items = static_cast<item *>(
			vec_room(v.items, &v.room, v.count + 1, sizeof(*v.items)));
		item *it = &v.items[v.count++];

		ASSERT_EQ(it->a, 0);
		it->a = i;
	}
	for (int i = 0; i < 1000; i++)
		ASSERT_EQ(v.items[i].a, i);
	vec_release(&v);
	EXPECT_EQ(v.count, 0u);
}

TEST(DieDeathTest, SaysOneCleanLineAndEndsWithItsStatus)
{
	EXPECT_EXIT(die("bad \x1b[31m file %d", 7), testing::ExitedWithCode(2),
		    "^memtrace-report: bad \\?\\[31m file 7\n$");
	EXPECT_EXIT(die_status(3, "no trace"), testing::ExitedWithCode(3), "no trace");
	testing::internal::CaptureStderr();
	EXPECT_EQ(error("x"), -1);
	warning("y");
	EXPECT_EQ(testing::internal::GetCapturedStderr(),
		  "memtrace-report: x\nmemtrace-report: warning: y\n");
}

} // namespace
