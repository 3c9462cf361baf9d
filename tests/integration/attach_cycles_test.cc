/*
 * Attaching and detaching again and again, to programs that had the shim from the start and to such
 * that did not: nothing crashes or hangs, results are the same, nothing is left behind. How long
 * programs were held up is printed, and judged by nobody: that depends on the machine.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <sstream>

#include "support/harness.h"

namespace memtrace_test {
namespace {

namespace fs = std::filesystem;

/* What a process has besides memory of its own: descriptors, and mappings of files. */
std::multiset<std::string> Belongings(pid_t pid)
{
	std::string proc = "/proc/" + std::to_string(pid);
	std::multiset<std::string> all;

	for (const auto &entry : fs::directory_iterator(proc + "/fd"))
		all.insert(fs::read_symlink(entry.path()).string());
	std::istringstream maps(ReadAll(proc + "/maps"));
	for (std::string line; std::getline(maps, line);)
		if (line.find(" /") != std::string::npos && line.find(ShimPath()) == std::string::npos)
			all.insert(line.substr(line.find(" /") + 1));
	return all;
}

long LineOf(const std::string &file, const std::string &text)
{
	std::istringstream lines(ReadAll(file));
	long number = 0;

	for (std::string line; std::getline(lines, line);) {
		number++;
		if (line.find(text) != std::string::npos)
			return number;
	}
	return -1;
}

/* Mappings without a name that are not the shim's data. */
long AnonymousMappings(pid_t pid)
{
	std::istringstream maps(ReadAll("/proc/" + std::to_string(pid) + "/maps"));
	bool library = false; /* its own data lies behind it */
	long n = 0;

	for (std::string line; std::getline(maps, line);) {
		bool named = line.find_first_of("/[") != std::string::npos;

		if (named)
			library = line.find("libmemtrace") != std::string::npos;
		n += !named && !library;
	}
	return n;
}

class Pauses {
    public:
	/* Of what memtrace said of this process: "held up for 12.3 ms". */
	void Add(const std::string &said, pid_t pid)
	{
		static const std::string words = "held up for ";
		std::istringstream lines(said);
		double sum = 0;
		bool any = false;

		for (std::string line; std::getline(lines, line);) {
			size_t at = line.find(words);

			if (at == std::string::npos ||
			    line.find("process " + std::to_string(pid)) == std::string::npos)
				continue;
			sum += strtod(line.c_str() + at + words.size(), nullptr);
			any = true;
		}
		if (any)
			all_.push_back(sum);
	}
	void Print(const char *what)
	{
		std::sort(all_.begin(), all_.end());
		if (!all_.empty())
			printf("%s: %zu pauses, median %.1f ms, 5-95 %%: %.1f-%.1f, longest %.1f\n", what,
			       all_.size(), At(0.5), At(0.05), At(0.95), all_.back());
	}

    private:
	double At(double share) const { return all_[(size_t)(share * (double)(all_.size() - 1))]; }

	std::vector<double> all_;
};

/* false: the shim comes by injection; true: it is there from the start, and dormant. */
class Cycles : public testing::TestWithParam<bool> {
    protected:
	Command Prepared(const std::vector<std::string> &argv)
	{
		Command c;

		c.argv = argv;
		c.dir = dir.path;
		c.traced = GetParam();
		c.timeout_s = 3000;
		if (GetParam())
			c.env["MEMTRACE_MODE"] = "dormant";
		return c;
	}
	Result Driver(const std::vector<std::string> &arguments)
	{
		Command c;

		c.argv = { BuildPath("memtrace") };
		c.argv.insert(c.argv.end(), arguments.begin(), arguments.end());
		c.dir = dir.path;
		c.traced = false;
		c.env["MEMTRACE_LOG"] = "info";
		return Execute(c);
	}
	/* Leaves at the first failure. until: a place that a live view of the first trace names. */
	void Cycle(pid_t pid, long i, bool tree, const std::string &until = "")
	{
		std::vector<std::string> words = { "attach", std::to_string(pid), "--wait", "60", "--out",
						   dir.File(i ? "later.bin" : "first.bin") };

		if (tree)
			words.push_back("--tree");
		Result a = Driver(words);
		ASSERT_TRUE(a.Exited(0)) << "attach " << i << Describe(a);
		attach.Add(a.err, pid);
		for (int k = 0; k < 600 && i == 0 && !until.empty(); k++)
			if (Driver({ "top", dir.File("first.bin"), "--once" }).out.find(until) !=
			    std::string::npos)
				break;
		usleep((useconds_t)(i % 7 * 20000));
		Result d = Driver({ "detach", std::to_string(pid), "--wait", "60" });
		ASSERT_TRUE(d.Exited(0)) << "detach " << i << Describe(d);
		detach.Add(d.err, pid);
	}
	void TearDown() override
	{
		attach.Print("attach");
		detach.Print("detach");
	}

	TempDir dir;
	Pauses attach, detach;
};

TEST_P(Cycles, AProgramWithThreadsAndChildren)
{
	Running program(Prepared({ ProgramPath("attached"), "1", "0", "fork" }));

	ASSERT_TRUE(program.WaitForOutput("ready", 60));
	auto before = Belongings(program.pid);
	for (long i = 0; i < Scaled(200, 10) && !HasFatalFailure(); i++) {
		Cycle(program.pid, i, i % 2);
		EXPECT_EQ(Belongings(program.pid), before) << i;
	}
	kill(program.pid, SIGTERM);
	Result result = program.Wait();
	ASSERT_TRUE(result.Exited(37)) << Describe(result);
	EXPECT_EQ(result.err, "");
	EXPECT_EQ(Facts(result.out, "counts")[0]["errors"], 0);
	EXPECT_GT(Facts(result.out, "counts")[0]["children"], 0);
	Report(dir.File("first.bin"));
	Report(dir.File("later.bin"));
}

/* Threads in system calls that a stop ends early, vector registers that nobody saves: it checks itself. */
TEST_P(Cycles, AProgramThatWatchesItsThreads)
{
	Running program(Prepared({ ProgramPath("injected"), "run" }));

	ASSERT_TRUE(program.WaitForOutput("ready", 60));
	auto before = Belongings(program.pid);
	for (int i = 0; i < 2000 && !before.count("anon_inode:[eventpoll]"); i++, usleep(10000))
		before = Belongings(program.pid); /* its last thread has not opened that yet */
	long mappings = 0;
	for (long i = 0; i < Scaled(200, 5) && !HasFatalFailure(); i++) {
		Cycle(program.pid, i, false);
		mappings = i ? mappings : AnonymousMappings(program.pid);
	}
	EXPECT_EQ(Belongings(program.pid), before);
	EXPECT_LE(AnonymousMappings(program.pid), mappings + 2) << "threads get arenas now and then";
	kill(program.pid, SIGTERM);
	Result result = program.Wait();
	EXPECT_TRUE(result.Exited(37)) << Describe(result);
	EXPECT_EQ(result.err, "");
}

TEST_P(Cycles, APythonLoop)
{
	Running program(Prepared({ SourcePath("build/venv/bin/python"),
				   SourcePath("tests/programs/attached_loop.py") }));

	ASSERT_TRUE(program.WaitForOutput("ready", 60));
	auto before = Belongings(program.pid);
	for (long i = 0; i < Scaled(200, 4) && !HasFatalFailure(); i++)
		Cycle(program.pid, i, false);
	EXPECT_EQ(Belongings(program.pid), before);
	kill(program.pid, SIGTERM);
	Result result = program.Wait();
	EXPECT_TRUE(result.Exited(37)) << Describe(result);
	EXPECT_EQ(result.err, "");
}

/* The same losses to the last digit as in a run of as many epochs that nobody attached to. */
TEST_P(Cycles, ATrainingRunWithForkedWorkers)
{
	std::string python = SourcePath("build/venv/bin/python");
	std::string script = SourcePath("tests/programs/attached_train.py"), enough = dir.File("enough");

	if (!Exists(python))
		GTEST_SKIP() << "no torch in build/venv: scripts/install-deps brings it";
	long lost = LineOf(script, "LINE: lost");
	Running program(Prepared({ python, script, enough }));
	ASSERT_TRUE(program.WaitForOutput("ready", 300));
	for (long i = 0; i < Scaled(200, 2) && !HasFatalFailure(); i++)
		Cycle(program.pid, i, true, "attached_train.py:" + std::to_string(lost));
	WriteAll(enough, "");
	Result result = program.Wait();
	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	EXPECT_EQ(result.err, "");
	auto end = Facts(result.out, "end");
	ASSERT_EQ(end.size(), 1u) << Describe(result);

	Command alone;
	alone.argv = { python, script, std::to_string(end[0]["epochs"]) };
	alone.dir = dir.path;
	alone.traced = false;
	alone.timeout_s = 3000;
	EXPECT_EQ(result.out, Execute(alone).out);
	Json report = Report(dir.File("first.bin"));
	bool named = false;
	for (size_t k = 0; k < report["sites"].size() && !named; k++) {
		Json frame = report["sites"][k]["stack"][(size_t)0];

		named = frame["file"].Text() == script && frame["line"].Long() == lost;
	}
	EXPECT_TRUE(named) << "line " << lost << " is in no site";
}

std::string NameOf(const testing::TestParamInfo<bool> &info)
{
	return info.param ? "Dormant" : "Injected";
}

INSTANTIATE_TEST_SUITE_P(Attach, Cycles, testing::Bool(), NameOf);

} // namespace
} // namespace memtrace_test
