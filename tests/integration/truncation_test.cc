/*
 * A real trace, cut at every byte: it is read as far as it goes, no number is larger than in the
 * whole, and whenever something is missing the report says so.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>
#include <string.h>

#include <algorithm>
#include <set>

#include "pipeline/run.h"
#include "support/harness.h"

namespace memtrace_test {
namespace {

struct Numbers {
	uint64_t allocations = 0, frees = 0, bytes = 0, live_blocks = 0;

	bool operator==(const Numbers &o) const
	{
		return allocations == o.allocations && frees == o.frees && bytes == o.bytes &&
		       live_blocks == o.live_blocks;
	}
};

struct Reading {
	bool readable = false, complete = false;
	uint64_t problems = 0;
	std::map<uint32_t, Numbers> by_pid; /* 0: processes whose record of themselves is gone */
	std::multiset<std::string> commands;
};

Reading ReadPart(const std::string &bytes, size_t size)
{
	pipeline_options options = {};
	pipeline_report report;
	/* A copy of exactly this length: reading behind its end is seen by memory checkers. */
	std::vector<char> part(bytes.begin(), bytes.begin() + (long)size);
	model *m = pipeline_run_buffer(part.data(), part.size(), "cut.bin", &options, &report);
	Reading r;

	r.readable = m;
	for (size_t i = 0; m && i < m->process_count; i++) {
		const process &p = m->processes[i];
		Numbers &n = r.by_pid[p.pid];

		n.allocations += p.allocations;
		n.frees += p.frees;
		n.bytes += p.bytes_allocated;
		n.live_blocks += p.live_count;
		r.commands.insert(p.command ? p.command : "");
	}
	if (m && m->trace_count)
		r.complete = m->traces[0].complete;
	for (int c = COUNT_HEADER_DAMAGE; report.check_count && c < COUNTS; c++)
		if (pipeline_count_rows[c].is_problem)
			r.problems += report.checks[0].counts[c];
	model_free(m);
	pipeline_report_release(&report);
	return r;
}

/* Nothing that the whole has not; and no silence about what is missing. */
void ExpectPart(const Reading &whole, const Reading &part, size_t size)
{
	Numbers sum, all;

	for (const auto &[pid, n] : part.by_pid) {
		auto same = whole.by_pid.find(pid);

		sum.allocations += n.allocations;
		sum.frees += n.frees;
		sum.bytes += n.bytes;
		if (pid == 0)
			continue;
		ASSERT_NE(same, whole.by_pid.end()) << "cut at " << size << ": pid " << pid;
		ASSERT_LE(n.allocations, same->second.allocations) << "cut at " << size;
		ASSERT_LE(n.frees, same->second.frees) << "cut at " << size;
		ASSERT_LE(n.bytes, same->second.bytes) << "cut at " << size;
	}
	for (const auto &[pid, n] : whole.by_pid) {
		all.allocations += n.allocations;
		all.frees += n.frees;
		all.bytes += n.bytes;
	}
	ASSERT_LE(sum.allocations, all.allocations) << "cut at " << size;
	ASSERT_LE(sum.frees, all.frees) << "cut at " << size;
	ASSERT_LE(sum.bytes, all.bytes) << "cut at " << size;
	if (part.readable && !(part.by_pid == whole.by_pid)) {
		ASSERT_FALSE(part.complete) << "cut at " << size;
		ASSERT_GT(part.problems, 0u) << "cut at " << size;
	}
}

class Truncation : public testing::Test {
    protected:
	void Record(const std::string &program, const std::vector<std::string> &arguments)
	{
		Command command = Program(dir, program, arguments);

		command.env["MEMTRACE_QUIET"] = "1";
		result = Execute(command);
		bytes = ReadAll(dir.File("trace.bin"));
		ASSERT_GT(bytes.size(), 1000u) << Describe(result);
		whole = ReadPart(bytes, bytes.size());
		ASSERT_TRUE(whole.readable);
		ASSERT_TRUE(whole.complete);
		ASSERT_EQ(whole.problems, 0u);
	}
	/* Every offset; of long runs of zeros only each 64th, unless there is time. */
	void CutEverywhere()
	{
		size_t zeros = 0, first_readable = 0;

		for (size_t size = 0; size < bytes.size(); size++) {
			zeros = size && !bytes[size - 1] ? zeros + 1 : 0;
			if (!IsLong() && zeros > 256 && size % 64)
				continue;
			Reading part = ReadPart(bytes, size);

			ASSERT_NO_FATAL_FAILURE(ExpectPart(whole, part, size));
			if (!part.readable)
				ASSERT_EQ(first_readable, 0u) << "cut at " << size;
			else if (!first_readable)
				first_readable = size;
		}
		/* Only without a header and any record is there nothing to tell. */
		EXPECT_GT(first_readable, 0u);
		EXPECT_LT(first_readable, 16384u);
	}

	TempDir dir;
	Result result;
	std::string bytes;
	Reading whole;
};

TEST_F(Truncation, OfAForkTreeAtAnyByte)
{
	ASSERT_NO_FATAL_FAILURE(Record("fork_tree", { "1", "2", "5" }));
	ASSERT_EQ(whole.by_pid.size(), 3u);
	CutEverywhere();
}

TEST_F(Truncation, OfAThreadedProgramAtAnyByte)
{
	ASSERT_NO_FATAL_FAILURE(Record("heap_threads", { "cross", "3", "60" }));
	CutEverywhere();
}

/* The program: no signal, a report or one line that says which file and why. */
TEST_F(Truncation, AsTheReportProgramSeesIt)
{
	ASSERT_NO_FATAL_FAILURE(Record("fork_tree", { "1", "2", "5" }));
	for (size_t size = 1; size < bytes.size(); size += size < 8192 ? 503 : 9973) {
		Command command;

		WriteAll(dir.File("cut.bin"), bytes.substr(0, size));
		command.argv = { BuildPath("memtrace-report"), "--json", dir.File("cut.bin") };
		command.traced = false;
		Result shown = Execute(command);
		Json json = Json::Parse(shown.out);

		if (shown.Exited(3)) {
			EXPECT_EQ(std::count(shown.err.begin(), shown.err.end(), '\n'), 1) << shown.err;
			EXPECT_NE(shown.err.find("cut.bin"), std::string::npos) << shown.err;
			continue;
		}
		ASSERT_TRUE(shown.Exited(0)) << "cut at " << size << ": " << Describe(shown);
		ASSERT_FALSE(json.IsNull()) << "cut at " << size;
		EXPECT_LE(json["processes"].size(), 3u) << "cut at " << size;
		if (json["trace"]["complete"].True())
			continue;
		EXPECT_TRUE(json["trace"]["recovered"].True()) << "cut at " << size;
		EXPECT_GT(json["trace"]["notes"].size(), 0u) << "cut at " << size;
	}
}

} // namespace
} // namespace memtrace_test
