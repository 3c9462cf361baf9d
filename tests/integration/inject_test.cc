/*
 * Attaching to programs that were started without the shim: they run on unharmed, what they lose
 * afterwards is named, what they held before is measured, and nothing but the library is left.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dirent.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <fstream>
#include <set>
#include <sstream>

#include "support/harness.h"

using namespace memtrace_test;

namespace
{

Command Plain(const std::vector<std::string> &argv)
{
	Command command;

	command.argv = argv;
	command.traced = false;
	return command;
}

Command Memtrace(const TempDir &dir, const std::vector<std::string> &arguments)
{
	Command command = Plain({ BuildPath("memtrace") });

	command.argv.insert(command.argv.end(), arguments.begin(), arguments.end());
	command.dir = dir.path;
	command.timeout_s = 60;
	return command;
}

/* 0 when it worked; a failure is told with what was said. */
int Attach(const TempDir &dir, pid_t pid, const std::vector<std::string> &more = {})
{
	std::vector<std::string> arguments = { "attach", std::to_string(pid), "--out",
					       dir.File("trace.bin") };

	arguments.insert(arguments.end(), more.begin(), more.end());
	Result result = Execute(Memtrace(dir, arguments));
	EXPECT_TRUE(result.Exited(0)) << Describe(result);
	return result.Exited(0) ? 0 : -1;
}

int Detach(const TempDir &dir, pid_t pid)
{
	Result result = Execute(Memtrace(dir, { "detach", std::to_string(pid) }));

	EXPECT_TRUE(result.Exited(0)) << Describe(result);
	return result.Exited(0) ? 0 : -1;
}

/* What a process has besides memory of its own: descriptors, threads, and mappings of files. */
std::set<std::string> Holdings(pid_t pid)
{
	std::set<std::string> all;
	std::string proc = "/proc/" + std::to_string(pid);

	for (const char *folder : { "/fd", "/task" }) {
		DIR *entries = opendir((proc + folder).c_str());

		while (const dirent *e = entries ? readdir(entries) : nullptr)
			all.insert(std::string(folder) + "/" + e->d_name);
		closedir(entries);
	}
	std::istringstream maps(ReadAll(proc + "/maps"));
	for (std::string line; std::getline(maps, line);)
		if (line.find(" /") != std::string::npos)
			all.insert(line.substr(line.find(" /") + 1));
	return all;
}

long AnonymousMappings(pid_t pid)
{
	std::istringstream maps(ReadAll("/proc/" + std::to_string(pid) + "/maps"));
	long n = 0;
	bool library = false; /* its own data lies behind it */

	for (std::string line; std::getline(maps, line);) {
		bool named = line.find('/') != std::string::npos ||
			     line.find('[') != std::string::npos;

		if (named)
			library = line.find("libmemtrace") != std::string::npos;
		n += !named && !library;
	}
	return n;
}

class Target
{
    public:
	explicit Target(const std::vector<std::string> &argv)
		: program(Plain(argv))
	{
		EXPECT_TRUE(program.WaitForOutput("ready", 60));
	}
	/* Ends it and looks at what it says of itself. */
	std::map<std::string, long> End()
	{
		kill(program.pid, SIGTERM);
		Result result = program.Wait();
		auto counts = Facts(result.out, "counts");

		EXPECT_TRUE(result.Exited(37)) << Describe(result);
		EXPECT_EQ(result.err, "");
		return counts.empty() ? std::map<std::string, long>() : counts[0];
	}

	Running program;
};

/* Report() leaves symbols out. */
Json WithSymbols(const std::string &trace)
{
	Result result = Execute(Plain({ BuildPath("memtrace-report"), "--json", trace }));

	EXPECT_TRUE(result.Exited(0)) << Describe(result);
	return Json::Parse(result.out);
}

Json SiteAt(const Json &report, const std::string &function)
{
	for (size_t i = 0; i < report["sites"].size(); i++)
		for (size_t k = 0; k < report["sites"][i]["stack"].size(); k++)
			if (report["sites"][i]["stack"][k]["function"].Text() == function)
				return report["sites"][i];
	return Json();
}

int LineOf(const std::string &file, const std::string &mark)
{
	std::istringstream source(ReadAll(SourcePath("tests/programs/" + file)));
	int n = 0;

	for (std::string line; std::getline(source, line);) {
		n++;
		if (line.find("LINE: " + mark) != std::string::npos)
			return n;
	}
	return -1;
}

TEST(Inject, ALeakThatBeginsAfterwardsIsNamedAndOlderMemoryIsMeasured)
{
	const long mib = 64;
	TempDir dir;
	Target target({ ProgramPath("injected"), "run", std::to_string(mib),
			BuildPath("programs/injected_plugin.so") });

	ASSERT_EQ(Attach(dir, target.program.pid), 0);
	kill(target.program.pid, SIGUSR1);
	sleep(2);
	auto counts = target.End();
	Json report = WithSymbols(dir.File("trace.bin"));
	Json process = report["processes"][(size_t)0], site = SiteAt(report, "lose");

	EXPECT_EQ(counts["errors"], 0);
	ASSERT_GT(counts["lost"], 10);
	EXPECT_EQ(site["live_count"].Long(), counts["lost"]) << "every one of them";
	EXPECT_EQ(site["live_bytes"].Long(), 1000 * counts["lost"]);
	EXPECT_EQ(site["stack"][(size_t)0]["line"].Long(), LineOf("injected.c", "lost"));
	/* A library that was loaded after the attach. */
	site = SiteAt(report, "plugin_take");
	EXPECT_EQ(site["live_count"].Long(), 100);
	EXPECT_EQ(site["stack"][(size_t)0]["line"].Long(), LineOf("injected_plugin.so.c", "taken"));
	EXPECT_NEAR((double)process["predates_attach_bytes"].Long(), (double)(mib << 20),
		    0.05 * (double)(mib << 20));
	EXPECT_EQ(process["end"]["kind"].Text(), "exit");
	EXPECT_EQ(process["end"]["code"].Long(), 37);
	EXPECT_GT(report["trace"]["predating_frees"].Long(), 0) << "blocks from before were freed";
}

TEST(Inject, ManyTimesAndNothingIsLeftBehind)
{
	TempDir dir;
	Target target({ ProgramPath("injected"), "run" });
	pid_t pid = target.program.pid;
	std::set<std::string> before = Holdings(pid), after;
	long mappings = 0;

	for (long i = 0; i < Scaled(200, 10); i++) {
		ASSERT_EQ(Attach(dir, pid), 0);
		if (i % 3 == 0)
			usleep(50000);
		ASSERT_EQ(Detach(dir, pid), 0);
		if (i == 0)
			mappings = AnonymousMappings(pid);
	}
	after = Holdings(pid);
	after.erase(ShimPath());
	EXPECT_EQ(before, after);
	EXPECT_LE(AnonymousMappings(pid), mappings + 2) << "threads get arenas now and then";
	EXPECT_EQ(target.End()["errors"], 0);
}

TEST(Inject, PythonRunsOnWithTheSameResult)
{
	TempDir dir;
	std::string python = BuildPath("venv/bin/python"), script = dir.File("loop.py");

	WriteAll(script, "import os, signal, threading\n"
			 "go = True\n"
			 "def stop(*_):\n"
			 "    global go\n"
			 "    go = False\n"
			 "signal.signal(signal.SIGTERM, stop)\n"
			 "def work(out):\n"
			 "    while go:\n"
			 "        out.append(sum(len(str(i)) for i in range(500)))\n"
			 "        out.append(sum(map(len, [bytes(3000) for _ in range(20)])))\n"
			 "a, b = [], []\n"
			 "t = threading.Thread(target=work, args=(a,))\n"
			 "t.start()\n"
			 "print('ready', flush=True)\n"
			 "work(b)\n"
			 "t.join()\n"
			 "os._exit(37 if set(a + b) == {1390, 60000} else 1)\n");
	Target target({ python, script });
	for (long i = 0; i < Scaled(200, 5); i++) {
		ASSERT_EQ(Attach(dir, target.program.pid), 0);
		ASSERT_EQ(Detach(dir, target.program.pid), 0);
	}
	target.End();
}

/* The same losses to the last bit, and every worker came back. */
TEST(Inject, ATrainingRunWithForkedWorkersHasTheSameResult)
{
	TempDir dir;
	std::string python = BuildPath("venv/bin/python");
	std::string script = SourcePath("tests/programs/injected_train.py");
	std::string epochs = IsLong() ? "150" : "3";
	Result alone = Execute(Plain({ python, script, epochs }));
	Running run(Plain({ python, script, epochs }));
	long cycles = 0;

	ASSERT_TRUE(alone.Exited(0)) << Describe(alone);
	ASSERT_TRUE(run.WaitForOutput("ready", 60));
	while (cycles < Scaled(200, 3) && run.OutSoFar().find("loss") == std::string::npos) {
		std::vector<std::string> attach = { "attach", std::to_string(run.pid), "--tree",
						    "--wait", "10", "--out", dir.File("trace.bin") };

		/* Workers come and go: that one of them has ended just then is no failure. */
		Execute(Memtrace(dir, attach));
		cycles += Execute(Memtrace(dir, { "detach", std::to_string(run.pid) })).Exited(0);
	}
	Result result = run.Wait();
	EXPECT_TRUE(result.Exited(0)) << Describe(result);
	EXPECT_EQ(result.out, alone.out);
	EXPECT_GE(cycles, IsLong() ? 100 : 1);
}

TEST(Inject, TheTraceSurvivesTheKillOfTheTarget)
{
	TempDir dir;
	Target target({ ProgramPath("injected"), "run" });

	ASSERT_EQ(Attach(dir, target.program.pid), 0);
	kill(target.program.pid, SIGUSR1);
	usleep(700000);
	kill(target.program.pid, SIGKILL);
	target.program.Wait();
	Json report = WithSymbols(dir.File("trace.bin"));
	EXPECT_GT(SiteAt(report, "lose")["live_count"].Long(), 5);
}

/* At any moment of the attach: the target does not notice, and can be attached to afterwards. */
TEST(Inject, TheTargetSurvivesTheKillOfMemtrace)
{
	TempDir dir;
	Target target({ ProgramPath("injected"), "run" });
	pid_t pid = target.program.pid;

	for (int i = 0; i < Scaled(200, 20); i++) {
		Running memtrace(Memtrace(dir, { "attach", std::to_string(pid), "--out",
						 dir.File("killed.bin") }));

		usleep((useconds_t)(i * 2500 % 60000));
		kill(-memtrace.pid, SIGKILL);
		memtrace.Wait();
		Execute(Memtrace(dir, { "detach", std::to_string(pid), "--wait", "2" }));
	}
	EXPECT_EQ(Attach(dir, pid), 0);
	EXPECT_EQ(target.End()["errors"], 0);
	EXPECT_FALSE(Report(dir.File("trace.bin"))["processes"][(size_t)0].IsNull());
}

} // namespace
