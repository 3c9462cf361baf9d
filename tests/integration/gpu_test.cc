/*
 * GPU memory over the fakes of tests/support/cuda: the report must equal the fake driver's ledger,
 * and the program must not notice.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <fstream>
#include <map>

#include "support/gpu.h"

using namespace memtrace_test;

namespace
{

class GpuPattern : public testing::TestWithParam<const char *>
{
};

const char *const kPatterns[] = { "plain",     "async",	  "pools",    "vmm",	 "arrays",
				  "pinned",    "managed", "borrowed", "graph",	 "context",
				  "reset",     "older",	  "names",    "private", "runtime12",
				  "runtime13", "oom" };

} // namespace

TEST_P(GpuPattern, EqualsTheDriversLedger)
{
	TempDir dir;
	Command c = FakeGpu(dir, "gpu_direct", { GetParam() });
	Result traced = Execute(c), plain;

	c.traced = false;
	plain = Execute(c);
	ASSERT_TRUE(plain.Exited(0)) << Describe(plain);
	ASSERT_TRUE(traced.Exited(0)) << Describe(traced);
	EXPECT_EQ(traced.out, plain.out);
	ExpectLedger(dir, traced.out);
}

INSTANTIATE_TEST_SUITE_P(Fake, GpuPattern, testing::ValuesIn(kPatterns),
			 [](const auto &p) { return std::string(p.param); });

TEST(Gpu, AllPatternsInOneProcessEqualTheLedger)
{
	TempDir dir;
	std::vector<std::string> all(std::begin(kPatterns), std::end(kPatterns));
	Result r = Execute(FakeGpu(dir, "gpu_direct", all));

	ASSERT_TRUE(r.Exited(0)) << Describe(r);
	ExpectLedger(dir, r.out);
}

/* Racing threads: what is live is exact, the peak to within what is under way. */
TEST(Gpu, ThreadsEqualTheLedger)
{
	TempDir dir;
	Result r = Execute(FakeGpu(dir, "gpu_direct", { "threads", "runtime12" }));

	ASSERT_TRUE(r.Exited(0)) << Describe(r);
	ExpectLedger(dir, r.out, 4 * 32768); /* four threads, blocks of up to 32 KiB */
}

TEST(Gpu, AForkedChildHasNoDeviceMemoryAndTheShimCallsNothingThere)
{
	TempDir dir;
	Command c = FakeGpu(dir, "gpu_direct", { "plain", "fork" });
	Result traced = Execute(c), plain;
	Json report;

	c.traced = false;
	plain = Execute(c);
	ASSERT_TRUE(traced.Exited(0)) << Describe(traced);
	EXPECT_EQ(traced.out, plain.out); /* calls_in_child is the program's own two */
	report = Report(dir.File("trace.bin"));
	EXPECT_EQ(report["gpu"].size(), 1u);
	EXPECT_EQ(report["gpu"][(size_t)0]["processes"].size(), 1u);
	EXPECT_EQ(DeviceOf(report, 0)["allocated_bytes"].Long(), 5253120 + 1048576);
}

/* A graph's nodes, in three forms, and what a captured stream takes: addresses that come and go. */
TEST(Gpu, WhatAGraphTakesHasAnAddressAndNoBytes)
{
	TempDir dir;
	Result r = Execute(FakeGpu(dir, "gpu_direct", { "graph" }));
	std::map<long, int> there;
	int takes = 0, left = 0;

	ASSERT_TRUE(r.Exited(0)) << Describe(r);
	for (const Json &take : Records(dir.File("trace.bin"), "gpu_take")) {
		EXPECT_EQ(take["flags"].Long(), 8) << take.Print();
		there[take["addr"].Long()]++;
		takes++;
	}
	EXPECT_EQ(takes, 5);
	for (const Json &give : Records(dir.File("trace.bin"), "gpu_give"))
		EXPECT_GE(there[give["addr"].Long()]--, 1) << give.Print(); /* it may come again */
	for (const auto &[addr, count] : there)
		left += count;
	EXPECT_EQ(left, 2);
}

TEST(Gpu, OffRecordsNothing)
{
	TempDir dir;
	Command c = FakeGpu(dir, "gpu_direct", { "plain", "pinned" });
	Result r;
	Json report;

	c.env["MEMTRACE_GPU"] = "off";
	r = Execute(c);
	ASSERT_TRUE(r.Exited(0)) << Describe(r);
	report = Report(dir.File("trace.bin"));
	EXPECT_EQ(report["gpu"].size(), 0u);
	EXPECT_TRUE(report["trace"]["by_kind"]["device"].IsNull());
}

/* A program that uses no GPU asks for no name of it, and has no section. */
TEST(Gpu, LookUpsThatDependOnTheirCallerAreAnsweredAsWithout)
{
	TempDir dir;
	Command c = Program(dir, "dlsym_callers", { ProgramPath("dlsym_next.so") });
	Result traced = Execute(c), plain;

	c.traced = false;
	plain = Execute(c);
	ASSERT_TRUE(traced.Exited(0)) << Describe(traced);
	EXPECT_EQ(traced.out, plain.out);
	EXPECT_NE(plain.out.find("library chained=10 default=1 version=1"), std::string::npos)
		<< plain.out;
	EXPECT_EQ(Report(dir.File("trace.bin"))["gpu"].size(), 0u);
}

TEST(Gpu, NvtxRangesBecomePhases)
{
	TempDir dir;
	Command c = Program(dir, "nvtx_client");
	Result r = Execute(c);
	Json marks;

	ASSERT_TRUE(r.Exited(0)) << Describe(r);
	EXPECT_EQ(r.out, "nvtx attached=1 first=0 second=1\n");
	marks = Report(dir.File("trace.bin"))["marks"];
	ASSERT_GE(marks.size(), 2u);
	EXPECT_EQ(marks[(size_t)0]["label"].Text(), "train");
	bool by_handle = false; /* a registered string has its text */
	for (size_t i = 0; i < marks.size(); i++)
		by_handle = by_handle || marks[i]["label"].Text() == "validate";
	EXPECT_TRUE(by_handle) << marks.Print();
	EXPECT_EQ(marks[marks.size() - 1]["label"].Text(), "here");
	c.env["MEMTRACE_GPU"] = "off";
	EXPECT_EQ(Execute(c).out, "nvtx attached=0 first=-2 second=-2\n");
}

/* Of 64 MiB a pool of 48, of which 4 and 1 are in use: 43 are free, and no part of them could go back. */
TEST(Gpu, NvtxPoolsAreReadAsCachingAllocatorsAre)
{
	TempDir dir;
	Result r = Execute(FakeGpu(dir, "nvtx_client", { "pool" }));
	Json d, pools;

	ASSERT_TRUE(r.Exited(0)) << Describe(r);
	EXPECT_EQ(r.out, "pool registered=1\n");
	d = DeviceOf(Report(dir.File("trace.bin")), 0);
	EXPECT_EQ(d["reserved_bytes"].Long(), 64 << 20);
	EXPECT_EQ(d["allocated_bytes"].Long(), 21 << 20);
	EXPECT_EQ(d["cached_free_bytes"].Long(), 43 << 20);
	EXPECT_EQ(d["unusable_bytes"].Long(), 43 << 20);
	pools = d["processes"][(size_t)0]["pools"];
	ASSERT_EQ(pools.size(), 1u);
	EXPECT_EQ(pools[(size_t)0]["name"].Text(), "my pool");
	EXPECT_EQ(pools[(size_t)0]["bytes"].Long(), 48 << 20);
	EXPECT_EQ(pools[(size_t)0]["used_bytes"].Long(), 5 << 20);
}

/* Contexts and kernels are what NVML says beyond the calls: of this process by its number, or as the
 * only client there is (a container's pids are others); of nobody if neither holds. */
TEST(Gpu, WhatNoCallShowsIsTheDriversNumberLessTheCalls)
{
	const struct {
		const char *pids;
		bool initialised;
		long bytes; /* -1: null */
	} cases[] = {
		{ "0", true, 512 << 20 },
		{ "4000001,0", true, 512 << 20 },
		{ "4000001", true, 512 << 20 },
		{ "4000001,4000002", true, -1 },
		{ "0", false, -1 },
	};

	for (const auto &c : cases) {
		TempDir dir;
		std::vector<std::string> patterns = { "plain" };
		Command run;
		Result r;
		Json d;

		if (c.initialised)
			patterns.insert(patterns.begin(), "nvml");
		run = FakeGpu(dir, "gpu_direct", patterns);
		run.env["FAKE_NVML"] = c.pids;
		r = Execute(run);
		ASSERT_TRUE(r.Exited(0)) << Describe(r);
		d = DeviceOf(Report(dir.File("trace.bin")), 0);
		EXPECT_EQ(d["unattributed_bytes"].IsNull(), c.bytes < 0) << c.pids;
		EXPECT_EQ(d["unattributed_bytes"].Long(), c.bytes) << c.pids;
		EXPECT_EQ(d["processes"][(size_t)0]["unattributed_from"].Text(),
			  c.bytes < 0 ? "" : "program");
	}
}

/* A driver that does not say what a process uses is not one that says 0, nor the largest number. */
TEST(Gpu, WhatTheDriverDoesNotSayIsNull)
{
	TempDir dir;
	Command run = FakeGpu(dir, "gpu_direct", { "nvml", "plain" });
	Result r;
	Json d;

	std::ofstream(dir.File("clients")) << "0 4000001 NA\n";
	run.env["FAKE_NVML_FILE"] = dir.File("clients");
	r = Execute(run);
	ASSERT_TRUE(r.Exited(0)) << Describe(r);
	d = DeviceOf(Report(dir.File("trace.bin")), 0);
	EXPECT_GE(Records(dir.File("trace.bin"), "gpu_used").size(), 1u);
	EXPECT_TRUE(d["unattributed_bytes"].IsNull());
	EXPECT_TRUE(d["processes"][(size_t)0]["unattributed_from"].IsNull());
}
