/*
 * Many threads: totals stay exact when blocks are freed and resized in other threads and addresses
 * come back at once, when threads come and go, and no order of events shows an address in use twice.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include "support/harness.h"
#include "support/trace_truth.h"

namespace memtrace_test {
namespace {

void ExpectExact(const std::vector<std::string> &arguments)
{
	TempDir dir;
	Result result = Execute(Program(dir, "heap_threads", arguments));

	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	ExpectTruth(dir.File("trace.bin"), result.out, 1);
}

std::string Operations() { return std::to_string(Scaled(1000000, 20000)); }

TEST(Threads, OwnBlocks)
{
	ExpectExact({ "own", "4", Operations() });
}

TEST(Threads, FreesAcrossThreadsWithAddressReuse)
{
	ExpectExact({ "cross", "4", Operations() });
}

TEST(Threads, SixtyFourThreads)
{
	ExpectExact({ "cross", "64", std::to_string(Scaled(50000, 2000)) });
}

TEST(Threads, BlocksHandedOverAsFastAsCoresCan)
{
	TempDir dir;
	Result result = Execute(Program(dir, "heap_pass", { std::to_string(Scaled(1000000, 50000)) }));

	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	ExpectTruth(dir.File("trace.bin"), result.out, 1);
}

/* glibc gives a new thread a table of its own (over 200 bytes); the program's blocks are smaller. */
TEST(Threads, ThatComeAndGo)
{
	TempDir dir;
	Result result = Execute(Program(dir, "thread_churn", { std::to_string(Scaled(20000, 1000)), "8" }));

	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	ExpectTruth(dir.File("trace.bin"), result.out, 1, 200);
}

TEST(Threads, ReportOfTheMergedStreamsIsExact)
{
	TempDir dir;
	Result result = Execute(Program(dir, "heap_threads", { "cross", "4", "20000" }));
	std::map<long, Totals> expected = Expected(result.out);

	ASSERT_EQ(expected.size(), 1u) << Describe(result);
	std::string id = std::to_string(expected.begin()->first);
	Json json = Report(dir.File("trace.bin"), { "--from", "@begin-" + id, "--to", "@end-" + id });

	EXPECT_EQ(json["trace"]["allocations"].Long(), expected.begin()->second.allocations);
	EXPECT_EQ(json["trace"]["frees"].Long(), expected.begin()->second.frees);
	EXPECT_EQ(json["trace"]["bytes_allocated"].Long(), expected.begin()->second.bytes);
	EXPECT_EQ(json["trace"]["missed_frees"].Long(), 0);
	EXPECT_TRUE(json["trace"]["complete"].True()) << json["trace"].Print();
}

} // namespace
} // namespace memtrace_test
