/*
 * Native stacks equal libunwind's: MEMTRACE_VERIFY on programs with every shape of stack, on
 * interpreters and on real libraries; and what that mode must not change: whose exceptions are
 * whose, forked children, a machine without libunwind.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <sstream>

#include "support/harness.h"

namespace memtrace_test {
namespace {

bool HaveLibunwind() { return dlopen("libunwind.so.8", RTLD_NOW | RTLD_LOCAL) != nullptr; }

/* "stacks verified: stacks 10, kept 5, ..." as numbers; empty when the trace has no such note. */
std::map<std::string, long> Verified(const std::string &trace)
{
	const std::string start = "stacks verified: ";
	std::map<std::string, long> counts;
	Json notes = Report(trace)["trace"]["notes"];

	for (size_t i = 0; i < notes.size(); i++) {
		std::string text = notes[i].Text(), name;
		long value;

		if (text.compare(0, start.size(), start))
			continue;
		std::istringstream in(text.substr(start.size()));

		while (in >> name >> value) {
			counts[name] += value;
			in.ignore(1, ',');
		}
	}
	return counts;
}

void PrintCounts(const std::string &what, const std::map<std::string, long> &counts)
{
	printf("%s:", what.c_str());
	for (const auto &c : counts)
		printf(" %s=%ld", c.first.c_str(), c.second);
	printf("\n");
}

class Verify : public testing::Test {
    protected:
	void SetUp() override
	{
		if (!HaveLibunwind())
			GTEST_SKIP() << "libunwind.so.8 is not installed";
	}

	/* Runs it, prints what was found, and expects equal stacks. Parts per thousand may have
	 * ended early. */
	std::map<std::string, long> Run(const std::vector<std::string> &argv, double incomplete,
					const std::string &every = "1", int status = 0)
	{
		Command command;

		command.argv = argv;
		command.dir = dir_.path;
		command.env = { { "MEMTRACE_VERIFY", every }, { "MEMTRACE_LOG", "debug" } };
		command.timeout_s = 300;
		result_ = Execute(command);
		EXPECT_TRUE(result_.Exited(status)) << Describe(result_);

		std::map<std::string, long> counts = Verified(dir_.File("trace.bin"));

		PrintCounts(argv.size() > 1 ? argv[1] : argv[0], counts);
		EXPECT_GT(counts["compared"], 0) << result_.err;
		EXPECT_EQ(counts["different"], 0) << result_.err;
		EXPECT_EQ(counts["memo"], 0) << result_.err;
		EXPECT_LE((double)counts["incomplete"], incomplete / 1000 * (double)counts["compared"])
			<< result_.err;
		return counts;
	}

	std::map<std::string, long> Shape(const std::string &name, double incomplete)
	{
		return Run({ ProgramPath("unwind_shapes"), name, ProgramPath("stack_plugin_a.so"),
			     ProgramPath("stack_plugin_b.so") },
			   incomplete);
	}

	TempDir dir_;
	Result result_;
};

/* Those of coroutines end in libc's __start_context, which has no unwind information on purpose. */
TEST_F(Verify, RecursionSignalsCoroutinesThreads)
{
	std::map<std::string, long> counts = Run({ ProgramPath("stack_shapes") }, 20);

	EXPECT_EQ(counts["incomplete"], 12);
	EXPECT_EQ(counts["uncovered"], 0);
}

TEST_F(Verify, Exceptions)
{
	Shape("exceptions", 0);
}

TEST_F(Verify, Longjmp)
{
	Shape("jumps", 0);
}

TEST_F(Verify, NoFramePointers)
{
	Shape("no_frame_pointers", 0);
}

TEST_F(Verify, RealignedFrames)
{
	Shape("realigned", 0);
}

TEST_F(Verify, StackSwitchesByHand)
{
	Shape("switches", 0);
}

TEST_F(Verify, OtherFilesAtOneAddress)
{
	Shape("plugins", 0);
	EXPECT_NE(result_.out.find("plugins_at_one_address=1"), std::string::npos) << result_.out;
}

/* Of 10 calls into the code that nobody knows, each makes one stack that ends there, and says so. */
TEST_F(Verify, CodeWithoutUnwindInformation)
{
	std::map<std::string, long> counts = Shape("unregistered", 1000);

	EXPECT_EQ(counts["incomplete"], 10);
	EXPECT_EQ(counts["uncovered"], 10);
}

/* Code that only takes its frame down says itself how to leave it; libunwind does not look. */
TEST_F(Verify, TrampolinesMadeAtRunTime)
{
	std::map<std::string, long> counts = Shape("trampolines", 0);

	EXPECT_EQ(counts["unjudged"], 10);
}

class VerifyPerf : public Verify, public testing::WithParamInterface<const char *> {};

TEST_P(VerifyPerf, TrampolinesOfPython)
{
	const char *home = getenv("HOME");
	std::string python =
		std::string(home ? home : "") + "/.pyenv/versions/" + GetParam() + "/bin/python3";

	if (!Exists(python))
		GTEST_SKIP() << "no Python " << GetParam();

	std::map<std::string, long> counts = Run(
		{ python, "-X", "perf", "-c",
		  "def f(n):\n return f(n-1)+1 if n else len([bytearray(3000) for i in range(20)])\n"
		  "f(30)" },
		0);

	EXPECT_GT(counts["unjudged"], 300);
}

INSTANTIATE_TEST_SUITE_P(Versions, VerifyPerf, testing::Values("3.12.1", "3.13.0"));

TEST_F(Verify, Threads)
{
	Run({ ProgramPath("heap_threads"), "own", "4", "2000" }, 0);
}

std::string Venv() { return SourcePath("build/venv/bin/python"); }

TEST_F(Verify, PythonWithNumpy)
{
	if (!Exists(Venv()))
		GTEST_SKIP() << "no build/venv: make demo";
	Run({ Venv(), "-c",
	      "import numpy as n\nfor i in range(50): n.linalg.inv(n.random.rand(40, 40))" },
	    1);
}

TEST_F(Verify, PythonWithTorch)
{
	if (!Exists(Venv()))
		GTEST_SKIP() << "no build/venv: make demo";
	Run({ Venv(), "-c",
	      "import torch\nm = torch.nn.Linear(64, 64)\n"
	      "for i in range(50): m(torch.randn(8, 64)).sum().backward()" },
	    1, IsLong() ? "1" : "101");
}

/*
 * Whose unwinder a library that Python loads gets: libgcc's, as without the shim. libunwind's would
 * make each throw some twenty times as slow. By ld.so's own account of what it bound to what.
 */
class Exceptions : public testing::TestWithParam<const char *> {};

TEST_P(Exceptions, BindToLibgcc)
{
	const std::string symbol = "normal symbol `_Unwind_RaiseException'";
	Command command;
	TempDir dir;
	int found = 0;

	if (!Exists("/usr/bin/python3"))
		GTEST_SKIP() << "no system Python";
	command.argv = { "/usr/bin/python3", "-c", "import ctypes; ctypes.CDLL('libstdc++.so.6')" };
	command.dir = dir.path;
	command.env = { { "MEMTRACE_VERIFY", GetParam() }, { "LD_DEBUG", "bindings" },
			{ "LD_BIND_NOW", "1" } };
	Result result = Execute(command);

	ASSERT_TRUE(result.Exited(0));
	std::istringstream lines(result.err);

	for (std::string line; std::getline(lines, line);) {
		if (line.find(symbol) == std::string::npos ||
		    line.find("libstdc++.so.6 [0] to ") == std::string::npos)
			continue;
		EXPECT_NE(line.find("libgcc_s.so.1 [0]: normal"), std::string::npos) << line;
		found++;
	}
	EXPECT_EQ(found, 1);
}

INSTANTIATE_TEST_SUITE_P(Verify, Exceptions, testing::Values("0", "1"));

/*
 * Code with tables registered at run time (LLVM's way) is asked of nobody: libgcc would take a lock.
 * The stack ends there and says so, inside it all frames are right, and exceptions go through.
 */
TEST(RegisteredFrames, EndStacksMarkedAndStillLeadExceptions)
{
	Command command;
	TempDir dir;

	command.argv = { ProgramPath("registered_frames") };
	command.dir = dir.path;
	Result result = Execute(command);

	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	EXPECT_EQ(result.out, "-9900\n"); /* 1 + ... + 100 returned, 100 + ... + 199 caught */
	Command report;

	report.argv = { BuildPath("memtrace-report"), "--json", dir.File("trace.bin") };
	report.traced = false;
	Json sites = Json::Parse(Execute(report).out)["sites"];
	long found = 0;

	for (size_t i = 0; i < sites.size(); i++) {
		Json stack = sites[i]["stack"];

		if (stack.Print().find("below_registered_code") == std::string::npos ||
		    sites[i]["bytes_allocated"].Long() < 300000)
			continue;
		found += sites[i]["allocations"].Long();
		ASSERT_EQ(stack.size(), 3u) << stack.Print();
		EXPECT_EQ(stack[(size_t)1]["function"].Text().substr(0, 2), "0x");
		EXPECT_EQ(stack[(size_t)2]["function"].Text(), "[no unwind information beyond here]");
	}
	EXPECT_EQ(found, 200);
}

/* libunwind asks ld.so, whose lock may be held for ever in a forked child: nobody asks there. */
TEST_F(Verify, NotInForkedChildren)
{
	std::map<std::string, long> counts = Run({ ProgramPath("fork_tree") }, 0, "1", 7);

	EXPECT_EQ(counts["stacks"], counts["compared"]);
	EXPECT_LT(counts["stacks"], 100) << "63 allocations of the first process, and no child's";
}

/* A sample leaves most stacks alone. */
TEST_F(Verify, EveryNth)
{
	std::map<std::string, long> counts =
		Run({ ProgramPath("heap_threads"), "own", "1", "2000" }, 0, "10");

	EXPECT_NEAR((double)counts["compared"], (double)counts["stacks"] / 10, 3);
}

TEST(VerifyOff, NothingIsLoadedAndNothingSaid)
{
	TempDir dir;
	Command command;

	command.argv = { "/bin/cat", "/proc/self/maps" };
	command.dir = dir.path;
	Result result = Execute(command);

	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	EXPECT_NE(result.out.find("libmemtrace.so"), std::string::npos);
	EXPECT_EQ(result.out.find("libunwind"), std::string::npos);
	EXPECT_TRUE(Verified(dir.File("trace.bin")).empty());
}

} // namespace
} // namespace memtrace_test
