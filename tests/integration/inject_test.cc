/*
 * Attaching to programs that were started without the shim: they run on unharmed, what they lose
 * afterwards is named, what they held before is measured, and nothing but the library is left.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
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
	double rate = 0;
	for (size_t i = 0; i < report["growth"].size(); i++)
		if (report["growth"][i]["site"].Long() == site["id"].Long())
			rate = report["growth"][i]["bytes_per_s"]["value"].Number();
	EXPECT_NEAR(rate, 1000.0 * (double)counts["lost"] / report["trace"]["duration_s"].Number(), 0.5 * rate);
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

/* The library stays, but nobody is told to look for what is no more. */
TEST(Inject, WhatIsLeftOfAnAttachIsCalledThat)
{
	TempDir dir;
	Target target({ ProgramPath("injected"), "run" });
	std::string pid = std::to_string(target.program.pid);

	EXPECT_NE(Execute(Memtrace(dir, { "status", pid })).err.find("nobody attached to it"), std::string::npos);
	ASSERT_EQ(Attach(dir, target.program.pid), 0);
	ASSERT_TRUE(Execute(Memtrace(dir, { "detach", pid })).Exited(0));
	for (std::vector<std::string> words : { std::vector<std::string>{ "status", pid }, { "detach", pid },
						{ "mark", pid, "x" }, { "top", pid, "--once" } }) {
		Result result = Execute(Memtrace(dir, words));

		EXPECT_TRUE(result.Exited(1)) << Describe(result);
		EXPECT_NE(result.err.find("an attach that is over"), std::string::npos) << result.err;
	}
	ASSERT_EQ(Attach(dir, target.program.pid), 0);
	EXPECT_EQ(target.End()["errors"], 0);
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

/*
 * A memtrace that was killed goes on tracing its thread until it has ended: on a busy machine for longer
 * than the next one takes to come. Here it is this test that holds the threads, under that name.
 */
TEST(Inject, AnotherMemtraceIsWaitedFor)
{
	TempDir dir;
	Target target({ ProgramPath("injected"), "run" });
	pid_t pid = target.program.pid, holder = fork();

	if (!holder) {
		std::vector<pid_t> threads;

		prctl(PR_SET_NAME, "memtrace");
		for (const auto &entry :
		     std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task"))
			threads.push_back(atoi(entry.path().filename().c_str()));
		for (pid_t tid : threads)
			if (ptrace(PTRACE_SEIZE, tid, nullptr, nullptr))
				_exit(1);
		WriteAll(dir.File("held"), "");
		usleep(1500000);
		_exit(0);
	}
	for (int i = 0; i < 1000 && !Exists(dir.File("held")); i++)
		usleep(10000);
	ASSERT_TRUE(Exists(dir.File("held")));
	EXPECT_EQ(Attach(dir, pid), 0);
	int status = 0;
	waitpid(holder, &status, 0);
	EXPECT_EQ(status, 0);
	EXPECT_EQ(target.End()["errors"], 0);
}

} // namespace
