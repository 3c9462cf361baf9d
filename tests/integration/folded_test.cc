/*
 * Folding: the same program recorded with MEMTRACE_EVENTS=folded and =all gives the same totals,
 * live sets and sites, within a trace that does not grow with traffic.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <set>

extern "C" {
#include "memtrace/events.h"
#include "trace/merge.h"
}

#include "support/harness.h"
#include "support/trace_truth.h"

namespace memtrace_test {
namespace {

Result Recorded(const TempDir &dir, const std::string &events, const std::string &program,
		const std::vector<std::string> &arguments)
{
	Command command = Program(dir, program, arguments);

	command.env["MEMTRACE_EVENTS"] = events;
	command.env["MEMTRACE_OUT"] = dir.File(events + ".bin");
	return Execute(command);
}

long BytesOf(const std::string &path)
{
	struct stat st;

	return stat(path.c_str(), &st) ? -1 : (long)st.st_size;
}

/* What a report says of each site, by its stack. */
std::map<std::string, std::string> Sites(const Json &report)
{
	std::map<std::string, std::string> out;
	const char *numbers[] = { "allocations", "bytes_allocated", "live_bytes", "live_count" };

	for (size_t i = 0; i < report["sites"].size(); i++) {
		Json site = report["sites"][i];
		std::string &text = out[site["kind"].Text() + site["stack"].Print()];

		for (const char *number : numbers)
			text += std::string(number) + "=" + site[number].Print() + " ";
	}
	return out;
}

/* What a report says of its processes, in an order that does not depend on which sibling came first. */
std::vector<std::string> Processes(const Json &report)
{
	std::vector<std::string> out;
	const char *numbers[] = { "allocations",       "frees",
				  "bytes_allocated",   "live_at_end_bytes",
				  "live_at_end_count", "inherited_live_bytes",
				  "inherited_live_count", "inherited_freed_bytes" };

	for (size_t i = 0; i < report["processes"].size(); i++) {
		out.emplace_back();
		for (const char *number : numbers)
			out.back() += std::string(number) + "=" +
				      report["processes"][i][number].Print() + " ";
	}
	std::sort(out.begin(), out.end());
	return out;
}

void ExpectSameReport(const std::string &program, const std::vector<std::string> &arguments)
{
	SCOPED_TRACE(program);
	TempDir dir;

	for (const char *events : { "all", "folded" })
		ASSERT_EQ(Recorded(dir, events, program, arguments).Signal(), 0);
	Json all = Report(dir.File("all.bin"), { "--top", "100000" });
	Json folded = Report(dir.File("folded.bin"), { "--top", "100000" });

	EXPECT_EQ(all["trace"]["events_mode"].Text(), "all");
	EXPECT_EQ(folded["trace"]["events_mode"].Text(), "folded");
	for (const char *number : { "allocations", "frees", "bytes_allocated" })
		EXPECT_EQ(folded["trace"][number].Long(), all["trace"][number].Long()) << number;
	EXPECT_EQ(folded["trace"]["by_kind"].Print(), all["trace"]["by_kind"].Print());
	EXPECT_EQ(Processes(folded), Processes(all));
	EXPECT_EQ(Sites(folded), Sites(all));
	EXPECT_EQ(all["trace"]["peak_error_bytes"].Long(), 0);
	EXPECT_TRUE(folded["trace"]["complete"].True()) << folded["trace"].Print();
}

TEST(Folded, TotalsLiveSetsAndSitesEqualThoseOfAll)
{
	ExpectSameReport("heap_single", {});
	ExpectSameReport("heap_threads", { "own", "4", "20000" });
	ExpectSameReport("peaks", {});
	ExpectSameReport("fork_tree", { "2", "2", "950" });
}

TEST(Folded, ChildrenForkedInTrafficInheritBlockByBlock)
{
	for (const char *events : { "folded", "all" }) {
		TempDir dir;
		long children = Scaled(100, 10);
		Result result = Recorded(dir, events, "fork_in_traffic", { "4", std::to_string(children) });

		ASSERT_TRUE(result.Exited(0)) << Describe(result);
		/* A thread's own blocks are larger than 200 bytes, the program's are not. */
		ExpectTruth(dir.File(std::string(events) + ".bin"), result.out,
			    (size_t)children + 1, 200);
	}
}

TEST(Folded, TrafficLeavesNothing)
{
	TempDir dir;

	ASSERT_TRUE(Recorded(dir, "folded", "peaks", { "20000" }).Exited(0));
	Json report = Report(dir.File("folded.bin"));

	/* Six million pairs would be some 60 MB. 20,000 blocks stay; the nursery takes 1.7 MB. */
	EXPECT_EQ(report["trace"]["frees"].Long(), 6000000);
	EXPECT_EQ(report["processes"][size_t{ 0 }]["live_at_end_count"].Long() / 100, 200);
	EXPECT_LE(BytesOf(dir.File("folded.bin")), 3 << 20);
}

/* The program knows its peak. A thread's own stacks and the like are a few hundred bytes more. */
void ExpectPeak(const char *threads, long slack)
{
	SCOPED_TRACE(threads);
	TempDir dir;
	Result result = Recorded(dir, "folded", "peaks", { "200", "300", threads });
	long truth = Facts(result.out, "peak").at(0)["bytes"];

	ASSERT_TRUE(Recorded(dir, "all", "peaks", { "200", "300", threads }).Exited(0));
	Json all = Report(dir.File("all.bin")), folded = Report(dir.File("folded.bin"));
	long error = folded["trace"]["peak_error_bytes"].Long();
	long peak = folded["processes"][size_t{ 0 }]["peak_live_bytes"].Long();

	EXPECT_NEAR((double)all["processes"][size_t{ 0 }]["peak_live_bytes"].Long(), (double)truth, (double)slack);
	EXPECT_LE(peak, truth + slack);
	EXPECT_GE(peak + error + slack, truth);
	/* And the bound is worth something: bursts are a third of the whole. */
	EXPECT_LT(error, truth);
}

/* The parent's blocks of reaped.c that its trace lists one by one. */
long Listed(const std::string &path)
{
	char *error = nullptr;
	trace *t = trace_open(path.c_str(), &error);
	size_t count = 0;
	const trace_process *all = t ? trace_processes(t, &count) : nullptr;
	long listed = 0;

	EXPECT_NE(t, nullptr) << error;
	for (size_t i = 0; i < count; i++) {
		merge *m = merge_new(t, &all[i]);
		merge_event e;

		while (merge_next(m, &e))
			listed += e.record && e.record->id == MT_EV_SURVIVOR &&
				  e.record->u.survivor.size == 123457;
		merge_free(m);
	}
	trace_close(t);
	free(error);
	return listed;
}

/* A DataLoader's phase ends with its last worker: what is held then must not be folded later on. */
TEST(Folded, WhatIsHeldWhenAChildIsReapedIsListed)
{
	long listed[2];

	for (int reaps = 0; reaps < 2; reaps++) {
		TempDir dir;

		EXPECT_TRUE(Recorded(dir, "folded", "reaped", { reaps ? "reap" : "keep" }).Exited(0));
		listed[reaps] = Listed(dir.File("folded.bin"));
	}
	EXPECT_LE(listed[0], 10) << "a site has its counter from the fifth time on";
	EXPECT_EQ(listed[1], listed[0] + 1);
}

TEST(Folded, PeaksAreWithinTheStatedBound)
{
	ExpectPeak("1", 1024);
	ExpectPeak("4", 8192);
}

/* Counted per window of time, and a mark begins a new one: exact between marks. */
TEST(Folded, BetweenMarksTotalsAreExact)
{
	TempDir dir;
	Result result = Recorded(dir, "folded", "heap_threads", { "own", "4", "30000" });
	std::map<long, Totals> expected = Expected(result.out);

	ASSERT_EQ(expected.size(), 1u) << Describe(result);
	std::string id = std::to_string(expected.begin()->first);
	Json json = Report(dir.File("folded.bin"), { "--from", "@begin-" + id, "--to", "@end-" + id });

	EXPECT_EQ(json["trace"]["allocations"].Long(), expected.begin()->second.allocations);
	EXPECT_EQ(json["trace"]["frees"].Long(), expected.begin()->second.frees);
	EXPECT_EQ(json["trace"]["bytes_allocated"].Long(), expected.begin()->second.bytes);
}

} // namespace
} // namespace memtrace_test
