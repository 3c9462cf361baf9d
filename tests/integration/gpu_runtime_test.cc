/*
 * NVIDIA's own CUDA runtime over the fake driver, our fake runtimes through the interposed names, and
 * programs that use no GPU at all.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <fstream>
#include <regex>

#include "support/gpu.h"

using namespace memtrace_test;

namespace
{

/* ---- NVIDIA's own ---------------------------------------------------------------------------------- */

struct Real {
	const char *program;
	bool answer_all;
};

class RealRuntime : public testing::TestWithParam<Real>
{
};

/* What the shim saw of a process's look-ups; empty: none. */
std::map<std::string, long> NamesOf(const std::string &trace)
{
	for (const Json &fact : Records(trace, "fact"))
		if (fact["key"].Text() == "cuda_names")
			return Facts("names " + fact["value"].Text(), "names").at(0);
	return {};
}

} // namespace

TEST_P(RealRuntime, BehavesAsWithoutAndEveryNameItAsksForIsSeen)
{
	TempDir dir;
	std::string name = std::string("cudart_") + GetParam().program;
	Command c = Program(dir, name);
	Result traced, plain;

	if (!Exists(ProgramPath(name)))
		GTEST_SKIP() << "NVIDIA's runtime is not here: scripts/install-deps brings it";
	c.env["LD_LIBRARY_PATH"] = BuildPath("programs/driver");
	if (GetParam().answer_all)
		c.env["FAKE_CUDA_ANSWER_ALL"] = "1";
	traced = Execute(c);
	c.traced = false;
	plain = Execute(c);
	ASSERT_TRUE(plain.Exited(0)) << Describe(plain);
	ASSERT_TRUE(traced.Exited(0)) << Describe(traced);
	EXPECT_EQ(traced.out, plain.out);

	auto looked = Facts(traced.out, "looked").at(0), seen = NamesOf(dir.File("trace.bin"));

	EXPECT_GE(looked["asked"], 400);
	EXPECT_GE(looked["memory"], 30);
	EXPECT_EQ(looked["tables"] > 0, GetParam().answer_all);
	EXPECT_EQ(seen["asked"], looked["asked"]);
	EXPECT_EQ(seen["ours"], looked["memory"]);
	EXPECT_EQ(seen["newer"], 0);
}

INSTANTIATE_TEST_SUITE_P(Cudart, RealRuntime,
			 testing::Values(Real{ "dynamic_12", false }, Real{ "dynamic_12", true },
					 Real{ "static_12", false }, Real{ "static_12", true },
					 Real{ "dynamic_13", false }, Real{ "dynamic_13", true },
					 Real{ "static_13", false }, Real{ "static_13", true }),
			 [](const auto &p) {
				 return std::string(p.param.program) +
					(p.param.answer_all ? "_answered" : "");
			 });

/* ---- ours, through interposed names ---------------------------------------------------------------- */

class Runtime : public testing::TestWithParam<const char *>
{
};

TEST_P(Runtime, CountsOnceAndIsNamedByWhatWasCalled)
{
	TempDir dir;
	Command c = FakeGpu(dir, "gpu_runtime", { GetParam(), "arrays" });
	Result traced = Execute(c), plain;
	std::map<std::string, int> calls;

	c.traced = false;
	plain = Execute(c);
	ASSERT_TRUE(plain.Exited(0)) << Describe(plain);
	EXPECT_EQ(traced.out, plain.out);
	ExpectLedger(dir, traced.out);
	for (const Json &take : Records(dir.File("trace.bin"), "gpu_take")) {
		EXPECT_EQ(take["api"].Text().substr(0, 4), "cuda") << take.Print();
		EXPECT_EQ(take["flags"].Long() & 16, 0) << take.Print();
		calls[take["api"].Text()]++;
	}
	EXPECT_EQ(calls["cudaMalloc"], 4);
	EXPECT_EQ(calls["cudaMalloc3D"], 2);
	EXPECT_EQ(calls["cudaMallocHost"], 1);
	EXPECT_EQ(calls["cudaMallocFromPoolAsync_ptsz"], 1);
	EXPECT_EQ(calls["cudaMallocMipmappedArray"], 2);
}

/* A driver that is found in a way the shim does not know: the runtime's own calls count, once. */
TEST_P(Runtime, CountsItselfWhereTheDriversCallIsNotSeen)
{
	TempDir dir;
	Command c = FakeGpu(dir, "gpu_runtime", { GetParam() });
	Json kinds;
	Result r;

	c.env["FAKE_CUDA_UNSEEN"] = "1";
	r = Execute(c);
	ASSERT_TRUE(r.Exited(0)) << Describe(r);
	kinds = Report(dir.File("trace.bin"))["trace"]["by_kind"];
	long live = 0, managed = 0, pinned = 0;
	for (auto &l : Facts(r.out, "ledger")) {
		live += l["live"];
		managed += l["managed"];
		pinned += l["pinned"];
	}
	EXPECT_EQ(OrZero(kinds["device"]["live_bytes"]), live);
	EXPECT_EQ(OrZero(kinds["managed"]["live_bytes"]), managed);
	EXPECT_EQ(OrZero(kinds["pinned"]["live_bytes"]), pinned);
	for (const Json &take : Records(dir.File("trace.bin"), "gpu_take"))
		EXPECT_EQ(take["flags"].Long() & 16, 16) << take.Print();
}

INSTANTIATE_TEST_SUITE_P(Fake, Runtime, testing::Values("libcudart.so.12", "libcudart.so.13"),
			 [](const auto &p) { return std::string(p.param).substr(13); });

/* ---- without a GPU ---------------------------------------------------------------------------------- */

namespace
{

/* Names that the loader was asked for, by whomever, while the program ran. */
std::vector<std::string> LookUps(const TempDir &dir, Command c, const char *gpu)
{
	std::vector<std::string> names;
	std::regex symbol("symbol=([^;]*);  lookup");
	std::string last, line;
	Result r;

	c.env["LD_DEBUG"] = "symbols";
	c.env["LD_DEBUG_OUTPUT"] = dir.File(std::string("symbols.") + gpu);
	c.env["MEMTRACE_GPU"] = gpu;
	c.argv.insert(c.argv.begin(), { "/bin/sh", "-c", "echo $$; exec \"$@\"", "sh" });
	r = Execute(c);
	EXPECT_TRUE(r.Exited(0)) << Describe(r);
	std::ifstream in(c.env["LD_DEBUG_OUTPUT"] + "." + std::to_string(std::stol(r.out)));
	while (std::getline(in, line)) {
		std::smatch m;

		/* One line for each place that is looked at: of these the first. */
		if (std::regex_search(line, m, symbol) && m[1] != last)
			names.push_back(last = m[1]);
	}
	return names;
}

} // namespace

/* What the loader is asked for is the same whether GPUs are recorded or not, and names none of them. */
TEST(WithoutGpu, NothingOfItIsLookedUp)
{
	TempDir dir;
	Command c = Program(dir, "heap_single");
	auto with = LookUps(dir, c, "on"), without = LookUps(dir, c, "off");
	std::regex of_gpus("^(cu[A-Z]|cuda|nvml|nvtx|_ZN3c10|_ZN5torch)");

	EXPECT_GT(with.size(), 50u);
	EXPECT_EQ(with, without);
	for (const std::string &name : with)
		EXPECT_FALSE(std::regex_search(name, of_gpus)) << name;
}

/* ---- scripts/gpu-check ------------------------------------------------------------------------------ */

/* Its machinery without a GPU: what is right is ok, what is made wrong fails. */
TEST(GpuCheck, PassesWhatIsRightAndFailsWhatIsWrong)
{
	std::regex row("^(.*\\S)  +(ok|FAILED)", std::regex::multiline);
	std::map<std::string, std::string> rows;
	Command c;
	Result r;

	c.traced = false;
	c.argv = { SourcePath("scripts/gpu-check"), "--self-test" };
	c.env["B"] = BuildPath("");
	r = Execute(c);
	EXPECT_TRUE(r.Exited(1)) << Describe(r);
	for (std::sregex_iterator m(r.out.begin(), r.out.end(), row), end; m != end; ++m)
		rows[(*m)[1]] = (*m)[2];
	EXPECT_EQ(rows.size(), 8u) << r.out;
	for (const auto &[name, verdict] : rows) {
		bool wrong = name.find("must fail") != std::string::npos;

		EXPECT_EQ(verdict, wrong ? "FAILED" : "ok") << name << r.out;
	}
}

TEST(GpuCheck, SaysThatThereIsNoGpu)
{
	Command c;
	Result r;

	c.traced = false;
	c.argv = { SourcePath("scripts/gpu-check") };
	c.env["PATH"] = "/nowhere:/bin:/usr/bin";
	if (Exists("/usr/bin/nvidia-smi") || Exists("/bin/nvidia-smi"))
		GTEST_SKIP() << "there is one";
	r = Execute(c);
	EXPECT_TRUE(r.Exited(2));
	EXPECT_EQ(r.out, "gpu-check: no nvidia-smi: this machine has no GPU driver\n");
}

/* ---- the table -------------------------------------------------------------------------------------- */

/* Each function that is interposed is called by a program whose report is held to the ledger. */
TEST(GpuTable, EveryFunctionIsCalledByATest)
{
	std::string table = ReadAll(SourcePath("include/memtrace/cuda.def"));
	std::string driver = ReadAll(SourcePath("tests/programs/gpu_direct.c"));
	std::string runtime = ReadAll(SourcePath("tests/programs/gpu_runtime.c"));
	std::regex row("^MT_(CU|CUDA)(_GIVE)?\\((\\w+),", std::regex::multiline);
	int rows = 0;

	for (std::sregex_iterator m(table.begin(), table.end(), row), end; m != end; ++m, rows++) {
		std::string name = (*m)[3], call = "CALL(" + name + ",",
			    found = "FIND(" + name + ");";

		EXPECT_NE((*m)[1] == "CUDA" ? runtime.find(call) : driver.find(found),
			  std::string::npos)
			<< name;
	}
	EXPECT_GT(rows, 60);
}
