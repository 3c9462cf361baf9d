/*
 * Totals are exact: what programs count of themselves, what an independent preload counts, what the
 * records say and what the report says are the same numbers.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include "support/harness.h"
#include "support/trace_truth.h"

namespace memtrace_test {
namespace {

/* The program's own count against the records. */
void ExpectExact(const std::string &name, const std::vector<std::string> &arguments,
		 size_t processes)
{
	TempDir dir;
	Result result = Execute(Program(dir, name, arguments));

	ASSERT_TRUE(WIFEXITED(result.status)) << Describe(result);
	ExpectTruth(dir.File("trace.bin"), result.out, processes);
}

/* The report, restricted to each process's window, against the program's own count. */
void ExpectReported(const std::string &name, const std::vector<std::string> &arguments)
{
	TempDir dir;
	Result result = Execute(Program(dir, name, arguments));
	std::map<long, Totals> expected = Expected(result.out);

	ASSERT_FALSE(expected.empty()) << Describe(result);
	for (const auto &[pid, want] : expected) {
		std::string id = std::to_string(pid);
		Json json = Report(dir.File("trace.bin"), { "--pid", id, "--from", "@begin-" + id,
							    "--to", "@end-" + id });
		Json heap = json["trace"]["by_kind"]["heap"];

		EXPECT_EQ(json["trace"]["allocations"].Long(), want.allocations) << "pid " << id;
		/* Freeing an ancestor's block is counted apart. */
		EXPECT_EQ(json["trace"]["frees"].Long(), want.frees - want.inherited_frees)
			<< "pid " << id;
		EXPECT_EQ(json["trace"]["bytes_allocated"].Long(), want.bytes) << "pid " << id;
		EXPECT_EQ(heap["allocations"].Long(), want.allocations) << "pid " << id;
	}
}

TEST(Totals, OneThreadEveryCall)
{
	ExpectExact("heap_single", { std::to_string(Scaled(200, 20)) }, 1);
}

TEST(Totals, OperatorNewStrdupAndContainers)
{
	ExpectExact("heap_cxx", { std::to_string(Scaled(1000, 50)) }, 1);
}

TEST(Totals, ForkTreeThreeLevelsDeepLeavingByUnderscoreExit)
{
	ExpectExact("fork_tree", { "3", "2", "50" }, 15);
}

TEST(Totals, WideForkTree)
{
	ExpectExact("fork_tree", { "2", "8", "200" }, 73);
}

TEST(Totals, EveryWayToMakeAChild)
{
	ExpectExact("kinds_of_children", {}, 8);
}

TEST(Totals, ReportSaysTheSameForOneThread)
{
	ExpectReported("heap_single", { "5" });
}

TEST(Totals, ReportSaysTheSameForAForkTree)
{
	ExpectReported("fork_tree", { "3", "1", "50" });
}

/* Blocks alive at the end of each process, without any window: the whole process is counted. */
TEST(Totals, ReportedProcessesEqualTheRecords)
{
	TempDir dir;
	Result result = Execute(Program(dir, "fork_tree", { "3", "2", "40" }));
	TraceTruth truth = ReadTruth(dir.File("trace.bin"));
	Json processes = Report(dir.File("trace.bin"))["processes"];
	long allocations = 0, frees = 0, bytes = 0;

	ASSERT_TRUE(result.Exited(7)) << Describe(result);
	ASSERT_EQ(truth.processes.size(), 15u);
	ASSERT_EQ(processes.size(), 15u);
	for (size_t i = 0; i < processes.size(); i++) {
		Json p = processes[i];
		const TracedProcess *want = truth.ByPid((uint32_t)p["pid"].Long());

		ASSERT_TRUE(want) << p["pid"].Print();
		EXPECT_EQ(p["allocations"].Long(), want->whole.allocations);
		EXPECT_EQ(p["frees"].Long(), want->whole.frees - want->whole.inherited_frees);
		EXPECT_EQ(p["inherited_freed_count"].Long(), want->whole.inherited_frees);
		EXPECT_EQ(p["bytes_allocated"].Long(), want->whole.bytes);
		EXPECT_EQ(p["live_at_end_bytes"].Long(), want->whole.live_bytes);
		EXPECT_EQ(p["live_at_end_count"].Long(), want->whole.live_blocks);
		EXPECT_EQ(p["inherited_freed_bytes"].Long(), want->whole.inherited_bytes);
		EXPECT_EQ(p["end"]["kind"].Text(), "exit");
		if (want->reason == MT_PROCESS_ROOT)
			EXPECT_EQ(p["end"]["code"].Long(), 7);
		else
			EXPECT_GE(p["end"]["code"].Long(), 40);
		allocations += want->whole.allocations;
		frees += want->whole.frees - want->whole.inherited_frees;
		bytes += want->whole.bytes;
	}
	Json all = Report(dir.File("trace.bin"))["trace"];

	EXPECT_EQ(all["allocations"].Long(), allocations);
	EXPECT_EQ(all["frees"].Long(), frees);
	EXPECT_EQ(all["bytes_allocated"].Long(), bytes);
	EXPECT_TRUE(all["complete"].True());
	EXPECT_EQ(all["lost_events"].Long(), 0);
}

/* The referee in front of the shim sees what the program asks for, behind it what we hand on. */
void ExpectSameAsReferee(const std::string &program, const std::vector<std::string> &arguments,
			 bool referee_first)
{
	TempDir dir;
	Command command = Program(dir, program, arguments);
	std::string referee = ProgramPath("counting_preload.so");

	command.preload = referee_first ? referee + " " + ShimPath() : ShimPath() + " " + referee;
	command.env["COUNTING_OUT"] = dir.File("counted");
	Result result = Execute(command);
	TraceTruth truth = ReadTruth(dir.File("trace.bin"));
	auto counted = Facts(ReadAll(dir.File("counted")), "counted");

	ASSERT_FALSE(counted.empty()) << Describe(result);
	for (auto &line : counted) {
		const TracedProcess *p = truth.ByPid((uint32_t)line["pid"]);

		ASSERT_TRUE(p) << line["pid"];
		EXPECT_EQ(p->window.allocations, line["allocations"]) << program;
		EXPECT_EQ(p->window.frees, line["frees"]) << program;
		EXPECT_EQ(p->window.bytes, line["bytes"]) << program;
	}
}

TEST(Totals, EqualAnIndependentCountingPreloadInFront)
{
	ExpectSameAsReferee("heap_single", { "10" }, true);
	ExpectSameAsReferee("fork_tree", { "3", "2", "30" }, true);
	ExpectSameAsReferee("heap_threads", { "cross", "4", "20000" }, true);
}

TEST(Totals, EqualAnIndependentCountingPreloadBehind)
{
	ExpectSameAsReferee("heap_single", { "10" }, false);
	ExpectSameAsReferee("fork_tree", { "3", "2", "30" }, false);
	ExpectSameAsReferee("heap_threads", { "cross", "4", "20000" }, false);
}

TEST(Totals, MappingsByKind)
{
	TempDir dir;
	Result result = Execute(Program(dir, "mappings"));
	auto expected = Facts(result.out, "expect-kind");
	const char *names[] = { "mmap", "shm" };

	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	ASSERT_EQ(expected.size(), 2u);
	std::string id = std::to_string(expected[0]["pid"]);
	Json json = Report(dir.File("trace.bin"),
			   { "--pid", id, "--from", "@begin-" + id, "--to", "@end-" + id });

	for (size_t i = 0; i < 2; i++) {
		Json kind = json["trace"]["by_kind"][names[i]];

		EXPECT_EQ(kind["allocations"].Long(), expected[i]["allocations"]) << names[i];
		EXPECT_EQ(kind["bytes_allocated"].Long(), expected[i]["bytes"]) << names[i];
		EXPECT_EQ(kind["live_bytes"].Long(), expected[i]["live_bytes"]) << names[i];
	}
}

/* What the program prints of errno, results and alignment does not depend on being traced. */
TEST(Totals, TheLibrarysPromisesStand)
{
	TempDir dir;
	Command command = Program(dir, "semantics");
	Result traced = Execute(command);

	command.traced = false;
	Result plain = Execute(command);

	ASSERT_TRUE(plain.Exited(0)) << Describe(plain);
	EXPECT_EQ(traced.status, plain.status);
	EXPECT_EQ(traced.out, plain.out);
}

/* A handler's mapping can't be recorded while its thread writes a record: it is lost and said so. */
TEST(Totals, SignalHandlersThatMapAndAllocateAreCountedToo)
{
	TempDir dir;
	Result result = Execute(Program(dir, "signal_alloc", { std::to_string(Scaled(3000000, 300000)) }));
	auto signals = Facts(result.out, "signals");
	TraceTruth truth = ReadTruth(dir.File("trace.bin"));

	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	ASSERT_EQ(truth.processes.size(), 1u);
	std::map<long, Totals> expected = Expected(result.out);
	long maps = atol(result.out.substr(result.out.find(" maps ") + 6).c_str());

	EXPECT_GT(maps, 5) << result.out;
	EXPECT_EQ(truth.processes[0].window, expected.begin()->second);
	long recorded = truth.processes[0].maps_by_size[12288];

	EXPECT_GT(recorded, 0);
	EXPECT_EQ((long)truth.lost_events, 2 * (maps - recorded)); /* each a mmap and a munmap */
	EXPECT_EQ(truth.damage_text, "");
}

} // namespace
} // namespace memtrace_test
