/*
 * Python stacks where they are hard to come by: at each point the stack in the trace is the one
 * that traceback.extract_stack() gives there, in file, function and line: in threads and forked
 * workers, with the GIL and without, in calls from C, in text that is executed and thrown away,
 * 200 calls deep. On every interpreter that is here; python_test.cc has the ordinary places.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include "support/harness.h"
#include "support/interpreters.h"
#include "support/points.h"

namespace memtrace_test
{
namespace
{

class PythonPoints : public testing::TestWithParam<const char *>
{
      protected:
	void SetUp() override
	{
		python = InterpreterOf(GetParam());
		if (python.empty())
			GTEST_SKIP() << "no CPython " << GetParam() << " here";
	}
	Command Script(const std::vector<std::string> &arguments) const
	{
		Command command;

		command.argv = { python };
		command.argv.insert(command.argv.end(), arguments.begin(), arguments.end());
		command.dir = dir.path;
		command.env["PYTHONDONTWRITEBYTECODE"] = "1";
		return command;
	}

	TempDir dir;
	std::string python;
};

class PythonPointsRead : public PythonPoints
{
};

TEST_P(PythonPointsRead, StacksAreThoseOfTraceback)
{
	Command command =
		Script({ SourcePath("tests/programs/python_points.py"), dir.File("said") });

	command.env["MEMTRACE_DEPTH"] = "1024"; /* 200 calls are not to be cut */
	Result result = Execute(command);

	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	Points points = ExpectPoints(Report(dir.File("trace.bin"), { "--top", "1000000" }),
				     dir.File("said"));

	EXPECT_EQ(points.said, 197);
}

class PythonPointsUnread : public PythonPoints
{
};

/* Versions whose frames are not known: no frame at all, one sentence that says so, no harm. */
TEST_P(PythonPointsUnread, AreLeftAloneAndNamed)
{
	Command command =
		Script({ "-c", "kept = [bytearray(100000) for i in range(20)]\nprint(1)" });
	Result result = Execute(command);

	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	EXPECT_EQ(result.out, "1\n");
	Json report = Report(dir.File("trace.bin"), { "--top", "1000000" });
	std::string notes = report["trace"]["notes"].Print() + report["notes"].Print();

	for (size_t i = 0; i < report["sites"].size(); i++)
		ASSERT_EQ(PythonOf(report["sites"][i]), "");
	EXPECT_NE(notes.find("Python frames are not recorded"), std::string::npos) << notes;
	EXPECT_NE(notes.find(GetParam()), std::string::npos) << notes;
}

std::string NameOf(const testing::TestParamInfo<const char *> &row)
{
	std::string name = row.param;

	for (char &c : name)
		c = c == '.' ? 'v' : c;
	return "Cpython" + name;
}

INSTANTIATE_TEST_SUITE_P(Of, PythonPointsRead,
			 testing::Values("3.7", "3.8", "3.9", "3.10", "3.11", "3.12", "3.13",
					 "3.14", "3.15", "venv", "system", "standalone"),
			 NameOf);
INSTANTIATE_TEST_SUITE_P(Of, PythonPointsUnread, testing::Values("2.7", "3.6"), NameOf);

} // namespace
} // namespace memtrace_test
