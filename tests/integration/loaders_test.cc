/*
 * PyTorch's DataLoader by every start method: whose workers they are, what each holds of its own,
 * and the shared memory that its batches travel in; compared with what the program and the kernel
 * say of it. And a run of a hundred workers.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <sstream>

#include "support/harness.h"
#include "support/queries.h"

namespace memtrace_test
{
namespace
{

const char *const program = "tests/programs/py_loaders.py";
constexpr long kBatch = 4L * 65536 * 4; /* bytes of a batch of py_loaders.py */

class Loaders : public testing::Test
{
      protected:
	void SetUp() override
	{
		std::string python = SourcePath("build/venv/bin/python");

		if (!HasTorch())
			GTEST_SKIP() << "no torch in build/venv: scripts/install-deps brings it";
		command.argv = { python, SourcePath(program),
				 dir.File("facts") };
		command.dir = dir.path;
		command.env["MEMTRACE_QUIET"] = "1";
		command.timeout_s = 300;
	}

	/* The report, and the program's own words. */
	Json Run(const std::vector<std::string> &arguments, int signal = 0)
	{
		command.argv.insert(command.argv.end(), arguments.begin(), arguments.end());
		Result r = Execute(command);

		EXPECT_TRUE(signal ? r.Signal() == signal : r.Exited(0)) << Describe(r);
		std::istringstream lines(ReadAll(dir.File("facts")));
		for (std::string line; std::getline(lines, line);) {
			Json fact = Json::Parse(line);

			if (!fact["worker"].IsNull())
				workers.push_back(fact);
			else if (fact["busy"].IsNull())
				main_fact = fact;
		}
		EXPECT_EQ(workers.size(), 2u);
		return Report(dir.File("trace.bin"));
	}

	TempDir dir;
	Command command;
	Json main_fact;
	std::vector<Json> workers;
};

/* Every worker is known by its index, its loader's line and how it was started. */
void ExpectWorkers(const Json &json, const std::vector<Json> &workers, const std::string &method)
{
	for (const Json &truth : workers) {
		Json p = ByPid(json, truth["pid"].Long());

		EXPECT_EQ(p["role"].Text(), "dataloader-worker") << p.Print();
		EXPECT_EQ(p["worker"]["index"].Long(), truth["worker"].Long());
		EXPECT_EQ(p["worker"]["of"].Long(), truth["of"].Long());
		EXPECT_EQ(p["worker"]["start_method"].Text(), method);
		EXPECT_EQ(p["worker"]["loader"].Text(), PlaceOf(program, "# the loader's line"));
		EXPECT_EQ(p["end"]["kind"].Text(), "exit");
		EXPECT_EQ(p["end"]["code"].Long(), 0);
	}
}

void ExpectCopies(const Json &json, const std::vector<Json> &workers, const std::string &method)
{
	std::vector<Json> copies = FindingsOf(json, "per-worker-copy");
	double data = workers[0]["data"].Number();

	ASSERT_EQ(copies.size(), 1u) << json["findings"].Print();
	EXPECT_EQ(copies[0]["evidence"]["start_method"].Text(), method);
	EXPECT_EQ(copies[0]["procs"].size(), 2u);
	EXPECT_NE(copies[0]["title"].Text().find(PlaceOf(program, "# the loader's line")),
		  std::string::npos);
	/* Beside the objects there are their collector's headers, what the allocator rounds up, and
	 * the pickle while it was read. */
	EXPECT_GE(copies[0]["evidence"]["bytes_per_worker"].Number(), data);
	EXPECT_LE(copies[0]["evidence"]["bytes_per_worker"].Number(), 1.45 * data);
}

TEST_F(Loaders, SpawnedWorkersHoldCopies)
{
	Json json = Run({ "spawn", "list" });

	ExpectWorkers(json, workers, "spawn");
	ExpectCopies(json, workers, "spawn");
}

TEST_F(Loaders, WorkersOfAForkServerHoldCopies)
{
	Json json = Run({ "forkserver", "list" });

	ExpectWorkers(json, workers, "forkserver");
	ExpectCopies(json, workers, "forkserver");
	for (const Json &truth : workers)
		EXPECT_EQ(ByPid(json, truth["ppid"].Long())["role"].Text(),
			  "forkserver");
}

TEST_F(Loaders, AForkedWorkersCacheIsOnePerWorker)
{
	Json json = Run({ "fork", "cache" });
	std::vector<Json> copies = FindingsOf(json, "per-worker-copy");

	ExpectWorkers(json, workers, "fork");
	ASSERT_EQ(copies.size(), 1u) << json["findings"].Print();
	EXPECT_NE(copies[0]["title"].Text().find(PlaceOf(program, "# the cache's line")), std::string::npos)
		<< copies[0]["title"].Text();
	/* 96 samples of a mebibyte and one byte, each in one of the two. */
	EXPECT_NEAR(copies[0]["bytes"].Number(), 96.0 * (1 << 20), 96 * 64);
}

TEST_F(Loaders, KeptBatchesAreFoundWithTheirLineAndHolder)
{
	Json json = Run({ "fork", "keep" });
	Json shm = json["shm"], truth = main_fact["files"];
	Json holder = ByPid(json, main_fact["pid"].Long());
	std::vector<Json> leaks = FindingsOf(json, "shm-leak");
	long bytes = 0, descriptors = 0, held = 0;

	ExpectWorkers(json, workers, "fork");
	for (size_t i = 0; i < shm.size(); i++) {
		Json o = shm[i];

		if (o["holders"].size() != 1 ||
		    o["holders"][(size_t)0].Long() != holder["id"].Long())
			continue;
		held++;
		bytes += o["bytes"].Long();
		descriptors += o["descriptors"].Long();
		EXPECT_TRUE(o["unlinked"].True());
		EXPECT_FALSE(o["in_flight"].True());
		EXPECT_EQ(o["place"].Text(), PlaceOf(program, "# the collate line"));
		EXPECT_TRUE(o["creator_pid"].Long() == workers[0]["pid"].Long() ||
			    o["creator_pid"].Long() == workers[1]["pid"].Long());
	}
	EXPECT_EQ(held, truth[(size_t)0].Long()) << shm.Print();
	EXPECT_EQ(bytes, truth[(size_t)2].Long());
	/* Its own open files that a batch was just received by may be among them. */
	EXPECT_NEAR((double)descriptors, truth[(size_t)1].Number(), 2);
	ASSERT_EQ(leaks.size(), 1u) << json["findings"].Print();
	EXPECT_EQ(leaks[0]["bytes"].Long(), truth[(size_t)2].Long());
	EXPECT_EQ(leaks[0]["pids"][(size_t)0].Long(), main_fact["pid"].Long());
	EXPECT_NE(leaks[0]["title"].Text().find(PlaceOf(program, "# the collate line")), std::string::npos);
	EXPECT_NE(leaks[0]["advice"].Text().find("clone()"), std::string::npos);
	EXPECT_EQ(json["tree"]["peak_shm_bytes"].Long(), truth[(size_t)2].Long());
}

TEST_F(Loaders, KeptBatchesWithNamesAreFoundToo)
{
	Json json = Run({ "fork", "keep", "file_system" });
	std::vector<Json> leaks = FindingsOf(json, "shm-leak");

	ASSERT_EQ(leaks.size(), 1u) << json["findings"].Print();
	/* The kernel shows whole pages of them, and each has a count of its users before the data. */
	EXPECT_NEAR(leaks[0]["bytes"].Number(), main_fact["files"][(size_t)2].Number(), 24 * 4096);
	EXPECT_GE(leaks[0]["bytes"].Long(), 24 * kBatch);
	EXPECT_NE(leaks[0]["title"].Text().find("kept by main"), std::string::npos);
}

TEST_F(Loaders, ClonesAreNoLeakAndPrefetchIsShown)
{
	Json json = Run({ "fork", "clone" }), flight = json["shm_in_flight"][(size_t)0];

	EXPECT_TRUE(FindingsOf(json, "shm-leak").empty()) << json["findings"].Print();
	EXPECT_EQ(json["shm_in_flight"].size(), 1u);
	EXPECT_EQ(flight["loader"].Text(), PlaceOf(program, "# the loader's line"));
	EXPECT_EQ(flight["workers"].Long(), 2);
	EXPECT_EQ(flight["objects"].Long(), 24);
	EXPECT_EQ(flight["object_bytes"].Long(), kBatch);
	EXPECT_GE(flight["peak_objects"].Long(), 1);
	EXPECT_LE(flight["peak_objects"].Long(), 2 * 2 + 1) << "workers times prefetch_factor";
}

TEST_F(Loaders, WhatIsInFlightWhenMainDiesIsShown)
{
	Json json = Run({ "fork", "linger" }, SIGKILL);
	long in_flight = 0;

	for (size_t i = 0; i < json["shm"].size(); i++) {
		Json o = json["shm"][i];

		if (!o["in_flight"].True())
			continue;
		in_flight += o["bytes"].Long();
		EXPECT_EQ(o["holders"].size(), 1u);
		EXPECT_EQ(o["holders"][(size_t)0].Long(), o["creator"].Long());
	}
	/* Two workers, two batches ahead each; in no process's mappings. Those that were received while
	 * the main process waited for an earlier one of the other worker are in flight no more. */
	EXPECT_GE(main_fact["waiting"].Long(), 2);
	EXPECT_EQ(in_flight, main_fact["waiting"].Long() * kBatch) << json["shm"].Print();
}

TEST_F(Loaders, WorkersThatOutliveTheirParentAreNamed)
{
	Run({ "fork", "orphan" }, SIGKILL);
	ASSERT_EQ(workers.size(), 2u);
	for (int tries = 0; tries < 1200; tries++) {
		int alive = 0;

		for (const Json &w : workers)
			alive += kill((pid_t)w["pid"].Long(), 0) == 0;
		if (!alive)
			break;
		usleep(50000);
	}
	Json json = Report(dir.File("trace.bin"));
	std::vector<Json> orphans = FindingsOf(json, "orphan-worker");

	ExpectWorkers(json, workers, "fork");
	ASSERT_EQ(orphans.size(), 1u) << json["findings"].Print();
	EXPECT_EQ(orphans[0]["pids"].size(), 2u);
	for (const Json &w : workers) {
		EXPECT_NE(orphans[0]["pids"].Print().find(std::to_string(w["pid"].Long())),
			  std::string::npos);
		EXPECT_EQ(w["ppid"].Long(), orphans[0]["evidence"]["parent_pid"].Long());
	}
	/* Each has 16 MiB of its own; what both inherited is theirs now, half each. */
	EXPECT_GT(orphans[0]["bytes"].Long(), 2 * 16 << 20);
	EXPECT_GT(orphans[0]["evidence"]["outlived_s"].Number(), 2);
	EXPECT_EQ(orphans[0]["evidence"]["running"].Long(), 0);
}

/* Two ranks of torchrun, each with a loader of two workers that fill a cache of 16 MiB. */
TEST_F(Loaders, RanksOfTorchrunAreKnownWithTheirLoaders)
{
	std::map<long, std::set<long>> indices;
	std::string place = "py_torchrun.py:";
	long ranks = 0;

	command.argv = { command.argv[0],
			 "-m",
			 "torch.distributed.run",
			 "--standalone",
			 "--nproc-per-node",
			 "2",
			 SourcePath("tests/programs/py_torchrun.py") };
	Result r = Execute(command);
	ASSERT_TRUE(r.Exited(0)) << Describe(r);
	Json json = Report(dir.File("trace.bin")), processes = json["processes"];

	for (size_t i = 0; i < processes.size(); i++) {
		Json p = processes[i];

		ranks += p["role"].Text() == "rank";
		if (p["role"].Text() != "dataloader-worker")
			continue;
		EXPECT_EQ(p["worker"]["of"].Long(), 2);
		EXPECT_EQ(p["worker"]["loader"].Text().find(place), 0u) << p.Print();
		EXPECT_EQ(processes[(size_t)p["parent"].Long()]["rank"].Long(), p["rank"].Long());
		indices[p["rank"].Long()].insert(p["worker"]["index"].Long());
	}
	EXPECT_EQ(ranks, 2);
	ASSERT_EQ(indices.size(), 2u);
	EXPECT_EQ(indices[0], (std::set<long>{ 0, 1 }));
	EXPECT_EQ(indices[1], (std::set<long>{ 0, 1 }));
	EXPECT_TRUE(json["trace"]["complete"].True()) << json["trace"].Print();
	std::vector<Json> copies = FindingsOf(json, "per-worker-copy");
	ASSERT_EQ(copies.size(), 1u) << "of both ranks at once: " << json["findings"].Print();
	EXPECT_EQ(copies[0]["procs"].size(), 4u);
	EXPECT_EQ(copies[0]["evidence"]["ranks"].Long(), 2);
	EXPECT_NEAR(copies[0]["bytes"].Number(), 4.0 * (16 << 20), 4.0 * (1 << 16));
}

TEST(ManyWorkers, AHundredAndEightAreOneReadableReport)
{
	TempDir dir;
	Command command = Program(dir, "many_workers", { "3", "36" });
	Result r;
	std::map<long, std::set<long>> live;
	long rows = 0, workers = 0;

	command.env["MEMTRACE_QUIET"] = "1";
	r = Execute(command);
	ASSERT_TRUE(r.Exited(0)) << Describe(r);
	Json json = Report(dir.File("trace.bin")), processes = json["processes"];
	Json groups = json["process_groups"];

	for (size_t i = 0; i < processes.size(); i++) {
		Json p = processes[i];

		if (p["allocations"].Long() > 0 && p["role"].Text() == "forked") {
			live[p["rank"].Long()].insert(p["live_at_end_bytes"].Long());
			EXPECT_EQ(p["end"]["kind"].Text(), "exit");
			workers++;
		}
	}
	EXPECT_EQ(workers, 108);
	ASSERT_EQ(live.size(), 3u);
	for (long rank = 0; rank < 3; rank++)
		for (long w = 0; w < 36; w++)
			EXPECT_TRUE(live[rank].count((w + 1) * (1000 + rank))) << rank << " " << w;
	for (size_t i = 0; i < groups.size(); i++)
		rows += groups[i]["count"].Long() == 36;
	EXPECT_EQ(rows, 3);
	EXPECT_LE(groups.size(), 12u);
	EXPECT_EQ(json["trace"]["lost_events"].Long(), 0);

	Command report;
	report.argv = { BuildPath("memtrace-report"), dir.File("trace.bin") };
	report.traced = false;
	Result text = Execute(report);
	size_t table = text.out.find("\nProcesses\n"), end = text.out.find("\n\n", table + 2);

	EXPECT_TRUE(text.Exited(0));
	EXPECT_NE(text.out.find("36 x forked of rank 2"), std::string::npos) << text.out;
	ASSERT_NE(table, std::string::npos);
	/* One screen: the table has a row per kind of process, not per process. */
	EXPECT_LE(std::count(text.out.begin() + (long)table, text.out.begin() + (long)end, '\n'),
		  16);
}

} // namespace
} // namespace memtrace_test
