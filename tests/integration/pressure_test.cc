/*
 * Warnings while a program runs short of memory: what is said, what is marked in the trace, and which
 * command is run by whom. Limits are made up where that can be done: another /proc/meminfo in a mount
 * namespace, a small memory cgroup, a fake GPU.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#include "support/harness.h"

namespace memtrace_test {
namespace {

/* In place, as a mount is of the file and not of its name. */
void PretendUsed(const TempDir &dir, int percent)
{
	char text[256];

	snprintf(text, sizeof(text), "MemTotal: %15d kB\nMemFree: %16d kB\nMemAvailable: %11d kB\n", 10000000,
		 100000 * (100 - percent), 100000 * (100 - percent));
	WriteAll(dir.File("meminfo"), text);
}

/* This program and its children find the folder's meminfo as /proc/meminfo. */
void WithPretence(const TempDir &dir, Command *command)
{
	std::string file = dir.File("meminfo");

	command->in_child = [file] {
		if (unshare(CLONE_NEWNS) || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) ||
		    mount(file.c_str(), "/proc/meminfo", nullptr, MS_BIND, nullptr))
			_exit(99);
	};
}

std::vector<std::string> Labels(const Json &report, const std::string &with)
{
	std::vector<std::string> labels;

	for (size_t i = 0; i < report["marks"].size(); i++)
		if (report["marks"][i]["label"].Text().rfind(with, 0) == 0)
			labels.push_back(report["marks"][i]["label"].Text());
	return labels;
}

/* Until `text` stands in the file, or 20 s have passed. */
bool Comes(const std::string &file, const std::string &text)
{
	for (int i = 0; i < 2000; i++, usleep(10000))
		if (ReadAll(file).find(text) != std::string::npos)
			return true;
	return false;
}

TEST(Pressure, AMachineThatFillsIsSaidMarkedAndActedUpon)
{
	if (geteuid() != 0)
		GTEST_SKIP() << "needs a mount namespace";
	TempDir dir;
	std::string acted = dir.File("acted");
	Command c;

	c.argv = { BuildPath("memtrace"), "run", "--warn", "--interval", "0.1", "--on-threshold",
		   "echo $MEMTRACE_THRESHOLD by $PPID ${LD_PRELOAD:-none} >> " + acted, "--",
		   ProgramPath("attached"), "1", "0" };
	c.dir = dir.path;
	c.traced = false;
	PretendUsed(dir, 50);
	WithPretence(dir, &c);
	Running run(c);
	std::string by = " by " + std::to_string(run.pid) + " none\n";

	ASSERT_TRUE(run.WaitForOutput("ready", 60));
	PretendUsed(dir, 74);
	EXPECT_TRUE(Comes(acted, "RAM 70" + by)) << ReadAll(acted);
	PretendUsed(dir, 95);
	EXPECT_TRUE(Comes(acted, "RAM 90" + by)) << ReadAll(acted);
	PretendUsed(dir, 50); /* and once more */
	sleep(2);
	PretendUsed(dir, 81);
	EXPECT_TRUE(Comes(acted, "RAM 80" + by)) << ReadAll(acted);
	kill(run.pid, SIGTERM);
	Result result = run.Wait();

	EXPECT_TRUE(result.Exited(37)) << Describe(result);
	for (const char *line : { "RAM at 74 %", "RAM at 95 %", "RAM at 81 %" })
		EXPECT_NE(result.err.find(line), std::string::npos) << line << ": " << result.err;
	EXPECT_EQ(result.err.find("RAM at 50 %"), std::string::npos);
	EXPECT_EQ(Labels(Report(dir.File("trace.bin")), "RAM").size(), 3u);
}

TEST(Pressure, WithoutWarnNothingIsSaidAndTheMarkIsMade)
{
	if (geteuid() != 0)
		GTEST_SKIP() << "needs a mount namespace";
	TempDir dir;
	Command c = Program(dir, "attached", { "1", "2" });

	c.env["MEMTRACE_INTERVAL"] = "0.1";
	c.env["MEMTRACE_QUIET"] = "1";
	PretendUsed(dir, 92);
	WithPretence(dir, &c);
	Result result = Execute(c);

	EXPECT_TRUE(result.Exited(37)) << Describe(result);
	EXPECT_EQ(result.err, "");
	EXPECT_EQ(Labels(Report(dir.File("trace.bin")), "RAM at 92 %").size(), 1u);
}

/* A memory cgroup of ours below the one that we are in; empty: none can be had. */
class Group {
    public:
	explicit Group(long bytes)
	{
		std::istringstream lines(ReadAll("/proc/self/cgroup"));

		for (std::string line; std::getline(lines, line) && path.empty();) {
			size_t v1 = line.find(":memory:");
			std::string parent = v1 != std::string::npos
						     ? "/sys/fs/cgroup/memory" + line.substr(v1 + 8)
					     : line.rfind("0::", 0) == 0 ? "/sys/fs/cgroup" + line.substr(3)
									 : "";

			if (!parent.empty())
				Try(parent + "/memtrace-test-" + std::to_string(getpid()), bytes);
		}
	}
	~Group()
	{
		for (int i = 0; i < 100 && !path.empty() && rmdir(path.c_str()); i++)
			usleep(20000);
	}
	void Enter(Command *command) const
	{
		std::string file = path + "/cgroup.procs";

		command->in_child = [file] { WriteAll(file, "0\n"); };
	}

	std::string path;

    private:
	void Try(const std::string &folder, long bytes)
	{
		if (mkdir(folder.c_str(), 0755) != 0)
			return;
		for (const char *name : { "memory.limit_in_bytes", "memory.max" })
			if (Exists(folder + "/" + name)) {
				WriteAll(folder + "/" + name, std::to_string(bytes) + "\n");
				path = folder;
			}
		for (const char *name : { "memory.memsw.limit_in_bytes", "memory.swap.max" })
			if (Exists(folder + "/" + name))
				WriteAll(folder + "/" + name,
					 std::string(name).find("swap.max") != std::string::npos
						 ? "0\n"
						 : std::to_string(bytes) + "\n");
		if (path.empty())
			rmdir(folder.c_str());
	}
};

/* What the program held when it was killed is in the trace, by line. */
TEST(Pressure, WhoGrewIsInTheTraceWhenTheKernelKills)
{
	Group group(96L << 20);
	if (group.path.empty())
		GTEST_SKIP() << "no memory cgroup can be made here";
	TempDir dir;
	Command c = Program(dir, "grows", { "1000", "5" });

	c.env["MEMTRACE_INTERVAL"] = "0.05";
	c.env["MEMTRACE_WARN"] = "on";
	group.Enter(&c);
	Result result = Execute(c);
	ASSERT_EQ(result.Signal(), SIGKILL) << Describe(result);
	long held = Facts(result.out, "holds").back()["mib"];
	Json report = ReportWithSymbols(dir.File("trace.bin"));
	long grown = 0;

	for (size_t i = 0; i < report["sites"].size(); i++)
		if (report["sites"][i]["stack"][(size_t)0]["function"].Text() == "grow")
			grown += report["sites"][i]["live_bytes"].Long();
	EXPECT_GT(held, 60);
	EXPECT_GE(grown, held << 20);
	EXPECT_LE(grown, (held + 1) << 20);
	EXPECT_NE(result.err.find("cgroup at 7"), std::string::npos) << result.err;
	EXPECT_NE(result.err.find("cgroup at 9"), std::string::npos) << result.err;
	EXPECT_EQ(Labels(report, "cgroup at ").size(), 3u);
}

TEST(Pressure, TheDriverActsOnACgroup)
{
	Group group(96L << 20);
	if (group.path.empty())
		GTEST_SKIP() << "no memory cgroup can be made here";
	TempDir dir;
	Command c;

	c.argv = { BuildPath("memtrace"), "run", "--on-threshold",
		   "echo $MEMTRACE_THRESHOLD >> " + dir.File("acted"), "--", ProgramPath("grows"), "72", "5" };
	c.dir = dir.path;
	c.traced = false;
	group.Enter(&c);
	Running run(c);

	EXPECT_TRUE(Comes(dir.File("acted"), "cgroup 70\n")) << ReadAll(dir.File("acted"));
	kill(run.pid, SIGTERM);
	run.Wait();
}

TEST(Pressure, AGpuThatFills)
{
	TempDir dir;
	Command c;

	c.argv = { BuildPath("memtrace"), "run", "--warn", "--interval", "0.05", "--on-threshold",
		   "echo $MEMTRACE_THRESHOLD >> " + dir.File("acted"), "--", ProgramPath("gpu_cache"), "leak",
		   "300" };
	c.dir = dir.path;
	c.traced = false;
	c.env["LD_LIBRARY_PATH"] = BuildPath("programs/cuda");
	c.env["FAKE_CUDA_TOTAL"] = std::to_string(303L << 20);
	Result result = Execute(c);

	EXPECT_TRUE(result.Exited(0)) << Describe(result);
	EXPECT_NE(result.err.find("GPU 0 at 8"), std::string::npos) << result.err;
	EXPECT_NE(result.err.find("GPU 0 at 9"), std::string::npos) << result.err;
	EXPECT_EQ(Labels(Report(dir.File("trace.bin")), "GPU 0 at ").size(), 3u);
	EXPECT_NE(ReadAll(dir.File("acted")).find("GPU0 "), std::string::npos);
}

} // namespace
} // namespace memtrace_test
