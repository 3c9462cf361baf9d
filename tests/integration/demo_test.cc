/*
 * The demo: a real PyTorch training run with two planted faults. The native leak must be on the
 * first screen with its Python line and process; the growing list must not be blamed on a wrong
 * line; the run itself must be as without us.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <regex>
#include <set>
#include <sstream>

#include "support/harness.h"
#include "support/queries.h"

namespace memtrace_test {
namespace {

constexpr long leak_bytes = 48 * 1024;

class Demo : public testing::Test {
    protected:
	static void SetUpTestSuite()
	{
		dir = new TempDir;
		if (!Exists(Python()))
			return;
		Command command;

		command.argv = { Python(), SourcePath("tests/programs/train_demo.py"),
				 ProgramPath("leaky_native.so") };
		command.dir = dir->path;
		command.env["MEMTRACE_QUIET"] = "1";
		command.timeout_s = 300;
		traced = Execute(command);
		command.traced = false;
		plain = Execute(command);
	}
	static void TearDownTestSuite() { delete dir; }
	void SetUp() override
	{
		if (!Exists(Python()))
			GTEST_SKIP() << "no build/venv: scripts/install-deps brings it";
		ASSERT_TRUE(plain.Exited(0)) << Describe(plain);
		ASSERT_TRUE(traced.Exited(0)) << Describe(traced);
	}
	static std::string Python() { return SourcePath("build/venv/bin/python"); }
	static std::string Trace() { return dir->File("trace.bin"); }

	static TempDir *dir;
	static Result traced, plain;
};

TempDir *Demo::dir;
Result Demo::traced, Demo::plain;

const char *const program = "tests/programs/train_demo.py";

/* What the script said it did: "epoch 1: 200 steps". */
long Steps(const std::string &out)
{
	std::smatch m;
	std::string last = out.substr(out.rfind("epoch"));

	return std::regex_search(last, m, std::regex(": (\\d+) steps")) ? atol(m[1].str().c_str()) : 0;
}

TEST_F(Demo, TheRunIsAsWithoutUs)
{
	EXPECT_EQ(traced.out, plain.out);
	EXPECT_EQ(traced.err, plain.err);
}

TEST_F(Demo, TheNativeLeakIsFoundToTheByte)
{
	Json json = Report(Trace());
	Json leak, process;

	for (size_t i = 0; i < json["findings"].size(); i++)
		if (json["findings"][i]["kind"].Text() == "leak") {
			ASSERT_TRUE(leak.IsNull()) << "more than one leak: " << json["findings"].Print();
			leak = json["findings"][i];
		}
	ASSERT_FALSE(leak.IsNull()) << json["findings"].Print();
	EXPECT_EQ(leak["bytes"].Long(), Steps(traced.out) * leak_bytes);
	EXPECT_NE(leak["title"].Text().find(PlaceOf(program, "# LEAK")), std::string::npos) << leak.Print();
	ASSERT_EQ(leak["procs"].size(), 1u);
	for (size_t i = 0; i < json["processes"].size(); i++)
		if (json["processes"][i]["id"].Long() == leak["procs"][(size_t)0].Long())
			process = json["processes"][i];
	EXPECT_EQ(process["role"].Text(), "main");
	EXPECT_TRUE(json["trace"]["complete"].True());
}

TEST_F(Demo, TheFirstScreenShowsItFirst)
{
	Command command;

	command.argv = { BuildPath("memtrace-report"), Trace() };
	command.traced = false;
	command.env["COLUMNS"] = "80";
	Result report = Execute(command);
	std::istringstream lines(report.out);
	std::string screen, line;

	ASSERT_TRUE(report.Exited(0)) << Describe(report);
	for (int i = 0; i < 24 && std::getline(lines, line); i++)
		screen += line + "\n";
	size_t first = screen.find("  1. ");

	ASSERT_NE(first, std::string::npos) << screen;
	EXPECT_EQ(screen.substr(first).find("leak"), screen.substr(first).find("] ") + 2) << screen;
	EXPECT_NE(screen.find(PlaceOf(program, "# LEAK")), std::string::npos) << screen;
	EXPECT_NE(screen.find("leaky_native"), std::string::npos) << screen;
}

/* Small Python objects are not seen in this mode: lines may be called likely, and the first is. */
TEST_F(Demo, TheListIsNotBlamedOnAWrongLine)
{
	Json json = Report(Trace());
	std::set<std::string> planted = { PlaceOf(program, "# LEAK"), PlaceOf(program, "# GROWS") };
	std::regex place("train_demo\\.py:\\d+");

	for (size_t i = 0; i < json["findings"].size(); i++) {
		Json f = json["findings"][i];
		std::string kind = f["kind"].Text(), title = f["title"].Text();
		std::string detail = f["detail"].Text();
		bool likely = detail.find("ikely lines") != std::string::npos;
		std::smatch first;

		if (kind != "leak" && kind != "growth")
			continue;
		for (std::sregex_iterator m(title.begin(), title.end(), place), end; m != end; ++m)
			EXPECT_EQ(planted.count(m->str()), 1u) << m->str() << ": " << f.Print();
		EXPECT_EQ(title.find(PlaceOf(program, "# GROWS")), std::string::npos) << "said as proven: " << title;
		if (std::regex_search(detail, first, place)) {
			EXPECT_TRUE(likely) << detail;
			EXPECT_EQ(first.str(), PlaceOf(program, "# GROWS")) << detail;
		}
	}
}

/*
 * With all objects recorded the list is named, although the interpreter frees it as it ends: by
 * its line and nothing else, with the bytes that the program itself counts.
 */
TEST_F(Demo, TheListIsNamedInObjectsMode)
{
	TempDir objects;
	Command command;
	Json list;
	std::smatch said;

	command.argv = { Python(), SourcePath("tests/programs/train_demo.py"),
			 ProgramPath("leaky_native.so") };
	command.dir = objects.path;
	command.env = { { "MEMTRACE_QUIET", "1" }, { "MEMTRACE_PYTHON", "objects" },
			{ "DEMO_COUNT", "1" }, { "DEMO_IMAGES", "320" },
			{ "DEMO_EPOCHS", "5" } }; /* the list grows for a good part of the run */
	command.timeout_s = 300;
	Result result = Execute(command);

	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	ASSERT_TRUE(std::regex_search(result.out, said, std::regex("history: (\\d+) bytes")));
	double truth = atof(said[1].str().c_str());
	Json findings = Report(objects.File("trace.bin"))["findings"];

	for (size_t i = 0; i < findings.size(); i++) {
		std::string title = findings[i]["title"].Text();

		if (findings[i]["kind"].Text() != "leak")
			continue;
		if (title.find(PlaceOf(program, "# GROWS")) != std::string::npos) {
			EXPECT_TRUE(list.IsNull()) << "named twice: " << findings.Print();
			list = findings[i];
		} else {
			EXPECT_NE(title.find(PlaceOf(program, "# LEAK")), std::string::npos) << title;
		}
	}
	ASSERT_FALSE(list.IsNull()) << findings.Print();
	EXPECT_NEAR(list["bytes"].Number(), truth, truth * 0.2) << list.Print();
	ASSERT_EQ(list["procs"].size(), 1u);
}

TEST_F(Demo, BothWorkersOfEachEpochAreNamed)
{
	Json processes = Report(Trace())["processes"];
	std::set<std::pair<long, long>> seen;

	for (size_t i = 0; i < processes.size(); i++) {
		Json p = processes[i];

		if (p["role"].Text() != "dataloader-worker")
			continue;
		seen.insert({ p["generation"].Long(), p["worker"]["index"].Long() });
		EXPECT_EQ(p["worker"]["of"].Long(), 2);
		EXPECT_GT(p["allocations"].Long(), 0);
		EXPECT_GT(p["inherited_live_bytes"].Long(), 0);
	}
	EXPECT_EQ(seen, (std::set<std::pair<long, long>>{ { 0, 0 }, { 0, 1 }, { 1, 0 }, { 1, 1 } }));
}

/* Every resident page has its class, by its own evidence; all but 3 % of them one with a name. */
TEST_F(Demo, WhatIsResidentIsExplainedToThePage)
{
	Json report = Report(Trace()), rss = report["rss"];
	std::set<long> explained;

	for (size_t i = 0; i < rss.size(); i++) {
		ExpectExplained(rss[i]);
		explained.insert(rss[i]["pid"].Long());
	}
	EXPECT_GE(explained.size(), 5u) << "the main process and two workers of two epochs";
}

/* The data set that the workers copy by reading it is named by the line that built it. */
TEST_F(Demo, TheCopiedDataSetIsNamed)
{
	Json finding = FindingOf(Report(Trace()), "cow-blowup");

	ASSERT_FALSE(finding.IsNull());
	std::string title = finding["title"].Text();

	EXPECT_TRUE(title.find(PlaceOf(program, "pixels = [")) != std::string::npos ||
		    title.find(PlaceOf(program, "for x in range(SIDE")) != std::string::npos)
		<< title;
	EXPECT_EQ(finding["pids"].size(), 4u);
}

/* The lines of the summary: what the leak's held when the process held most. */
TEST_F(Demo, LinesHaveWhatTheyHeldAtThePeak)
{
	Json report = Report(Trace()), places = report["places"];
	long leaked = 0;

	for (size_t i = 0; i < places.size(); i++) {
		Json p = places[i];

		if (p["place"].Text() == PlaceOf(program, "native.leaky_normalise("))
			leaked += p["at_peak_bytes"].Long();
	}
	EXPECT_GT(leaked, 0);
	EXPECT_LE(leaked, Steps(traced.out) * leak_bytes);
}

} // namespace
} // namespace memtrace_test
