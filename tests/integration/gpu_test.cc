/*
 * GPU memory over the fakes of tests/support/cuda: the report must equal the fake driver's ledger,
 * and the program must not notice.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

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
	EXPECT_EQ(marks[marks.size() - 1]["label"].Text(), "here");
	c.env["MEMTRACE_GPU"] = "off";
	EXPECT_EQ(Execute(c).out, "nvtx attached=0 first=-2 second=-2\n");
}
