/*
 * The interval structure of mappings against one flag per page.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <vector>

#include "model/maps.h"

namespace
{

constexpr uint64_t kPage = 4096;

map_range Range(uint64_t start, uint64_t pages, uint32_t site, uint64_t unused = 0)
{
	map_range r = {};

	r.start = start * kPage;
	r.end = (start + pages) * kPage;
	r.asked = r.end - unused;
	r.site = site;
	return r;
}

struct Removed {
	uint64_t bytes = 0;
	std::vector<int> left;
};

void Note(void *arg, const map_range *, uint64_t bytes, int left)
{
	auto *r = static_cast<Removed *>(arg);

	r->bytes += bytes;
	r->left.push_back(left);
}

TEST(Maps, AHoleLeavesTwo)
{
	maps m = {};
	map_range r = Range(10, 10, 1, 100);
	Removed removed;

	maps_add(&m, &r);
	EXPECT_EQ(maps_remove(&m, 13 * kPage, 15 * kPage, Note, &removed), 1u);
	EXPECT_EQ(removed.bytes, 2 * kPage);
	EXPECT_EQ(removed.left, std::vector<int>({ 2 }));
	EXPECT_EQ(maps_find(&m, 13 * kPage), nullptr);
	EXPECT_EQ(maps_find(&m, 12 * kPage)->end, 13 * kPage);
	EXPECT_EQ(map_bytes(maps_find(&m, 15 * kPage)), 5 * kPage - 100)
		<< "the rounding belongs to the last page";
	EXPECT_EQ(maps_remove(&m, 0, ~0ull, Note, &removed), 2u);
	EXPECT_EQ(removed.bytes, 10 * kPage - 100);
	maps_release(&m);
}

TEST(Maps, AgreeWithOneFlagPerPage)
{
	for (unsigned seed = 1; seed <= 10; seed++) {
		std::mt19937 random(seed);
		std::vector<maps> sets(1);
		std::vector<std::map<uint64_t, uint32_t>> naive(1); /* page to site */

		for (uint32_t step = 1; step < 1500; step++) {
			size_t which = random() % sets.size();
			uint64_t start = random() % 200, pages = random() % 20 + 1;
			Removed removed;
			uint64_t expect = 0;

			for (uint64_t p = start; p < start + pages; p++)
				expect += naive[which].erase(p) * kPage;
			maps_remove(&sets[which], start * kPage, (start + pages) * kPage, Note,
				    &removed);
			ASSERT_EQ(removed.bytes, expect);
			if (random() % 3) {
				map_range r = Range(start, pages, step);

				maps_add(&sets[which], &r);
				for (uint64_t p = start; p < start + pages; p++)
					naive[which][p] = step;
			}
			if (random() % 50 == 0 && sets.size() < 6) {
				maps child = {};

				maps_fork(&sets[which], &child);
				sets.push_back(child);
				naive.push_back(naive[which]);
			}
			for (uint64_t p = 0; p < 220; p += 3) {
				const map_range *r = maps_find(&sets[which], p * kPage + 5);
				auto it = naive[which].find(p);

				ASSERT_EQ(r != nullptr, it != naive[which].end());
				ASSERT_TRUE(!r || r->site == it->second);
			}
			size_t count;
			const map_range *all = maps_all(&sets[which], &count);

			for (size_t i = 1; i < count; i++)
				ASSERT_LE(all[i - 1].end, all[i].start);
		}
		for (auto &m : sets)
			maps_release(&m);
	}
}

} // namespace
