// MEMTRACE_PYTHON=objects: CPython's small objects. The independent truth is the interpreter's own
// PYTHONMALLOC=malloc, under which every object is a malloc of libc's: the sums must be the same.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "support/harness.h"

using namespace memtrace_test;

namespace {

const char kScript[] = "keep = [str(i) + 'x' for i in range(20000)]\n"
		       "table = {i: [i] for i in range(1000)}\n"
		       "def grow():\n"
		       "    keep.append([bytes(100) for i in range(500)])\n"
		       "for i in range(20): grow()\n"
		       "import os\n"
		       "os._exit(0)\n"; // nothing is freed by finalisation

std::vector<std::string> Interpreters()
{
	std::set<std::string> found;
	const char *home = getenv("HOME");
	std::string versions = std::string(home ? home : "") + "/.pyenv/versions";

	if (std::filesystem::is_directory(versions))
		for (auto &entry : std::filesystem::directory_iterator(versions)) {
			std::string name = entry.path().filename();
			std::string python = entry.path() / "bin/python3";

			// 3.8 to 3.13: what stacks are read for
			if (name.rfind("3.", 0) == 0 && atoi(name.c_str() + 2) >= 8 &&
			    atoi(name.c_str() + 2) <= 13 && Exists(python))
				found.insert(python);
		}
	if (Exists("/usr/bin/python3"))
		found.insert("/usr/bin/python3");
	std::vector<std::string> all(found.begin(), found.end());
	if (!IsLong() && all.size() > 2) // one of /usr and the newest, which lies last by name
		all = { all.front(), all.back() };
	return all;
}

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
	command.env = { { key, value }, { "PYTHONHASHSEED", "0" },
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

TEST(Objects, CountsAreThoseOfEveryObjectAsAMalloc)
{
	std::vector<std::string> interpreters = Interpreters();

	if (interpreters.empty())
		GTEST_SKIP() << "no CPython 3.8 to 3.13 is here";
	for (const std::string &python : interpreters) {
		SCOPED_TRACE(python);
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
}

TEST(Objects, GrowingListIsNamedWithItsLineAndSize)
{
	for (const std::string &python : Interpreters()) {
		SCOPED_TRACE(python);
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
}
