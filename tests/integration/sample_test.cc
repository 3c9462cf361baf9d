/*
 * Sampling, dormancy and the size cap on real programs whose totals are known.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cmath>

#include "support/harness.h"

using namespace memtrace_test;

namespace
{

Command Sampled(const TempDir &dir, const std::vector<std::string> &arguments, int seed)
{
	Command command = Program(dir, "sampled", arguments);

	command.env["MEMTRACE_MODE"] = "sample";
	command.env["MEMTRACE_SAMPLE_BYTES"] = "64K";
	command.env["MEMTRACE_SEED"] = std::to_string(seed);
	return command;
}

/* What the program and the C library take besides (tables, stdio, threads) is below this. */
const double own_blocks = 60, own_bytes = 256 << 10;

bool Holds(const Json &o, const std::string &key, double truth, double slack)
{
	double low = o[(key + "_low").c_str()].Number(), high = o[(key + "_high").c_str()].Number();
	double x = o[key.c_str()].Number();

	EXPECT_LE(low, x) << key;
	EXPECT_GE(high, x) << key;
	return low - slack <= truth && truth <= high;
}

/* Seeds are fixed but threads and addresses are not: at most so many of n may miss. */
void ExpectCovered(const std::string &how, int runs)
{
	int missed = 0, asked = 0;

	for (int seed = 1; seed <= runs; seed++) {
		TempDir dir;
		Result result = Execute(Sampled(dir, { how, "20000", "200000" }, seed));
		auto truth = Facts(result.out, "truth");

		ASSERT_TRUE(result.Exited(0)) << Describe(result);
		ASSERT_EQ(truth.size(), 1u) << result.out;
		Json report = Report(dir.File("trace.bin"));
		Json t = report["trace"], p = report["processes"][(size_t)0];
		long blocks = truth[0]["live_blocks"], bytes = truth[0]["live_bytes"];

		EXPECT_EQ(t["mode"].Text(), "sample");
		EXPECT_EQ(t["sample_bytes"].Long(), 65536);
		EXPECT_EQ(t["lost_events"].Long(), 0);
		EXPECT_EQ(t["missed_frees"].Long(), 0);
		EXPECT_EQ(t["unknown_frees"].Long(), 0);
		EXPECT_LT(t["events"].Long(), truth[0]["allocations"] / 10) << "a sample is small";
		missed += !Holds(t, "allocations", (double)truth[0]["allocations"], own_blocks);
		missed += !Holds(t, "frees", (double)truth[0]["frees"], own_blocks);
		missed += !Holds(t, "bytes_allocated", (double)truth[0]["bytes"], own_bytes);
		missed += !Holds(t["by_kind"]["heap"], "live_count", (double)blocks, own_blocks);
		missed += !Holds(p, "live_at_end_bytes", (double)bytes, own_bytes);
		asked += 5;
	}
	EXPECT_LE(missed, asked / 5) << how << ": intervals of 95 % miss too often";
}

TEST(Sample, EstimatesHoldTheTruth)
{
	ExpectCovered("plain", 8);
}

TEST(Sample, EstimatesHoldTheTruthOfThreadsThatFreeEachOthersBlocks)
{
	ExpectCovered("threads", 8);
}

TEST(Sample, AChildInheritsTheSample)
{
	int missed = 0;

	for (int seed = 1; seed <= 4; seed++) {
		TempDir dir;
		Result result = Execute(Sampled(dir, { "fork", "20000", "200000" }, seed));
		long freed = Facts(result.out, "child")[0]["inherited_freed"];
		Json report = Report(dir.File("trace.bin"));
		Json child = report["processes"][(size_t)1];

		ASSERT_TRUE(result.Exited(0)) << Describe(result);
		ASSERT_EQ(child["role"].Text(), "forked");
		EXPECT_EQ(report["trace"]["unknown_frees"].Long(), 0);
		EXPECT_EQ(report["trace"]["missed_frees"].Long(), 0);
		missed += !Holds(child, "inherited_freed_count", (double)freed, 0);
		missed += !Holds(child, "allocations", 200000, own_blocks);
	}
	EXPECT_LE(missed, 2);
}

TEST(Sample, OneSeedIsOneSample)
{
	std::string first;

	for (int i = 0; i < 2; i++) {
		TempDir dir;

		ASSERT_TRUE(Execute(Sampled(dir, { "plain", "2000", "20000" }, 5)).Exited(0));
		std::string text = Report(dir.File("trace.bin"))["trace"]["allocations"].Print();

		if (i == 0)
			first = text;
		else
			EXPECT_EQ(text, first);
	}
}

TEST(Sample, AFullTraceHasNoIntervals)
{
	TempDir dir;

	ASSERT_TRUE(Execute(Program(dir, "sampled", { "plain", "100", "1000" })).Exited(0));
	EXPECT_EQ(Report(dir.File("trace.bin")).Print().find("_low\""), std::string::npos);
}

TEST(Dormant, RecordsNothingAndChangesNothing)
{
	TempDir dir;
	Command command;
	Result result;

	command.argv = { "/bin/sh", "-c", "cd / && sh -c 'echo out; echo err >&2; exit 3'" };
	command.dir = dir.path;
	command.env["MEMTRACE_MODE"] = "dormant";
	result = Execute(command);
	EXPECT_TRUE(result.Exited(3)) << Describe(result);
	EXPECT_EQ(result.out, "out\n");
	EXPECT_EQ(result.err, "err\n");
	EXPECT_FALSE(Exists(dir.File("trace.bin")));
	EXPECT_FALSE(Exists("/trace.bin"));
}

TEST(Dormant, TheDriverSaysSo)
{
	TempDir dir;
	Command command;

	command.argv = { BuildPath("memtrace"), "run", "--mode", "dormant", "sh", "-c", "exit 4" };
	command.dir = dir.path;
	command.traced = false;
	Result result = Execute(command);

	EXPECT_TRUE(result.Exited(4)) << Describe(result);
	EXPECT_NE(result.err.find("dormant"), std::string::npos);
	EXPECT_FALSE(Exists(dir.File("trace.bin")));
}

/* A block from before the switch that is freed after it must not look like a leak. */
void ExpectNoFalseLeak(const std::string &how, const std::string &cap)
{
	TempDir dir;
	Command command = Program(dir, "sampled", { how, "20000", "1000000" });
	struct stat st = {};

	command.env["MEMTRACE_MAX_BYTES"] = cap;
	command.env["MEMTRACE_EVENTS"] = "all"; /* to come to the cap soon */
	Result result = Execute(command);
	auto truth = Facts(result.out, "truth");

	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	ASSERT_EQ(stat(dir.File("trace.bin").c_str(), &st), 0);
	EXPECT_LE(st.st_size, (long)std::stoul(cap) * (cap.back() == 'M' ? 1 << 20 : 1024));
	Json report = Report(dir.File("trace.bin"));
	Json t = report["trace"], p = report["processes"][(size_t)0];

	EXPECT_EQ(t["mode"].Text(), "sample") << cap;
	EXPECT_NE(t["notes"].Print().find("MEMTRACE_MAX_BYTES"), std::string::npos);
	EXPECT_EQ(t["lost_events"].Long(), 0) << cap;
	EXPECT_EQ(t["missed_frees"].Long(), 0);
	EXPECT_EQ(t["unknown_frees"].Long(), 0);
	for (size_t i = 0; i < report["findings"].size(); i++)
		EXPECT_NE(report["findings"][i]["kind"].Text(), "leak");
	/* One interval in twenty misses: two more widths at either end, and none does. */
	double low = p["live_at_end_bytes_low"].Number(), high = p["live_at_end_bytes_high"].Number();

	EXPECT_LE(low - 2 * (high - low), truth[0]["live_bytes"] + own_bytes) << cap;
	EXPECT_GE(high + 2 * (high - low), truth[0]["live_bytes"]) << cap;
	low = p["live_at_end_count_low"].Number(), high = p["live_at_end_count_high"].Number();
	EXPECT_LE(low - 2 * (high - low), truth[0]["live_blocks"] + own_blocks) << cap;
	EXPECT_NEAR(t["allocations"].Number() / (double)truth[0]["allocations"], 1, 0.5);
}

TEST(Cap, FreesOfOlderBlocksAreRecordedAfterTheSwitch)
{
	for (const char *cap : { "128K", "512K", "2M" })
		ExpectNoFalseLeak("plain", cap);
}

TEST(Cap, AlsoWithThreads)
{
	for (const char *cap : { "256K", "1M" })
		ExpectNoFalseLeak("threads", cap);
}

TEST(Cap, WhatCannotBeKnownIsNotCalledLive)
{
	TempDir dir;
	Command command = Program(dir, "sampled", { "maps", "5000", "5000" });

	command.env["MEMTRACE_MAX_BYTES"] = "128K"; /* mappings are always listed: they fill it */
	command.env["MEMTRACE_EVENTS"] = "all";
	ASSERT_TRUE(Execute(command).Exited(0));
	Json report = Report(dir.File("trace.bin"));

	EXPECT_FALSE(report["trace"]["complete"].True());
	EXPECT_TRUE(report["processes"][(size_t)0]["live_at_end_bytes"].IsNull());
	for (size_t i = 0; i < report["sites"].size(); i++)
		EXPECT_EQ(report["sites"][i]["live_bytes"].Long(), 0);
}

} // namespace
