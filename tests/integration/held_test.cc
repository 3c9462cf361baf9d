/*
 * Memory that Python programs (numpy, no PyTorch) freed and still hold, or keep: the right word, the
 * right line, bytes within 20 % of what malloc_trim() gives back, CPython's own statistics or the
 * program's own count. Of `frames` mode, where a test does not say `objects`.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>


#include "support/harness.h"
#include "support/queries.h"

namespace memtrace_test
{
namespace
{

const char *const program = "tests/programs/held.py";
const double MIB = 1 << 20;

class HeldPython : public testing::Test
{
      protected:
	void SetUp() override
	{
		if (!Exists(SourcePath("build/venv/bin/python")))
			GTEST_SKIP() << "no build/venv: scripts/install-deps brings it";
	}

	void Run(const std::string &name, long count,
		 const std::map<std::string, std::string> &env = {})
	{
		Command command;

		command.argv = { SourcePath("build/venv/bin/python"), SourcePath(program), name,
				 std::to_string(count) };
		command.dir = dir.path;
		command.env = env;
		command.env["MEMTRACE_QUIET"] = "1";
		result = Execute(command);
		ASSERT_TRUE(result.Exited(0)) << Describe(result);
		ASSERT_EQ(Facts(result.out, "trim").size(), 1u) << result.out;
		trimmed = Facts(result.out, "trim")[0]["before"] -
			  Facts(result.out, "trim")[0]["after"];
		kept = Facts(result.out, "kept")[0]["bytes"];
		report = ReportWithSymbols(dir.File("trace.bin"));
	}

	Json Finding(const std::string &kind) const
	{
		for (size_t i = 0; i < report["findings"].size(); i++)
			if (report["findings"][i]["kind"].Text() == kind)
				return report["findings"][i];
		return Json();
	}

	void ExpectNone(const std::string &kind) const
	{
		EXPECT_TRUE(Finding(kind).IsNull()) << Finding(kind).Print();
	}

	/* The main process's last walk. */
	Json Resident() const
	{
		Json found;

		for (size_t i = 0; i < report["rss"].size(); i++)
			if (report["rss"][i]["pid"].Long() ==
			    report["processes"][size_t(0)]["pid"].Long())
				found = report["rss"][i];
		return found;
	}

	Json Place(const Json &site) const
	{
		for (size_t i = 0; i < report["sites"].size(); i++)
			if (report["sites"][i]["id"].Long() == site.Long())
				return report["sites"][i]["place"];
		return Json();
	}

	TempDir dir;
	Result result;
	Json report;
	long trimmed = 0, kept = 0;
};

/* CPython's own count on standard error: "# bytes in available blocks   =   1,234". */
long Counted(const std::string &err, const std::string &what)
{
	size_t at = err.find(what);
	std::string digits;

	at = at == std::string::npos ? at : err.find('=', at + what.size());
	for (; at != std::string::npos && at < err.size() && err[at] != '\n'; at++)
		if (isdigit(err[at]))
			digits += err[at];
	return digits.empty() ? -1 : atol(digits.c_str());
}

bool Has(const Json &text, const std::string &part)
{
	return text.Text().find(part) != std::string::npos;
}

TEST_F(HeldPython, WhatManyThreadsFreedIsHeldByTheirArenasAndIsNoLeak)
{
	Run("threads", Scaled(4000, 2000));
	Json finding = Finding("fragmentation-returnable");

	ASSERT_FALSE(finding.IsNull()) << report["findings"].Print();
	EXPECT_GT(trimmed, 30 * MIB);
	EXPECT_NEAR(finding["bytes"].Number(), trimmed, std::max(MIB, 0.02 * trimmed));
	EXPECT_GE(finding["evidence"]["arenas"].Long(), 6);
	EXPECT_TRUE(Has(finding["advice"], "MALLOC_ARENA_MAX=2")) << finding.Print();
	ExpectNone("leak");
	ExpectNone("growth");
}

TEST_F(HeldPython, WhoLimitedTheArenasIsNotToldToDoIt)
{
	Run("threads", 2000, { { "MALLOC_ARENA_MAX", "2" } });
	for (size_t i = 0; i < report["findings"].size(); i++)
		EXPECT_FALSE(Has(report["findings"][i]["advice"], "MALLOC_ARENA_MAX"))
			<< report["findings"][i].Print();
	Json settings = report["fragmentation"][size_t(0)]["settings"];
	EXPECT_TRUE(Has(settings, "MALLOC_ARENA_MAX=2")) << settings.Print();
}

TEST_F(HeldPython, OneArrayOnTopOfTheHeapIsNamedByItsLine)
{
	Run("top", 16);
	Json finding = Finding("fragmentation-returnable");

	ASSERT_FALSE(finding.IsNull()) << report["findings"].Print();
	EXPECT_GT(trimmed, 50 * MIB);
	EXPECT_NEAR(finding["bytes"].Number(), trimmed, std::max(MIB, 0.02 * trimmed));
	EXPECT_TRUE(Has(finding["detail"], PlaceOf(program, "# SURVIVOR"))) << finding["detail"].Text();
	EXPECT_EQ(Place(finding["site"]).Text(), PlaceOf(program, "# SURVIVOR"));
	EXPECT_NEAR(finding["evidence"]["held_by_topmost_bytes"].Number(), trimmed, 0.2 * trimmed);
	/* Once 20 MiB were freed, 4 MiB come from the heap; who fixes the threshold is not told so. */
	EXPECT_TRUE(Has(finding["detail"], "dynamic threshold")) << finding["detail"].Text();
	EXPECT_TRUE(Has(finding["advice"], "MALLOC_MMAP_THRESHOLD_")) << finding["advice"].Text();
	ExpectNone("leak");
	ExpectNone("growth");
}

TEST_F(HeldPython, AFixedThresholdAvoidsIt)
{
	for (const char *how : { "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES" }) {
		std::string value = how == std::string("GLIBC_TUNABLES")
					    ? "glibc.malloc.mmap_threshold=131072"
					    : "131072";

		Run("top", 16, { { how, value } });
		EXPECT_LT(trimmed, 8 * MIB);
		ExpectNone("fragmentation-returnable");
		EXPECT_TRUE(Has(report["fragmentation"][size_t(0)]["settings"], how));
	}
}

TEST_F(HeldPython, ArenasHeldByAFewObjectsAreFragmentationOfPython)
{
	Run("words", 400000);
	Json finding = Finding("python-fragmentation");
	double free = Counted(result.err, "unused pools *") +
		      Counted(result.err, "# bytes in available blocks");

	ASSERT_FALSE(finding.IsNull()) << report["findings"].Print();
	EXPECT_GT(free, 10 * MIB) << result.err;
	EXPECT_NEAR(finding["bytes"].Number(), free, 0.2 * free);
	EXPECT_TRUE(Has(finding["advice"], "MEMTRACE_PYTHON=objects")) << finding.Print();
	EXPECT_TRUE(finding["site"].IsNull()) << "frames: who holds them is not known";
	ExpectNone("leak");
	ExpectNone("growth");
}

TEST_F(HeldPython, InObjectsModeTheLineThatHoldsTheArenasIsNamed)
{
	Run("words", 400000); /* in objects mode CPython does not tell */
	double free = Counted(result.err, "unused pools *") +
		      Counted(result.err, "# bytes in available blocks");
	Run("words", 400000, { { "MEMTRACE_PYTHON", "objects" } });
	Json finding = Finding("python-fragmentation");

	ASSERT_FALSE(finding.IsNull()) << report["findings"].Print();
	EXPECT_NEAR(finding["bytes"].Number(), free, 0.2 * free);
	EXPECT_TRUE(Has(finding["title"], "most beside objects of " + PlaceOf(program, "# WORDS")))
		<< finding["title"].Text();
	EXPECT_EQ(Place(finding["site"]).Text(), PlaceOf(program, "# WORDS"));
	ExpectNone("leak");
}

TEST_F(HeldPython, GrowingSmallObjectsAreGrowthOfPythonsHeapWithoutALineToBlame)
{
	Run("objects", Scaled(600000, 300000));
	Json finding = Finding("growth");

	ASSERT_FALSE(finding.IsNull()) << report["findings"].Print();
	EXPECT_TRUE(Has(finding["title"], "Python's heap grew by")) << finding["title"].Text();
	EXPECT_FALSE(Has(finding["title"], "held.py:")) << finding["title"].Text();
	EXPECT_TRUE(Has(finding["evidence"]["likely_lines"][size_t(0)], "held.py:"));
	/* From the first quarter of the time to the last. */
	EXPECT_NEAR(finding["bytes"].Number(), kept * 0.75, 0.2 * kept);
	ExpectNone("leak");
}

TEST_F(HeldPython, InObjectsModeGrowingSmallObjectsAreALeakOfTheirLine)
{
	Run("objects", Scaled(600000, 300000), { { "MEMTRACE_PYTHON", "objects" } });
	Json finding = Finding("leak");

	ASSERT_FALSE(finding.IsNull()) << report["findings"].Print();
	EXPECT_EQ(Place(finding["site"]).Text(), PlaceOf(program, "# OBJECT"));
	EXPECT_NEAR(finding["bytes"].Number(), kept, 0.2 * kept);
	for (size_t i = 0; i < report["findings"].size(); i++)
		EXPECT_FALSE(report["findings"][i]["kind"].Text() == "leak" &&
			     Has(report["findings"][i]["title"], PlaceOf(program, "# OTHER")))
			<< report["findings"][i].Print();
}

/* Nobody asks about each of them; `fragmentation` lists them all. */
TEST_F(HeldPython, SmallHelpersAreOneLineOfTheTables)
{
	Command command;

	command.argv = { SourcePath("build/venv/bin/python"), "-c",
			 "import os, subprocess\n"
			 "data = b'a' * (80 << 20)\n"
			 "for _ in range(5): subprocess.run(['/bin/sleep', '0'], check=True)\n"
			 "os._exit(0)\n" };
	command.dir = dir.path;
	command.env["MEMTRACE_QUIET"] = "1";
	result = Execute(command);
	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	report = Report(dir.File("trace.bin"));
	EXPECT_EQ(report["small_processes"]["count"].Long(), 5);
	EXPECT_GT(report["rss"].size(), 5u);
	command.argv = { BuildPath("memtrace-report"), "--no-symbols", dir.File("trace.bin") };
	command.traced = false;
	std::string summary = Execute(command).out;
	command.argv.insert(command.argv.begin() + 1, "fragmentation");
	std::string all = Execute(command).out;
	std::string helper = std::to_string(report["rss"][report["rss"].size() - 1]["pid"].Long()) +
			     "  peak and end";

	EXPECT_NE(summary.find("and 5 small helper processes"), std::string::npos) << summary;
	EXPECT_EQ(summary.find(helper), std::string::npos) << summary;
	EXPECT_NE(all.find(helper), std::string::npos) << all;
	EXPECT_EQ(all.find("small helper processes"), std::string::npos) << all;
}

TEST_F(HeldPython, OfALargeArrayOnlyWhatWasTouchedIsInMemory)
{
	Run("large", 1024);
	Json rss = Resident(), larges = rss["large_blocks"];
	bool found = false;

	for (size_t i = 0; i < larges.size(); i++) {
		if (Place(larges[i]["site"]).Text() != PlaceOf(program, "# ASKED"))
			continue;
		found = true;
		EXPECT_EQ(larges[i]["requested_bytes"].Long(), 1L << 30);
		EXPECT_NEAR(larges[i]["touched_bytes"].Number(), kept, 4 * MIB) << "huge pages";
		EXPECT_EQ(larges[i]["blocks"].Long(), 1);
	}
	EXPECT_TRUE(found) << larges.Print();
	EXPECT_LT(rss["rss_bytes"].Long(), 400 * MIB);
}

} // namespace
} // namespace memtrace_test
