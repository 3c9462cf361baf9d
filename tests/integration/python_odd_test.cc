/*
 * Python stacks where threads, native stacks and Python's are not one to one: sub-interpreters,
 * greenlets, code that the interpreter compiled, an evaluation loop in two parts. Stacks are those of CPython's own traceback, or say
 * that they are uncertain; and the program does not notice.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <algorithm>

#include "support/harness.h"
#include "support/interpreters.h"
#include "support/points.h"

namespace memtrace_test {
namespace {

class PythonOdd : public testing::TestWithParam<const char *> {
    protected:
	void SetUp() override
	{
		python = InterpreterOf(GetParam());
		if (python.empty())
			GTEST_SKIP() << "no CPython " << GetParam() << " here";
	}
	int Minor() const { return atoi(std::string(GetParam()).c_str() + 2); }
	/* Runs the program, which puts down its points in "said". */
	Result Run(const std::string &program, const std::map<std::string, std::string> &env = {},
		   const std::vector<std::string> &more = {})
	{
		Command command;

		command.argv = { python, SourcePath("tests/programs/" + program), dir.File("said") };
		command.argv.insert(command.argv.end(), more.begin(), more.end());
		command.dir = dir.path;
		command.env = env;
		command.env["MEMTRACE_DEPTH"] = "1024";
		command.env["PYTHONDONTWRITEBYTECODE"] = "1";
		return Execute(command);
	}
	/* With symbols, without which no stack is uncertain. The points' blocks are larger than all
	 * others, so their sites come first. */
	Json Recorded() const
	{
		Command command;

		command.argv = { BuildPath("memtrace-report"), "--json", "--top", "800",
				 dir.File("trace.bin") };
		command.traced = false;
		return Json::Parse(Execute(command).out);
	}

	TempDir dir;
	std::string python;
};

class PythonMerged : public PythonOdd {};

/* Also where the loop was laid out in two parts and the interpreter stripped of local symbols. */
TEST_P(PythonMerged, EachRunOfPythonFramesHasItsNativeLoop)
{
	Result result = Run("python_points.py");

	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	Json report = Recorded();
	size_t with_python = 0, uncertain = 0;
	std::string which;

	for (size_t i = 0; i < report["sites"].size(); i++) {
		Json site = report["sites"][i];

		with_python += !PythonOf(site).empty();
		if (site["merge_uncertain"].True()) {
			uncertain++;
			which += site["stack"].Print();
		}
	}
	EXPECT_GT(with_python, 100u);
	/* A generator that the collector closes: its loop still runs, to drop what its frame held, when
	 * the frame is gone. Where the collector is at work differs from run to run. */
	EXPECT_LE(uncertain, 2u) << which;
}

class PythonSubInterpreters : public PythonOdd {};

TEST_P(PythonSubInterpreters, StacksAreTheirOwnOrMarked)
{
	/* Before 3.12 it is not to be known whose interpreter a thread runs once there are several,
	 * nor one that gave the GIL up; in 3.12 not that of another thread that gave it up. */
	int right = Minor() < 12 ? 3 : Minor() == 12 ? 5 : 6;

	for (const char *kind : { "", "isolated" }) { /* with the main GIL and one of its own */
		std::vector<std::string> more;

		if (*kind && Minor() < 13)
			continue;
		if (*kind)
			more.push_back(kind);
		unlink(dir.File("said").c_str());
		unlink(dir.File("trace.bin").c_str());
		Result result = Run("python_subs.py", {}, more);

		ASSERT_TRUE(result.Exited(0)) << Describe(result);
		Points points = ExpectPoints(Recorded(), dir.File("said"), true);

		EXPECT_EQ(points.said, 6);
		EXPECT_EQ(points.right, right);
		EXPECT_EQ(points.marked, 6 - right);
	}
}

class PythonGreenlets : public PythonOdd {};

TEST_P(PythonGreenlets, StacksAreThoseOfTraceback)
{
	std::string path = SourcePath("build/greenlet/") + GetParam();

	if (!Exists(path))
		GTEST_SKIP() << "no greenlet for CPython " << GetParam() << " here";
	/* Every seventh native stack is compared with libunwind's as well. */
	Result result = Run("python_greenlets.py",
			    { { "PYTHONPATH", path }, { "MEMTRACE_VERIFY", "7" } });

	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	Json report = Recorded();
	Points points = ExpectPoints(report, dir.File("said"));
	std::string notes = report["trace"]["notes"].Print();

	EXPECT_GT(points.said, 300);
	EXPECT_EQ(points.right, points.said);
	EXPECT_NE(notes.find("stacks verified"), std::string::npos) << notes;
	EXPECT_NE(notes.find(", different 0,"), std::string::npos) << notes;
}

class PythonCompiled : public PythonOdd {};

/* Compiled code has no unwind tables: the native part ends there and says so. */
TEST_P(PythonCompiled, StacksAreThoseOfTraceback)
{
	Result result = Run("python_hot.py", { { "PYTHON_JIT", "1" } });

	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	if (result.out != "1\n")
		GTEST_SKIP() << "this build does not compile";
	Json report = Recorded();
	Points points = ExpectPoints(report, dir.File("said"));
	long ended = 0;

	EXPECT_EQ(points.right, 9000);
	for (size_t i = 0; i < report["sites"].size(); i++) {
		Json site = report["sites"][i];

		if (site["bytes_allocated"].Long() >= 3000000 &&
		    site["stack"].Print().find("no unwind information") != std::string::npos)
			ended += site["allocations"].Long();
	}
	EXPECT_GT(ended, 500) << "nothing was allocated from compiled code";
}

/* An interpreter without the GIL, in so far as it can be pretended (tests/programs/pretend_python). */
Json Pretended(const std::string &how)
{
	TempDir dir;
	Command command;

	command.argv = { ProgramPath("pretend_python"), ProgramPath("pretend_python.so"), how };
	command.dir = dir.path;
	Result result = Execute(command);

	EXPECT_TRUE(result.Exited(0)) << Describe(result);
	return Report(dir.File("trace.bin"), { "--top", "1000" });
}

std::map<std::string, long> BytesByPython(const Json &report)
{
	std::map<std::string, long> bytes;

	for (size_t i = 0; i < report["sites"].size(); i++) {
		Json site = report["sites"][i];

		if (site["bytes_allocated"].Long() >= 1000000 * site["allocations"].Long())
			bytes[PythonOf(site)] += site["bytes_allocated"].Long();
	}
	return bytes;
}

TEST(PythonFreeThreaded, FramesAndTheThreadsOwnByteCodeAreRead)
{
	std::map<std::string, long> expected;

	for (int i = 0; i < 40; i++)
		expected["  /pretended/train.py:" + std::to_string(200 + i * 5 % 16) +
			 " Model.step\n  /pretended/train.py:" + std::to_string(100 + i % 16) +
			 " main\n"] += 1000000 + i * 1000;
	EXPECT_EQ(BytesByPython(Pretended("whole")), expected);
}

TEST(PythonFreeThreaded, WhatDoesNotHangTogetherIsLeftAloneAndSaid)
{
	Json report = Pretended("damaged");
	std::map<std::string, long> bytes = BytesByPython(report);

	EXPECT_EQ(bytes.size(), 1u);
	EXPECT_EQ(bytes[""], 40 * 1000000 + 1000 * 39 * 40 / 2);
	EXPECT_NE(report["trace"]["notes"].Print().find(
			  "Python frames are not recorded: what CPython says of its frames does "
			  "not hang together in 3.14.10"),
		  std::string::npos)
		<< report["trace"]["notes"].Print();
}

std::string NameOf(const testing::TestParamInfo<const char *> &row)
{
	std::string name = row.param;

	std::replace(name.begin(), name.end(), '.', 'v');
	return "Cpython" + name;
}

INSTANTIATE_TEST_SUITE_P(Of, PythonMerged,
			 testing::Values("3.10", "3.12", "3.14", "3.15", "system", "standalone"),
			 NameOf);
INSTANTIATE_TEST_SUITE_P(Of, PythonSubInterpreters,
			 testing::Values("3.8", "3.10", "3.11", "3.12", "3.13", "3.14", "3.15"),
			 NameOf);
INSTANTIATE_TEST_SUITE_P(Of, PythonGreenlets, testing::Values("3.11", "3.13", "3.14"), NameOf);
INSTANTIATE_TEST_SUITE_P(Of, PythonCompiled, testing::Values("3.14", "3.15"), NameOf);

} // namespace
} // namespace memtrace_test
