/*
 * CPython's own test suites of processes, threads and mappings: every test ends as it does without
 * us. In make check one interpreter runs them, without the slowest tests; check-long takes all.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <filesystem>
#include <set>
#include <sstream>

#include "support/harness.h"

namespace memtrace_test {
namespace {

/* Left out in make check only: they sleep, or do again in another way what others do. */
struct Suite {
	const char *name;
	std::vector<std::string> slow;
};

void PrintTo(const Suite &s, std::ostream *out) { *out << s.name; }

/* All of pyenv's and the system's, 3.8 and later. */
std::vector<std::string> Interpreters()
{
	const char *home = getenv("HOME");
	std::filesystem::path folder = std::string(home ? home : "") + "/.pyenv/versions";
	std::error_code ignored;
	std::vector<std::string> list;

	for (const char *minor : { "3.11", "3.10", "3.12", "3.13", "3.9", "3.8" })
		for (const auto &entry : std::filesystem::directory_iterator(folder, ignored))
			if (entry.path().filename().string().rfind(std::string(minor) + ".", 0) == 0 &&
			    Exists(entry.path() / "bin/python3"))
				list.push_back(entry.path() / "bin/python3");
	if (Exists("/usr/bin/python3"))
		list.push_back("/usr/bin/python3");
	return list;
}

bool Ships(const std::string &python, const std::string &suite)
{
	Command command;

	command.argv = { python, "-c",
			 "import importlib.util as u, sys\n"
			 "sys.exit(sys.version_info < (3, 8) or not u.find_spec('test.support') or "
			 "not u.find_spec('" + suite + "'))" };
	command.traced = false;
	return Execute(command).Exited(0);
}

class CpythonSuites : public testing::TestWithParam<Suite> {
    protected:
	/* How each test ended; "" when the run itself failed. */
	static std::string Outcomes(const std::string &python, bool traced, std::string *errors)
	{
		const Suite &suite = GetParam();
		TempDir dir;
		Command command;

		command.argv = { python, SourcePath("tests/programs/py_suite.py"),
				 dir.File("outcomes"), suite.name };
		if (!IsLong())
			command.argv.insert(command.argv.end(), suite.slow.begin(), suite.slow.end());
		command.dir = dir.path;
		command.traced = traced;
		command.timeout_s = IsLong() ? 1200 : 240;
		command.env["MEMTRACE_QUIET"] = "1";
		command.env["MEMTRACE_OUT"] = dir.File("trace.bin");
		command.env["PYTHONDONTWRITEBYTECODE"] = "1";
		Result result = Execute(command);

		EXPECT_TRUE(result.Exited(0)) << (traced ? "traced: " : "untraced: ") << Describe(result);
		*errors = result.err;
		return ReadAll(dir.File("outcomes"));
	}
};

std::set<std::string> Lines(const std::string &text)
{
	std::istringstream in(text);
	std::set<std::string> lines;

	for (std::string line; std::getline(in, line);)
		lines.insert(line);
	return lines;
}

TEST_P(CpythonSuites, EndAsWithoutTheShim)
{
	int run = 0;

	for (const std::string &python : Interpreters()) {
		std::string errors, unused;

		if (!Ships(python, GetParam().name))
			continue;
		run++;
		std::string plain = Outcomes(python, false, &unused);
		std::string traced = Outcomes(python, true, &errors);

		if (plain != traced) { /* tests that are shaky by themselves get one more chance */
			plain = Outcomes(python, false, &unused);
			traced = Outcomes(python, true, &errors);
		}
		EXPECT_NE(plain.find(" ok\n"), std::string::npos) << python;
		for (const std::string &line : Lines(traced))
			EXPECT_TRUE(Lines(plain).count(line)) << python << ": only traced: " << line;
		for (const std::string &line : Lines(plain))
			EXPECT_TRUE(Lines(traced).count(line)) << python << ": only untraced: " << line;
		if (traced != plain)
			ADD_FAILURE() << errors.substr(0, 6000);
		if (!IsLong())
			break;
	}
	if (!run)
		GTEST_SKIP() << "no interpreter here ships " << GetParam().name;
}

const std::vector<Suite> suites = {
	{ "test.test_fork1", {} },
	{ "test.test_mmap", {} },
	{ "test.test_threading", {} },
	{ "test.test_subprocess", { "*NoPoll*" } },
	{ "test.test_multiprocessing_fork", { "*WithThreads*", "*WithManager*", "*TestResourceTracker*",
					      "*TestPool*", "*test_timeout*", "*TestCondition*" } },
};

INSTANTIATE_TEST_SUITE_P(Of, CpythonSuites, testing::ValuesIn(suites), [](const auto &row) {
	std::string name = row.param.name;
	std::string word;

	for (char c : name.substr(name.rfind('.') + 1))
		if (c != '_')
			word += c;
	return word;
});

} // namespace
} // namespace memtrace_test
