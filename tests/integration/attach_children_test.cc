/*
 * Programs that are started by a process that was attached to: they record as the attach asked, as long
 * as it asked, and are reached and let go like the rest of the tree.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include "support/harness.h"
#include "support/queries.h"

namespace memtrace_test {
namespace {

Result Driver(const TempDir &dir, std::vector<std::string> arguments)
{
	Command c;

	arguments.insert(arguments.begin(), BuildPath("memtrace"));
	c.argv = arguments;
	c.dir = dir.path;
	c.traced = false;
	return Execute(c);
}

const char kChild[] = "/usr/bin/python3 child.py";
const char kWaits[] = "echo ready; while [ ! -e go ]; do sleep 0.02; done; ";

/* true: the process had the shim from its start. */
class AttachedTo : public testing::TestWithParam<bool> {
    protected:
	Command Target(const std::vector<std::string> &argv)
	{
		Command c;

		c.argv = argv;
		c.dir = dir.path;
		c.traced = GetParam();
		if (c.traced)
			c.env["MEMTRACE_MODE"] = "dormant";
		return c;
	}

	/* Attaches to a shell, which then runs a Python script. */
	Json ReportOf(const std::string &script, std::vector<std::string> options)
	{
		WriteAll(dir.File("child.py"), script);
		Running shell(Target({ "/bin/bash", "-c",
				       std::string(kWaits) + "/usr/bin/python3 child.py; exit 7" }));

		EXPECT_TRUE(shell.WaitForOutput("ready", 20));
		options.insert(options.begin(), { "attach", std::to_string(shell.pid), "--tree" });
		Result a = Driver(dir, options);
		EXPECT_TRUE(a.Exited(0)) << Describe(a);
		WriteAll(dir.File("go"), "");
		Result result = shell.Wait();
		EXPECT_TRUE(result.Exited(7)) << Describe(result);
		return Report(dir.File("trace.bin"));
	}

	TempDir dir;
};

TEST_P(AttachedTo, ItsProgramsSampleWhenItDoes)
{
	Json report = ReportOf("kept = [bytearray(1000) for _ in range(20000)]\n",
			       { "--mode", "sample", "--sample-bytes", "256K", "--python", "off" });
	Json child = WithCommand(report, kChild);

	ASSERT_FALSE(child.IsNull()) << report["processes"].Print();
	EXPECT_EQ(report["trace"]["mode"].Text(), "sample");
	/* some 80 samples of 256 KiB: a standard deviation of 11 % */
	EXPECT_NEAR(child["peak_live_bytes"].Number(), 20e6, 12e6);
	EXPECT_LT(report["trace"]["events"].Long(), 10000) << "20,000 blocks were not listed one by one";
}

TEST_P(AttachedTo, ItsProgramsListPythonsObjectsUnderTheSameCap)
{
	const long cap = 400 << 10;
	Json report = ReportOf("for _ in range(20):\n"
			       "    kept = [[i] for i in range(20000)]\n",
			       { "--python", "objects", "--events", "all", "--max-bytes", std::to_string(cap) });
	Json child = WithCommand(report, kChild);

	ASSERT_FALSE(child.IsNull()) << report["processes"].Print();
	EXPECT_GT(child["by_kind"]["python"]["allocations"].Long(), 200000) << child.Print();
	EXPECT_LE((long)ReadAll(dir.File("trace.bin")).size(), cap);
	EXPECT_LE(report["trace"]["trace_bytes"].Long(), cap);
}

const char kAllocates[] = "import os, time\n"
			  "print('child pid=%d' % os.getpid(), flush=True)\n"
			  "while not os.path.exists('enough'):\n"
			  "    bytearray(3000)\n"
			  "    time.sleep(0.005)\n";

/* Who asked is gone by then, so each process keeps the time by itself. */
TEST_P(AttachedTo, ItsProgramsKeepTheTime)
{
	WriteAll(dir.File("child.py"), kAllocates);
	Running shell(Target({ "/bin/bash", "-c", std::string(kWaits) + "/usr/bin/python3 child.py; exit 7" }));
	std::string state;

	ASSERT_TRUE(shell.WaitForOutput("ready", 20));
	Command attach;
	attach.argv = { BuildPath("memtrace"), "attach", std::to_string(shell.pid), "--tree", "--duration", "2",
			"--interval", "0.1" };
	attach.dir = dir.path;
	attach.traced = false;
	Running attached(attach);
	for (int i = 0; i < 400 && state.find("recording since") == std::string::npos; i++, usleep(10000))
		state = Driver(dir, { "status", std::to_string(shell.pid) }).out;
	ASSERT_NE(state.find("recording since"), std::string::npos) << state;
	kill(attached.pid, SIGKILL);
	attached.Wait();
	WriteAll(dir.File("go"), "");
	ASSERT_TRUE(shell.WaitForOutput("child pid=", 20));
	std::string pid = std::to_string(Facts(shell.OutSoFar(), "child")[0]["pid"]);
	state = Driver(dir, { "status", pid }).out;
	EXPECT_TRUE(state.find("recording since") != std::string::npos ||
		    state.find("its time was over") != std::string::npos)
		<< state;
	for (int i = 0; i < 600 && state.find("its time was over") == std::string::npos; i++, usleep(50000))
		state = Driver(dir, { "status", pid }).out;
	EXPECT_NE(state.find("its time was over"), std::string::npos) << state;
	WriteAll(dir.File("enough"), "");
	EXPECT_TRUE(shell.Wait().Exited(7));
}

TEST_P(AttachedTo, ItsProgramsAreLetGoWithIt)
{
	WriteAll(dir.File("child.py"), kAllocates);
	Running shell(Target({ "/bin/bash", "-c", std::string(kWaits) + "/usr/bin/python3 child.py; exit 7" }));

	ASSERT_TRUE(shell.WaitForOutput("ready", 20));
	ASSERT_TRUE(Driver(dir, { "attach", std::to_string(shell.pid), "--tree" }).Exited(0));
	WriteAll(dir.File("go"), "");
	ASSERT_TRUE(shell.WaitForOutput("child pid=", 20));
	std::string pid = std::to_string(Facts(shell.OutSoFar(), "child")[0]["pid"]);
	EXPECT_NE(Driver(dir, { "status", pid }).out.find("recording since"), std::string::npos);
	Result d = Driver(dir, { "detach", std::to_string(shell.pid), "--wait", "2" });
	EXPECT_NE(Driver(dir, { "status", pid }).out.find("dormant"), std::string::npos) << Describe(d);
	EXPECT_TRUE(Driver(dir, { "attach", pid, "--out", "again.bin" }).Exited(0));
	WriteAll(dir.File("enough"), "");
	EXPECT_TRUE(shell.Wait().Exited(7));
	EXPECT_FALSE(WithCommand(Report(dir.File("trace.bin")), kChild).IsNull());
	EXPECT_FALSE(WithCommand(Report(dir.File("again.bin")), kChild).IsNull());
}

/* A worker that waits for its parent records nothing, and ends recording when it wakes. */
TEST_P(AttachedTo, SilentChildrenAreNotWaitedFor)
{
	WriteAll(dir.File("parent.py"), "import os, time\n"
					"r, w = os.pipe()\n"
					"child = os.fork()\n"
					"if not child:\n"
					"    os.read(r, 1)\n"
					"while not os.path.exists('enough'):\n"
					"    bytearray(3000)\n"
					"    time.sleep(0.005)\n"
					"    if child and os.path.exists('wake'):\n"
					"        os.write(w, b'x')\n"
					"    if child and not os.path.exists('said'):\n"
					"        open('said', 'w').close()\n"
					"        print('child pid=%d' % child, flush=True)\n");
	Running program(Target({ "/usr/bin/python3", "parent.py" }));
	std::string pid = std::to_string(program.pid), state;

	ASSERT_TRUE(program.WaitForOutput("child pid=", 20));
	std::string child = std::to_string(Facts(program.OutSoFar(), "child")[0]["pid"]);
	Result a = Driver(dir, { "attach", pid, "--tree" });
	ASSERT_TRUE(a.Exited(0)) << Describe(a);
	EXPECT_NE(a.err.find("those that are silent do so from their next allocation on"), std::string::npos)
		<< a.err;
	WriteAll(dir.File("wake"), "");
	for (int i = 0; i < 400 && state.find("recording since") == std::string::npos; i++, usleep(50000))
		state = Driver(dir, { "status", child }).out;
	EXPECT_NE(state.find("recording since"), std::string::npos) << state;
	kill(atoi(child.c_str()), SIGSTOP);
	Result d = Driver(dir, { "detach", pid, "--wait", "60" });
	EXPECT_TRUE(d.Exited(0)) << Describe(d);
	EXPECT_NE(d.err.find("1 silent process of its tree stops recording at the next allocation"),
		  std::string::npos)
		<< d.err;
	EXPECT_NE(Driver(dir, { "status", child }).out.find("recording since"), std::string::npos);
	kill(atoi(child.c_str()), SIGCONT);
	for (int i = 0; i < 400 && state.find("dormant") == std::string::npos; i++, usleep(50000)) {
		Result s = Driver(dir, { "status", child });

		/* where the shim was put in, no page is left */
		state = s.out + (s.err.find("an attach that is over") != std::string::npos ? "dormant" : "");
	}
	EXPECT_NE(state.find("dormant"), std::string::npos) << state;
	WriteAll(dir.File("enough"), "");
	EXPECT_TRUE(program.Wait().Exited(0));
	EXPECT_EQ(Report(dir.File("trace.bin"))["processes"].size(), 2u);
}

INSTANTIATE_TEST_SUITE_P(AttachChildren, AttachedTo, testing::Bool(),
			 [](const auto &p) { return p.param ? "Dormant" : "Injected"; });

} // namespace
} // namespace memtrace_test
