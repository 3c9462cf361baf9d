/*
 * Other allocators, preloaded behind the shim or linked into the program: the same exact totals,
 * and their own mappings are marked as backing store, so that nothing is counted twice.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <filesystem>

#include "support/harness.h"
#include "support/trace_truth.h"

namespace memtrace_test {
namespace {

struct Allocator {
	const char *name, *file;
};

void PrintTo(const Allocator &a, std::ostream *out) { *out << a.name; }

class Allocators : public testing::TestWithParam<Allocator> {
    protected:
	/* Its path, or "" where it isn't installed. */
	static std::string Library()
	{
		for (const char *folder : { "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu",
					    "/usr/lib64", "/usr/lib" }) {
			std::string path = std::string(folder) + "/" + GetParam().file;

			if (Exists(path))
				return path;
		}
		return "";
	}
	static const std::vector<std::pair<std::string, std::vector<std::string>>> programs;
};

/* heap_single is not among them: it tests what only glibc promises (realloc to 0 bytes). */
const std::vector<std::pair<std::string, std::vector<std::string>>> Allocators::programs = {
	{ "heap_threads", { "own", "4", "20000" } },
	{ "heap_threads", { "cross", "4", "20000" } },
	{ "fork_tree", { "2", "2", "50" } },
};

TEST_P(Allocators, PreloadedBehindTheShim)
{
	if (Library().empty())
		GTEST_SKIP() << GetParam().file << " is not installed";
	for (const auto &[name, arguments] : programs) {
		TempDir dir;
		Command command = Program(dir, name, arguments);

		command.preload = ShimPath() + " " + Library();
		Result result = Execute(command);

		ASSERT_TRUE(WIFEXITED(result.status)) << name << " " << Describe(result);
		ExpectTruth(dir.File("trace.bin"), result.out, Facts(result.out, "expect").size());
		EXPECT_GE(Facts(result.out, "expect").size(), 1u);
	}
}

TEST_P(Allocators, LinkedIntoTheProgram)
{
	TempDir dir;
	Command command;

	if (Library().empty())
		GTEST_SKIP() << GetParam().file << " is not installed";
	command.argv = { "gcc", "-std=gnu11", "-D_GNU_SOURCE", "-O1", "-I" + SourcePath("include"),
			 SourcePath("tests/programs/heap_threads.c"), "-o", dir.File("program"),
			 "-Wl,--no-as-needed", Library(), "-lpthread" };
	command.traced = false;
	Result built = Execute(command);

	ASSERT_TRUE(built.Exited(0)) << Describe(built);
	command = Command();
	command.argv = { dir.File("program"), "cross", "4", "30000" };
	command.dir = dir.path;
	Result result = Execute(command);

	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	ExpectTruth(dir.File("trace.bin"), result.out, 1);
}

/* What the allocator maps holds blocks that are counted already. */
TEST_P(Allocators, TheirMappingsAreBackingStore)
{
	TempDir dir;
	Command command = Program(dir, "heap_threads", { "own", "4", "30000" });

	if (Library().empty())
		GTEST_SKIP() << GetParam().file << " is not installed";
	command.preload = ShimPath() + " " + Library();
	Result result = Execute(command);
	Json sites = Report(dir.File("trace.bin"), { "--top", "100000" })["sites"];
	long backing = 0, program = 0;

	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	for (size_t i = 0; i < sites.size(); i++)
		if (sites[i]["kind"].Text() == "mmap")
			(sites[i]["backing"].True() ? backing : program) +=
				sites[i]["bytes_allocated"].Long();
	/* Those made before our first call, and thread stacks (8 MiB each), may be the program's. */
	EXPECT_GT(backing, 0) << GetParam().name;
}

/* Their operator new does not come through malloc, and interposing it is not an option (see
 * init.c): the trace has to say so, and does not where new is libstdc++'s. */
TEST_P(Allocators, OperatorNewOfTheirOwnIsSaid)
{
	TempDir dir;
	Command command = Program(dir, "heap_cxx", { "30" });

	if (Library().empty())
		GTEST_SKIP() << GetParam().file << " is not installed";
	Result plain = Execute(command);
	std::string without = Report(dir.File("trace.bin"))["trace"]["notes"].Print();

	command.preload = ShimPath() + " " + Library();
	Result result = Execute(command);
	std::string with = Report(dir.File("trace.bin"))["trace"]["notes"].Print();

	ASSERT_TRUE(plain.Exited(0) && result.Exited(0)) << Describe(result);
	EXPECT_EQ(without.find("operator new"), std::string::npos) << without;
	EXPECT_NE(with.find(std::string(GetParam().file) + " has its own operator new"),
		  std::string::npos)
		<< with;
}

INSTANTIATE_TEST_SUITE_P(Of, Allocators,
			 testing::Values(Allocator{ "Jemalloc", "libjemalloc.so.2" },
					 Allocator{ "Tcmalloc", "libtcmalloc_minimal.so.4" },
					 Allocator{ "Mimalloc", "libmimalloc.so.2" }),
			 [](const auto &row) { return std::string(row.param.name); });

} // namespace
} // namespace memtrace_test
