/*
 * scripts/bench runs, and what it prints is a table: every row has its figure, or says why it has
 * none. What the figures are is not a matter of tests; runs are a few milliseconds long here.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <sstream>

#include "support/harness.h"

namespace memtrace_test {
namespace {

Result Bench(const TempDir &dir, const std::vector<std::string> &parts)
{
	Command command;

	command.argv = { "python3", SourcePath("scripts/bench") };
	command.argv.insert(command.argv.end(), parts.begin(), parts.end());
	command.dir = dir.path;
	command.traced = false;
	command.env = { { "B", BuildPath("") },	   { "BENCH_JSON", dir.File("bench.json") },
			{ "BENCH_DIR", dir.path }, { "ROUNDS", "6" },
			{ "PEER_ROUNDS", "1" },	   { "PAIRS", "2000" },
			{ "THREADS", "100" },	   { "MINUTES", "5" } };
	return Execute(command);
}

void ExpectSound(const Json &row)
{
	bool measured = row["median"].IsNumber();

	SCOPED_TRACE(row.Print());
	EXPECT_FALSE(row["what"].Text().empty());
	EXPECT_TRUE(measured || !row["note"].Text().empty()) << "neither a figure nor a reason";
	if (row["low"].IsNumber()) {
		EXPECT_LE(row["low"].Number(), row["high"].Number());
		EXPECT_GE(row["n"].Long(), 6) << "too few runs for a 95 % interval";
	}
	if (row["limit"].IsNumber() && measured && row["low"].IsNumber()) {
		bool below = row["op"].Text() == "<=";
		double worse = (below ? row["high"] : row["low"]).Number();
		double limit = row["limit"].Number();

		EXPECT_EQ(row["verdict"].Text(),
			  (below ? worse <= limit : worse >= limit) ? "within" : "missed");
	}
	if (row["limit"].IsNumber() && !measured) {
		EXPECT_EQ(row["verdict"].Text(), "not measured");
	}
}

TEST(Bench, EveryRowHasAFigureOrSaysWhyNot)
{
	TempDir dir;
	Result result = Bench(dir, { "pairs", "threads" });
	Json rows = Json::Parse(ReadAll(dir.File("bench.json")))["rows"];
	int measured = 0;

	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	ASSERT_GT(rows.size(), 20u) << Describe(result);
	for (size_t i = 0; i < rows.size(); i++) {
		ExpectSound(rows[i]);
		EXPECT_NE(result.out.find(rows[i]["what"].Text()), std::string::npos);
		if (rows[i]["tool"].Text() == "all" && rows[i]["low"].IsNumber())
			measured++;
	}
	EXPECT_GE(measured, 10) << "memtrace itself was not measured: " << Describe(result);
}

std::string Python(const std::string &script, const std::map<std::string, std::string> &env = {})
{
	TempDir dir;
	Command command;

	command.argv = { "python3", "-B", "-c", script };
	command.dir = dir.path;
	command.traced = false;
	command.env = env;
	command.env["PYTHONPATH"] = SourcePath("scripts/bench.d");
	return Execute(command).out;
}

// Critical values of the two-sided signed-rank test at 0.05, as every table of it has them; and the
// interval of ten numbers worked out by hand: their Walsh averages without eight at each end.
TEST(Bench, IntervalsFollowThePublishedTables)
{
	EXPECT_EQ(Python("import stats\n"
			 "print([stats.trimmed(n) for n in (5, 6, 8, 10, 15, 20, 25)])\n"
			 "print(stats.interval([0] * 5), stats.interval([1, 2, 3, 4, 5, 60]))\n"
			 "print(stats.interval([float(i) for i in range(10)]))\n"),
		  "[None, 0, 3, 8, 25, 52, 89]\n"
		  "None (1.0, 60.0)\n"
		  "(2.0, 7.0)\n");
}

TEST(Bench, VerdictsGoByTheWorseEndOfTheInterval)
{
	EXPECT_EQ(Python("from table import Row\n"
			 "def judge(key, *values):\n"
			 "    print(Row('p', 'w', 't', '', values[0] and values, 6, key).verdict())\n"
			 "judge('pairs.added', 79, 70, 81)\n" /* at most 80 */
			 "judge('pairs.added', 79, 70, 80)\n"
			 "judge('pairs.scaling', 0.96, 0.94, 1)\n" /* at least 0.95 */
			 "judge('pairs.scaling', 0.96, 0.95, 1)\n"
			 "judge('pairs.added', 79, None, None)\n"
			 "judge('pairs.added', 81, None, None)\n"
			 "judge('pairs.added', None)\n"),
		  "missed\nwithin\nmissed\nwithin\nopen\nmissed\nnot measured\n");
}

/* What is counted one by one is the same each time, and the shim's own share of a dormant process. */
TEST(Bench, InstructionsAreCountedExactly)
{
	EXPECT_EQ(Python("import part_detach as d\n"
			 "dormant = {'LD_PRELOAD': d.settings.SHIM, 'MEMTRACE_MODE': 'dormant'}\n"
			 "plain, loaded = d.Loop({}, None, 20), d.Loop(dormant, None, 20)\n"
			 "d.STEPPED = 20\n"
			 "first, second, third = d.per_pair(plain), d.per_pair(plain), d.per_pair(loaded)\n"
			 "plain.close(), loaded.close()\n"
			 "print(first == second, 20 < first < 2000, 10 < third - first < 200)\n",
			 { { "B", BuildPath("") } }),
		  "True True True\n");
}

TEST(Bench, UnknownPartIsOneClearLine)
{
	TempDir dir;
	Result result = Bench(dir, { "paris" });

	EXPECT_TRUE(result.Exited(1)) << Describe(result);
	EXPECT_EQ(result.err.find("bench: no part 'paris': pairs "), 0u) << result.err;
	EXPECT_EQ(result.out, "");
}

} // namespace
} // namespace memtrace_test
