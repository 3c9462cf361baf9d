// Findings on models made by hand: what must be said, and what must not.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <string>

#include "analysis_model.h"

namespace
{

constexpr uint64_t KIB = 1024, MIB = 1024 * KIB, GIB = 1024 * MIB;

std::string title(const rvalue *finding)
{
	return r_get_string(finding, "title");
}

bool has(const std::string &text, const std::string &part)
{
	return text.find(part) != std::string::npos;
}

} // namespace

// ---- never freed
// ------------------------------------------------------------------------------------

TEST(FindingsLeak, BlocksThatPileUpToTheEndAreNamedWithLineAndProcess)
{
	ModelMaker m;
	uint32_t p = m.process("main", 12);
	uint32_t lib = m.module("/x/leaky.so");
	uint32_t s = m.site(m.native(0, lib, 0x40), m.python("/home/me/train.py", "train", 42));

	m.use(s, p, 200, { 50, 50, 50, 50 }, 48 * KIB);
	Analysed a(m);
	ASSERT_EQ(a.findings("leak").size(), 1u);
	const rvalue *f = a.findings("leak")[0];

	EXPECT_TRUE(has(title(f), "9.4 MiB")) << title(f);
	EXPECT_TRUE(has(title(f), "train.py:42 in train")) << title(f);
	EXPECT_TRUE(has(title(f), "main (pid 12)")) << title(f);
	EXPECT_STREQ(r_get_string(f, "severity"), "warning");
	EXPECT_EQ(r_get_int(f, "bytes"), static_cast<int64_t>(200 * 48 * KIB));
	EXPECT_EQ(r_get_int(f, "site"), s);
	EXPECT_EQ(r_get(f, "procs")->first->u.integer, p);
	EXPECT_EQ(r_get(f, "pids")->first->u.integer, 12);
	EXPECT_EQ(r_get_int(r_get(f, "evidence"), "allocations"), 200);
	EXPECT_NEAR(r_get_float(r_get(f, "evidence"), "bytes_per_s"), 2 * 48 * KIB, 0.1 * KIB);
}

namespace
{

// What is found of blocks of a process that lives 100 s, born at these times; life 0: they stay.
std::string found(const std::vector<double> &births, double life = 0, uint64_t size = 64 * KIB)
{
	ModelMaker m;
	uint32_t p = m.process("main", 12);
	site_use &u = m.use(m.site(0, m.python("/a.py", "f", 1)), p, births.size());
	std::string kinds;

	m.lived(u, births, size, life);
	Analysed a(m);
	r_for_each (f, a["findings"])
		kinds += std::string(r_get_string(f, "kind")) + " ";
	return kinds;
}

std::vector<double> both(std::vector<double> a, const std::vector<double> &b)
{
	a.insert(a.end(), b.begin(), b.end());
	std::sort(a.begin(), a.end());
	return a;
}

auto evenly(double from, double to, uint64_t n)
{
	return ModelMaker::evenly(from, to, n);
}

} // namespace

TEST(FindingsLeak, ALoopThatBeginsLateLeaksAsWell)
{
	EXPECT_EQ(found(evenly(1, 99, 60)), "leak ");
	EXPECT_EQ(found(evenly(66, 99, 60)), "leak "); // after a long start-up
	EXPECT_EQ(found(evenly(80, 99, 60)), "leak ");
}

TEST(FindingsLeak, StartUpMemoryIsNoLeak)
{
	EXPECT_EQ(found(evenly(0, 3, 60)), "");
	EXPECT_EQ(found(evenly(0, 24, 60)), ""); // a slow start-up
	EXPECT_EQ(found(evenly(20, 40, 60)), ""); // caches that are filled and then stay
}

TEST(FindingsLeak, ABurstIsNoLeakWhereverItLies)
{
	EXPECT_EQ(found(both(evenly(0, 1, 60), { 99 })), "");
	EXPECT_EQ(found(both({ 1 }, evenly(93, 94, 60))), "");
	EXPECT_EQ(found(both(evenly(0, 1, 30), evenly(98, 99, 30))), "");
}

TEST(FindingsLeak, BlocksThatAreFreedAreNoLeakHoweverManyAreAlive)
{
	EXPECT_EQ(found(evenly(0, 99, 4000), 20), "");
	EXPECT_EQ(found(evenly(0, 99, 4000), 0.1), "");
}

TEST(FindingsLeak, AShareThatStaysIsALeakBesideAnyNumberThatGo)
{
	ModelMaker m;
	uint32_t p = m.process("main", 12);
	site_use &u = m.use(m.site(0, m.python("/a.py", "f", 1)), p, 4000);
	cohorts *c = cohorts_new(0, 0);

	for (uint64_t t = 0; t < 4000; t++) {
		uint64_t at = t * SECOND / 40;

		c = cohorts_birth(c, at, 64 * KIB);
		if (t % 50)
			c = cohorts_death(c, at + SECOND / 80, at, 64 * KIB, 1);
	}
	u.cohorts = cohorts_settle(c, 100ull * SECOND);
	u.cohorts->window_ns = static_cast<double>(UINT64_C(1) << u.cohorts->shift);
	Analysed a(m);

	ASSERT_EQ(a.findings("leak").size(), 1u);
	EXPECT_NEAR(static_cast<double>(r_get_int(a.findings("leak")[0], "bytes")), 80 * 64 * KIB,
		    4 * 64 * KIB);
}

TEST(FindingsLeak, AFewBytesCountWhereTheyAreMuchOfWhatIsLive)
{
	for (uint64_t live : { 63 * KIB, 10 * MIB }) {
		ModelMaker m;
		uint32_t p = m.process("main", 12);

		m.processes[p].peak_live_bytes = live;
		m.use(m.site(0, m.python("/a.py", "f", 1)), p, 40, { 10, 10, 10, 10 }, 64);
		EXPECT_EQ(Analysed(m).findings("leak").size(), live < MIB ? 1u : 0u);
	}
}

TEST(FindingsLeak, ImportedModulesStayAndAreNoLeak)
{
	ModelMaker m;
	uint32_t p = m.process("main", 12);
	uint32_t importer = m.python(0, m.code("<frozen importlib._bootstrap>", "_load", 3));
	uint32_t inside = m.python(importer, m.code("/a.py", "<module>", 1));

	m.use(m.site(0, inside), p, 200, { 50, 50, 50, 50 }, 64 * KIB);
	EXPECT_TRUE(Analysed(m).findings("leak").empty());
}

TEST(FindingsLeak, WhatIsSmallOrFewOrBacksAnAllocatorIsNoLeak)
{
	ModelMaker m;
	uint32_t p = m.process("main", 12);
	uint32_t py = m.python("/a.py", "f", 1);

	m.processes[p].peak_live_bytes = MIB;
	m.use(m.site(0, py), p, 40, { 10, 10, 10, 10 }, 16); // 640 bytes
	m.use(m.site(0, py), p, 7, { 2, 2, 2, 1 }, 64 * KIB); // seven blocks
	m.use(m.site(0, py, MT_KIND_MMAP, true), p, 40, { 10, 10, 10, 10 }, 64 * KIB);
	EXPECT_TRUE(Analysed(m).findings("leak").empty());
}

TEST(FindingsLeak, ASiteWithMissedFreesIsNotCalledOne)
{
	ModelMaker m;
	site_use &u = m.use(m.site(0, m.python("/a.py", "f", 1)), m.process("main", 12), 80,
			    { 20, 20, 20, 20 }, 64 * KIB);

	EXPECT_EQ(Analysed(m).findings("leak").size(), 1u);
	u.cohorts->missed = true;
	EXPECT_TRUE(Analysed(m).findings("leak").empty());
}

TEST(FindingsLeak, ItIsSaidOfAllProcessesHoweverTheyEnd)
{
	for (end_kind kind : { END_RUNNING, END_SIGNAL, END_EXEC, END_UNKNOWN, END_EXIT }) {
		ModelMaker m;
		uint32_t p = m.process("main", 12);

		m.processes[p].end_kind = kind;
		m.use(m.site(0, m.python("/a.py", "f", 1)), p, 40, { 10, 10, 10, 10 }, 64 * KIB);
		EXPECT_EQ(Analysed(m).findings("leak").size(), 1u) << kind;
	}
}

TEST(FindingsLeak, InFramesModeAContainersTableIsNotNamedButLargeContentIs)
{
	for (uint64_t size : { 2 * KIB, 100 * KIB })
		for (uint64_t objects : { 0, 1000 }) {
			ModelMaker m;
			uint32_t p = m.process("main", 12);
			uint32_t lib = m.module("/opt/lib/libpython3.11.so.1.0");
			uint32_t s = m.site(m.native(0, lib, 0x40), m.python("/a.py", "f", 1));

			m.processes[p].kinds[MT_KIND_PYTHON].allocations = objects;
			m.use(s, p, 80, { 20, 20, 20, 20 }, size);
			EXPECT_EQ(Analysed(m).findings("leak").size(),
				  size < 16 * KIB && !objects ? 0u : 1u)
				<< size << " " << objects;
		}
}

TEST(FindingsLeak, OnePlaceIsOneFindingOverStacksAndProcesses)
{
	ModelMaker m;
	uint32_t p = m.process("dataloader-worker", 20), q = m.process("dataloader-worker", 21);
	uint32_t code = m.code("/a.py", "load", 7);
	uint32_t one = m.site(0, m.python(0, code));
	uint32_t two = m.site(0, m.python(m.python("/a.py", "main", 1), code, true));

	m.processes[p].worker.is = m.processes[q].worker.is = true;
	m.processes[p].worker.index = 0;
	m.processes[q].worker.index = 1;
	m.use(one, p, 40, { 10, 10, 10, 10 }, 64 * KIB);
	m.use(one, q, 40, { 10, 10, 10, 10 }, 64 * KIB);
	m.use(two, q, 84, { 21, 21, 21, 21 }, 64 * KIB);
	Analysed a(m);
	ASSERT_EQ(a.findings("leak").size(), 1u);
	const rvalue *f = a.findings("leak")[0];

	EXPECT_EQ(r_get_int(f, "bytes"), static_cast<int64_t>(164 * 64 * KIB));
	EXPECT_EQ(r_get_int(f, "site"), two); // the largest
	EXPECT_EQ(r_get(f, "procs")->count, 2u);
	EXPECT_TRUE(has(title(f), "dataloader-worker 1 (pid 21) and dataloader-worker 0 (pid 20)"))
		<< title(f);
}

TEST(FindingsLeak, TheUsersLineIsNamedNotTheLibrarys)
{
	ModelMaker m;
	uint32_t p = m.process("main", 12);
	uint32_t mine = m.python("/home/me/model.py", "forward", 30);
	uint32_t torch = m.python(
		mine, m.code("/v/lib/python3.11/site-packages/torch/nn/linear.py", "forward", 9));
	uint32_t stdlib = m.python(torch, m.code("/usr/lib/python3.11/copy.py", "deepcopy", 128));

	m.use(m.site(0, stdlib), p, 40, { 10, 10, 10, 10 }, 64 * KIB);
	Analysed a(m);
	ASSERT_EQ(a.findings("leak").size(), 1u);
	EXPECT_TRUE(has(title(a.findings("leak")[0]), "model.py:30 in forward"));
}

// ---- growth of Python's heap
// ------------------------------------------------------------------------

namespace
{

struct PythonHeap : ModelMaker {
	uint32_t p, imports, keeps, other;

	PythonHeap()
	{
		uint32_t lib = module("/opt/lib/libpython3.11.so.1.0");
		uint32_t leaf = native(0, lib, 0x1234);
		uint32_t importer = python(0, code("<frozen importlib._bootstrap>", "_load", 3));

		p = process("main", 9);
		imports = site(leaf, python(importer, code("/i.py", "<module>", 1)), MT_KIND_MMAP,
			       true);
		keeps = site(leaf, python("/a.py", "remember", 60), MT_KIND_MMAP, true);
		other = site(leaf, python("/a.py", "step", 70), MT_KIND_MMAP, true);
	}
};

} // namespace

TEST(FindingsPython, GrowthOfTheHeapNamesLinesAsLikelyOnly)
{
	PythonHeap m;

	for (int t = 20; t < 100; t += 5)
		m.backing(m.p, t, t % 20 ? m.keeps : m.other, MIB);
	Analysed a(m);
	ASSERT_EQ(a.findings("growth").size(), 1u);
	const rvalue *f = a.findings("growth")[0];

	EXPECT_TRUE(has(title(f), "Python's heap grew by")) << title(f);
	EXPECT_TRUE(has(title(f), "main (pid 9)")) << title(f);
	EXPECT_FALSE(has(title(f), "a.py")) << title(f);
	EXPECT_TRUE(has(r_get_string(f, "detail"), "not proof"));
	EXPECT_TRUE(has(r_get_string(f, "advice"), "MEMTRACE_PYTHON=objects"));
	EXPECT_FALSE(r_has(f, "site"));
	const rvalue *lines = r_get(r_get(f, "evidence"), "likely_lines");
	ASSERT_NE(lines, nullptr);
	EXPECT_EQ(std::string(lines->first->u.string).find("a.py:60"), 0u); // most bytes
}

TEST(FindingsPython, ArenasThatAreGivenBackAtTheEndStillGrewBefore)
{
	PythonHeap m;

	for (int t = 20; t < 100; t += 5)
		m.backing(m.p, t, m.keeps, MIB);
	m.backing(m.p, 100, m.keeps, -static_cast<int64_t>(16 * MIB));
	EXPECT_EQ(Analysed(m).findings("growth").size(), 1u);
}

TEST(FindingsPython, ADataSetThatIsLoadedOnceIsNoGrowth)
{
	PythonHeap m;

	for (int t = 20; t < 40; t++)
		m.backing(m.p, t, m.keeps, 10 * MIB);
	EXPECT_TRUE(Analysed(m).findings("growth").empty());
}

TEST(FindingsPython, MemoryThatComesAndGoesIsNoGrowth)
{
	PythonHeap m;

	for (int t = 20; t < 100; t += 2)
		m.backing(m.p, t, m.keeps, static_cast<int64_t>(t % 4 ? -MIB : MIB));
	EXPECT_TRUE(Analysed(m).findings("growth").empty());
}

TEST(FindingsPython, ImportsAreNoGrowth)
{
	PythonHeap m;

	for (int t = 0; t < 100; t += 5)
		m.backing(m.p, t, m.imports, 4 * MIB);
	EXPECT_TRUE(Analysed(m).findings("growth").empty());
}

// ---- churn
// ------------------------------------------------------------------------------------------

TEST(FindingsChurn, TheSiteWithMostShortLivedAllocationsIsNamed)
{
	ModelMaker m;
	uint32_t p = m.process("main", 12), q = m.process("forked", 13);
	uint32_t busy = m.site(0, m.python("/a.py", "hot", 5));

	m.use(busy, p, 50000).short_lived_count = 40000;
	m.use(busy, q, 50000).short_lived_count = 45000;
	m.use(m.site(0, m.python("/a.py", "cold", 6)), p, 50000).short_lived_count = 9999;
	Analysed a(m);
	ASSERT_EQ(a.findings("short-lived-churn").size(), 1u);
	const rvalue *f = a.findings("short-lived-churn")[0];

	EXPECT_TRUE(has(title(f), "85000 short-lived allocations at a.py:5 in hot")) << title(f);
	EXPECT_EQ(r_get(f, "pids")->first->u.integer, 13); // the most of them first
	EXPECT_STREQ(r_get_string(f, "severity"), "info");
	EXPECT_NEAR(r_get_float(r_get(f, "evidence"), "share_of_allocations"), 85.0 / 150, 1e-9);
}

// ---- processes
// --------------------------------------------------------------------------------------

TEST(FindingsProcess, DeathByASignalIsSaid)
{
	ModelMaker m;
	uint32_t p = m.process("dataloader-worker", 20, 0, 7);

	m.processes[p].end_kind = END_SIGNAL;
	m.processes[p].end_code = SIGSEGV;
	m.processes[p].peak_rss = 5 * MIB;
	Analysed a(m);
	ASSERT_EQ(a.findings("killed").size(), 1u);
	EXPECT_TRUE(has(title(a.findings("killed")[0]), "crashed"));
	EXPECT_TRUE(has(title(a.findings("killed")[0]), "SIGSEGV at 7.0 s"));
	EXPECT_STREQ(r_get_string(a.findings("killed")[0], "severity"), "critical");
}

TEST(FindingsProcess, SigkillWithRisenOomKillsIsMostLikelyTheOomKiller)
{
	for (uint64_t kills : { 3u, 4u }) {
		ModelMaker m;
		uint32_t p = m.process("main", 20);

		m.processes[p].end_kind = END_SIGNAL;
		m.processes[p].end_code = SIGKILL;
		m.sampled(p, 1, { { "oom_kills", 3 } });
		m.sampled(p, 90, { { "oom_kills", kills } });
		Analysed a(m);
		ASSERT_EQ(a.findings("killed").size(), 1u);
		EXPECT_EQ(has(r_get_string(a.findings("killed")[0], "detail"),
			      "out-of-memory killer"),
			  kills == 4);
	}
}

TEST(FindingsProcess, ChildrenThatNeverReportedAreListedByProgram)
{
	ModelMaker m;
	uint32_t p = m.process("main", 20);

	m.child(p, "/nowhere/static-tool", 31, true);
	m.child(p, "/nowhere/static-tool", 32, true);
	m.child(p, "/nowhere/cleared", 33, false);
	m.child(p, "/nowhere/reported", 34, true).process = p;
	m.child(p, "/nowhere/failed", 35, false).failed = true;
	m.child(p, "/nowhere/forked", 36, true).how = child_event::CHILD_FORK;
	Analysed a(m);
	auto f = a.findings("uncovered-memory");

	ASSERT_EQ(f.size(), 2u);
	EXPECT_TRUE(has(title(f[0]), "/nowhere/cleared (pid 33)")) << title(f[0]);
	EXPECT_TRUE(has(r_get_string(f[0], "detail"), "environment"));
	EXPECT_TRUE(has(title(f[1]), "/nowhere/static-tool (pid 31 and 1 more)")) << title(f[1]);
	EXPECT_EQ(r_get(r_get(f[1], "evidence"), "uncovered_pids")->count, 2u);
}

TEST(FindingsProcess, ChildrenLeftOutByAFilterOrStillOnTheirWayAreNotCalledUncovered)
{
	ModelMaker filtered, running;

	filtered.child(filtered.process("main", 20), "/x/a", 31, true);
	filtered.restricted = true;
	EXPECT_TRUE(Analysed(filtered).findings("uncovered-memory").empty());
	running.child(running.process("main", 20), "/x/a", 31, true);
	running.processes[0].end_kind = END_RUNNING;
	EXPECT_TRUE(Analysed(running).findings("uncovered-memory").empty());
}

TEST(FindingsProcess, OomRiskBeginsAtEightyPercentOfTheLimit)
{
	const struct {
		uint64_t used;
		const char *severity; // NULL: nothing is said
	} cases[] = { { 79 * MIB, nullptr }, { 80 * MIB, "warning" }, { 90 * MIB, "critical" } };

	for (const auto &c : cases) {
		ModelMaker m;
		uint32_t p = m.process("main", 20);

		m.fact(p, "memory_total", std::to_string(64 * GIB));
		m.sampled(p, 1, { { "cgroup_usage", c.used }, { "cgroup_limit", 100 * MIB } });
		Analysed a(m);
		ASSERT_EQ(a.findings("oom-risk").size(), c.severity ? 1u : 0u);
		if (c.severity) {
			EXPECT_STREQ(r_get_string(a.findings("oom-risk")[0], "severity"),
				     c.severity);
		}
	}
}

TEST(Findings, TheMostSevereComeFirstThenTheLargest)
{
	ModelMaker m;
	uint32_t p = m.process("main", 12), q = m.process("forked", 13);

	m.processes[p].peak_live_bytes = GIB;
	m.use(m.site(0, m.python("/a.py", "small", 1)), p, 40, { 10, 10, 10, 10 }, 2 * KIB);
	m.use(m.site(0, m.python("/a.py", "large", 2)), p, 40, { 10, 10, 10, 10 }, 512 * KIB);
	m.use(m.site(0, m.python("/a.py", "larger", 3)), p, 40, { 10, 10, 10, 10 }, 600 * KIB);
	m.processes[q].end_kind = END_SIGNAL;
	m.processes[q].end_code = SIGKILL;
	Analysed a(m);
	std::string order;

	r_for_each (f, a["findings"])
		order += std::string(r_get_string(f, "severity")) + " ";
	EXPECT_EQ(order, "critical warning warning info ");
	EXPECT_TRUE(has(title(a["findings"]->first->next), "a.py:3"));
}

TEST(Findings, ARunWithoutAnythingStrikingHasNone)
{
	ModelMaker m;

	m.use(m.site(0, m.python("/a.py", "f", 1)), m.process("main", 12), 10, { 1 });
	EXPECT_EQ(Analysed(m)["findings"]->count, 0u);
}
