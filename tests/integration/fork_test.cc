/*
 * Processes: fork from a threaded parent never hangs a child, thousands of helpers cost little and
 * are counted exactly, every child is in the trace with its parent and its end.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "support/harness.h"
#include "support/trace_truth.h"

namespace memtrace_test {
namespace {

TEST(Fork, StressWithThreadsInDlopenAndExceptionsHangsNoChild)
{
	TempDir dir;
	long forks = Scaled(1000, 150);
	Command command = Program(dir, "fork_stress", { std::to_string(forks) });

	command.timeout_s = 600;
	Result result = Execute(command);

	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	EXPECT_EQ(result.out, "forks " + std::to_string(forks) + " hung 0 bad 0\n");

	/* Each child's own blocks: 100 by the child, 50 by its thread; its thread's table besides. */
	TraceTruth truth = ReadTruth(dir.File("trace.bin"));
	long children = 0;

	EXPECT_EQ(truth.error, "");
	EXPECT_EQ(truth.damage_text, "");
	for (const TracedProcess &p : truth.processes) {
		if (p.reason != MT_PROCESS_FORK)
			continue;
		children++;
		auto of_100 = p.allocations_by_size.find(100);

		/* 50 by the thread and one of the hundred. */
		ASSERT_NE(of_100, p.allocations_by_size.end()) << p.pid;
		EXPECT_EQ(of_100->second, 51) << p.pid;
		EXPECT_GE(p.whole.allocations, 150) << p.pid;
		EXPECT_LE(p.whole.allocations, 153) << p.pid;
		EXPECT_TRUE(p.has_exit) << p.pid;
	}
	EXPECT_EQ(children, forks);
}

void ExpectHelpers(const std::string &how)
{
	TempDir dir;
	long count = Scaled(10000, 1000), helpers = 0;
	Command command = Program(dir, "helpers", { how, std::to_string(count), ProgramPath("tiny") });
	struct stat st;

	command.timeout_s = 600;
	Result result = Execute(command);

	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	TraceTruth truth = ReadTruth(dir.File("trace.bin"));

	EXPECT_EQ(truth.error, "");
	EXPECT_EQ(truth.damage_text, "");
	EXPECT_EQ(truth.lost_events, 0u);
	for (const TracedProcess &p : truth.processes) {
		if (p.reason == MT_PROCESS_ROOT)
			continue;
		helpers++;
		EXPECT_EQ(p.whole.allocations, 3) << p.pid;
		EXPECT_EQ(p.whole.frees, 1) << p.pid;
		EXPECT_EQ(p.whole.bytes, 1001 + 1002 + 1003) << p.pid;
		EXPECT_EQ(p.whole.live_blocks, 2) << p.pid;
		EXPECT_EQ(p.whole.live_bytes, 1002 + 1003) << p.pid;
		EXPECT_TRUE(p.has_exit) << p.pid;
	}
	EXPECT_EQ(helpers, count);
	ASSERT_EQ(stat(dir.File("trace.bin").c_str(), &st), 0);
	/* 40 MB for 10,000, by size and by what it takes on the disk. */
	EXPECT_LE(st.st_size, 40000000.0 * (double)count / 10000 + (1 << 20));
	EXPECT_LE((double)st.st_blocks * 512, 40000000.0 * (double)count / 10000 + (1 << 20));

	Json json = Report(dir.File("trace.bin"));

	EXPECT_EQ((long)json["processes"].size(), count + 1);
	EXPECT_GE(json["trace"]["allocations"].Long(), 3 * count);
}

TEST(Fork, ThousandsOfForkedHelpersAreExactAndSmall)
{
	ExpectHelpers("fork");
}

TEST(Fork, ThousandsOfSpawnedHelpersAreExactAndSmall)
{
	ExpectHelpers("spawn");
}

TEST(Fork, EveryKindOfChildIsInTheReportWithItsParentAndEnd)
{
	TempDir dir;
	Result result = Execute(Program(dir, "kinds_of_children"));
	Json processes = Report(dir.File("trace.bin"))["processes"];
	std::map<long, int> statuses;

	ASSERT_TRUE(result.Exited(17)) << Describe(result);
	for (auto &line : Facts(result.out, "expect")) {
		long pid = line["pid"];
		bool found = false;

		for (size_t i = 0; i < processes.size(); i++) {
			Json p = processes[i];

			if (p["pid"].Long() != pid || p["command"].Text().find("leaf") == std::string::npos)
				continue;
			found = true;
			EXPECT_EQ(p["end"]["kind"].Text(), "exit") << p.Print();
			EXPECT_EQ(p["end"]["code"].Long(), line["allocations"]) << p.Print();
			EXPECT_EQ(p["role"].Text(), pid == processes[(size_t)0]["pid"].Long() ? "main" : "exec")
				<< p.Print();
			statuses[p["end"]["code"].Long()]++;
		}
		EXPECT_TRUE(found) << pid;
	}
	EXPECT_EQ(statuses[14], 2);
	EXPECT_EQ(statuses[17], 1);
}

} // namespace
} // namespace memtrace_test
