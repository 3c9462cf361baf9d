/*
 * The statistics against values computed by hand or taken from tables.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

extern "C" {
#include "analysis/stats.h"
}

TEST(Stats, BinomialTailsAreExactSums)
{
	/* (1 + 10 + 45) / 1024, and by hand for p = 0.2: 0.8^5 + 5 * 0.2 * 0.8^4. */
	EXPECT_NEAR(binomial_below(2, 10, 0.5), 56.0 / 1024, 1e-12);
	EXPECT_NEAR(binomial_below(1, 5, 0.2), 0.32768 + 0.4096, 1e-12);
	EXPECT_NEAR(binomial_above(8, 10, 0.5), 56.0 / 1024, 1e-12);
	EXPECT_NEAR(binomial_above(1, 5, 0.2), 1 - 0.32768, 1e-12);
	EXPECT_EQ(binomial_above(0, 5, 0.2), 1);
	EXPECT_EQ(binomial_below(5, 5, 0.2), 1);
	EXPECT_NEAR(binomial_above(5, 5, 0.2), 0.00032, 1e-12);
	EXPECT_EQ(binomial_above(6, 5, 0.2), 0);
	for (int k = 1; k < 200; k++)
		EXPECT_NEAR(binomial_below(k - 1, 200, 0.3) + binomial_above(k, 200, 0.3), 1, 1e-9);
}

TEST(Stats, TheilSenIsTheMedianOfSlopesAndIgnoresAnOutlier)
{
	std::vector<double> x = { 0, 1, 2, 3, 4 }, y = { 1, 3, 5, 7, 100 };

	/* Slopes: 2 2 2 24.75 2 2 32.33 2 47.5 93: the median of ten is between 2 and 2. */
	EXPECT_DOUBLE_EQ(theil_sen(x.data(), y.data(), 5).value, 2);
	y[4] = 9;
	range r = theil_sen(x.data(), y.data(), 5);

	EXPECT_DOUBLE_EQ(r.value, 2);
	EXPECT_DOUBLE_EQ(r.low, 2);
	EXPECT_DOUBLE_EQ(r.high, 2);
	EXPECT_EQ(theil_sen(x.data(), y.data(), 1).value, 0);
}

TEST(Stats, SensIntervalIsByRanks)
{
	/* Sen's ranks for n = 10: C = 1.96 sqrt(125) = 21.91, so slopes 11.5 and 33.5 + 1 of 45. */
	std::vector<double> x, y;

	for (int i = 0; i < 10; i++) {
		x.push_back(i);
		y.push_back(i * i);
	}
	range r = theil_sen(x.data(), y.data(), 10);

	/* The slope of i and j is i + j: sorted 1, 2, 3, 3, 4, 4, 5, 5, 5, 6, 6, 6, 7 ... */
	EXPECT_NEAR(r.value, 9, 1e-9);
	EXPECT_NEAR(r.low, 6, 0.5);
	EXPECT_NEAR(r.high, 12, 0.5);
}

TEST(Stats, MeanIntervalIsStudents)
{
	double v[] = { 1, 2, 3, 4, 5 };
	range r = mean_interval(v, 5);

	/* s = sqrt(2.5), t(4) = 2.776: 2.776 * 1.5811 / sqrt(5) = 1.963 */
	EXPECT_DOUBLE_EQ(r.value, 3);
	EXPECT_NEAR(r.high - r.value, 1.963, 0.001);
	EXPECT_NEAR(r.value - r.low, 1.963, 0.001);
	EXPECT_EQ(mean_interval(v, 1).high, 1);
}

TEST(Stats, DispersionOfEvenCountsIsOneAndOfBurstsIsMore)
{
	double even[] = { 10, 11, 9, 10 }, bursts[] = { 40, 0, 0, 0 }, expected[] = { 10, 10, 10, 10 };

	EXPECT_EQ(dispersion(even, expected, 4), 1);
	EXPECT_DOUBLE_EQ(dispersion(bursts, expected, 4), (90 + 10 + 10 + 10) / 3.0);
}

TEST(Stats, DiscoveryRatesAreBenjaminiAndHochbergs)
{
	/* n p / rank: 0.005, 0.025, 0.065, 0.05125 and 0.6; each at most the one after it. */
	double p[] = { 0.01, 0.001, 0.039, 0.041, 0.6 };

	discovery_rates(p, 5);
	EXPECT_DOUBLE_EQ(p[1], 0.005);
	EXPECT_DOUBLE_EQ(p[0], 0.025);
	EXPECT_DOUBLE_EQ(p[2], 0.05125);
	EXPECT_DOUBLE_EQ(p[3], 0.05125);
	EXPECT_DOUBLE_EQ(p[4], 0.6);
}

TEST(Stats, APeriodIsFoundUnderARise)
{
	std::vector<double> saw, noise, ramp;
	unsigned state = 1;

	for (int i = 0; i < 60; i++) {
		saw.push_back(i % 7 + 0.3 * i);
		state = state * 1103515245 + 12345;
		noise.push_back(state >> 16 & 1023);
		ramp.push_back(i);
	}
	EXPECT_EQ(period_of(saw.data(), saw.size()), 7u);
	EXPECT_EQ(period_of(noise.data(), noise.size()), 0u);
	EXPECT_EQ(period_of(ramp.data(), ramp.size()), 0u);
	EXPECT_EQ(period_of(saw.data(), 5), 0u);
}

TEST(Stats, QuantilesLieBetweenTheValues)
{
	double v[] = { 4, 1, 3, 2 };

	EXPECT_DOUBLE_EQ(quantile(v, 4, 0), 1);
	EXPECT_DOUBLE_EQ(quantile(v, 4, 0.5), 2.5);
	EXPECT_DOUBLE_EQ(quantile(v, 4, 1), 4);
	EXPECT_EQ(quantile(v, 0, 0.5), 0);
}
