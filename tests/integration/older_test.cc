/*
 * Memory that is older than the recording: within a few per cent of what the program itself says.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>
#include <signal.h>

#include "support/harness.h"

namespace memtrace_test {
namespace {

/* true: the shim is there from the start, and dormant. */
class Older : public testing::TestWithParam<bool> {
    protected:
	Command Prepared(const std::vector<std::string> &argv)
	{
		Command c;

		c.argv = argv;
		c.dir = dir.path;
		c.traced = GetParam();
		if (GetParam())
			c.env["MEMTRACE_MODE"] = "dormant";
		return c;
	}
	Json Recorded(pid_t pid)
	{
		Command c;

		c.argv = { BuildPath("memtrace"), "attach", std::to_string(pid), "--duration", "0.3" };
		c.dir = dir.path;
		c.traced = false;
		Result result = Execute(c);
		EXPECT_TRUE(result.Exited(0)) << Describe(result);
		return Report(dir.File("trace.bin"))["processes"][(size_t)0];
	}

	TempDir dir;
};

TEST_P(Older, BlocksOfAllArenasAndMappings)
{
	Running program(Prepared({ ProgramPath("older") }));

	ASSERT_TRUE(program.WaitForOutput("ready", 60));
	auto held = Facts(program.OutSoFar(), "held")[0];
	Json process = Recorded(program.pid), parts = process["predates_attach"];

	EXPECT_NEAR(process["predates_attach_bytes"].Number(), (double)held["bytes"],
		    0.05 * (double)held["bytes"]);
	EXPECT_NEAR(parts["other_mappings_bytes"].Number(), (double)held["own"], 0.05 * (double)held["own"]);
	EXPECT_NEAR(parts["heap_used_bytes"].Number(), (double)(held["bytes"] - held["own"]),
		    0.05 * (double)held["bytes"]);
	EXPECT_GT(parts["heap_free_bytes"].Long(), 50L << 20) << "every second block was given back";
	EXPECT_EQ(parts["python_blocks_bytes"].Long(), 0);
	EXPECT_GT(parts["libraries"].size(), 0u);
	kill(program.pid, SIGTERM);
	EXPECT_TRUE(program.Wait().Exited(37));
}

/* The interpreter counts its small objects itself. */
TEST_P(Older, SmallObjectsOfPython)
{
	WriteAll(dir.File("holds.py"), "import os, sys, time\n"
				       "kept = ['%095d' % i for i in range(400000)]\n"
				       "del kept[100000:300000:2]\n"
				       "sys._debugmallocstats()\n"
				       "print('ready', flush=True)\n"
				       "while not os.path.exists('enough'):\n"
				       "    bytearray(1000)\n"
				       "    time.sleep(0.005)\n");
	Running program(Prepared({ "/usr/bin/python3", "holds.py" }));
	ASSERT_TRUE(program.WaitForOutput("ready", 60));
	Json parts = Recorded(program.pid)["predates_attach"];
	WriteAll(dir.File("enough"), "");
	Result result = program.Wait();
	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	std::string number, words = "# bytes in allocated blocks";
	size_t at = result.err.find(words);
	ASSERT_NE(at, std::string::npos) << result.err;
	for (at = result.err.find('=', at); at < result.err.size() && result.err[at] != '\n'; at++)
		if (isdigit((unsigned char)result.err[at]))
			number += result.err[at];
	double truth = atof(number.c_str());

	EXPECT_GT(truth, 40e6);
	EXPECT_NEAR(parts["python_blocks_bytes"].Number(), truth, 0.05 * truth);
	EXPECT_GT(parts["python_free_bytes"].Long(), 100000 * 100L) << "every second one was dropped";
	EXPECT_GE(parts["other_mappings_bytes"].Number(), 0.95 * truth);
}

INSTANTIATE_TEST_SUITE_P(Attach, Older, testing::Bool(),
			 [](const auto &p) { return p.param ? "Dormant" : "Injected"; });

} // namespace
} // namespace memtrace_test
