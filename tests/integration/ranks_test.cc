/*
 * Many forked workers of several ranks on one trace, all alive at once: nothing hangs, each one's
 * copies are right, and the report's first screen still can be read.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <map>
#include <sstream>

#include "support/harness.h"

namespace memtrace_test
{
namespace
{

struct Ranks {
	long ranks, workers, objects;
	bool torch;
};

Command Started(const TempDir &dir, const Ranks &r, const std::string &facts, bool traced)
{
	Command command;

	command.argv = { SourcePath("build/venv/bin/python"),
			 SourcePath("tests/programs/py_ranks.py"),
			 dir.File(facts),
			 std::to_string(r.ranks),
			 std::to_string(r.workers),
			 std::to_string(r.objects) };
	if (r.torch)
		command.argv.push_back("torch");
	command.dir = dir.path;
	command.env = { { "MEMTRACE_QUIET", "1" }, { "PYTHONDONTWRITEBYTECODE", "1" } };
	command.traced = traced;
	command.timeout_s = 600;
	return command;
}

/* By pid: what each worker noted last. */
std::map<long, Json> Noted(const std::string &path)
{
	std::istringstream lines(ReadAll(path));
	std::map<long, Json> noted;

	for (std::string line; std::getline(lines, line);) {
		Json row = Json::Parse(line);

		noted[row["pid"].Long()] = row;
	}
	return noted;
}

/* What a worker copies untraced: the tool's own memory is none of it. */
double Truth(const TempDir &dir, Ranks r)
{
	r.ranks = 1;
	r.workers = 2;
	Result result = Execute(Started(dir, r, "untraced", false));
	EXPECT_TRUE(result.Exited(0)) << Describe(result);
	auto noted = Noted(dir.File("untraced"));
	EXPECT_EQ(noted.size(), 2u);
	return noted.empty() ? 0 : noted.begin()->second["copied"].Number();
}

void ExpectWorkers(const Json &report, const std::map<long, Json> &noted, double truth)
{
	Json said = report["cow"]["workers"];
	std::map<long, double> copied;

	for (size_t i = 0; i < said.size(); i++)
		copied[said[i]["pid"].Long()] = said[i]["copied_bytes"].Number();
	for (const auto &entry : noted) {
		ASSERT_TRUE(copied.count(entry.first)) << "nobody walked " << entry.first;
		EXPECT_GT(copied[entry.first], 0.85 * truth);
		EXPECT_LT(copied[entry.first], 1.15 * truth);
	}
}

/* One finding for all of them. */
void ExpectFinding(const Json &report, size_t workers)
{
	Json findings = report["findings"];
	size_t found = 0;

	for (size_t i = 0; i < findings.size(); i++) {
		std::string title = findings[i]["title"].Text();

		if (findings[i]["kind"].Text() != "cow-blowup")
			continue;
		found++;
		EXPECT_NE(title.find(std::to_string(workers) + " forked workers"),
			  std::string::npos)
			<< title;
		EXPECT_NE(title.find("py_ranks.py:33 "), std::string::npos) << title;
		EXPECT_EQ(findings[i]["pids"].size(), workers);
	}
	EXPECT_EQ(found, 1u);
}

/* Of UTF-8. */
long Width(const std::string &text)
{
	long n = 0;

	for (char c : text)
		n += (c & 0xc0) != 0x80;
	return n;
}

/* What matters stands at the top, alike workers are one line, and however many they are the whole is
 * two or three screens; no line runs over the edge. */
void ExpectReadable(const TempDir &dir, const Ranks &r)
{
	std::string group = std::to_string(r.workers) + " x ";
	long lines = 0, title = -1, groups = 0;
	Command command;

	command.argv = { BuildPath("memtrace-report"), "--no-symbols", dir.File("trace.bin") };
	command.traced = false;
	command.env["COLUMNS"] = "100";
	Result result = Execute(command);
	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	std::istringstream text(result.out);
	for (std::string line; std::getline(text, line); lines++) {
		EXPECT_LE(Width(line), 100) << line;
		if (title < 0 && line.find("forked workers copied") != std::string::npos)
			title = lines;
		groups += line.find(group) != std::string::npos;
	}
	EXPECT_GE(title, 0) << result.out;
	EXPECT_LT(title, 20) << result.out;
	if (r.ranks * r.workers > 10) { /* few are listed one by one */
		EXPECT_EQ(groups, r.ranks) << result.out;
	}
	EXPECT_LT(lines, 150) << result.out;
}

void RunRanks(const Ranks &r)
{
	TempDir dir;

	if (!Exists(SourcePath("build/venv/bin/python")))
		GTEST_SKIP() << "no build/venv: scripts/install-deps brings it";
	double truth = Truth(dir, r);
	Result result = Execute(Started(dir, r, "facts", true));
	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	auto noted = Noted(dir.File("facts"));
	ASSERT_EQ(noted.size(), (size_t)(r.ranks * r.workers));
	Json report = Report(dir.File("trace.bin"));
	ExpectWorkers(report, noted, truth);
	ExpectFinding(report, noted.size());
	ExpectReadable(dir, r);
}

TEST(Ranks, ManyForkedWorkersAreOneFinding)
{
	RunRanks({ 3, Scaled(36, 10), 250000, false });
}

TEST(Ranks, DataLoadersOfTwoRanksAreOneFinding)
{
	if (!IsLong())
		GTEST_SKIP() << "make check-long: torch is imported five times";
	RunRanks({ 2, 2, 250000, true });
}

} // namespace
} // namespace memtrace_test
