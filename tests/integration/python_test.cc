/*
 * Python's frames in the report are the interpreter's own: file, function and line equal what its
 * traceback module says at the same call, on every interpreter that is here.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>
#include <stdlib.h>

#include <sstream>

#include "support/harness.h"
#include "support/interpreters.h"

namespace memtrace_test {
namespace {

struct Interpreter {
	std::string minor, path; /* "3.8"; "": not installed */
};

void PrintTo(const Interpreter &i, std::ostream *out) { *out << i.minor; }

std::vector<Interpreter> Interpreters()
{
	std::vector<Interpreter> list;

	for (const char *minor : { "3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14", "3.15" })
		list.push_back({ minor, InterpreterOf(minor) });
	list.push_back({ "System", InterpreterOf("system") });
	return list;
}

class Python : public testing::TestWithParam<Interpreter> {
    protected:
	void SetUp() override
	{
		if (GetParam().path.empty())
			GTEST_SKIP() << "no Python " << GetParam().minor << " here";
	}
	Command Script(const std::vector<std::string> &arguments) const
	{
		Command command;

		command.argv = { GetParam().path };
		command.argv.insert(command.argv.end(), arguments.begin(), arguments.end());
		command.dir = dir.path;
		command.env["PYTHONDONTWRITEBYTECODE"] = "1";
		return command;
	}

	TempDir dir;
};

using Frames = std::vector<std::string>;

std::string Frame(const std::string &file, const std::string &function, long line)
{
	return file + ":" + function + ":" + std::to_string(line);
}

Frames Said(const Json &stack)
{
	Frames list;

	for (size_t i = 0; i < stack.size(); i++)
		list.push_back(Frame(stack[i][(size_t)0].Text(), stack[i][(size_t)1].Text(),
				     stack[i][(size_t)2].Long()));
	return list;
}

Frames Reported(const Json &site)
{
	Frames list;

	for (size_t i = 0; i < site["stack"].size(); i++) {
		Json f = site["stack"][i];

		if (f["language"].Text() == "python")
			list.push_back(Frame(f["file"].Text(), f["function"].Text(), f["line"].Long()));
	}
	return list;
}

/* The one site whose blocks have about that size. */
Json SiteOf(const Json &sites, long size)
{
	Json found;

	for (size_t i = 0; i < sites.size(); i++) {
		long count = sites[i]["allocations"].Long();
		long bytes = sites[i]["bytes_allocated"].Long();

		if (sites[i]["kind"].Text() == "heap" && count > 0 && bytes >= size * count &&
		    bytes < (size + 64) * count) {
			EXPECT_TRUE(found.IsNull()) << "two sites for " << size;
			found = sites[i];
		}
	}
	return found;
}

TEST_P(Python, FileFunctionAndLineAreTheInterpreters)
{
	std::string script = SourcePath("tests/programs/python_lines.py");
	Result result = Execute(Script({ script, dir.path }));
	Json sites = Report(dir.File("trace.bin"), { "--top", "1000000" })["sites"];
	std::istringstream lines(result.out);
	int checked = 0;

	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	for (std::string line; std::getline(lines, line); checked++) {
		Json said = Json::Parse(line);
		long size = said["size"].Long(), count = said["count"].Long();
		Json site = SiteOf(sites, size);

		ASSERT_FALSE(site.IsNull()) << "no site for " << line;
		EXPECT_EQ(site["allocations"].Long(), count) << line;
		EXPECT_EQ(site["live_count"].Long(), (count + 1) / 2) << line;
		EXPECT_EQ(Reported(site), Said(said["stack"])) << line;
	}
	EXPECT_GE(checked, 27);
}

/* No import, no change of the script, nothing in its output, modules or threads. */
TEST_P(Python, TheScriptSeesNoDifference)
{
	const char *text = "import sys, os, threading\n"
			   "print(sys.argv, sorted(sys.modules), threading.active_count())\n"
			   "print(sys.gettrace(), sys.getprofile(), sys.flags)\n"
			   "print(sorted(k for k in os.environ if not k.startswith('MEMTRACE_') and "
			   "k not in ('LD_PRELOAD', 'NVTX_INJECTION64_PATH')))\n"
			   "print(os.open('/dev/null', 0), os.listdir('/proc/self/task').__len__())\n"
			   "print('to stderr', file=sys.stderr)\n"
			   "sys.exit(42)\n";
	Command command = Script({ "-c", text, "an argument" });

	command.env["MEMTRACE_QUIET"] = "1";
	Result traced = Execute(command);

	command.traced = false;
	Result plain = Execute(command);

	ASSERT_TRUE(plain.Exited(42)) << Describe(plain);
	EXPECT_EQ(traced.status, plain.status) << Describe(traced);
	EXPECT_EQ(traced.out, plain.out);
	EXPECT_EQ(traced.err, plain.err);
}

INSTANTIATE_TEST_SUITE_P(Versions, Python, testing::ValuesIn(Interpreters()), [](const auto &row) {
	std::string name = row.param.minor;

	for (char &c : name)
		c = c == '.' ? 'x' : c;
	return name;
});

} // namespace
} // namespace memtrace_test
