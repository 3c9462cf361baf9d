// MEMTRACE_PYTHON=objects: CPython's small objects. The independent truth is the interpreter's own
// PYTHONMALLOC=malloc, under which every object is a malloc of libc's: the sums must be the same.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "support/harness.h"
#include "support/interpreters.h"

using namespace memtrace_test;

namespace
{

const char kScript[] = "keep = [str(i) + 'x' for i in range(20000)]\n"
		       "table = {i: [i] for i in range(1000)}\n"
		       "def grow():\n"
		       "    keep.append([bytes(100) for i in range(500)])\n"
		       "for i in range(20): grow()\n"
		       "import os\n"
		       "os._exit(0)\n"; // nothing is freed by finalisation

struct Totals {
	long allocations = 0, bytes = 0;
};

Totals Record(const TempDir &dir, const std::string &python, const std::string &key,
	      const std::string &value, Json *report)
{
	Command command;
	Totals sum;

	WriteAll(dir.File("script.py"), kScript);
	command.argv = { python, "-S", dir.File("script.py") };
	command.dir = dir.path;
	command.env = { { key, value },
			{ "PYTHONHASHSEED", "0" },
			{ "PYTHONDONTWRITEBYTECODE", "1" } };
	Result result = Execute(command);
	EXPECT_TRUE(result.Exited(0)) << Describe(result);
	*report = Report(dir.File("trace.bin"), { "--no-symbols" });
	Json kinds = (*report)["trace"]["by_kind"];
	for (const char *kind : { "heap", "python" })
		if (!kinds[kind].IsNull()) {
			sum.allocations += kinds[kind]["allocations"].Long();
			sum.bytes += kinds[kind]["bytes_allocated"].Long();
		}
	return sum;
}

} // namespace

class Objects : public testing::TestWithParam<std::string>
{
      protected:
	void SetUp() override
	{
		python = InterpreterOf(GetParam());
		if (python.empty())
			GTEST_SKIP() << "no CPython " << GetParam() << " here";
	}

	std::string python;
};

INSTANTIATE_TEST_SUITE_P(, Objects,
			 testing::Values("3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14",
					 "3.15", "system", "standalone"),
			 [](const testing::TestParamInfo<std::string> &of) {
				 std::string name = of.param;
				 for (char &c : name)
					 c = c == '.' ? '_' : c;
				 return name;
			 });

TEST_P(Objects, CountsAreThoseOfEveryObjectAsAMalloc)
{
	TempDir wrapped, plain;
	Json report, unused;
	Totals ours = Record(wrapped, python, "MEMTRACE_PYTHON", "objects", &report);
	Totals truth = Record(plain, python, "PYTHONMALLOC", "malloc", &unused);

	// Paths and variables of the two runs have lengths of their own: a few blocks.
	EXPECT_NEAR((double)ours.allocations, (double)truth.allocations, 20);
	EXPECT_NEAR((double)ours.bytes, (double)truth.bytes, 20000);
	EXPECT_GT(ours.allocations, 30000);
	EXPECT_EQ(report["trace"]["lost_events"].Long(), 0);
}

TEST_P(Objects, GrowingListIsNamedWithItsLineAndSize)
{
	TempDir dir;
	Json report;
	long live = 0, count = 0;

	Record(dir, python, "MEMTRACE_PYTHON", "objects", &report);
	for (size_t i = 0; i < report["sites"].size(); i++) {
		Json site = report["sites"][i];
		bool line4 = false;

		for (size_t f = 0; f < site["stack"].size() && !line4; f++)
			line4 = site["stack"][f]["language"].Text() == "python" &&
				site["stack"][f]["line"].Long() == 4;
		if (line4 && site["kind"].Text() == "python") {
			live += site["live_bytes"].Long();
			count += site["live_count"].Long();
		}
	}
	// 20 lists of 500 objects of 100 bytes, each with the 33 bytes of its header
	EXPECT_GE(count, 10000);
	EXPECT_GE(live, 10000 * 133);
	EXPECT_LT(live, 10000 * 133 * 1.15); // and the lists themselves
}
