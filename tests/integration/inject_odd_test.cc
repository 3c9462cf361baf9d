/*
 * Attaching where things are not as usual: another pid namespace, programs that start programs, a Python
 * that helps, forks at every moment of it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "support/harness.h"
#include "support/queries.h"
#include "support/interpreters.h"

namespace memtrace_test {
namespace {

namespace fs = std::filesystem;

Command Plain(const TempDir &dir, const std::vector<std::string> &argv)
{
	Command c;

	c.argv = argv;
	c.dir = dir.path;
	c.traced = false;
	return c;
}

Result Driver(const TempDir &dir, std::vector<std::string> arguments)
{
	arguments.insert(arguments.begin(), BuildPath("memtrace"));
	Command c = Plain(dir, arguments);

	c.env["MEMTRACE_LOG"] = "info";
	c.env["TMPDIR"] = dir.path;
	return Execute(c);
}

/* The child of a process, as we see it; 0: none within 10 s. */
pid_t ChildOf(pid_t pid)
{
	std::string file = "/proc/" + std::to_string(pid) + "/task/" + std::to_string(pid) + "/children";

	for (int i = 0; i < 1000; i++, usleep(10000))
		if (long child = strtol(ReadAll(file).c_str(), nullptr, 10))
			return (pid_t)child;
	return 0;
}

/* true: it had the shim from its start. */
class InAnotherPidNamespace : public testing::TestWithParam<bool> {};

TEST_P(InAnotherPidNamespace, IsReachedFromOutside)
{
	TempDir dir;
	Command c = Plain(dir, { "unshare", "--pid", "--fork", "--kill-child", ProgramPath("attached"), "1",
				 "0", "fork" });

	if (GetParam())
		c.argv.insert(c.argv.begin(), { "env", "LD_PRELOAD=" + ShimPath(), "MEMTRACE_MODE=dormant" });
	Running program(c);
	if (!program.WaitForOutput("ready", 10))
		GTEST_SKIP() << "no right to make a pid namespace";
	pid_t pid = ChildOf(program.pid);
	ASSERT_GT(pid, 0);
	Result a = Driver(dir, { "attach", std::to_string(pid), "--tree" });
	ASSERT_TRUE(a.Exited(0)) << Describe(a);
	usleep(500000);
	EXPECT_NE(Driver(dir, { "status", std::to_string(pid) }).out.find("recording since"),
		  std::string::npos);
	Result d = Driver(dir, { "detach", std::to_string(pid) });
	EXPECT_TRUE(d.Exited(0)) << Describe(d);
	kill(pid, SIGTERM);
	Result result = program.Wait();
	EXPECT_TRUE(result.Exited(37)) << Describe(result);
	Json report = Report(dir.File("trace.bin"));
	EXPECT_GT(report["processes"][(size_t)0]["live_at_end_bytes"].Long(), 1000);
	EXPECT_EQ(report["processes"][(size_t)0]["pid"].Long(), 1) << "as it sees itself";
}

INSTANTIATE_TEST_SUITE_P(Inject, InAnotherPidNamespace, testing::Bool());

/* While its answer is awaited a process ends, and another one gets its number. */
TEST(Pids, OneThatIsUsedAgainIsAnotherProcess)
{
	TempDir dir;
	Command c = Plain(dir, { "unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "python3", "-c",
				 "import os, signal, subprocess, sys\n"
				 "print('ready', flush=True)\n"
				 "env = dict(os.environ, LD_PRELOAD=sys.argv[2], MEMTRACE_MODE='dormant')\n"
				 "def sleeper():\n"
				 "    p = subprocess.Popen(['/bin/sh', '-c', 'echo begun; read x'], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
				 "    p.stdout.readline()\n"
				 "    return p\n"
				 "old = sleeper()\n"
				 "old.send_signal(signal.SIGSTOP)  # so it is silent\n"
				 "asks = subprocess.Popen([sys.argv[1], 'attach', str(old.pid), '--wait', '60'], stderr=subprocess.PIPE)\n"
				 "print(asks.stderr.readline())\n"
				 "os.kill(asks.pid, signal.SIGSTOP)\n"
				 "old.kill()\n"
				 "old.wait()\n"
				 "with open('/proc/sys/kernel/ns_last_pid', 'w') as f:\n"
				 "    f.write(str(old.pid - 1))\n"
				 "new = sleeper()\n"
				 "os.kill(asks.pid, signal.SIGCONT)\n"
				 "print('same', old.pid == new.pid, asks.stderr.read(), asks.wait())\n",
				 BuildPath("memtrace"), ShimPath() });
	Result result = Execute(c);

	if (result.out.find("ready") == std::string::npos)
		GTEST_SKIP() << "no right to make a pid namespace";
	if (result.out.find("same True") == std::string::npos)
		GTEST_SKIP() << "this kernel gives no chosen pid: " << Describe(result);
	EXPECT_NE(result.out.find("is silent"), std::string::npos) << Describe(result);
	EXPECT_NE(result.out.find("has ended\\n' 1\n"), std::string::npos) << Describe(result);
}

/* Programs that it starts from now on are recorded with --tree, and only then. */
TEST(InjectTree, ProgramsThatAreStartedLaterAreRecorded)
{
	TempDir dir;
	std::string loop = "while [ ! -e enough ]; do LD_LIBRARY_PATH= " + ProgramPath("tiny") +
			   "; sleep 0.05; done; echo ready; exit 7";

	for (bool tree : { false, true }) {
		fs::remove(dir.File("enough"));
		Running shell(Plain(dir, { "/bin/bash", "-c", "echo begun; " + loop }));
		std::vector<std::string> words = { "attach", std::to_string(shell.pid), "--out",
						   dir.File("trace.bin") };

		ASSERT_TRUE(shell.WaitForOutput("begun", 20));
		if (tree)
			words.push_back("--tree");
		Result a = Driver(dir, words);
		ASSERT_TRUE(a.Exited(0)) << Describe(a);
		usleep(700000);
		WriteAll(dir.File("enough"), "");
		Result result = shell.Wait();
		EXPECT_TRUE(result.Exited(7)) << Describe(result);
		Json report = Report(dir.File("trace.bin")), tiny = WithCommand(report, ProgramPath("tiny"));

		EXPECT_EQ(tiny.IsNull(), !tree) << report["processes"].Print();
		if (tree) {
			EXPECT_GT(tiny["allocations"].Long(), 0);
			EXPECT_EQ(tiny["role"].Text(), "exec");
			EXPECT_EQ(tiny["end"]["kind"].Text(), "exit");
		}
	}
}

/* What a program prints of its environment is what it would be, with two entries more. */
TEST(InjectTree, TheEnvironmentIsHandedOnWhole)
{
	TempDir dir;
	Running python(Plain(dir, { "/usr/bin/python3", "-c",
				    "import os, subprocess, sys, time\n"
				    "print('ready', flush=True)\n"
				    "while not os.path.exists('go'):\n"
				    "    time.sleep(0.01)\n"
				    "for own in None, {'A': 'b', 'LD_PRELOAD': '/no/such.so', 'PATH': '/usr/bin'}:\n"
				    "    print(subprocess.run(['/usr/bin/env'], env=own, capture_output=True).stdout)\n"
				    "print(os.environ.get('LD_PRELOAD'), os.environ.get('MEMTRACE_TRACE'))\n" }));

	ASSERT_TRUE(python.WaitForOutput("ready", 20));
	Result a = Driver(dir, { "attach", std::to_string(python.pid), "--tree" });
	ASSERT_TRUE(a.Exited(0)) << Describe(a);
	WriteAll(dir.File("go"), "");
	Result result = python.Wait();
	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	EXPECT_NE(result.out.find("LD_PRELOAD=" + ShimPath() + ":/no/such.so"), std::string::npos)
		<< result.out;
	EXPECT_NE(result.out.find("\\nA=b\\n"), std::string::npos) << result.out;
	EXPECT_NE(result.out.find("None None"), std::string::npos) << "its own is left alone";
	EXPECT_FALSE(WithCommand(Report(dir.File("trace.bin")), "/usr/bin/env").IsNull());
}

/* What libc starts by itself has the process's own environment. With other threads, who may be using that,
 * it is not recorded, and the report says so. */
TEST(InjectTree, ShellsOfTheCLibrary)
{
	for (bool threads : { false, true }) {
		TempDir dir;
		std::string command = "echo [$LD_PRELOAD]; " + ProgramPath("tiny");
		std::vector<std::string> argv = { ProgramPath("shells"), command };

		if (threads)
			argv.push_back("threads");
		Running program(Plain(dir, argv));
		ASSERT_TRUE(program.WaitForOutput("ready", 20));
		Result a = Driver(dir, { "attach", std::to_string(program.pid), "--tree" });
		ASSERT_TRUE(a.Exited(0)) << Describe(a);
		WriteAll(dir.File("go"), "");
		Result result = program.Wait();
		Json report = Report(dir.File("trace.bin"));
		std::string findings = report["findings"].Print();
		size_t recorded = 0;

		EXPECT_TRUE(result.Exited(7)) << Describe(result);
		EXPECT_NE(result.out.find("environ same, LD_PRELOAD not set"), std::string::npos)
			<< Describe(result);
		for (size_t i = 0; i < report["processes"].size(); i++)
			recorded += report["processes"][i]["command"].Text().rfind(ProgramPath("tiny"), 0) == 0;
		EXPECT_EQ(recorded, threads ? 0u : 2u) << report["processes"].Print();
		EXPECT_EQ(result.out.find("[]\n") != std::string::npos, threads) << Describe(result);
		EXPECT_EQ(findings.find("not recorded: /bin/sh (2 times)") != std::string::npos, threads)
			<< findings;
		EXPECT_EQ(findings.find("system() or popen()") != std::string::npos, threads) << findings;
	}
}

class HelpfulPython : public testing::TestWithParam<std::string> {};

TEST_P(HelpfulPython, LoadsTheShimByItself)
{
	std::string python = InterpreterOf(GetParam());
	TempDir dir;

	if (python.empty())
		GTEST_SKIP() << "no CPython " << GetParam() << " here";
	WriteAll(dir.File("run.py"), "import os, sys, time\n"
				     "kept, before = [], set(sys.modules)\n"
				     "print('ready', flush=True)\n"
				     "while not os.path.exists('enough'):\n"
				     "    kept.append(bytearray(5000))  # LINE: lost\n"
				     "    time.sleep(0.001)\n"
				     "print(sorted(set(sys.modules) - before))\n");
	Running program(Plain(dir, { python, "run.py" }));
	ASSERT_TRUE(program.WaitForOutput("ready", 20));
	Result a = Driver(dir, { "attach", std::to_string(program.pid) });
	ASSERT_TRUE(a.Exited(0)) << Describe(a);
	EXPECT_NE(a.err.find("the interpreter of process"), std::string::npos) << a.err;
	usleep(500000);
	ASSERT_TRUE(Driver(dir, { "detach", std::to_string(program.pid) }).Exited(0));
	a = Driver(dir, { "attach", std::to_string(program.pid), "--out", "again.bin" });
	EXPECT_TRUE(a.Exited(0)) << Describe(a);
	WriteAll(dir.File("enough"), "");
	Result result = program.Wait();
	EXPECT_TRUE(result.Exited(0)) << Describe(result);
	EXPECT_EQ(result.err, "");
	EXPECT_EQ(result.out, "ready\n['_ctypes']\n");
	for (const auto &entry : fs::directory_iterator(dir.path))
		EXPECT_EQ(entry.path().string().find("memtrace-attach"), std::string::npos) << "left there";
	Json report = Report(dir.File("trace.bin"));
	bool named = false;
	for (size_t i = 0; i < report["sites"].size(); i++) {
		Json frame = report["sites"][i]["stack"][(size_t)0];

		named |= frame["line"].Long() == 5 && report["sites"][i]["live_bytes"].Long() >= 50000;
	}
	EXPECT_TRUE(named) << report["sites"].Print();
}

/* Asleep, it runs no script: a thread is diverted, and the script comes to nothing when it wakes. */
TEST_P(HelpfulPython, IsAttachedToWhileItSleeps)
{
	std::string python = InterpreterOf(GetParam());
	TempDir dir;

	if (python.empty())
		GTEST_SKIP() << "no CPython " << GetParam() << " here";
	Running program(Plain(dir, { python, "-c",
				     "import time\n"
				     "print('ready', flush=True)\n"
				     "time.sleep(4)\n"
				     "kept = [bytearray(5000) for _ in range(100)]\n"
				     "time.sleep(0.2)\n"
				     "print('done')\n" }));
	ASSERT_TRUE(program.WaitForOutput("ready", 20));
	Result a = Driver(dir, { "attach", std::to_string(program.pid), "--wait", "20" });
	EXPECT_TRUE(a.Exited(0)) << Describe(a);
	EXPECT_NE(a.err.find("was held up for"), std::string::npos) << a.err;
	Result result = program.Wait();
	EXPECT_TRUE(result.Exited(0)) << Describe(result);
	EXPECT_EQ(result.err, "");
	EXPECT_EQ(result.out, "ready\ndone\n");
	EXPECT_FALSE(Report(dir.File("trace.bin"))["processes"][(size_t)0].IsNull());
}

INSTANTIATE_TEST_SUITE_P(Inject, HelpfulPython, testing::Values("3.14", "3.15"),
			 [](const auto &p) { return p.param == "3.14" ? "V314" : "V315"; });

/* A child may be made at any moment of the attach, and is then attached to itself. */
TEST(InjectTree, ChildrenOfEveryMomentCanBeReached)
{
	TempDir dir;
	Running program(Plain(dir, { "/usr/bin/python3", "-c",
				     "import os, sys, time\n"
				     "end = time.time() + 60\n"
				     "children = []\n"
				     "print('ready', flush=True)\n"
				     "while not os.path.exists('enough') and time.time() < end:\n"
				     "    children.append(os.fork())\n"
				     "    if not children[-1]:\n"
				     "        while not os.path.exists('enough') and time.time() < end:\n"
				     "            bytearray(3000)\n"
				     "            time.sleep(0.01)\n"
				     "        os._exit(5)\n"
				     "    if len(children) == 40:\n"
				     "        break\n"
				     "    time.sleep(0.002)\n"
				     "while not os.path.exists('enough') and time.time() < end:\n"
				     "    bytearray(3000)\n"
				     "    time.sleep(0.01)\n"
				     "sys.exit(any(os.WEXITSTATUS(os.waitpid(c, 0)[1]) != 5 for c in children))\n" }));

	ASSERT_TRUE(program.WaitForOutput("ready", 20));
	Result a = Driver(dir, { "attach", std::to_string(program.pid) });
	ASSERT_TRUE(a.Exited(0)) << Describe(a);
	std::string file = "/proc/" + std::to_string(program.pid) + "/task/" + std::to_string(program.pid) +
			   "/children";
	for (int i = 0; i < 500 && std::count(file.begin(), file.end(), ' ') < 40; i++, usleep(10000))
		if (std::string list = ReadAll(file); std::count(list.begin(), list.end(), ' ') >= 40)
			break;
	std::string list = ReadAll(file), pid;
	int reached = 0;
	for (size_t at = 0; at < list.size() && reached < Scaled(40, 10); at = list.find(' ', at) + 1) {
		pid = list.substr(at, list.find(' ', at) - at);
		if (pid.empty())
			break;
		Result child = Driver(dir, { "attach", pid, "--out", dir.File("child.bin") });
		EXPECT_TRUE(child.Exited(0)) << Describe(child);
		child = Driver(dir, { "detach", pid });
		EXPECT_TRUE(child.Exited(0)) << Describe(child);
		reached++;
	}
	EXPECT_GE(reached, 10);
	WriteAll(dir.File("enough"), "");
	Result result = program.Wait();
	EXPECT_TRUE(result.Exited(0)) << Describe(result);
	EXPECT_EQ(result.err, "");
}

} // namespace
} // namespace memtrace_test
