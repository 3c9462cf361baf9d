/*
 * `make install` puts everything where a distribution would, and it works from there; uninstall
 * leaves nothing.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "support/harness.h"
#include "support/trace_truth.h"

namespace memtrace_test {
namespace {

namespace fs = std::filesystem;

/* make of the repository, as a user would call it: nothing of an outer make gets in. */
Result Make(const std::string &target, const std::string &root)
{
	Command command;

	command.argv = { "env",	    "-u",	"MAKEFLAGS", "-u",	"MFLAGS",
			 "-u",	    "MAKELEVEL", "make",     "-C",	MT_SOURCE_DIR,
			 target,    "B=" MT_BUILD_DIR, "W=1", "PREFIX=/opt/mt", "DESTDIR=" + root };
	command.traced = false;
	return Execute(command);
}

std::set<std::string> Files(const std::string &root)
{
	std::set<std::string> list;

	for (const auto &entry : fs::recursive_directory_iterator(root))
		if (!entry.is_directory())
			list.insert(fs::relative(entry.path(), root));
	return list;
}

TEST(Install, WorksFromWhereItIsPutAndLeavesNothing)
{
	TempDir root, dir;
	std::string prefix = root.path + "/opt/mt";
	Result made = Make("install", root.path);

	ASSERT_TRUE(made.Exited(0)) << Describe(made);
	EXPECT_EQ(Files(root.path),
		  (std::set<std::string>{ "opt/mt/bin/memtrace", "opt/mt/bin/memtrace-report",
					  "opt/mt/lib/memtrace/libmemtrace.so",
					  "opt/mt/include/memtrace/memtrace.h",
					  "opt/mt/share/memtrace/memtrace_marks.py" }));
	Command command;

	command.argv = { prefix + "/bin/memtrace", "run", "--quiet", ProgramPath("heap_single"), "5" };
	command.dir = dir.path;
	command.traced = false;
	Result run = Execute(command);

	ASSERT_TRUE(run.Exited(0)) << Describe(run);
	ExpectTruth(dir.File("trace.bin"), run.out, 1);
	command.argv = { prefix + "/bin/memtrace", "report", "--no-symbols", dir.File("trace.bin") };
	Result report = Execute(command);

	EXPECT_TRUE(report.Exited(0)) << Describe(report);
	EXPECT_NE(report.out.find("heap_single"), std::string::npos) << report.out;

	Result removed = Make("uninstall", root.path);

	EXPECT_TRUE(removed.Exited(0)) << Describe(removed);
	EXPECT_EQ(Files(root.path), std::set<std::string>());
}

} // namespace
} // namespace memtrace_test
