// What is resident and what allocators hold: real programs. The truth is the kernel's (smaps), what
// a real malloc_trim() gives back, CPython's own statistics, and what the programs know of themselves.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sys/utsname.h>

#include <algorithm>
#include <cmath>

#include "support/harness.h"
#include "support/queries.h"
#include "support/interpreters.h"

using namespace memtrace_test;

namespace
{

const long MIB = 1 << 20;

// The entry of the process that has no parent: its last walk.
Json AtEnd(const Json &report, const char *section, long pid = -1)
{
	Json found;

	if (pid < 0)
		pid = report["processes"][size_t(0)]["pid"].Long();
	for (size_t i = 0; i < report[section].size(); i++)
		if (report[section][i]["pid"].Long() == pid)
			found = report[section][i];
	return found;
}

Json Allocator(const Json &report, const std::string &name)
{
	long pid = report["processes"][size_t(0)]["pid"].Long();

	for (size_t i = 0; i < report["fragmentation"].size(); i++)
		if (report["fragmentation"][i]["pid"].Long() == pid &&
		    report["fragmentation"][i]["allocator"].Text() == name)
			return report["fragmentation"][i];
	return Json();
}

// Those that are here of 3.8 to 3.13: in make check the oldest and newest way to lay out arenas.
std::vector<std::string> Pythons()
{
	std::vector<std::string> all;

	for (const char *name : { "3.8", "3.9", "3.10", "3.11", "3.12", "3.13" })
		if (!InterpreterOf(name).empty())
			all.push_back(InterpreterOf(name));
	if (all.empty() && Exists("/usr/bin/python3"))
		all.push_back("/usr/bin/python3");
	if (!IsLong() && all.size() > 2)
		all = { all.front(), all.back() };
	return all;
}

struct Held {
	Json report;
	long trimmed, live;
	std::string text; /* the command `fragmentation`, with symbols */
};

Held RunHeld(const std::string &mode, long count)
{
	TempDir dir;
	Result result = Execute(Program(dir, "held", { mode, std::to_string(count) }));
	auto facts = Facts(result.out, "trim");

	EXPECT_TRUE(result.Exited(0)) << Describe(result);
	if (facts.size() != 1) {
		ADD_FAILURE() << result.out;
		return {};
	}
	Command show;
	show.argv = { BuildPath("memtrace-report"), "fragmentation", dir.File("trace.bin") };
	show.traced = false;
	return { Report(dir.File("trace.bin")), facts[0]["before"] - facts[0]["after"],
		 facts[0]["live"], Execute(show).out };
}

void ExpectPredicted(const Held &held)
{
	long returnable = AtEnd(held.report, "rss")["parts"]["heap_free_returnable"].Long();

	EXPECT_NEAR(returnable, held.trimmed, std::max(MIB * 1.0, held.trimmed * 0.02));
	ExpectExplained(AtEnd(held.report, "rss"));
	EXPECT_EQ(Allocator(held.report, "glibc")["returnable_bytes"].Long(), returnable);
}

} // namespace

TEST(Resident, WholeFreePagesAreWhatTrimGivesBack)
{
	Held held = RunHeld("loose", 20000);

	ExpectPredicted(held);
	EXPECT_GT(held.trimmed, 30 * MIB);
	EXPECT_NEAR(Allocator(held.report, "glibc")["live_bytes"].Long(), held.live, 50000);
	EXPECT_EQ(FindingOf(held.report, "fragmentation-returnable")["severity"].Text(), "warning");
	EXPECT_TRUE(FindingOf(held.report, "fragmentation-pinned").IsNull());
	EXPECT_TRUE(FindingOf(held.report, "leak").IsNull() || held.live < 2 * MIB);
}

TEST(Resident, PagesWithASmallBlockOnEachArePinnedByItsSite)
{
	Held held = RunHeld("pinned", 40000);
	Json glibc = Allocator(held.report, "glibc"), finding;

	ExpectPredicted(held);
	finding = FindingOf(held.report, "fragmentation-pinned");
	EXPECT_EQ(finding["severity"].Text(), "warning");
	EXPECT_NE(finding["title"].Text().find("beside blocks of held"), std::string::npos)
		<< finding["title"].Text();
	EXPECT_NE(held.text.find("pages where only blocks of held.c:"), std::string::npos)
		<< held.text;
	EXPECT_TRUE(FindingOf(held.report, "fragmentation-returnable").IsNull());
	// One page of 4,000 freed bytes and one block of 64, 10,000 times.
	EXPECT_NEAR(glibc["pinned_bytes"].Number(), 39 * MIB, 39 * MIB * 0.05);
	Json pin = glibc["pinning_sites"][size_t(0)];
	EXPECT_NEAR(pin["blocks"].Long(), 10000, 200);
	EXPECT_GT(pin["pinned_bytes"].Number(), glibc["pinned_bytes"].Number() * 0.95);
	EXPECT_GE(pin["mean_age_s"].Number(), 0);
}

TEST(Resident, OneSurvivorOnTopOfTheHeapIsNamed)
{
	Held held = RunHeld("top", 16);
	Json finding = FindingOf(held.report, "fragmentation-returnable");

	ExpectPredicted(held);
	EXPECT_GT(held.trimmed, 60 * MIB);
	EXPECT_EQ(finding["evidence"]["topmost_block_bytes"].Long(), 300);
	EXPECT_NEAR(finding["evidence"]["held_by_topmost_bytes"].Long(), held.trimmed, MIB);
	// 20 MiB were freed: from then on such blocks come from the heap.
	EXPECT_EQ(finding["evidence"]["largest_freed_block_bytes"].Long(), 20 * MIB);
	EXPECT_NE(finding["advice"].Text().find("MALLOC_MMAP_THRESHOLD_"), std::string::npos);
	EXPECT_NE(finding["detail"].Text().find("One block of 300 B from"), std::string::npos);
	EXPECT_NE(held.text.find("the topmost 1 blocks hold 64.0 MiB"), std::string::npos)
		<< held.text;
}

TEST(Resident, ArenasOfThreadsThatFreedAllKeepTheirEnds)
{
	Held held = RunHeld("threads", 5000);
	Json glibc = Allocator(held.report, "glibc");

	ExpectPredicted(held);
	EXPECT_GE(glibc["arenas"].Long(), 1);
	EXPECT_LE(glibc["arena_top_bytes"].Long(), glibc["pinned_bytes"].Long());
}

TEST(Resident, LiveThreadsArenasArePinnedAsTheMainOneIs)
{
	Held held = RunHeld("arenas", 20000);
	Json glibc = Allocator(held.report, "glibc");

	ExpectPredicted(held);
	EXPECT_EQ(glibc["arenas"].Long(), 4);
	EXPECT_NEAR(glibc["pinned_bytes"].Number(), 78 * MIB, 78 * MIB * 0.05);
	EXPECT_GT(AtEnd(held.report, "rss")["parts"]["stacks"].Long(), 4 * 2 * 4096)
		<< "each has touched its stack";
}

// Nothing that is true of glibc's heap only is said of theirs.
TEST(Resident, OtherAllocatorsAreNamedAndNotTakenForGlibc)
{
	int met = 0;

	for (const char *name : { "jemalloc", "tcmalloc_minimal", "mimalloc" }) {
		SCOPED_TRACE(name);
		TempDir dir;
		Command command = Program(dir, "held", { "loose", "20000" });
		std::string library;

		for (const char *version : { ".so.2", ".so.4" })
			for (const char *folder :
			     { "/usr/lib/x86_64-linux-gnu/lib", "/usr/lib64/lib" })
				if (Exists(std::string(folder) + name + version))
					library = std::string(folder) + name + version;
		if (library.empty())
			continue;
		met++;
		command.preload = ShimPath() + " " + library;
		Result result = Execute(command);
		ASSERT_TRUE(result.Exited(0)) << Describe(result);
		Json report = Report(dir.File("trace.bin"));
		std::string short_name = name;
		short_name = short_name.substr(0, short_name.find('_'));
		Json allocator = Allocator(report, short_name);
		Json finding = FindingOf(report, "fragmentation-returnable");

		ASSERT_FALSE(allocator.IsNull()) << report["fragmentation"].Print();
		EXPECT_LT(Allocator(report, "glibc")["resident_bytes"].Long(), MIB);
		// 20,000 blocks of 2,000 bytes, of which 400 are alive.
		EXPECT_GT(allocator["resident_bytes"].Number(), 35 * MIB);
		EXPECT_GE(allocator["live_bytes"].Number(), 700000);
		EXPECT_LT(allocator["live_bytes"].Number(), 3 * MIB);
		EXPECT_NE(finding["title"].Text().find(short_name), std::string::npos)
			<< finding.Print();
		EXPECT_EQ(finding["advice"].Text().find("malloc_trim"), std::string::npos);
		EXPECT_TRUE(FindingOf(report, "fragmentation-pinned").IsNull());
		// 40 MB that were there for some milliseconds and are freed again are no leak.
		for (const Json &leak : FindingsOf(report, "leak"))
			EXPECT_LT(leak["bytes"].Number(), 2 * MIB) << leak.Print();
	}
	if (!met)
		GTEST_SKIP() << "none of them is installed";
}

// Memory that was only read is none: RSS is without it, and so is what is explained of it.
TEST(Resident, PagesOfZerosAreNotThere)
{
	const struct {
		const char *kind, *mib, *written;
	} cases[] = { { "pages", "8", "64" },	{ "pages", "256", "0" },  { "pages", "256", "512" },
		      { "pages", "256", "200" }, { "huge", "64", "0" } };
	struct utsname kernel;
	int major = 0, minor = 0;

	ASSERT_EQ(uname(&kernel), 0);
	sscanf(kernel.release, "%d.%d", &major, &minor);
	if (major < 6 || (major == 6 && minor < 7))
		GTEST_SKIP() << "Linux " << kernel.release << " does not tell pages of zeros";
	for (auto &c : cases) {
		SCOPED_TRACE(std::string(c.kind) + " " + c.mib + " " + c.written);
		TempDir dir;
		Result result = Execute(Program(dir, "zeros", { c.kind, c.mib, c.written }));
		auto facts = Facts(result.out, "zeros");

		ASSERT_EQ(facts.size(), 1u) << Describe(result);
		Json report = Report(dir.File("trace.bin")), rss = AtEnd(report, "rss");
		/* A process of 2 MiB has 4 % of it from the loader: ExpectExplained() asks for 3. */
		EXPECT_NEAR(rss["rss_bytes"].Number(), rss["vmrss_bytes"].Number(), 2 << 20);
		EXPECT_NEAR(rss["parts"]["live"].Number(), facts[0]["written"], 1 << 20);
	}
}

TEST(Resident, PlainPythonIsExplained)
{
	const char script[] =
		"import json, os\n"
		"keep = [str(i) for i in range(50000)]\n"
		"rss = {}\n"
		"name = ''\n"
		"for line in open('/proc/self/smaps'):\n"
		"    words = line.split()\n"
		"    if '-' in words[0]: name = words[5] if len(words) > 5 else ''\n"
		"    if words[0] == 'Rss:': rss[name] = rss.get(name, 0) + int(words[1])\n"
		"for name in rss:\n"
		"    if 'libc.so' in name or 'libc-2' in name:\n"
		"        print('libc kib=%d' % rss[name])\n"
		"os._exit(0)\n";
	TempDir dir;
	Command command;

	WriteAll(dir.File("script.py"), script);
	command.argv = { "/usr/bin/python3", dir.File("script.py") };
	command.dir = dir.path;
	if (!Exists(command.argv[0]))
		GTEST_SKIP() << "no /usr/bin/python3";
	Result result = Execute(command);
	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	Json report = Report(dir.File("trace.bin")), rss = AtEnd(report, "rss");
	ExpectExplained(rss);
	EXPECT_TRUE(FindingOf(report, "uncovered-memory").IsNull());
	EXPECT_GT(rss["file_reclaimable_bytes"].Long(), MIB);
	long libc = -1;
	for (size_t i = 0; i < rss["named"].size(); i++)
		if (rss["named"][i]["name"].Text().find("libc.so") != std::string::npos)
			libc = rss["named"][i]["bytes"].Long();
	auto truth = Facts(result.out, "libc");
	ASSERT_EQ(truth.size(), 1u) << result.out;
	EXPECT_NEAR(libc, truth[0]["kib"] * 1024, 40 * 4096) << "pages that were met since";
}

// PyTorch: convolutions on ever new shapes leave the heap large and mostly free.
TEST(Resident, ConvolutionsOfManyShapesLeaveMemoryHeldNotExplainedAway)
{
	TempDir dir;
	Command command;

	command.argv = { BuildPath("venv/bin/python"), SourcePath("tests/programs/conv_shapes.py"),
			 std::to_string(Scaled(300, 60)) };
	if (!Exists(command.argv[0]))
		command.argv[0] = SourcePath("build/venv/bin/python");
	if (!Exists(command.argv[0]))
		GTEST_SKIP() << "no environment with PyTorch";
	command.dir = dir.path;
	Result result = Execute(command);
	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	auto facts = Facts(result.out, "trim");
	ASSERT_EQ(facts.size(), 1u) << result.out;
	long trimmed = facts[0]["before"] - facts[0]["after"];
	Json report = Report(dir.File("trace.bin")), rss = AtEnd(report, "rss");
	long returnable = rss["parts"]["heap_free_returnable"].Long();

	ExpectExplained(rss);
	EXPECT_NEAR(returnable, trimmed, std::max(MIB * 1.0, trimmed * 0.02));
	EXPECT_GT(trimmed, 20 * MIB);
	// Held, and neither lost nor growing; with the names of functions and without.
	for (Json with : std::vector<Json>{ report, ReportWithSymbols(dir.File("trace.bin")) })
		for (size_t i = 0; i < with["findings"].size(); i++) {
			std::string kind = with["findings"][i]["kind"].Text();

			EXPECT_NE(kind, "leak") << with["findings"][i].Print();
			EXPECT_TRUE(kind != "growth" ||
				    with["findings"][i]["severity"].Text() == "info")
				<< with["findings"][i].Print();
		}
	if (returnable * 10 > rss["rss_bytes"].Long()) {
		EXPECT_FALSE(FindingOf(report, "fragmentation-returnable").IsNull());
	}
}

// The allocator's own statistics, printed just before the end.
TEST(Resident, PythonsPoolsAreReadAsTheInterpreterCountsThem)
{
	const char script[] = "import os, sys\n"
			      "many = [str(i) + 'abcdefgh' for i in range(400000)]\n"
			      "keep = many[::3000]\n"
			      "del many\n"
			      "sys._debugmallocstats()\n"
			      "os._exit(0)\n";
	size_t met = 0;

	for (const std::string &python : Pythons()) {
		SCOPED_TRACE(python);
		TempDir dir;
		Command command;
		long free_pools, blocks, available;

		WriteAll(dir.File("script.py"), script);
		command.argv = { python, "-S", dir.File("script.py") };
		command.dir = dir.path;
		Result result = Execute(command);
		ASSERT_TRUE(result.Exited(0)) << Describe(result);
		auto number = [&](const std::string &before) {
			size_t at = result.err.find(before), equals;

			if (at == std::string::npos)
				return -1L;
			equals = result.err.find('=', at + before.size());
			std::string digits;
			for (char c : result.err.substr(equals, 60)) {
				if (c == '\n')
					break;
				if (isdigit(c))
					digits += c;
			}
			return digits.empty() ? -1L : atol(digits.c_str());
		};
		blocks = number("# bytes in allocated blocks");
		available = number("# bytes in available blocks");
		free_pools = number("unused pools *");
		if (blocks < 0)
			continue; /* a build without the statistics, or with another allocator */
		met++;
		Json report = Report(dir.File("trace.bin")), rss = AtEnd(report, "rss");
		Json pymalloc = Allocator(report, "pymalloc");
		ExpectExplained(rss);
		EXPECT_NEAR(pymalloc["live_bytes"].Long(), blocks, blocks * 0.02 + 20000);
		EXPECT_NEAR(pymalloc["heaps"][size_t(0)]["free_pool_bytes"].Long(), free_pools,
			    free_pools * 0.02 + MIB / 2);
		EXPECT_NEAR(rss["parts"]["python_free"].Long(), free_pools + available,
			    (free_pools + available) * 0.05 + MIB / 2);
		EXPECT_FALSE(FindingOf(report, "python-fragmentation").IsNull());
	}
	EXPECT_GT(met, 0u);
}
