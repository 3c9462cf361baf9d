/*
 * Odd surroundings: little address space, no /proc, no LD_PRELOAD possible, an empty environment.
 * The program always runs as it would; what can't be recorded is said.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <sstream>

#include "support/harness.h"
#include "support/trace_truth.h"

namespace memtrace_test {
namespace {

long Lines(const std::string &text)
{
	return std::count(text.begin(), text.end(), '\n');
}

/* A program that differs from ours only in how it is linked. */
std::string Compile(const TempDir &dir, const std::string &source, const std::string &flags)
{
	Command command;
	std::string out = dir.File("program");

	command.argv = { "/bin/sh", "-c", "gcc -std=gnu11 -D_GNU_SOURCE -O1 -I" + SourcePath("include") +
					  " " + SourcePath("tests/programs/" + source) + " -o " +
					  out + " -lpthread " + flags };
	command.traced = false;
	Result result = Execute(command);

	EXPECT_TRUE(result.Exited(0)) << Describe(result);
	return out;
}

Command Driver(const TempDir &dir, const std::vector<std::string> &program)
{
	Command command;

	command.argv = { BuildPath("memtrace"), "run", "--" };
	command.argv.insert(command.argv.end(), program.begin(), program.end());
	command.dir = dir.path;
	command.traced = false;
	return command;
}

TEST(Environment, LittleAddressSpace)
{
	for (rlim_t mib : { 48, 100, 400 }) {
		TempDir dir;
		Command command = Program(dir, "heap_single", { "20" });

		command.in_child = [mib] {
			struct rlimit limit = { mib << 20, mib << 20 };

			setrlimit(RLIMIT_AS, &limit);
		};
		Result result = Execute(command);

		ASSERT_TRUE(result.Exited(0)) << mib << " MiB: " << Describe(result);
		ExpectTruth(dir.File("trace.bin"), result.out, 1);
	}
}

/* Without /proc: 77 tells that it could not be taken away here. */
TEST(Environment, NoProc)
{
	TempDir dir;
	Command command = Program(dir, "fork_tree", { "2", "2", "50" });

	command.in_child = [] {
		if (unshare(CLONE_NEWNS) && unshare(CLONE_NEWUSER | CLONE_NEWNS))
			_exit(77);
		if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) ||
		    mount("none", "/proc", "tmpfs", 0, nullptr) ||
		    access("/proc/self", F_OK) == 0)
			_exit(77);
	};
	Result result = Execute(command);

	if (result.Exited(77))
		GTEST_SKIP() << "no right to take /proc away";
	ASSERT_TRUE(result.Exited(7)) << Describe(result);
	ExpectTruth(dir.File("trace.bin"), result.out, 7);
}

TEST(Environment, StaticProgramIsRefusedInOneLine)
{
	TempDir dir;
	std::string program = Compile(dir, "heap_single.c", "-static");
	Result result = Execute(Driver(dir, { program, "3" }));

	EXPECT_TRUE(result.Exited(0)) << Describe(result);
	EXPECT_EQ(Facts(result.out, "expect").size(), 1u) << Describe(result);
	EXPECT_EQ(Lines(result.err), 1) << result.err;
	EXPECT_NE(result.err.find("static"), std::string::npos) << result.err;
	EXPECT_FALSE(Exists(dir.File("trace.bin")));
}

TEST(Environment, SetuidProgramIsRefusedInOneLine)
{
	TempDir dir;
	std::string program = dir.File("program");

	if (geteuid() != 0)
		GTEST_SKIP() << "only root can make a setuid program of another user";
	WriteAll(program, ReadAll(ProgramPath("heap_single")));
	ASSERT_EQ(chown(program.c_str(), 65534, 65534), 0);
	ASSERT_EQ(chmod(program.c_str(), 04755), 0);
	Result result = Execute(Driver(dir, { program, "3" }));

	EXPECT_TRUE(result.Exited(0)) << Describe(result);
	EXPECT_EQ(Facts(result.out, "expect").size(), 1u) << Describe(result);
	EXPECT_EQ(Lines(result.err), 1) << result.err;
	EXPECT_NE(result.err.find("setuid"), std::string::npos) << result.err;
	EXPECT_FALSE(Exists(dir.File("trace.bin")));
}

/* The shim itself, when the loader lets it into such a program, must keep out too. */
TEST(Environment, SetuidProgramUnderPlainPreloadRunsUntraced)
{
	TempDir dir;
	std::string program = dir.File("program");

	if (geteuid() != 0)
		GTEST_SKIP() << "only root can make a setuid program of another user";
	WriteAll(program, ReadAll(ProgramPath("heap_single")));
	ASSERT_EQ(chmod(program.c_str(), 04755), 0);
	ASSERT_EQ(chmod(dir.path.c_str(), 0777), 0);
	Command command;

	command.argv = { program, "3" };
	command.dir = dir.path;
	command.in_child = [] {
		if (setgid(65534) || setuid(65534))
			_exit(77);
	};
	Result result = Execute(command);

	EXPECT_TRUE(result.Exited(0)) << Describe(result);
	EXPECT_EQ(Facts(result.out, "expect").size(), 1u);
	EXPECT_FALSE(Exists(dir.File("trace.bin")));
}

bool HasFinding(const Json &json, const std::string &kind)
{
	for (size_t i = 0; i < json["findings"].size(); i++)
		if (json["findings"][i]["kind"].Text() == kind)
			return true;
	return false;
}

TEST(Environment, ChildrenWithAnEmptyEnvironmentAreNamedAsUncovered)
{
	TempDir dir;
	Result result = Execute(Program(dir, "clear_environment", { ProgramPath("tiny") }));
	Json json = Report(dir.File("trace.bin"));

	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	ExpectTruth(dir.File("trace.bin"), result.out, 1);
	EXPECT_TRUE(HasFinding(json, "uncovered-memory")) << json["findings"].Print();
	EXPECT_NE(json["findings"].Print().find("tiny"), std::string::npos)
		<< json["findings"].Print();
}

TEST(Environment, StaticChildrenAreNamedAsUncovered)
{
	TempDir dir;
	std::string program = Compile(dir, "tiny.c", "-static");
	Result result = Execute(Program(dir, "helpers", { "spawn", "2", program }));
	Json json = Report(dir.File("trace.bin"));

	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	EXPECT_TRUE(HasFinding(json, "uncovered-memory")) << json["findings"].Print();
}

/* Output, exit status and death by signal, for ordinary programs of the system. */
TEST(Environment, ProgramsBehaveAsWithoutTheShim)
{
	static const char *const commands[] = {
		"ls -la / | head -3; echo done",
		"echo out; echo err >&2; exit 3",
		"seq 1 20000 | sort -rn | head -5 | tr '\\n' ' '",
		"kill -TERM $$",
		"kill -ABRT $$",
		"(exit 5); echo $?; true | false; echo $?",
		"exec 3>&1; echo three >&3; exec 3>&-; echo again",
		"for i in 1 2 3; do (echo $i; cat /dev/null) & done | sort; wait; echo waited",
		"env | grep -c '^MEMTRACE_\\|^NVTX' > /dev/null; cat /etc/hostname | wc -l",
	};

	for (const char *text : commands) {
		TempDir dir;
		Command command;

		command.argv = { "/bin/bash", "-c", text };
		command.dir = dir.path;
		command.env["MEMTRACE_QUIET"] = "1";
		Result traced = Execute(command);

		command.traced = false;
		Result plain = Execute(command);

		EXPECT_EQ(traced.status, plain.status) << text;
		EXPECT_EQ(traced.out, plain.out) << text;
		EXPECT_EQ(traced.err, plain.err) << text;
	}
}

TEST(Environment, OnlyItsOwnVariablesAreAdded)
{
	TempDir dir;
	Command command;

	command.argv = { "/usr/bin/env" };
	command.dir = dir.path;
	Result traced = Execute(command);

	command.argv = { "/bin/sh", "-c", "/usr/bin/env" };
	Result child = Execute(command);

	for (const Result *r : { &traced, &child }) {
		std::istringstream lines(r->out);

		for (std::string line; std::getline(lines, line);) {
			std::string key = line.substr(0, line.find('='));
			const char *own = getenv(key.c_str());

			if (own || key == "PWD" || key == "_" || key == "SHLVL" || key == "OLDPWD")
				continue;
			EXPECT_TRUE(key.rfind("MEMTRACE_", 0) == 0 || key == "NVTX_INJECTION64_PATH" ||
				    key == "LD_PRELOAD")
				<< line;
		}
	}
	EXPECT_NE(child.out.find("LD_PRELOAD=/"), std::string::npos) << child.out;
}

} // namespace
} // namespace memtrace_test
