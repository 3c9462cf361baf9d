/*
 * Process trees: what is measured of processes that are silent, against /proc read by the test; who
 * outlived whom, what was left in /dev/shm, which rank is which, and what ended each.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <sstream>

#include "support/harness.h"
#include "support/queries.h"
#include "support/interpreters.h"

namespace memtrace_test
{
namespace
{

void Sleep(double seconds)
{
	struct timespec t = { (time_t)seconds, (long)((seconds - (double)(long)seconds) * 1e9) };

	nanosleep(&t, nullptr);
}

/* ---- what is measured ------------------------------------------------------------------------- */

struct Size {
	long rss = 0, pss = 0, uss = 0;
};

/* As the kernel says now; pss 0: the process is gone. */
Size SizeOf(long pid)
{
	std::ifstream in("/proc/" + std::to_string(pid) + "/smaps_rollup");
	Size s;

	for (std::string line; std::getline(in, line);) {
		long bytes = atol(line.c_str() + line.find(':') + 1) * 1024;

		if (!line.compare(0, 4, "Rss:"))
			s.rss = bytes;
		else if (!line.compare(0, 4, "Pss:"))
			s.pss = bytes;
		else if (!line.compare(0, 8, "Private_") && line.find("Hugetlb") == line.npos)
			s.uss += bytes;
	}
	return s;
}

std::vector<double> Series(const Json &json, long proc, const std::string &name)
{
	Json series = json["timeline"]["series"];
	std::vector<double> values;

	for (size_t i = 0; i < series.size(); i++) {
		Json s = series[i];

		if (s["name"].Text() != name ||
		    (proc < 0 ? !s["proc"].IsNull() : s["proc"].Long() != proc))
			continue;
		for (size_t k = 0; k < s["v"].size(); k++)
			values.push_back(s["v"][k].IsNull() ? NAN : s["v"][k].Number());
	}
	return values;
}

/* A family of 48 MiB that all share and 6 MiB that each child has for itself. */
class Silent : public testing::Test
{
      protected:
	static constexpr long kShared = 48, kOwn = 6, kChildren = 3;

	void Run(bool driver, const std::string &parent)
	{
		Command c = Program(dir, "silent_tree",
				    { std::to_string(kShared), std::to_string(kChildren),
				      std::to_string(kOwn), "4", parent });

		c.env["MEMTRACE_QUIET"] = "1";
		c.env["MEMTRACE_INTERVAL"] = "0.3";
		if (driver) {
			c.argv.insert(c.argv.begin(), { BuildPath("memtrace"), "run", "--" });
			c.traced = false;
		}
		Running r(c);

		ASSERT_TRUE(r.WaitForOutput("ready now=1", 60));
		for (auto &fact : Facts(r.OutSoFar(), "member"))
			pids.push_back(fact["pid"]);
		ASSERT_EQ(pids.size(), kChildren + 1u);
		Sleep(0.2); /* PSS settles when the last has read all that it shares */
		for (long pid : pids) {
			truth.push_back(SizeOf(pid));
			tree += truth.back().pss;
		}
		Result result = r.Wait();
		ASSERT_TRUE(result.Exited(0)) << Describe(result);
		json = Report(dir.File("trace.bin"));
	}

	/* In the last sample of each, which nothing has changed. */
	void Compare(bool parent_too)
	{
		for (size_t i = parent_too ? 0 : 1; i < pids.size(); i++) {
			Json p = ByPid(json, pids[i]);
			const struct {
				const char *name;
				long bytes;
			} sizes[] = { { "rss", truth[i].rss },
				      { "pss", truth[i].pss },
				      { "uss", truth[i].uss } };

			ASSERT_FALSE(p.IsNull()) << pids[i];
			EXPECT_EQ(p["end"]["kind"].Text(), i ? "signal" : "exit");
			for (const auto &size : sizes) {
				std::vector<double> v = Series(json, p["id"].Long(), size.name);
				double last = NAN;
				long count = 0;

				for (double x : v)
					if (!std::isnan(x)) {
						if (i ||
						    count < 3) /* the parent's, while all lived */
							last = x;
						count++;
					}
				/* How many there are goes by what each costs; a right one is proof. */
				EXPECT_GE(count, 1) << size.name << " of " << pids[i];
				EXPECT_NEAR(last, (double)size.bytes,
					    (double)(1 << 20) + 0.02 * (double)size.bytes)
					<< size.name << " of " << pids[i];
			}
		}
	}

	TempDir dir;
	std::vector<long> pids;
	std::vector<Size> truth;
	long tree = 0;
	Json json;
};

TEST_F(Silent, AWorkerIsSampledByItsParentThatIsAwake)
{
	Run(false, "awake");
	Compare(false);
	/* All at one moment; a sum of what each was last known to have would be 50 MiB higher. */
	EXPECT_NEAR(json["tree"]["peak_pss_bytes"].Number(), (double)tree, 0.06 * (double)tree);
	EXPECT_LT(json["tree"]["peak_pss_bytes"].Long(), (kShared + kOwn * kChildren + 12) << 20);
}

TEST_F(Silent, WhenAllAreSilentTheDriverSamples)
{
	Run(true, "silent");
	Compare(false);
	EXPECT_NEAR(json["tree"]["peak_pss_bytes"].Number(), (double)tree, 0.06 * (double)tree);
	EXPECT_EQ(json["processes"].size(), kChildren + 1u) << "the driver is none of them";
	EXPECT_TRUE(json["trace"]["complete"].True()) << json["trace"].Print();
	for (size_t i = 1; i < pids.size(); i++) {
		Json p = ByPid(json, pids[i]);

		/* Its only event was an allocation when it began: how it went on was seen by nobody else. */
		EXPECT_GT(p["end_s"].Number() - p["start_s"].Number(), 1) << p.Print();
	}
}

/* Without the driver nobody is awake: then not a word is said of that time, rather than a wrong one. */
TEST_F(Silent, WithoutADriverNothingIsMadeUp)
{
	Run(false, "silent");
	for (size_t i = 1; i < pids.size(); i++) {
		std::vector<double> v = Series(json, ByPid(json, pids[i])["id"].Long(), "rss");
		long count = 0;

		for (double x : v)
			count += !std::isnan(x);
		EXPECT_LE(count, 2);
	}
}

/* ---- ends ------------------------------------------------------------------------------------- */

TEST(Ends, TheDriverTellsWhatEndedTheFirstProcess)
{
	TempDir dir;
	Command c = Program(dir, "hold", {});

	c.argv = { BuildPath("memtrace"), "run", "--", "sh", "-c", "sleep 1; kill -9 $$" };
	c.traced = false;
	c.env["MEMTRACE_QUIET"] = "1";
	c.env["MEMTRACE_INTERVAL"] = "0.2";
	Result r = Execute(c);
	EXPECT_TRUE(r.Exited(137)) << Describe(r);
	Json json = Report(dir.File("trace.bin")), main = json["processes"][(size_t)0];

	EXPECT_EQ(main["end"]["kind"].Text(), "signal") << main.Print();
	EXPECT_EQ(main["end"]["code"].Long(), SIGKILL);
	std::vector<Json> killed = FindingsOf(json, "killed");
	ASSERT_EQ(killed.size(), 1u) << json["findings"].Print();
	EXPECT_NE(killed[0]["title"].Text().find("SIGKILL"), std::string::npos);
}

/* In a group of its own with little memory; root of the machine only. */
class OutOfMemory : public testing::Test
{
      protected:
	void SetUp() override
	{
		const std::string name = "/memtrace-test-" + std::to_string(getpid());
		struct stat st;

		version1 = stat("/sys/fs/cgroup/memory/memory.limit_in_bytes", &st) == 0;
		group = (version1 ? "/sys/fs/cgroup/memory" : "/sys/fs/cgroup") + name;
		if (geteuid() != 0 || mkdir(group.c_str(), 0755) < 0)
			GTEST_SKIP() << "a memory cgroup can't be made here";
		if (!Put(version1 ? "memory.limit_in_bytes" : "memory.max", "100000000"))
			GTEST_SKIP() << "no memory controller here";
	}
	void TearDown() override
	{
		rmdir(group.c_str());
	}
	bool Put(const std::string &file, const std::string &text)
	{
		std::ofstream out(group + "/" + file);

		out << text << std::flush;
		return out.good();
	}

	std::string group;
	bool version1 = false;
	TempDir dir;
};

TEST_F(OutOfMemory, IsNamedAsTheCauseThoughNobodyIsLeft)
{
	std::string procs = group + "/cgroup.procs";
	Command c = Program(dir, "silent_tree", { "300", "0", "1", "1", "silent" });

	c.argv.insert(c.argv.begin(),
		      { "/bin/sh", "-c",
			"echo $$ >" + procs + "; exec " + BuildPath("memtrace") +
				" run -- sh -c 'sleep 1; exec \"$0\" \"$@\"' \"$0\" \"$@\"" });
	c.traced = false;
	c.env["MEMTRACE_QUIET"] = "1";
	c.env["MEMTRACE_INTERVAL"] = "0.2";
	Result r = Execute(c);
	ASSERT_TRUE(r.Exited(137)) << Describe(r);
	Json json = Report(dir.File("trace.bin"));
	std::vector<Json> killed = FindingsOf(json, "killed");

	ASSERT_EQ(killed.size(), 1u) << json["findings"].Print();
	EXPECT_GE(killed[0]["evidence"]["oom_kills"].Long(), 1);
	EXPECT_NE(killed[0]["detail"].Text().find("out-of-memory"), std::string::npos);
	EXPECT_EQ(json["capacity"]["limit_from"].Text(), "cgroup");
	EXPECT_NEAR(json["capacity"]["limit_bytes"].Number(), 1e8, 1e5);
}

/* ---- ranks ------------------------------------------------------------------------------------ */

TEST(RankNumbers, AreToldByTheVariablesOfEachLauncher)
{
	const std::vector<std::map<std::string, std::string>> launchers = {
		{ { "RANK", "2" }, { "WORLD_SIZE", "4" }, { "LOCAL_RANK", "0" } },
		{ { "SLURM_PROCID", "2" }, { "SLURM_NTASKS", "4" } },
		{ { "OMPI_COMM_WORLD_RANK", "2" }, { "OMPI_COMM_WORLD_SIZE", "4" } },
		{ { "PMI_RANK", "2" }, { "PMI_SIZE", "4" } },
		{ { "PMIX_RANK", "2" } },
	};

	for (const auto &variables : launchers) {
		TempDir dir;
		Command c = Program(dir, "tiny", {});

		c.env = variables;
		c.env["MEMTRACE_QUIET"] = "1";
		c.env["MEMTRACE_OUT"] = "rank-%r.bin";
		Result r = Execute(c);
		ASSERT_TRUE(Exists(dir.File("rank-2.bin"))) << variables.begin()->first;
		Json p = Report(dir.File("rank-2.bin"))["processes"][(size_t)0];

		EXPECT_EQ(p["role"].Text(), "rank") << variables.begin()->first;
		EXPECT_EQ(p["rank"].Long(), 2);
	}
}

/* torchrun as Slurm's task 0: its child of rank 0 is another one than the task. */
TEST(RankNumbers, BelowATaskOfSlurmAreTheirOwn)
{
	TempDir dir;
	Command c = Program(dir, "tiny", {});
	std::string tiny = c.argv[0];

	c.argv = { "/bin/sh", "-c",
		   "RANK=0 WORLD_SIZE=2 " + tiny + "; RANK=1 WORLD_SIZE=2 " + tiny + "; true" };
	c.env["SLURM_PROCID"] = "0";
	c.env["SLURM_NTASKS"] = "2";
	c.env["MEMTRACE_QUIET"] = "1";
	Execute(c);
	Json json = Report(dir.File("trace.bin")), processes = json["processes"];
	std::map<std::string, int> ranks;

	for (size_t i = 0; i < processes.size(); i++)
		if (processes[i]["command"].Text().find("tiny") != std::string::npos &&
		    processes[i]["command"].Text().find("sh -c") == std::string::npos)
			ranks[processes[i]["role"].Text() + processes[i]["rank"].Print()]++;
	EXPECT_EQ(ranks["rank0"], 1) << processes.Print();
	EXPECT_EQ(ranks["rank1"], 1) << processes.Print();
}

/* ---- what arguments tell ---------------------------------------------------------------------- */

/* Files and functions as PyTorch has them, without PyTorch: so in every interpreter there is here. */
TEST(Arguments, TellAWorkersNumberAndASpawnedRank)
{
	long tried = 0;

	for (const char *version :
	     { "3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14", "3.15" }) {
		std::string python = InterpreterOf(version);
		TempDir dir;
		Command c, dump;

		if (python.empty())
			continue;
		tried++;
		WriteAll(dir.File("make.py"),
			 "import os, sys\n"
			 "for name, text in (\n"
			 "  ('torch/utils/data/_utils/worker.py', '''\n"
			 "def _worker_loop(kind, dataset, queue, worker_id, num_workers, "
			 "seed=None):\n"
			 "    kept.append([bytes(3000) for _ in range(200)])\n"
			 "kept = []\n'''),\n"
			 "  ('torch/multiprocessing/spawn.py', '''\n"
			 "def _wrap(fn, i, args, error_file):\n"
			 "    return fn(i, *args)\n'''),\n"
			 "):\n"
			 "    os.makedirs(os.path.dirname(name), exist_ok=True)\n"
			 "    open(name, 'w').write(text)\n"
			 "sys.path.insert(0, os.getcwd())\n"
			 "from torch.utils.data._utils import worker\n"
			 "from torch.multiprocessing import spawn\n"
			 "def run(i):\n"
			 "    return [bytes(3000) for _ in range(200)]\n"
			 "if not os.fork():\n"
			 "    worker._worker_loop('kind', [1], None, 5, 12)\n"
			 "    os._exit(0)\n"
			 "if not os.fork():\n"
			 "    spawn._wrap(run, 3, (), 'file')\n"
			 "    os._exit(0)\n"
			 "os.wait()\n"
			 "os.wait()\n");
		c.argv = { python, "-S", dir.File("make.py") };
		c.dir = dir.path;
		c.env["MEMTRACE_QUIET"] = "1";
		Result r = Execute(c);
		ASSERT_TRUE(r.Exited(0)) << version << Describe(r);
		dump.argv = { BuildPath("memtrace-report"), "dump", dir.File("trace.bin") };
		dump.traced = false;
		std::string text = Execute(dump).out;

		EXPECT_NE(text.find("key=\"worker\" value=\"5\""), text.npos) << version;
		EXPECT_NE(text.find("key=\"workers\" value=\"12\""), text.npos) << version;
		EXPECT_NE(text.find("key=\"spawn_rank\" value=\"3\""), text.npos) << version;
		Json processes = Report(dir.File("trace.bin"))["processes"];
		long ranks = 0;

		ASSERT_EQ(processes.size(), 3u) << version;
		for (size_t i = 0; i < processes.size(); i++)
			ranks += processes[i]["role"].Text() == "rank" &&
				 processes[i]["rank"].Long() == 3;
		EXPECT_EQ(ranks, 1) << version << processes.Print();
	}
	if (!tried)
		GTEST_SKIP() << "no interpreter of a known version here";
}

/* ---- /dev/shm --------------------------------------------------------------------------------- */

TEST(SharedMemory, NamesLeftBehindAreFoundWithWhoMadeThem)
{
	TempDir dir;
	Command c = Program(dir, "shm_left", { "3" });
	Result r;

	c.env["MEMTRACE_QUIET"] = "1";
	r = Execute(c);
	ASSERT_TRUE(r.Exited(0)) << Describe(r);
	std::string stem = "/memtrace-test-" + std::to_string(Facts(r.out, "left")[0]["name_pid"]) +
			   "-";
	long root = Facts(r.out, "left")[0]["name_pid"], child = Facts(r.out, "made")[0]["child"];
	Json json = Report(dir.File("trace.bin"));

	EXPECT_EQ(shm_unlink((stem + "mine").c_str()), 0);
	EXPECT_EQ(shm_unlink((stem + "childs").c_str()), 0);
	std::vector<Json> left = FindingsOf(json, "shm-leak");
	ASSERT_EQ(left.size(), 1u) << json["findings"].Print();
	EXPECT_EQ(left[0]["bytes"].Long(), 6 << 20);
	EXPECT_EQ(left[0]["evidence"]["objects"].Long(), 2);
	std::string names = left[0]["evidence"]["names"].Print();
	EXPECT_NE(names.find(stem.substr(1) + "mine"), std::string::npos) << names;
	EXPECT_NE(names.find(stem.substr(1) + "childs"), std::string::npos) << names;
	EXPECT_EQ(names.find("gone"), std::string::npos) << names;
	std::string pids = left[0]["pids"].Print();
	EXPECT_NE(pids.find(std::to_string(root)), std::string::npos);
	EXPECT_NE(pids.find(std::to_string(child)), std::string::npos);
	EXPECT_NE(left[0]["site"].Long(), -1) << "the line that made it";
}

} // namespace
} // namespace memtrace_test
