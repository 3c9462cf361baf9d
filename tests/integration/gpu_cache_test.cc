/*
 * A caching allocator like PyTorch's over the fakes of tests/support/cuda: what is reserved,
 * allocated, free and stranded, what is found, and what other tools get of it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include "support/gpu.h"

using namespace memtrace_test;

TEST(GpuCache, BlocksThatStrandSegmentsAreNamed)
{
	TempDir dir;
	Result r = Execute(FakeGpu(dir, "gpu_cache", { "stranded" }));
	auto cache = Facts(r.out, "cache");
	Json report, d, f;
	Command c;

	ASSERT_TRUE(r.Exited(0)) << Describe(r);
	EXPECT_EQ(cache.at(0)["reports"], 70); /* all came through to the real functions */
	report = Report(dir.File("trace.bin"));
	d = DeviceOf(report, 0);
	EXPECT_EQ(d["allocated_bytes"].Long(), cache[0]["allocated"]);
	EXPECT_EQ(d["reserved_bytes"].Long(), cache[0]["reserved"]);
	EXPECT_EQ(d["unusable_bytes"].Long(), cache[0]["reserved"] - cache[0]["allocated"]);
	EXPECT_EQ(d["segments"].Long(), 10);
	EXPECT_EQ(d["peak_allocated_bytes"].Long(), 15 * 1048576 + 10 * 512);
	f = report["findings"][(size_t)0];
	EXPECT_EQ(f["kind"].Text(), "gpu-fragmentation");
	c = Command();
	c.traced = false;
	c.argv = { BuildPath("memtrace-report"), dir.File("trace.bin") }; /* with symbols */
	r = Execute(c);
	EXPECT_NE(r.out.find("in long_lived"), std::string::npos) << r.out;
	EXPECT_EQ(f["evidence"]["stranded_by_site_segments"].Long(), 10);
}

TEST(GpuCache, TensorsThatComeAndGoStrandNothing)
{
	TempDir dir;
	Result r = Execute(FakeGpu(dir, "gpu_cache", { "churn", "5000" }));
	Json report;

	ASSERT_TRUE(r.Exited(0)) << Describe(r);
	report = Report(dir.File("trace.bin"));
	for (size_t i = 0; i < report["findings"].size(); i++)
		EXPECT_EQ(report["findings"][i]["kind"].Text().find("gpu-"), std::string::npos);
	EXPECT_EQ(DeviceOf(report, 0)["allocated_bytes"].Long(), 0);
	EXPECT_EQ(report["trace"]["by_kind"]["tensor"]["allocations"].Long(), 5000);
}

TEST(GpuCache, RunningOutOfMemoryIsCountedAndPassedOn)
{
	TempDir dir;
	Result r = Execute(FakeGpu(dir, "gpu_cache", { "oom" }));
	Json report;

	ASSERT_TRUE(r.Exited(0)) << Describe(r);
	EXPECT_EQ(Facts(r.out, "cache").at(0)["ooms"], 1);
	report = Report(dir.File("trace.bin"));
	EXPECT_EQ(DeviceOf(report, 0)["processes"][(size_t)0]["out_of_memory_count"].Long(), 1);
	EXPECT_EQ(report["findings"][(size_t)0]["severity"].Text(), "critical");
}

/* What is kept from every step is found; what is level, or taken once, is not. */
TEST(GpuCache, OnlyWhatKeepsComingIsALeak)
{
	const struct {
		const char *mode, *kind;
		long bytes;
	} cases[] = {
		{ "leak", "gpu-leak", 30 << 20 },
		{ "pinned", "pinned-growth", 120 << 20 },
		{ "level", "", 0 },
		{ "pool", "", 0 },
	};

	for (const auto &c : cases) {
		TempDir dir;
		Result r = Execute(FakeGpu(dir, "gpu_cache", { c.mode, "30" }));
		Json report;

		ASSERT_TRUE(r.Exited(0)) << Describe(r);
		report = Report(dir.File("trace.bin"));
		ASSERT_EQ(report["findings"].size(), *c.kind ? 1u : 0u)
			<< c.mode << report["findings"].Print();
		if (!*c.kind)
			continue;
		EXPECT_EQ(report["findings"][(size_t)0]["kind"].Text(), c.kind);
		EXPECT_EQ(report["findings"][(size_t)0]["bytes"].Long(), c.bytes);
	}
}

/* ---- PyTorch's other ways ------------------------------------------------------------------------- */

namespace
{

struct Sums {
	long reserved, allocated, free, unusable;
};

void ExpectSums(const std::string &mode, const Sums &s, bool is_torch)
{
	TempDir dir;
	Result r = Execute(FakeGpu(dir, "gpu_cache", { mode }));
	Json report, d;

	ASSERT_TRUE(r.Exited(0)) << Describe(r);
	report = Report(dir.File("trace.bin"));
	d = DeviceOf(report, 0);
	EXPECT_EQ(d["reserved_bytes"].Long(), s.reserved) << mode;
	EXPECT_EQ(d["allocated_bytes"].Long(), s.allocated) << mode;
	EXPECT_EQ(d["cached_free_bytes"].Long(), s.free) << mode;
	EXPECT_EQ(d["unusable_bytes"].Long(), s.unusable) << mode;
	EXPECT_EQ(d["processes"][(size_t)0]["torch_reserved_bytes"].IsNull(), !is_torch) << mode;
	if (is_torch) {
		EXPECT_EQ(d["allocated_bytes"].Long(), Facts(r.out, "cache").at(0)["allocated"]);
		EXPECT_EQ(d["reserved_bytes"].Long(), Facts(r.out, "cache").at(0)["reserved"]);
	}
}

const long kMiB = 1 << 20;

} // namespace

/* Reserved addresses are nothing, mappings are; a piece without a tensor could go back. */
TEST(GpuCache, ExpandableSegmentsAreTheirMappings)
{
	ExpectSums("expandable", { 100 * kMiB, 30 * kMiB + 512, 70 * kMiB - 512, 10 * kMiB - 512 },
		   true);
}

TEST(GpuCache, APrivatePoolIsReservedAndFree)
{
	ExpectSums("private", { 20 * kMiB, 0, 20 * kMiB, 0 }, true);
}

/* The pool keeps what was given back: 32 MiB are held, 20 in use. */
TEST(GpuCache, TheAsyncBackendIsThePoolAndItsTensors)
{
	ExpectSums("async", { 32 * kMiB, 20 * kMiB, 12 * kMiB, 0 }, false);
}

TEST(GpuCache, WithoutCachingEveryTensorIsTheDrivers)
{
	ExpectSums("uncached", { 20 * kMiB, 20 * kMiB, 0, 0 }, false);
}

/* ---- export ---------------------------------------------------------------------------------------- */

namespace
{

/* What tests/support/memory_viz.py says of the export of a trace. */
std::map<std::string, long> Exported(const TempDir &dir, const std::string &python)
{
	Command c;
	Result r;

	c.traced = false;
	c.argv = { BuildPath("memtrace-report"),
		   "export",
		   "--format",
		   "memory-viz",
		   "-o",
		   dir.File("snapshot.pickle"),
		   dir.File("trace.bin") };
	r = Execute(c);
	EXPECT_TRUE(r.Exited(0)) << Describe(r);
	c.argv = { python, SourcePath("tests/support/memory_viz.py"), dir.File("snapshot.pickle") };
	r = Execute(c);
	EXPECT_TRUE(r.Exited(0)) << Describe(r);
	return Facts(r.out + "\n", "snapshot").at(0);
}

} // namespace

TEST(GpuExport, IsASnapshotThatPyTorchsToolsOpen)
{
	std::string python = BuildPath("venv/bin/python");

	if (!Exists(python))
		GTEST_SKIP() << "no torch in build/venv: scripts/install-deps brings it";
	for (std::string mode : { "stranded", "expandable", "uncached" }) {
		TempDir dir;
		Result r = Execute(FakeGpu(dir, "gpu_cache", { mode }));
		auto cache = Facts(r.out, "cache").at(0), s = Exported(dir, python);
		bool alone = mode == "uncached";

		EXPECT_EQ(s["reserved"], alone ? 20 * kMiB : cache["reserved"]);
		EXPECT_EQ(s["allocated"], alone ? 20 * kMiB : cache["allocated"]);
		EXPECT_EQ(s["segments"], alone ? 5 : mode == "expandable" ? 1 : 10);
		EXPECT_EQ(s["blocks"], alone ? 5 : mode == "expandable" ? 2 : 10);
		EXPECT_EQ(s["expandable"], mode == "expandable");
		EXPECT_EQ(s["long_lived"], mode == "stranded" ? 10 : mode == "expandable" ? 1 : 0);
	}
}

TEST(GpuExport, SaysWhatItCannotDo)
{
	TempDir dir;
	Command c;
	Result r = Execute(FakeGpu(dir, "gpu_runtime", {}));

	c.traced = false;
	c.argv = { BuildPath("memtrace-report"), "export", "--format", "pprof",
		   dir.File("trace.bin") };
	r = Execute(c);
	EXPECT_TRUE(r.Exited(2));
	EXPECT_EQ(r.err, "memtrace-report: export --format pprof is not built yet\n");
	c.argv[3] = "memory-vis";
	r = Execute(c);
	EXPECT_TRUE(r.Exited(2));
	EXPECT_NE(r.err.find("did you mean 'memory-viz'?"), std::string::npos) << r.err;
	c.argv[3] = "memory-viz";
	r = Execute(c);
	EXPECT_TRUE(r.Exited(2));
	EXPECT_EQ(r.out, "");
	EXPECT_NE(r.err.find("no process took GPU memory"), std::string::npos) << r.err;
}

/* ---- steps ------------------------------------------------------------------------------------------ */

/* Nine times a batch is asked for (the last time there is none), of which the first four wait for an
 * optimizer; a batch of training comes before its first step; then only the optimizer's five count. */
TEST(GpuSteps, AreTheOptimizersOrElseTheBatches)
{
	TempDir dir;
	Command c;
	long steps = 0;
	Result r;

	c.dir = dir.path;
	c.argv = { BuildPath("venv/bin/python"), SourcePath("tests/programs/torch_steps.py") };
	if (!Exists(c.argv[0]))
		GTEST_SKIP() << "no torch in build/venv: scripts/install-deps brings it";
	r = Execute(c);
	ASSERT_TRUE(r.Exited(0)) << Describe(r);
	for (const Json &mark : Records(dir.File("trace.bin"), "mark"))
		if (mark["kind"].Long() == 2) {
			EXPECT_EQ(mark["value"].Long(), ++steps);
		}
	EXPECT_EQ(steps, 9 - 4 + 1 + 5);
}
