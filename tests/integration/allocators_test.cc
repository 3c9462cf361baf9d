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
	{ "heap_cxx", { "200" } },
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

/* Linked, their operators new and delete are found behind the shim as well. */
TEST_P(Allocators, OperatorsOfTheLinkedOneAreCounted)
{
	TempDir dir;
	Command command;

	if (Library().empty())
		GTEST_SKIP() << GetParam().file << " is not installed";
	command.argv = { "g++", "-std=gnu++17", "-D_GNU_SOURCE", "-O1", "-I" + SourcePath("include"),
			 SourcePath("tests/programs/heap_cxx.cc"), "-o", dir.File("program"),
			 "-Wl,--no-as-needed", Library(), "-lpthread" };
	command.traced = false;
	Result built = Execute(command);

	ASSERT_TRUE(built.Exited(0)) << Describe(built);
	command = Command();
	command.argv = { dir.File("program"), "200" };
	command.dir = dir.path;
	Result result = Execute(command);

	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	ExpectTruth(dir.File("trace.bin"), result.out, 1);
}

/* Out of memory: bad_alloc, or mimalloc's abort, exactly as without us; and a new-handler runs as
 * often, what it frees is recorded, and the block it made room for is counted once. */
TEST_P(Allocators, FailureOfOperatorNewIsTheirs)
{
	if (Library().empty())
		GTEST_SKIP() << GetParam().file << " is not installed";
	for (const char *how : { "plain", "handler" }) {
		TempDir dir;
		Command command = Program(dir, "new_fails", { how });

		command.timeout_s = 20;
		command.preload = Library();
		Result plain = Execute(command);

		command.preload = ShimPath() + " " + Library();
		command.env["MEMTRACE_QUIET"] = "1";
		Result traced = Execute(command);

		EXPECT_EQ(plain.status, traced.status) << how << " " << Describe(plain) << Describe(traced);
		EXPECT_EQ(plain.out, traced.out);
		TraceTruth truth = ReadTruth(dir.File("trace.bin"));

		ASSERT_EQ(truth.processes.size(), 1u) << truth.error;
		TracedProcess &p = truth.processes[0];
		long once = std::string(how) == "handler", all = WIFEXITED(traced.status) ? 3 : 0;

		EXPECT_EQ(truth.lost_events, 0u);
		EXPECT_EQ(p.unknown_frees + p.double_allocations, 0);
		for (auto [size, count] : std::map<uint64_t, long>{ { 5003, once }, { 10007, once }, { 1009, all } }) {
			EXPECT_EQ(p.allocations_by_size[size], count) << how << " " << size;
			/* mimalloc ends the program before it asks the handler */
			long freed = size != 10007 || traced.out.find("handler") != std::string::npos ? count : 0;

			EXPECT_EQ(p.frees_by_size[size], freed) << how << " " << size;
		}
	}
}

/* Without such an allocator the operators are out of our symbol table: a library that is loaded
 * later binds to its own libstdc++, and who is asked for operator new is not us. */
TEST(Operators, AreNotOursWithoutAnAllocatorThatBringsThem)
{
	TempDir dir;
	Command command;

	WriteAll(dir.File("plugin.cc"), "#include <dlfcn.h>\n"
					"extern \"C\" const char *who() { Dl_info i; void *(*f)(unsigned long) = ::operator new;\n"
					"dladdr((void *)f, &i); delete new int; return i.dli_fname; }\n");
	WriteAll(dir.File("host.c"), "#include <dlfcn.h>\n#include <stdio.h>\n"
				     "int main(void) { void *h = dlopen(\"./plugin.so\", RTLD_NOW | RTLD_LOCAL);\n"
				     "const char *(*who)(void) = dlsym(h, \"who\"); puts(who());\n"
				     "puts(dlsym(RTLD_DEFAULT, \"_Znwm\") ? \"global\" : \"local\"); return 0; }\n");
	command.argv = { "/bin/sh", "-c", "g++ -O1 -shared -fPIC plugin.cc -o plugin.so && "
					  "gcc -D_GNU_SOURCE -O1 host.c -o host" };
	command.dir = dir.path;
	command.traced = false;
	Result built = Execute(command);

	ASSERT_TRUE(built.Exited(0)) << Describe(built);
	command.argv = { "./host" };
	Result plain = Execute(command);

	command.traced = true;
	Result traced = Execute(command);

	EXPECT_NE(traced.out.find("libstdc++"), std::string::npos) << Describe(traced);
	EXPECT_NE(traced.out.find("local"), std::string::npos) << Describe(traced);
	EXPECT_EQ(plain.out, traced.out);
}

/* It may map memory, and so reach us first, while it holds a lock that our start would need. */
TEST_P(Allocators, AheadOfUsIsHarmlessAndSaid)
{
	TempDir dir;
	Command command = Program(dir, "heap_cxx", { "30" });

	if (Library().empty())
		GTEST_SKIP() << GetParam().file << " is not installed";
	command.preload = Library() + " " + ShimPath();
	command.timeout_s = 20;
	Result result = Execute(command);

	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	std::string notes = Report(dir.File("trace.bin"))["trace"]["notes"].Print();

	EXPECT_NE(notes.find("comes before this library"), std::string::npos) << notes;
	EXPECT_NE(result.err.find("put libmemtrace.so first"), std::string::npos) << result.err;
}

INSTANTIATE_TEST_SUITE_P(Of, Allocators,
			 testing::Values(Allocator{ "Jemalloc", "libjemalloc.so.2" },
					 Allocator{ "Tcmalloc", "libtcmalloc_minimal.so.4" },
					 Allocator{ "Mimalloc", "libmimalloc.so.2" }),
			 [](const auto &row) { return std::string(row.param.name); });

} // namespace
} // namespace memtrace_test
