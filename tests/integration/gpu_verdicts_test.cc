/*
 * Verdicts on device, pinned and shared memory in whole runs: what is lost in every step is a leak,
 * a cache that levels off is bounded at its level and makes no finding.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include "support/gpu.h"

using namespace memtrace_test;

namespace
{

/* The row of the section growth of the site in that function, and of that kind. */
Json RowOf(const Json &report, const std::string &function, const std::string &kind)
{
	for (size_t i = 0; i < report["growth"].size(); i++)
		for (size_t k = 0; k < report["sites"].size(); k++) {
			Json site = report["sites"][k];

			if (site["id"].Long() == report["growth"][i]["site"].Long() &&
			    site["kind"].Text() == kind &&
			    site["stack"].Print().find(function) != std::string::npos)
				return report["growth"][i];
		}
	ADD_FAILURE() << "no verdict on " << function << ": " << report["growth"].Print();
	return report["growth"][(size_t)0];
}

} // namespace

TEST(GpuVerdicts, WhatEachStepLosesIsALeakAndACacheIsBounded)
{
	long steps = Scaled(1000, 300), slots = 64;
	double lost = (double)steps * (256 << 10), cached = (double)slots * (512 << 10);
	TempDir dir;
	Result r = Execute(FakeGpu(dir, "gpu_verdicts", { std::to_string(steps) }));
	Json report;

	ASSERT_TRUE(r.Exited(0)) << Describe(r);
	EXPECT_NE(r.out.find("truth lost=" + std::to_string((long)lost)), std::string::npos)
		<< r.out;
	report = ReportWithSymbols(dir.File("trace.bin"));
	for (const char *kind : { "device", "pinned" }) {
		Json leak = RowOf(report, std::string("lose_") + kind, kind);
		Json cache = RowOf(report, std::string("cache_") + kind, kind);

		EXPECT_EQ(leak["verdict"].Text(), "leak") << leak.Print();
		EXPECT_NEAR(leak["bytes"].Number(), lost, 0.05 * lost);
		EXPECT_NEAR(leak["bytes_per_step"]["value"].Number(), 256 << 10, 0.1 * (256 << 10));
		EXPECT_EQ(cache["verdict"].Text(), "bounded") << cache.Print();
		EXPECT_NEAR(cache["level_bytes"].Number(), cached, 0.05 * cached);
	}
	for (size_t i = 0; i < report["findings"].size(); i++) {
		Json f = report["findings"][i];

		EXPECT_EQ(f["title"].Text().find("cache_"), std::string::npos) << f.Print();
		EXPECT_NEAR(f["bytes"].Number(), lost, 0.05 * lost) << f.Print();
	}
	EXPECT_EQ(report["findings"].size(), 2u) << report["findings"].Print();
}
