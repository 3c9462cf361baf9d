/*
 * What `memtrace run` and `memtrace top` are told by NVML, over the fake one: whose it is, what is not
 * known, and that neither the program nor we ourselves depend on that library.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <signal.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <memory>

#include "support/gpu.h"

using namespace memtrace_test;

namespace
{

constexpr long kMiB = 1 << 20;

long Count(const std::string &text, const std::string &word)
{
	long n = 0;

	for (size_t at = 0; (at = text.find(word, at)) != std::string::npos; at++)
		n++;
	return n;
}

bool Until(const std::function<bool()> &holds)
{
	for (int i = 0; i < 1200 && !holds(); i++)
		usleep(50000);
	return holds();
}

/* gpu_seen under `memtrace run`, in the background. */
struct Seen {
	TempDir dir;
	Command command;
	std::unique_ptr<Running> running;
	Result result;

	Seen(const std::vector<std::string> &clients,
	     const std::map<std::string, std::string> &env = {}, bool gpu = true)
	{
		command.argv = { BuildPath("memtrace"), "run", "--interval", "0.05", "--out",
				 dir.File("trace.bin"), BuildPath("programs/gpu_seen") };
		command.argv.insert(command.argv.end(), clients.begin(), clients.end());
		command.dir = dir.path;
		command.traced = false;
		command.env = { { "LD_LIBRARY_PATH", BuildPath("programs/cuda") },
				{ "FAKE_NVML_FILE", dir.File("clients") },
				{ "FAKE_NVML_LOG", dir.File("log") },
				{ "MEMTRACE_QUIET", "1" } };
		for (const auto &e : env)
			command.env[e.first] = e.second;
		if (!gpu)
			command.env["MEMTRACE_GPU"] = "off";
		running.reset(new Running(command));
	}

	std::string Log() const { return ReadAll(dir.File("log")); }
	std::vector<Json> Told() const { return Records(dir.File("trace.bin"), "gpu_seen"); }

	/* All clients are there, and each question was put some times since. */
	bool Asked(long clients, long times = 3)
	{
		long before;

		if (!Until([&] { return Count(running->OutSoFar(), "client") == clients; }))
			return false;
		before = Count(Log(), "asked");
		return Until([&] { return Count(Log(), "asked") >= before + times; });
	}

	bool Told(size_t records)
	{
		return Until([&] { return Told().size() >= records; });
	}

	/* The clients leave; the report of them. */
	Json End()
	{
		std::ofstream(dir.File("go")).close();
		result = running->Wait();
		EXPECT_TRUE(result.Exited(0)) << Describe(result);
		EXPECT_EQ(result.err, "");
		EXPECT_EQ(Count(result.out, "nvml=1"), 0) << "the program has NVML loaded";
		return Report(dir.File("trace.bin"));
	}
};

/* Of the process that took so many MiB of the first device. */
Json ClientOf(const Json &report, long mib)
{
	Json list = DeviceOf(report, 0)["processes"];

	for (size_t i = 0; i < list.size(); i++)
		if (list[i]["reserved_bytes"].Long() == mib * kMiB)
			return list[i];
	return Json();
}

void ExpectUnknown(const Json &report, const std::string &why)
{
	Json list = DeviceOf(report, 0)["processes"];

	EXPECT_GE(list.size(), 1u) << why;
	for (size_t i = 0; i < list.size(); i++) {
		EXPECT_TRUE(list[i]["unattributed_bytes"].IsNull()) << why;
		EXPECT_TRUE(list[i]["unattributed_from"].IsNull()) << why;
	}
	EXPECT_TRUE(DeviceOf(report, 0)["unattributed_bytes"].IsNull()) << why;
}

bool IsGone(long pid)
{
	std::string stat = ReadAll("/proc/" + std::to_string(pid) + "/stat");

	return stat.empty() || stat.find(") Z ") != std::string::npos;
}

} // namespace

/* Each process gets the driver's number for it less what it took; nobody of the tree loads NVML. */
TEST(GpuSeen, EachProcessHasTheDriversNumberOfIt)
{
	Seen s({ "8:self:512", "4:self:100" });
	Json report;
	std::string log;

	ASSERT_TRUE(s.Asked(2)) << s.running->OutSoFar() << s.Log();
	ASSERT_TRUE(s.Told(6));
	log = s.Log();
	report = s.End();
	EXPECT_EQ(ClientOf(report, 8)["unattributed_bytes"].Long(), 512 * kMiB);
	EXPECT_EQ(ClientOf(report, 8)["driver_used_bytes"].Long(), 520 * kMiB);
	EXPECT_EQ(ClientOf(report, 4)["unattributed_bytes"].Long(), 100 * kMiB);
	EXPECT_EQ(ClientOf(report, 4)["unattributed_from"].Text(), "memtrace run");
	EXPECT_EQ(DeviceOf(report, 0)["unattributed_bytes"].Long(), 612 * kMiB);
	EXPECT_EQ(Count(log, "loaded"), 1) << log;
	EXPECT_EQ(Count(log, " " + std::to_string(s.running->pid) + " "), 0) << "by memtrace itself";
	for (const auto &client : Facts(s.result.out, "client"))
		EXPECT_EQ(Count(log, " " + std::to_string(client.at("pid")) + " "), 0) << log;

	Command gpu; /* in words, too */
	Result said;

	gpu.traced = false;
	gpu.argv = { BuildPath("memtrace-report"), "gpu", s.dir.File("trace.bin") };
	said = Execute(gpu);
	EXPECT_NE(said.out.find("100.0 MiB that no call shows (NVML, asked by memtrace run)"),
		  std::string::npos)
		<< said.out;

	Command c; /* and PyTorch's page, which shows one process, is said to show one */
	Result r;

	c.traced = false;
	c.argv = { BuildPath("memtrace-report"), "export", "--format", "memory-viz", "-o",
		   s.dir.File("snapshot"), s.dir.File("trace.bin") };
	r = Execute(c);
	EXPECT_TRUE(r.Exited(0)) << Describe(r);
	EXPECT_NE(r.err.find("1 more process used GPUs"), std::string::npos) << r.err;
}

/* Numbers of another namespace: the only client of the device is ours, of several it is not known. */
TEST(GpuSeen, ANumberThatIsNotOursIsOursOnlyWhereNobodyElseIs)
{
	{
		Seen s({ "8:4000001:512" });
		Json p;

		ASSERT_TRUE(s.Asked(1));
		ASSERT_TRUE(s.Told(3));
		p = ClientOf(s.End(), 8);
		EXPECT_EQ(p["unattributed_bytes"].Long(), 512 * kMiB);
	}
	{
		Seen s({ "8:4000001:512", "4:4000002:100" });

		ASSERT_TRUE(s.Asked(2, 6));
		ExpectUnknown(s.End(), "two numbers of elsewhere");
	}
	{ /* it has less than our process took: it is somebody else's */
		Seen s({ "8:4000001:-4" });

		ASSERT_TRUE(s.Asked(1));
		ASSERT_TRUE(s.Told(1));
		ExpectUnknown(s.End(), "less than was taken");
	}
}

TEST(GpuSeen, WhatTheDriverDoesNotSayIsNotKnown)
{
	{
		Seen s({ "8:self:NA" });

		ASSERT_TRUE(s.Asked(1));
		ASSERT_TRUE(s.Told(1));
		EXPECT_EQ(s.Told()[0]["own"].Long(), 0);
		ExpectUnknown(s.End(), "not available");
	}
	{
		Seen s({ "8:self:512" }, { { "FAKE_NVML_MIG", "1" } });

		ASSERT_TRUE(Until([&] { return Count(s.Log(), "loaded") == 1; }));
		usleep(300000); /* rounds of nothing */
		ExpectUnknown(s.End(), "in slices");
		EXPECT_EQ(s.Told().size(), 0u);
	}
}

TEST(GpuSeen, ErrorsOfTheLibraryAreNoNumbers)
{
	for (const char *call : { "init", "count", "index", "uuid", "processes" }) {
		Seen s({ "8:self:512" }, { { "FAKE_NVML_FAIL", call } });

		ASSERT_TRUE(Until([&] { return Count(s.Log(), "loaded") == 1; })) << call;
		ExpectUnknown(s.End(), call);
	}
	Seen s({ "8:self:512" }, { { "FAKE_NVML_FAIL", "memory" } });

	ASSERT_TRUE(s.Asked(1));
	ASSERT_TRUE(s.Told(1));
	EXPECT_EQ(s.Told()[0]["all"].Long(), 0);
	EXPECT_EQ(ClientOf(s.End(), 8)["unattributed_bytes"].Long(), 512 * kMiB);
}

/* The program does not wait for it, nor does our end, and nothing of it is left behind. */
TEST(GpuSeen, ALibraryThatHangsHoldsNobodyUp)
{
	for (const char *call : { "init", "processes" }) {
		Seen s({ "8:self:512" }, { { "FAKE_NVML_HANG", call } });
		size_t at;

		ASSERT_TRUE(Until([&] { return Count(s.Log(), "hangs") == 1; })) << call;
		ExpectUnknown(s.End(), call);
		EXPECT_FALSE(s.result.timed_out);
		at = s.Log().find("hangs ");
		EXPECT_TRUE(Until([&] { return IsGone(atol(s.Log().c_str() + at + 6)); }));
	}
}

/* No library, no GPU used, or GPUs not wanted: NVML is not asked, and nothing is said of it. */
TEST(GpuSeen, IsNotAskedWhereThereIsNothingToAsk)
{
	{
		Seen s({ "8:self:512" }, { { "LD_LIBRARY_PATH", BuildPath("programs/driver") } });

		ASSERT_TRUE(Until([&] { return Count(s.running->OutSoFar(), "client") == 1; }));
		usleep(300000);
		ExpectUnknown(s.End(), "no library");
		EXPECT_EQ(s.Log(), "");
	}
	{
		Seen s({ "8:self:512" }, {}, false);

		ASSERT_TRUE(Until([&] { return Count(s.running->OutSoFar(), "client") == 1; }));
		usleep(300000);
		EXPECT_EQ(s.End()["gpu"].size(), 0u);
		EXPECT_EQ(s.Log(), "");
	}
	{
		Seen s({ "none" }); /* a program without a GPU */

		ASSERT_TRUE(Until([&] { return Count(s.running->OutSoFar(), "client") == 1; }));
		usleep(300000);
		s.End();
		EXPECT_EQ(s.Log(), "");
	}
}

/* After an attach nobody watches: top asks for itself, shows it where the trace has nothing, and an
 * NVML that fails leaves the view as it is. */
TEST(GpuSeen, TopAsksWhereTheTraceHasNothing)
{
	TempDir dir;
	Command program, attach, top;
	Result r;
	Json list;

	program.argv = { BuildPath("programs/gpu_seen"), "8:self:512", "4:self:100" };
	program.dir = dir.path;
	program.traced = false;
	program.env = { { "LD_LIBRARY_PATH", BuildPath("programs/cuda") },
			{ "FAKE_NVML_FILE", dir.File("clients") } };
	attach = top = program;
	Running running(program);
	ASSERT_TRUE(Until([&] { return Count(running.OutSoFar(), "client") == 2; }));
	attach.argv = { BuildPath("memtrace"), "attach", std::to_string(running.pid), "--tree",
			"--out", dir.File("trace.bin") };
	r = Execute(attach);
	ASSERT_TRUE(r.Exited(0)) << Describe(r);
	top.argv = { BuildPath("memtrace"), "top", std::to_string(running.pid), "--once" };
	r = Execute(top);
	EXPECT_TRUE(r.Exited(0)) << Describe(r);
	EXPECT_NE(r.out.find(" 520.0M "), std::string::npos) << r.out;
	EXPECT_NE(r.out.find(" 104.0M "), std::string::npos) << r.out;
	top.argv.push_back("--json");
	list = Json::Parse(Execute(top).out)["processes"];
	ASSERT_EQ(list.size(), 2u);
	for (size_t i = 0; i < 2; i++) {
		EXPECT_TRUE(list[i]["device_bytes"].IsNull());
		EXPECT_EQ(list[i]["device_driver_bytes"].Long(),
			  (list[i]["pid"].Long() == running.pid ? 520 : 104) * kMiB);
	}
	for (const char *trouble : { "FAKE_NVML_FAIL", "FAKE_NVML_HANG" }) {
		top.env[trouble] = "init";
		r = Execute(top);
		EXPECT_TRUE(r.Exited(0)) << Describe(r);
		EXPECT_EQ(r.err, "") << "nothing is said of it";
		list = Json::Parse(r.out)["processes"];
		EXPECT_EQ(list.size(), 2u) << r.out;
		EXPECT_TRUE(list[(size_t)0]["device_driver_bytes"].IsNull());
	}
	EXPECT_EQ(Count(ReadAll("/proc/" + std::to_string(running.pid) + "/maps"), "nvidia-ml"), 0);
	std::ofstream(dir.File("go")).close();
	EXPECT_TRUE(running.Wait().Exited(0));
}

/* Under `memtrace run` the trace has it. */
TEST(GpuSeen, TopShowsWhatTheTraceWasTold)
{
	Seen s({ "8:self:512" });
	Command top;
	Json p;

	ASSERT_TRUE(s.Asked(1));
	ASSERT_TRUE(s.Told(1));
	top.argv = { BuildPath("memtrace"), "top", s.dir.File("trace.bin"), "--once", "--json" };
	top.traced = false;
	p = Json::Parse(Execute(top).out)["processes"][(size_t)0];
	EXPECT_EQ(p["device_bytes"].Long(), 8 * kMiB);
	EXPECT_EQ(p["device_driver_bytes"].Long(), 520 * kMiB);
	s.End();
}
