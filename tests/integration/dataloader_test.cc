/*
 * PyTorch's DataLoader with forked workers: the script runs as without us, and the report knows
 * each worker, its index, its loader's line and its own totals.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <sstream>

#include "support/harness.h"
#include "support/queries.h"

namespace memtrace_test {
namespace {

constexpr const char *kScript = "tests/programs/py_dataloader.py";

class DataLoader : public testing::Test {
    protected:
	void SetUp() override
	{
		std::string python = SourcePath("build/venv/bin/python");

		if (!HasTorch())
			GTEST_SKIP() << "no torch in build/venv: scripts/install-deps brings it";
		command.argv = { python, SourcePath(kScript),
				 dir.File("workers") };
		command.dir = dir.path;
		command.env["MEMTRACE_QUIET"] = "1";
		command.timeout_s = 300;
	}

	TempDir dir;
	Command command;
};

TEST_F(DataLoader, WorkersAreKnownWithTheirOwnTotals)
{
	Result traced = Execute(command);
	std::istringstream lines(ReadAll(dir.File("workers")));
	long latest = 0, workers = 0;
	std::string loader = PlaceOf(kScript, "for batch in loader");

	ASSERT_TRUE(traced.Exited(0)) << Describe(traced);
	Json json = Report(dir.File("trace.bin"));
	Json sites = json["sites"], line_site;

	/* The largest sites are listed; this one holds megabytes. */
	for (size_t i = 0; i < sites.size(); i++) {
		Json s = sites[i], stack = s["stack"];

		for (size_t k = 0; k < stack.size(); k++)
			if (stack[k]["language"].Text() == "python") {
				if (stack[k]["function"].Text() == "start_worker" &&
				    stack[k]["line"].Long() == LineOf(kScript, "# the line") &&
				    s["live_bytes"].Long() > 1 << 20)
					line_site = s;
				break;
			}
	}
	ASSERT_FALSE(line_site.IsNull()) << "no site at the line";
	for (std::string line; std::getline(lines, line); workers++) {
		Json truth = Json::Parse(line), p = ByPid(json, truth["pid"].Long());
		long found = -1;

		ASSERT_FALSE(p.IsNull()) << line;
		EXPECT_EQ(p["role"].Text(), "dataloader-worker") << p.Print();
		EXPECT_EQ(p["ppid"].Long(), truth["ppid"].Long());
		EXPECT_EQ(p["worker"]["index"].Long(), truth["worker"].Long());
		EXPECT_EQ(p["worker"]["of"].Long(), 2);
		EXPECT_EQ(p["worker"]["start_method"].Text(), "fork");
		EXPECT_EQ(p["worker"]["loader"].Text(), loader);
		EXPECT_EQ(p["generation"].Long(), truth["epoch"].Long());
		EXPECT_EQ(p["end"]["kind"].Text(), "exit");
		EXPECT_GE(p["live_at_end_bytes"].Long(), truth["bytes"].Long());
		EXPECT_LT(p["live_at_end_bytes"].Long(), truth["bytes"].Long() + (32 << 20));
		EXPECT_GT(p["inherited_live_bytes"].Long(), 1 << 20);
		for (size_t i = 0; i < line_site["by_process"].size(); i++)
			if (line_site["by_process"][i]["proc"].Long() == p["id"].Long())
				found = line_site["by_process"][i]["live_bytes"].Long();
		EXPECT_EQ(found, truth["bytes"].Long()) << line;
		latest += truth["epoch"].Long() == 1 ? truth["bytes"].Long() : 0;
	}
	EXPECT_EQ(workers, 4);
	EXPECT_EQ(line_site["live_bytes"].Long(), latest) << "only the latest generation";
	EXPECT_EQ(json["processes"][(size_t)0]["role"].Text(), "main");
	EXPECT_TRUE(json["trace"]["complete"].True()) << json["trace"].Print();
	EXPECT_EQ(json["trace"]["lost_events"].Long(), 0);
}

TEST_F(DataLoader, OutputIsThatOfTheUntracedRun)
{
	Result traced = Execute(command);

	command.traced = false;
	Result plain = Execute(command);

	ASSERT_TRUE(plain.Exited(0)) << Describe(plain);
	EXPECT_EQ(traced.status, plain.status);
	EXPECT_EQ(traced.out, plain.out);
	EXPECT_EQ(traced.err, plain.err);
}

} // namespace
} // namespace memtrace_test
