/*
 * Verdicts on real PyTorch and numpy programs: the right word and the right line, bytes within 20 %
 * of what the program itself counts. All in `frames` mode: tensors and arrays are not small objects.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <cstring>
#include <regex>

#include "support/harness.h"
#include "support/queries.h"

namespace memtrace_test {
namespace {

const char *const program = "tests/programs/verdicts.py";

std::string Python() { return SourcePath("build/venv/bin/python"); }

class Verdicts : public testing::Test {
    protected:
	void SetUp() override
	{
		if (!Exists(Python()))
			GTEST_SKIP() << "no build/venv: scripts/install-deps brings it";
	}

	/* Runs a case; returns the program's own count. */
	double Run(const std::string &name, long steps, const std::string &mode = "",
		   const std::string &events = "folded")
	{
		Command command;
		std::smatch said;

		command.argv = { Python(), SourcePath(program), name, std::to_string(steps) };
		command.dir = dir.path;
		command.env["MEMTRACE_QUIET"] = "1";
		command.env["MEMTRACE_EVENTS"] = events;
		if (!mode.empty()) {
			command.env["MEMTRACE_MODE"] = mode;
			command.env["MEMTRACE_SAMPLE_BYTES"] = "64K";
		}
		command.timeout_s = 300;
		Result r = Execute(command);

		EXPECT_TRUE(r.Exited(0)) << Describe(r);
		report = ReportWithSymbols(dir.File("trace.bin")); /* they tell caches */
		return std::regex_search(r.out, said, std::regex("kept (\\d+) bytes"))
			       ? atof(said[1].str().c_str())
			       : -1;
	}

	std::vector<Json> Findings(const std::string &kind) const
	{
		std::vector<Json> out;

		for (size_t i = 0; i < report["findings"].size(); i++)
			if (report["findings"][i]["kind"].Text() == kind)
				out.push_back(report["findings"][i]);
		return out;
	}

	/* Rows of the section growth whose site is of that line. */
	std::vector<Json> Rows(const std::string &place) const
	{
		std::vector<Json> out;

		for (size_t i = 0; i < report["growth"].size(); i++)
			for (size_t k = 0; k < report["sites"].size(); k++)
				if (report["sites"][k]["id"].Long() ==
					    report["growth"][i]["site"].Long() &&
				    report["sites"][k]["place"].Text() == place)
					out.push_back(report["growth"][i]);
		return out;
	}

	TempDir dir;
	Json report;
};

TEST_F(Verdicts, AListOfLossesWithTheirGraphsIsALeakOfTheLineThatMadeThem)
{
	double truth = Run("losses", Scaled(6000, 600));
	double bytes = 0;

	for (const Json &f : Findings("leak")) {
		EXPECT_NE(f["title"].Text().find("verdicts.py"), std::string::npos) << f.Print();
		bytes += f["bytes"].Number();
	}
	ASSERT_FALSE(Findings("leak").empty()) << report["findings"].Print();
	EXPECT_NE(Findings("leak")[0]["title"].Text().find(PlaceOf(program, "# LOSS")), std::string::npos)
		<< Findings("leak")[0].Print();
	EXPECT_NEAR(bytes, truth, 0.2 * truth);
}

TEST_F(Verdicts, AnUnboundedDictInWorkersIsALeakOfEachOfThem)
{
	double truth = Run("worker-dict", Scaled(3000, 300));
	std::vector<Json> leaks = Findings("leak");

	ASSERT_EQ(leaks.size(), 1u) << report["findings"].Print();
	EXPECT_NE(leaks[0]["title"].Text().find(PlaceOf(program, "# ITEM")), std::string::npos)
		<< leaks[0].Print();
	EXPECT_EQ(leaks[0]["procs"].size(), 2u);
	EXPECT_NEAR(leaks[0]["bytes"].Number(), truth, 0.2 * truth);
}

TEST_F(Verdicts, ABoundedCacheIsBoundedAtItsLevel)
{
	for (const char *events : { "all", "folded" }) {
		double truth = Run("lru", Scaled(300000, 60000), "", events);
		std::vector<Json> rows = Rows(PlaceOf(program, "# CACHE"));

		EXPECT_TRUE(Findings("leak").empty()) << report["findings"].Print();
		EXPECT_TRUE(Findings("growth").empty()) << report["findings"].Print();
		ASSERT_FALSE(rows.empty()) << report["growth"].Print();
		if (!strcmp(events, "all")) {
			EXPECT_EQ(rows[0]["verdict"].Text(), "bounded") << rows[0].Print();
			EXPECT_NEAR(rows[0]["level_bytes"].Number(), truth, 0.2 * truth);
		} else {
			/* Which of the blocks lived together is not in the trace: an interval is given. */
			double low = rows[0]["level_bytes_low"].Number();
			double high = rows[0]["level_bytes_high"].Number();

			EXPECT_EQ(rows[0]["verdict"].Text(), "bounded") << rows[0].Print();
			EXPECT_LE(low, 1.01 * truth) << rows[0].Print();
			EXPECT_GE(high, 0.99 * truth) << rows[0].Print();
			if (!rows[0]["level_bytes"].IsNull()) {
				EXPECT_LE(high, 2 * low);
			}
		}
	}
}

TEST_F(Verdicts, ABoundedCacheIsNoLeakInASampleEither)
{
	Run("lru", Scaled(300000, 60000), "sample");
	EXPECT_TRUE(Findings("leak").empty()) << report["findings"].Print();
	EXPECT_TRUE(Findings("growth").empty()) << report["findings"].Print();
}

TEST_F(Verdicts, LossesAreFoundInASampleWithinTheirBytes)
{
	double truth = Run("losses", Scaled(6000, 600), "sample");
	double bytes = 0;

	for (const Json &f : Findings("leak"))
		bytes += f["bytes"].Number();
	EXPECT_NEAR(bytes, truth, 0.25 * truth) << report["findings"].Print();
}

/* What oneDNN keeps for each shape lies in caches with a limit: memory that grows and is not lost. */
TEST_F(Verdicts, ConvolutionsOfManyShapesGrowInACacheAndAreNoLeak)
{
	Run("shapes", Scaled(3000, 300));
	EXPECT_TRUE(Findings("leak").empty()) << report["findings"].Print();
	for (const Json &f : Findings("growth"))
		EXPECT_EQ(f["severity"].Text(), "info") << f.Print();
}

/* Of the process that holds them: a mapping of shared memory for each batch. */
TEST_F(Verdicts, BatchesKeptInSharedMemoryAreLost)
{
	double truth = Run("batches", Scaled(400, 200)), lost = 0;

	for (size_t i = 0; i < report["growth"].size(); i++)
		for (size_t k = 0; k < report["sites"].size(); k++) {
			Json site = report["sites"][k], row = report["growth"][i];

			if (site["id"].Long() != row["site"].Long() ||
			    site["kind"].Text() != "shm" ||
			    (row["verdict"].Text() != "leak" && row["verdict"].Text() != "growth"))
				continue;
			lost += row["bytes"].Number();
		}
	EXPECT_NEAR(lost, truth, 0.2 * truth) << report["growth"].Print();
	ASSERT_EQ(Findings("shm-leak").size(), 1u) << report["findings"].Print();
	EXPECT_NEAR(Findings("shm-leak")[0]["bytes"].Number(), truth, 0.2 * truth);
}

TEST_F(Verdicts, ARingOfBatchesInSharedMemoryIsNoFinding)
{
	if (!IsLong())
		GTEST_SKIP() << "part of make check-long";
	Run("ring", 400);
	for (const char *kind : { "leak", "growth", "shm-leak" })
		EXPECT_TRUE(Findings(kind).empty()) << report["findings"].Print();
}

TEST_F(Verdicts, ACleanTrainingRunHasNoFindingAboveInfo)
{
	Run("clean", Scaled(8000, 960));
	for (size_t i = 0; i < report["findings"].size(); i++)
		EXPECT_EQ(report["findings"][i]["severity"].Text(), "info")
			<< report["findings"][i].Print();
	EXPECT_TRUE(Findings("leak").empty()) << report["findings"].Print();
	/* It names no phases: its workers tell of three epochs. */
	ASSERT_EQ(report["phases"].size(), 3u) << report["phases"].Print();
	for (size_t i = 0; i < 3; i++) {
		Json phase = report["phases"][i];

		EXPECT_EQ(phase["from"].Text(), "workers");
		EXPECT_FALSE(phase["open"].True());
		EXPECT_LT(phase["start_s"].Number(), phase["end_s"].Number());
		EXPECT_LE(phase["kept_bytes"].Long(), phase["held_at_end_bytes"].Long());
		EXPECT_LE(i ? report["phases"][i - 1]["end_s"].Number() : 0,
			  phase["start_s"].Number());
	}
	/* Adam's two moments of each weight are born in the first epoch and stay. */
	EXPECT_GT(report["phases"][size_t(0)]["kept_bytes"].Long(), 2 * 4 * 5000);
}

} // namespace
} // namespace memtrace_test
