/*
 * Marks from inside a program, in C and Python: on the timeline, in order, and no difference to the
 * program; without the shim they do nothing.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include "support/harness.h"

namespace memtrace_test {
namespace {

std::vector<std::string> Marks(const Json &json)
{
	std::vector<std::string> list;
	double last = 0;

	for (size_t i = 0; i < json["marks"].size(); i++) {
		Json m = json["marks"][i];
		std::string line = m["kind"].Text();

		if (line == "step")
			line += " " + std::to_string(m["step"].Long());
		else if (m["label"].Text() != line)
			line += " " + m["label"].Text();
		list.push_back(line);
		EXPECT_GE(m["t"].Number(), last);
		EXPECT_TRUE(m["proc"].IsNumber());
		last = m["t"].Number();
	}
	return list;
}

const std::vector<std::string> expected = { "phase load",  "step 0", "step 1", "step 2",
					    "phase train", "step 0", "step 1", "step 2",
					    "phase",	   "mark half way", "pause",  "resume" };

TEST(Marks, InC)
{
	TempDir dir;
	Result result = Execute(Program(dir, "marks"));

	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	EXPECT_EQ(Marks(Report(dir.File("trace.bin"))), expected);
}

TEST(Marks, InCWithoutTheShim)
{
	TempDir dir;
	Command command = Program(dir, "marks");

	command.traced = false;
	Result result = Execute(command);

	EXPECT_TRUE(result.Exited(0)) << Describe(result);
	EXPECT_EQ(result.out, "done\n");
}

long AllocatedBySites(const Json &json, long size)
{
	long n = 0;

	for (size_t i = 0; i < json["sites"].size(); i++) {
		Json site = json["sites"][i];

		if (site["allocations"].Long() > 0 &&
		    site["bytes_allocated"].Long() == site["allocations"].Long() * size)
			n += site["allocations"].Long();
	}
	return n;
}

TEST(Marks, NothingIsRecordedInAPause)
{
	TempDir dir;
	Result result = Execute(Program(dir, "marks"));
	Json json = Report(dir.File("trace.bin"), { "--top", "100000" });

	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	EXPECT_EQ(AllocatedBySites(json, 3000), 300);
	EXPECT_EQ(AllocatedBySites(json, 3001), 300);
	EXPECT_EQ(AllocatedBySites(json, 5000), 0);
	EXPECT_EQ(AllocatedBySites(json, 7000), 10);
}

TEST(Marks, ReportsCanBeginAtOne)
{
	TempDir dir;
	Result result = Execute(Program(dir, "marks"));
	Json json = Report(dir.File("trace.bin"), { "--top", "100000", "--from", "@half way" });

	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	EXPECT_EQ(AllocatedBySites(json, 3000), 0);
	EXPECT_EQ(AllocatedBySites(json, 7000), 10);
}

Command Python(const TempDir &dir, const std::string &script)
{
	Command command;

	command.argv = { Exists("/usr/bin/python3") ? "/usr/bin/python3" : "python3", "-c", script };
	command.dir = dir.path;
	command.env["PYTHONPATH"] = SourcePath("scripts");
	command.env["PYTHONDONTWRITEBYTECODE"] = "1";
	return command;
}

const char *const script = "import memtrace_marks as mt\n"
			   "with mt.phase('load'):\n"
			   "    for i in range(3): mt.step(i)\n"
			   "    mt.phase('train')\n"
			   "    for i in range(3): mt.step(i)\n"
			   "mt.mark('half way'); mt.pause(); mt.resume()\n"
			   "print(mt.active())\n";

TEST(Marks, InPython)
{
	TempDir dir;
	Result result = Execute(Python(dir, script));

	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	EXPECT_EQ(result.out, "True\n");
	EXPECT_EQ(Marks(Report(dir.File("trace.bin"))), expected);
}

TEST(Marks, InPythonWithoutTheShim)
{
	TempDir dir;
	Command command = Python(dir, script);

	command.traced = false;
	Result result = Execute(command);

	EXPECT_TRUE(result.Exited(0)) << Describe(result);
	EXPECT_EQ(result.out, "False\n");
}

} // namespace
} // namespace memtrace_test
