/*
 * Thresholds: passed once, and again only after memory has fallen clearly below.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

extern "C" {
#include "samplers/sampler.h"
}

namespace
{

const uint64_t kLimit = 1000000000;

TEST(Pressure, EachThresholdIsALevel)
{
	EXPECT_EQ(mt_pressure_level(mt_pressure_memory, 0, kLimit, 0), 0u);
	EXPECT_EQ(mt_pressure_level(mt_pressure_memory, kLimit / 100 * 69, kLimit, 0), 0u);
	EXPECT_EQ(mt_pressure_level(mt_pressure_memory, kLimit / 100 * 70, kLimit, 0), 1u);
	EXPECT_EQ(mt_pressure_level(mt_pressure_memory, kLimit / 100 * 80, kLimit, 0), 2u);
	EXPECT_EQ(mt_pressure_level(mt_pressure_memory, kLimit / 100 * 95, kLimit, 0), 3u);
}

TEST(Pressure, HoversWithoutRepeatingItself)
{
	EXPECT_EQ(mt_pressure_level(mt_pressure_memory, kLimit / 100 * 78, kLimit, 2), 2u);
	EXPECT_EQ(mt_pressure_level(mt_pressure_memory, kLimit / 100 * 74, kLimit, 2), 1u);
	EXPECT_EQ(mt_pressure_level(mt_pressure_memory, kLimit / 100 * 64, kLimit, 3), 0u);
}

TEST(Pressure, DevicesMayBeFuller)
{
	EXPECT_EQ(mt_pressure_level(mt_pressure_devices, kLimit / 100 * 79, kLimit, 0), 0u);
	EXPECT_EQ(mt_pressure_level(mt_pressure_devices, kLimit / 100 * 80, kLimit, 0), 1u);
	EXPECT_EQ(mt_pressure_level(mt_pressure_devices, kLimit / 100 * 90, kLimit, 0), 2u);
	EXPECT_EQ(mt_pressure_level(mt_pressure_devices, kLimit / 100 * 95, kLimit, 0), 3u);
}

} // namespace
