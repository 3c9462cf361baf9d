/*
 * The sampler that runs inside the target, driven with many seeds: do estimates from what it picks
 * hit the truth on average, and do their intervals hold it as often as they say?
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <random>
#include <set>
#include <thread>
#include <vector>

extern "C" {
#include "core/config.h"
#include "core/thread.h"
#include "model/sampled.h"
#include "record/sample.h"
#include "record/since.h"
}

namespace
{

TEST(Sampler, LogarithmIsRight)
{
	for (double u = 0x1p-53; u <= 1; u *= 1.0001)
		ASSERT_NEAR(mt_sample_minus_log(u), -std::log(u),
			    1e-14 * std::max(1e-2, -std::log(u)))
			<< u;
	EXPECT_EQ(mt_sample_minus_log(1), 0);
}

TEST(Sampler, GapsAreExponential)
{
	const uint64_t mean = 4096;
	const int n = 200000;
	uint64_t random = 1;
	double sum = 0;
	int above[4] = {};

	for (int i = 0; i < n; i++) {
		uint64_t gap = mt_sample_gap(&random, mean);

		ASSERT_GE(gap, 1u);
		sum += (double)gap;
		for (int k = 0; k < 4; k++)
			above[k] += gap > mean << k >> 1;
	}
	/* The gap is the exponential rounded up: half a byte more. */
	EXPECT_NEAR(sum / n, mean + 0.5, 4 * mean / std::sqrt(n));
	for (int k = 0; k < 4; k++) {
		double p = std::exp(-(double)(mean << k >> 1) / (double)mean);

		EXPECT_NEAR(above[k], n * p, 4 * std::sqrt(n * p * (1 - p))) << k;
	}
}

/* Sizes as of a real program: most are small, a few are huge. */
std::vector<uint64_t> HeavyTail(size_t count, double alpha)
{
	std::mt19937_64 random(7);
	std::uniform_real_distribution<double> uniform(0, 1);
	std::vector<uint64_t> sizes;

	for (size_t i = 0; i < count; i++)
		sizes.push_back(
			(uint64_t)std::min(32 * std::pow(1 - uniform(random), -1 / alpha), 64e6));
	return sizes;
}

struct Score {
	double z_count, z_bytes; /* of the mean over all seeds */
	double covers_count, covers_bytes; /* share of intervals that hold the truth */
	double blocks; /* sampled, on average */
};

struct Sum {
	double estimate = 0, square = 0;
	int covered = 0;

	void Add(double x, double truth, bool covers)
	{
		estimate += x;
		square += (x - truth) * (x - truth);
		covered += covers;
	}
	double Z(double truth, int n) const
	{
		return (estimate / n - truth) / std::sqrt(square) * n;
	}
};

Score RunSeeds(const std::vector<uint64_t> &sizes, uint64_t mean, int seeds)
{
	double truth = (double)sizes.size(), bytes = 0, blocks = 0;
	Sum count, size;

	for (uint64_t s : sizes)
		bytes += (double)s;
	for (int seed = 1; seed <= seeds; seed++) {
		mt_thread t = {};
		sampled all = {};

		mt_config.seed = seed;
		mt_sample_mean = t.sample_mean = mean; /* no SAMPLING record is due */
		mt_tls.countdown = 0;
		for (uint64_t s : sizes) {
			double w;

			if (!mt_sample_hit(&t, s))
				continue;
			w = sampled_weight(s, mean);
			estimates_add(&all.taken, s, w, 1);
			all.step_count = std::max(all.step_count, std::sqrt(w * (w - 1)));
			all.step_bytes = std::max(all.step_bytes,
						  (double)s * std::sqrt(w * (w - 1)));
		}
		uint64_t x = (uint64_t)std::llround(all.taken.count.sum);
		interval i = sampled_interval(x, &all.taken.count, all.step_count);

		count.Add(all.taken.count.sum, truth, i.low <= truth && truth <= i.high);
		x = (uint64_t)std::llround(all.taken.bytes.sum);
		i = sampled_interval(x, &all.taken.bytes, all.step_bytes);
		size.Add(all.taken.bytes.sum, bytes, i.low <= bytes && bytes <= i.high);
		blocks += (double)all.taken.count.blocks;
	}
	mt_sample_mean = 0;
	mt_config.seed = 0;
	mt_tls.countdown = 0;
	return { count.Z(truth, seeds), size.Z(bytes, seeds), (double)count.covered / seeds,
		 (double)size.covered / seeds, blocks / seeds };
}

TEST(Sampler, EstimatesAreUnbiasedAndIntervalsHold)
{
	const struct {
		const char *what;
		std::vector<uint64_t> sizes;
		uint64_t mean;
	} cases[] = {
		{ "heavy tail", HeavyTail(20000, 1.5), 64 << 10 },
		{ "heavier tail", HeavyTail(40000, 1.2), 64 << 10 },
		{ "small blocks, few samples", std::vector<uint64_t>(8192, 64), 64 << 10 },
		{ "no bytes at all", std::vector<uint64_t>(20000, 0), 512 },
		{ "tensors", std::vector<uint64_t>(40, 1 << 20), 512 << 10 },
		{ "every byte", std::vector<uint64_t>(500, 1), 1 },
	};

	for (const auto &c : cases) {
		Score s = RunSeeds(c.sizes, c.mean, 1000);

		printf("%-28s %8.1f samples  z %+.2f %+.2f  covered %.3f %.3f\n", c.what, s.blocks,
		       s.z_count, c.sizes[0] ? s.z_bytes : 0, s.covers_count, s.covers_bytes);
		EXPECT_LT(std::fabs(s.z_count), 3.3) << c.what;
		EXPECT_GE(s.covers_count, 0.93) << c.what;
		if (!c.sizes[0])
			continue;
		EXPECT_LT(std::fabs(s.z_bytes), 3.3) << c.what;
		EXPECT_GE(s.covers_bytes, 0.93) << c.what;
	}
}

TEST(Sampler, IntervalOfWhatIsExactIsThePoint)
{
	estimate none = {};
	interval i = sampled_interval(17, &none, 0);

	EXPECT_EQ(i.low, 17u);
	EXPECT_EQ(i.high, 17u);
}

TEST(Sampler, IntervalOfOneRareBlockIsPoissons)
{
	/* Garwood's interval for one event: 0.0253 to 5.572. */
	estimates e = {};
	interval i;

	estimates_add(&e, 1, 1e6, 1);
	i = sampled_interval(1000000, &e.count, 1e6);
	EXPECT_NEAR((double)i.low, 25318, 50);
	EXPECT_NEAR((double)i.high, 5571643, 500);
}

TEST(SampleTable, HoldsWhatWasPutIn)
{
	std::vector<char> arena(16 << 20);
	std::set<const void *> in;
	std::mt19937 random(3);

	for (int i = 0; i < 300000; i++) {
		const void *p = &arena[random() % (arena.size() / 16) * 16];

		if (random() % 3 && !in.count(p)) {
			ASSERT_TRUE(mt_sample_insert(p));
			in.insert(p);
		} else {
			ASSERT_EQ(mt_sample_remove(p), (int)in.erase(p));
		}
	}
	for (const void *p : in) {
		ASSERT_FALSE(mt_sample_is_unknown(p));
		ASSERT_TRUE(mt_sample_remove(p));
		ASSERT_FALSE(mt_sample_remove(p));
	}
}

TEST(SampleTable, ThreadsDoNotLoseEachOthersBlocks)
{
	std::vector<char> arena(1 << 20);
	std::vector<std::thread> threads;
	std::atomic<int> bad{ 0 };

	for (int k = 0; k < 4; k++)
		threads.emplace_back([&, k] {
			for (int round = 0; round < 40; round++) {
				for (size_t i = (size_t)k * 16; i < arena.size(); i += 1024)
					bad += !mt_sample_insert(&arena[i]);
				for (size_t i = (size_t)k * 16; i < arena.size(); i += 1024)
					bad += !mt_sample_remove(&arena[i]);
			}
		});
	for (std::thread &t : threads)
		t.join();
	EXPECT_EQ(bad, 0);
}

TEST(Since, KnowsEachAddressByItself)
{
	alignas(8) static char block[4096];

	mt_since_add(block + 8);
	mt_since_add(block + 512);
	EXPECT_TRUE(mt_since_has(block + 8));
	EXPECT_TRUE(mt_since_has(block + 512));
	for (int at : { 0, 16, 504, 520, 4088 })
		EXPECT_FALSE(mt_since_has(block + at)) << at;
}

} // namespace
