/*
 * Python places where they are hard to tell (python_test.cc has the ordinary ones): code objects
 * that come and go at the same addresses, destructors, callbacks from C, evaluated text. For each
 * place all blocks made there and nothing else are found under the interpreter's own file, line
 * and function, the whole stack up.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <algorithm>

#include "support/harness.h"
#include "support/interpreters.h"

namespace memtrace_test {
namespace {

std::string ToText(const Json &stack, bool of_report)
{
	std::string text;

	for (size_t i = 0; i < stack.size(); i++) {
		Json f = stack[i];

		if (of_report && f["language"].Text() != "python")
			continue;
		if (of_report)
			text += f["file"].Text() + ":" + std::to_string(f["line"].Long()) + " " +
				f["function"].Text() + "\n";
		else
			text += f[(size_t)0].Text() + ":" + std::to_string(f[(size_t)1].Long()) +
				" " + f[(size_t)2].Text() + "\n";
	}
	return text;
}

struct Blocks {
	long count = 0, bytes = 0;

	bool operator==(const Blocks &o) const { return count == o.count && bytes == o.bytes; }
};

class PythonPlaces : public testing::TestWithParam<const char *> {
    protected:
	void SetUp() override
	{
		python = InterpreterOf(GetParam());
		if (python.empty())
			GTEST_SKIP() << "no CPython " << GetParam() << " here";
	}
	Command Script(const TempDir &dir) const
	{
		Command command;

		command.argv = { python, "-S", SourcePath("tests/programs/py_places.py") };
		command.dir = dir.path;
		command.env["PYTHONDONTWRITEBYTECODE"] = "1";
		return command;
	}

	std::string python;
};

TEST_P(PythonPlaces, AreTheInterpretersOwn)
{
	TempDir dir;
	Result result = Execute(Script(dir));

	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	Json places = Json::Parse(result.out);
	Json sites = Report(dir.File("trace.bin"), { "--top", "1000000" })["sites"];
	std::map<std::string, Blocks> expected;
	std::map<std::string, Blocks> reported;
	int wrong = 0;

	ASSERT_GT(places.size(), 100u);
	for (size_t i = 0; i < places.size(); i++) {
		Blocks &b = expected[ToText(places[i]["stack"], false)];

		b.count++;
		b.bytes += places[i]["bytes"].Long();
	}
	for (size_t i = 0; i < sites.size(); i++) {
		Blocks b = { sites[i]["live_count"].Long(), sites[i]["live_bytes"].Long() };

		/* The script makes only blocks larger than this; the interpreter hardly any. */
		if (sites[i]["kind"].Text() != "heap" || b.bytes <= 50000 * b.count)
			continue;
		Blocks &sum = reported[ToText(sites[i]["stack"], true)];

		sum.count += b.count;
		sum.bytes += b.bytes;
	}
	for (const auto &[place, want] : expected) {
		const Blocks &got = reported[place];

		if (got == want)
			continue;
		ADD_FAILURE() << got.count << " blocks, " << got.bytes << " bytes and not "
			      << want.count << ", " << want.bytes << " at\n"
			      << place;
		if (++wrong == 5)
			return;
	}
}

/* MEMTRACE_PYTHON=off leaves Python out of the stacks, and only that. */
TEST_P(PythonPlaces, CanBeSwitchedOff)
{
	TempDir dir;
	Command command = Script(dir);

	command.env["MEMTRACE_PYTHON"] = "off";
	Result result = Execute(command);
	Json sites = Report(dir.File("trace.bin"))["sites"];

	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	ASSERT_GT(sites.size(), 0u);
	for (size_t i = 0; i < sites.size(); i++)
		EXPECT_EQ(ToText(sites[i]["stack"], true), "");
}

INSTANTIATE_TEST_SUITE_P(Of, PythonPlaces,
			 testing::Values("3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14",
					 "3.15", "system", "standalone"),
			 [](const auto &row) {
				 std::string name = row.param;

				 std::replace(name.begin(), name.end(), '.', 'v');
				 return "Cpython" + name;
			 });

} // namespace
} // namespace memtrace_test
