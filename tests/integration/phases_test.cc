/*
 * Memory that a phase leaves behind, in real PyTorch programs: the finding, its line, its bytes
 * against the program's own count; and their twins that release it, without the finding.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <regex>

#include "support/harness.h"
#include "support/queries.h"

namespace memtrace_test
{
namespace
{

const char *const program = "tests/programs/phases.py";

struct Said {
	double truth = -1; /* the program's own count */
	Json report;
	std::vector<Json> left; /* findings */
};

Said RunPhases(const std::string &name, const std::string &what)
{
	TempDir dir;
	Command command;
	std::smatch said;
	Said out;

	command.argv = { SourcePath("build/venv/bin/python"), SourcePath(program), name, what };
	command.dir = dir.path;
	command.env["MEMTRACE_QUIET"] = "1";
	command.timeout_s = 300;
	Result r = Execute(command);

	EXPECT_TRUE(r.Exited(0)) << Describe(r);
	if (std::regex_search(r.out, said, std::regex("kept (\\d+) bytes")))
		out.truth = atof(said[1].str().c_str());
	out.report = ReportWithSymbols(dir.File("trace.bin"));
	for (size_t i = 0; i < out.report["findings"].size(); i++)
		if (out.report["findings"][i]["kind"].Text() == "not-released-after-phase")
			out.left.push_back(out.report["findings"][i]);
	return out;
}

struct Case {
	const char *name, *phase, *line;
	bool is_long;
};

class NotReleased : public testing::TestWithParam<Case>
{
};

TEST_P(NotReleased, IsFoundWithItsLineAndBytesAndNotInTheCleanTwin)
{
	if (!Exists(SourcePath("build/venv/bin/python")))
		GTEST_SKIP() << "no build/venv: scripts/install-deps brings it";
	if (GetParam().is_long && !IsLong())
		GTEST_SKIP() << "part of make check-long";
	Said kept = RunPhases(GetParam().name, "kept"), clean = RunPhases(GetParam().name, "clean");

	ASSERT_EQ(kept.left.size(), 1u) << kept.report["findings"].Print();
	const Json &f = kept.left[0];

	EXPECT_GT(kept.truth, 1e7);
	EXPECT_NEAR(f["bytes"].Number(), kept.truth, 0.2 * kept.truth) << f.Print();
	EXPECT_EQ(f["evidence"]["phase"].Text(), GetParam().phase);
	EXPECT_NE(f["title"].Text().find(PlaceOf(program, GetParam().line) + " "), std::string::npos) << f.Print();
	EXPECT_NE(f["advice"].Text().find("del"), std::string::npos);
	EXPECT_EQ(clean.truth, 0);
	EXPECT_TRUE(clean.left.empty()) << clean.report["findings"].Print();
	EXPECT_GE(clean.report["phases"].size(), 1u);
}

INSTANTIATE_TEST_SUITE_P(Phases, NotReleased,
			 testing::Values(Case{ "marked", "validate", "# OUTPUT", false },
					 Case{ "epochs", "DataLoader workers", "# HISTORY", true },
					 Case{ "optimizer", "DataLoader workers", "# STATE",
					       true }),
			 [](const auto &p) { return std::string(p.param.name); });

} // namespace
} // namespace memtrace_test
