/*
 * `memtrace run`: the command must behave, end and be controlled as if the driver were not there.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>
#include <pty.h>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "support/harness.h"
#include "support/terminal.h"
#include "support/trace_truth.h"

namespace memtrace_test {
namespace {

Command Driver(const TempDir &dir, const std::vector<std::string> &words)
{
	Command command;

	command.argv = { BuildPath("memtrace"), "run" };
	command.argv.insert(command.argv.end(), words.begin(), words.end());
	command.dir = dir.path;
	command.traced = false;
	command.env["MEMTRACE_QUIET"] = "1";
	return command;
}

/* One of /proc/PID/stat's letters: R S D T Z, or 0 when there is no such process. */
char State(pid_t pid)
{
	std::string stat = ReadAll("/proc/" + std::to_string(pid) + "/stat");
	size_t paren = stat.rfind(')');

	return paren == std::string::npos ? 0 : stat[paren + 2];
}

bool WaitForState(pid_t pid, char wanted, bool is = true)
{
	for (int i = 0; i < 2000; i++, usleep(5000))
		if ((State(pid) == wanted) == is)
			return true;
	return false;
}

pid_t OnlyChild(pid_t pid)
{
	std::string p = std::to_string(pid);

	return (pid_t)atol(ReadAll("/proc/" + p + "/task/" + p + "/children").c_str());
}

long Count(const std::string &text, const std::string &part)
{
	long n = 0;

	for (size_t at = 0; (at = text.find(part, at)) != std::string::npos; at += part.size())
		n++;
	return n;
}

TEST(Run, ExitStatusIsTheCommandsOwn)
{
	struct {
		const char *script;
		int status;
	} cases[] = { { "exit 0", 0 },		  { "exit 7", 7 },
		      { "exit 255", 255 },	  { "kill -TERM $$", 128 + SIGTERM },
		      { "kill -KILL $$", 137 }, { "kill -SEGV $$", 128 + SIGSEGV } };

	for (const auto &c : cases) {
		TempDir dir;
		Result result = Execute(Driver(dir, { "--", "/bin/sh", "-c", c.script }));

		EXPECT_TRUE(result.Exited(c.status)) << c.script << ": " << Describe(result);
		EXPECT_EQ(result.err, "") << c.script;
		EXPECT_TRUE(Exists(dir.File("trace.bin"))) << c.script;
	}
}

TEST(Run, WhatCannotStartHasItsOwnStatus)
{
	TempDir dir;

	WriteAll(dir.File("no-x"), "#!/bin/sh\n");
	WriteAll(dir.File("no-interpreter"), "#!/no/such/interpreter\n");
	chmod(dir.File("no-interpreter").c_str(), 0755);
	struct {
		std::vector<std::string> words;
		int status;
	} cases[] = {
		{ { "no-such-command-anywhere" }, 127 },
		{ { "./missing" }, 127 },
		{ { dir.File("no-interpreter") }, 127 },
		{ { "./no-x" }, 126 },
		{ { dir.path }, 126 },
		{ {}, 125 },
		{ { "--no-such-option", "true" }, 125 },
		{ { "--depth", "zero", "true" }, 125 },
		{ { "--mode=sample", "--sample-bytes", "0", "true" }, 125 },
	};

	for (const auto &c : cases) {
		Result result = Execute(Driver(dir, c.words));

		EXPECT_TRUE(result.Exited(c.status)) << Describe(result);
		EXPECT_EQ(Count(result.err, "\n"), 1) << result.err;
	}
	EXPECT_FALSE(Exists(dir.File("trace.bin")));
}

TEST(Run, OptionsReachTheRecording)
{
	TempDir dir;
	Result result = Execute(Driver(dir, { "--out=other.bin", "--depth", "7", "--events", "all",
					      ProgramPath("heap_single"), "5" }));

	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	ExpectTruth(dir.File("other.bin"), result.out, 1);
	Json json = Report(dir.File("other.bin"), { "--top", "100000" });

	ASSERT_GT(json["sites"].size(), 0u);
	for (size_t i = 0; i < json["sites"].size(); i++)
		EXPECT_LE(json["sites"][i]["stack"].size(), 8u); /* 7 and the mark of a cut */
}

TEST(Run, SignalsAreForwarded)
{
	static const int signals[] = { SIGHUP,	SIGINT,	 SIGQUIT,  SIGTERM,	SIGUSR1, SIGUSR2,
				       SIGALRM, SIGCONT, SIGWINCH, SIGVTALRM, SIGIO,	SIGPIPE };
	TempDir dir;
	std::string script;

	for (int s : signals)
		script += "trap 'echo got-" + std::to_string(s) + "-' " + std::to_string(s) + "; ";
	script += "echo ready; while [ ! -e go ]; do sleep 0.02; done; exit 9";
	Running driver(Driver(dir, { "--", "/bin/bash", "-c", script }));

	ASSERT_TRUE(driver.WaitForOutput("ready", 20));
	for (int s : signals) {
		std::string word = "got-" + std::to_string(s) + "-";

		kill(driver.pid, s);
		EXPECT_TRUE(driver.WaitForOutput(word, 10)) << word;
		EXPECT_EQ(Count(driver.OutSoFar(), word), 1) << word;
	}
	WriteAll(dir.File("go"), "");
	Result result = driver.Wait();

	EXPECT_TRUE(result.Exited(9)) << Describe(result);
}

TEST(Run, DiesAsTheCommandWhenTheSignalKills)
{
	TempDir dir;
	Running driver(Driver(dir, { ProgramPath("hold"), dir.File("never") }));

	ASSERT_TRUE(driver.WaitForOutput("held", 20));
	pid_t child = OnlyChild(driver.pid);

	ASSERT_GT(child, 0);
	kill(driver.pid, SIGTERM);
	Result result = driver.Wait();

	EXPECT_TRUE(result.Exited(128 + SIGTERM)) << Describe(result);
	EXPECT_EQ(State(child), 0) << "the command is still there";
}

TEST(Run, TheCommandOutlivesAKilledDriver)
{
	TempDir dir;
	Running driver(Driver(dir, { ProgramPath("hold"), dir.File("go") }));

	ASSERT_TRUE(driver.WaitForOutput("held", 20));
	pid_t child = OnlyChild(driver.pid);

	kill(driver.pid, SIGKILL);
	ASSERT_TRUE(WaitForState(driver.pid, 'Z'));
	ASSERT_NE(State(child), 0);
	WriteAll(dir.File("go"), "");
	ASSERT_TRUE(driver.WaitForOutput("expect", 20)) << driver.OutSoFar();
	for (int i = 0; i < 1000 && State(child) != 0; i++)
		usleep(5000);
	ExpectTruth(dir.File("trace.bin"), driver.OutSoFar(), 1);
}

/* Our own process group is not an orphan here, so that SIGTSTP stops as under a shell. */
TEST(Run, StopsWithTheCommandAndGoesOnWithIt)
{
	TempDir dir;
	Running driver(Driver(dir, { ProgramPath("hold"), dir.File("go") }));

	ASSERT_TRUE(driver.WaitForOutput("held", 20));
	pid_t child = OnlyChild(driver.pid);

	kill(child, SIGTSTP);
	EXPECT_TRUE(WaitForState(child, 'T'));
	EXPECT_TRUE(WaitForState(driver.pid, 'T'));
	kill(driver.pid, SIGCONT);
	EXPECT_TRUE(WaitForState(child, 'T', false));
	WriteAll(dir.File("go"), "");
	Result result = driver.Wait();

	EXPECT_TRUE(result.Exited(0)) << Describe(result);
}

/* A tool that stops and continues the command alone must not leave the driver stopped for ever. */
TEST(Run, AStopOfTheCommandAloneIsNotFollowed)
{
	TempDir dir;
	Command command = Driver(dir, { ProgramPath("hold"), dir.File("go") });

	command.timeout_s = 20;
	Running driver(command);

	ASSERT_TRUE(driver.WaitForOutput("held", 20));
	pid_t child = OnlyChild(driver.pid);

	kill(child, SIGSTOP);
	ASSERT_TRUE(WaitForState(child, 'T'));
	kill(child, SIGCONT);
	WriteAll(dir.File("go"), "");
	Result result = driver.Wait();

	EXPECT_TRUE(result.Exited(0)) << Describe(result);
}

TEST(Run, ControlCArrivesOnce)
{
	TempDir dir;
	Terminal terminal(Driver(dir, { ProgramPath("interrupts"), dir.File("go") }));

	ASSERT_TRUE(terminal.Shows("ready")) << terminal.shown;
	for (int i = 0; i < 10; i++) { /* often: two may also merge while one is pending */
		terminal.shown.clear();
		terminal.Type("\x03");
		ASSERT_TRUE(terminal.Shows("interrupt")) << terminal.shown;
		usleep(50000);
		terminal.Type("\n");
		ASSERT_TRUE(terminal.Shows("\r\n\r\n")) << terminal.shown;
		EXPECT_EQ(Count(terminal.shown, "interrupt"), 1) << terminal.shown;
	}
}

TEST(Run, JobControlOfAShell)
{
	TempDir dir;
	Command shell;

	shell.argv = { "/bin/bash", "--norc", "--noprofile", "-i" };
	shell.dir = dir.path;
	Terminal terminal(shell);

	terminal.Type("PS1=; " + BuildPath("memtrace") + " run " + ProgramPath("hold") +
		      " go; echo sta''tus=$?\n");
	ASSERT_TRUE(terminal.Shows("held")) << terminal.shown;
	terminal.Type("\x1a");
	ASSERT_TRUE(terminal.Shows("Stopped")) << terminal.shown;
	ASSERT_TRUE(terminal.Shows("status=148")) << terminal.shown; /* by SIGTSTP, as untraced */
	terminal.shown.clear();
	terminal.Type("fg; echo sta''tus=$?\n");
	usleep(200000);
	EXPECT_FALSE(terminal.Shows("status=", 1)) << "it ended or stopped again: " << terminal.shown;
	WriteAll(dir.File("go"), "");
	EXPECT_TRUE(terminal.Shows("status=0")) << terminal.shown;
}

TEST(Run, WorksAsPidOne)
{
	TempDir dir;
	Command command = Driver(dir, { "--", "/bin/sh", "-c",
					"(sh -c 'sleep 0.2; exit 3' &); sleep 0.6; "
					"grep -l 'State:.Z' /proc/[0-9]*/status; echo first=$PPID; exit 5" });

	command.argv.insert(command.argv.begin(),
			    { "unshare", "--pid", "--fork", "--mount-proc", "--kill-child" });
	Result result = Execute(command);

	if (result.err.find("unshare") != std::string::npos)
		GTEST_SKIP() << "no right to make a pid namespace: " << result.err;
	EXPECT_TRUE(result.Exited(5)) << Describe(result);
	EXPECT_EQ(result.out, "first=1\n") << "a line with /proc is a zombie left";
}

TEST(Run, SignalsToPidOneArrive)
{
	TempDir dir;
	Command command = Driver(dir, { "--", "/bin/bash", "-c",
					"trap 'echo got; exit 4' TERM; echo ready; "
					"while :; do sleep 0.02; done" });

	command.argv.insert(command.argv.begin(), { "unshare", "--pid", "--fork", "--mount-proc" });
	Running running(command);

	if (!running.WaitForOutput("ready", 10))
		GTEST_SKIP() << "no right to make a pid namespace";
	kill(OnlyChild(running.pid), SIGTERM);
	Result result = running.Wait();

	EXPECT_TRUE(result.Exited(4)) << Describe(result);
}

/* How the command finds its signals does not depend on the driver. */
TEST(Run, SignalDispositionsAreHandedOn)
{
	TempDir dir;
	Command command = Driver(dir, { "--", "grep", "^Sig[BI]", "/proc/self/status" });

	command.in_child = [] {
		sigset_t set;

		signal(SIGCHLD, SIG_IGN);
		signal(SIGINT, SIG_IGN);
		sigemptyset(&set);
		sigaddset(&set, SIGUSR2);
		sigprocmask(SIG_BLOCK, &set, nullptr);
	};
	Result driven = Execute(command);

	command.argv.erase(command.argv.begin(), command.argv.begin() + 3);
	Result plain = Execute(command);

	EXPECT_TRUE(plain.Exited(0)) << Describe(plain);
	EXPECT_EQ(driven.out, plain.out);
}

TEST(Run, PreloadsOfTheUserStayBehindOurs)
{
	TempDir dir;
	Command command = Driver(dir, { "--", "/usr/bin/env" });
	std::string other = ProgramPath("leaky_native.so");

	command.env["LD_PRELOAD"] = other;
	Result result = Execute(command);

	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	EXPECT_NE(result.out.find("LD_PRELOAD=" + ShimPath() + ":" + other + "\n"), std::string::npos)
		<< result.out;
}

TEST(Run, InsideARecordingItStartsATraceOfItsOwn)
{
	TempDir dir;
	Command command;

	command.argv = { "/bin/sh", "-c",
			 BuildPath("memtrace") + " run --out inner.bin " +
				 ProgramPath("heap_single") + " 5" };
	command.dir = dir.path;
	command.env["MEMTRACE_QUIET"] = "1";
	Result result = Execute(command);

	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	ASSERT_TRUE(Exists(dir.File("trace.bin")));
	ExpectTruth(dir.File("inner.bin"), result.out, 1);
}

TEST(Run, AFolderTheLoaderCannotPreloadFromIsTold)
{
	TempDir dir;
	std::string odd = dir.File("a b");

	ASSERT_EQ(mkdir(odd.c_str(), 0755), 0);
	for (const char *name : { "memtrace", "libmemtrace.so" })
		std::filesystem::copy(BuildPath(name), odd + "/" + name);
	Command command = Driver(dir, { "--", "/bin/true" });

	command.argv[0] = odd + "/memtrace";
	Result result = Execute(command);

	EXPECT_TRUE(result.Exited(125)) << Describe(result);
	EXPECT_NE(result.err.find("a b"), std::string::npos) << result.err;
}

TEST(Driver, ReportHandsOver)
{
	TempDir dir;
	Command command = Driver(dir, {});

	command.argv = { BuildPath("memtrace"), "report", "--version" };
	Result handed = Execute(command);

	command.argv = { BuildPath("memtrace-report"), "--version" };
	Result direct = Execute(command);

	EXPECT_TRUE(handed.Exited(0)) << Describe(handed);
	EXPECT_NE(handed.out, "");
	EXPECT_EQ(handed.out, direct.out);
}

TEST(Driver, HelpListsOnlyWhatWorks)
{
	TempDir dir;
	Command command = Driver(dir, {});

	command.argv = { BuildPath("memtrace"), "--help" };
	Result help = Execute(command);

	ASSERT_TRUE(help.Exited(0));
	for (const char *name : { "run", "report", "doctor", "attach", "detach", "status", "mark", "top" }) {
		command.argv = { BuildPath("memtrace"), name };
		command.timeout_s = 20;
		Result result = Execute(command);
		bool built = result.err.find("not built yet") == std::string::npos;
		bool listed = help.out.find(std::string("memtrace ") + name + " ") != std::string::npos;

		EXPECT_EQ(built, listed) << name;
		EXPECT_TRUE(built || result.Exited(2)) << name << Describe(result);
	}
	command.argv = { BuildPath("memtrace"), "no-such-thing" };
	EXPECT_TRUE(Execute(command).Exited(2));
}

TEST(Driver, DoctorTellsWhatCanBeRecorded)
{
	TempDir dir;
	Command command = Driver(dir, {});

	command.argv = { BuildPath("memtrace"), "doctor", "/bin/sh" };
	Result good = Execute(command);

	EXPECT_TRUE(good.Exited(0)) << Describe(good);
	EXPECT_NE(good.out.find("was recorded"), std::string::npos) << good.out;
	EXPECT_TRUE(std::filesystem::is_empty(dir.path)) << "it left something behind";
	command.argv[2] = "/sbin/ldconfig";
	Result fixed = Execute(command);

	EXPECT_TRUE(fixed.Exited(1)) << Describe(fixed);
	EXPECT_NE(fixed.out.find("statically linked"), std::string::npos) << fixed.out;
	command.argv[2] = std::to_string(getpid());
	Result process = Execute(command);

	EXPECT_TRUE(process.Exited(1)) << Describe(process);
	EXPECT_NE(process.out.find("without the shim"), std::string::npos) << process.out;
}

} // namespace
} // namespace memtrace_test
