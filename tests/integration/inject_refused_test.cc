/*
 * Processes that can't be attached to: one line that says why and what to do, and the process runs on.
 * Each refusal is tested by making its condition.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "support/harness.h"

using namespace memtrace_test;

namespace
{

Command Plain(const std::vector<std::string> &argv)
{
	Command command;

	command.argv = argv;
	command.traced = false;
	return command;
}

Command AttachTo(pid_t pid, const std::vector<std::string> &more = {})
{
	Command command = Plain({ BuildPath("memtrace"), "attach", std::to_string(pid) });

	command.argv.insert(command.argv.end(), more.begin(), more.end());
	return command;
}

void AsNobody(Command *command)
{
	command->in_child = [] {
		if (setgid(65534) || setuid(65534))
			_exit(99);
	};
}

/* One line, with these words, and no trace of having tried. */
void ExpectRefused(const Command &attach, const std::vector<std::string> &words)
{
	Result result = Execute(attach);

	EXPECT_TRUE(result.Exited(1)) << Describe(result);
	EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
	for (const std::string &word : words)
		EXPECT_NE(result.err.find(word), std::string::npos)
			<< "'" << word << "' is not in: " << result.err;
}

class Condition
{
    public:
	explicit Condition(const Command &command)
		: program(command)
	{
		EXPECT_TRUE(program.WaitForOutput("ready", 20));
		usleep(50000);
	}
	~Condition()
	{
		int status;

		EXPECT_EQ(waitpid(program.pid, &status, WNOHANG), 0) << "it has ended";
	}
	Running program;
};

std::vector<std::string> Injected(const std::string &how)
{
	return { ProgramPath("injected"), how };
}

/* The program, linked or renamed in another way. */
std::string Compile(const TempDir &dir, const std::string &flags)
{
	std::string out = dir.File("program");
	Result result = Execute(Plain({ "/bin/sh", "-c",
					"gcc -std=gnu11 -D_GNU_SOURCE -w " +
						SourcePath("tests/programs/injected.c") + " -o " +
						out + " -lpthread -ldl " + flags }));

	EXPECT_TRUE(result.Exited(0)) << Describe(result);
	return out;
}

bool IsRoot()
{
	return geteuid() == 0;
}

TEST(InjectRefused, ProcessesThatAreNotThere)
{
	pid_t child = fork();

	if (!child)
		_exit(0);
	siginfo_t ended;
	ASSERT_EQ(waitid(P_PID, (id_t)child, &ended, WEXITED | WNOWAIT), 0);
	ExpectRefused(AttachTo(child), { "has ended" }); /* a zombie */
	waitpid(child, nullptr, 0);
	ExpectRefused(AttachTo(child), { "no such process" });
	if (ReadAll("/proc/2/comm") == "kthreadd\n" && IsRoot())
		ExpectRefused(AttachTo(2), { "thread of the kernel" });
}

TEST(InjectRefused, AnotherUsersProcess)
{
	if (!IsRoot())
		GTEST_SKIP() << "needs a second user";
	Condition other(Plain(Injected("pause")));
	Command attach = AttachTo(other.program.pid);

	AsNobody(&attach);
	ExpectRefused(attach, { "another user", "root" });
}

TEST(InjectRefused, ProcessesThatForbidBeingLookedAt)
{
	if (!IsRoot())
		GTEST_SKIP() << "needs a second user";
	Command program = Plain(Injected("private"));
	AsNobody(&program);
	Condition forbids(program);
	Command attach = AttachTo(forbids.program.pid);

	AsNobody(&attach);
	ExpectRefused(attach, { "cannot attach" });
}

TEST(InjectRefused, ProgramsThatChangedTheirPrivileges)
{
	if (!IsRoot())
		GTEST_SKIP() << "needs a second user";
	TempDir dir;
	std::string file = Compile(dir, "");
	ASSERT_EQ(chmod(dir.path.c_str(), 0755), 0);
	ASSERT_EQ(chmod(file.c_str(), 04755), 0);
	Command program = Plain({ file, "pause" });
	AsNobody(&program);
	Condition setuid(program);
	Command attach = AttachTo(setuid.program.pid);

	AsNobody(&attach);
	ExpectRefused(attach, { "changed its privileges", "setuid", "as root" });
}

/* Only where CPU, kernel and C library have it. */
TEST(InjectRefused, ThreadsWithAShadowStack)
{
	Command program = Plain(Injected("pause"));

	program.env["GLIBC_TUNABLES"] = "glibc.cpu.x86_shstk=on";
	Condition shadow(program);
	if (ReadAll("/proc/" + std::to_string(shadow.program.pid) + "/status").find("shstk") == std::string::npos)
		GTEST_SKIP() << "this machine has no shadow stacks";
	ExpectRefused(AttachTo(shadow.program.pid), { "shadow stack", "memtrace run" });
}

TEST(InjectRefused, UnprivilegedUsersMayAttachToTheirOwn)
{
	if (!IsRoot())
		GTEST_SKIP() << "needs a second user";
	TempDir dir;
	Command program = Plain(Injected("run"));
	AsNobody(&program);
	Condition own(program);
	Command attach = AttachTo(own.program.pid, { "--out", dir.File("trace.bin") });

	ASSERT_EQ(chmod(dir.path.c_str(), 0777), 0);
	AsNobody(&attach);
	Result result = Execute(attach);
	if (result.err.find("ptrace_scope") != std::string::npos)
		GTEST_SKIP() << result.err;
	EXPECT_TRUE(result.Exited(0)) << Describe(result);
}

TEST(InjectRefused, ProcessesThatAreTracedOrStopped)
{
	Condition traced(Plain(Injected("pause")));

	ASSERT_EQ(ptrace(PTRACE_SEIZE, traced.program.pid, nullptr, nullptr), 0);
	ExpectRefused(AttachTo(traced.program.pid), { "traces it already", "end that debugger" });
	ptrace(PTRACE_INTERRUPT, traced.program.pid, nullptr, nullptr);
	waitpid(traced.program.pid, nullptr, __WALL);
	ptrace(PTRACE_DETACH, traced.program.pid, nullptr, nullptr);
	kill(traced.program.pid, SIGSTOP);
	usleep(50000);
	ExpectRefused(AttachTo(traced.program.pid), { "is stopped", "kill -CONT" });
	kill(traced.program.pid, SIGCONT);
}

TEST(InjectRefused, ProcessesUnderASeccompFilter)
{
	Condition filtered(Plain(Injected("seccomp")));

	ExpectRefused(AttachTo(filtered.program.pid), { "seccomp filter", "memtrace run" });
}

TEST(InjectRefused, ProgramsWithoutALoader)
{
	TempDir dir;
	Condition fixed(Plain({ Compile(dir, "-static"), "pause" }));

	ExpectRefused(AttachTo(fixed.program.pid), { "statically linked" });
}

/* The loader tells which C library it is. */
TEST(InjectRefused, ProgramsOfAnotherCLibrary)
{
	TempDir dir;
	std::string loader = dir.File("ld-musl-x86_64.so.1");

	ASSERT_EQ(symlink("/lib64/ld-linux-x86-64.so.2", loader.c_str()), 0);
	Condition musl(Plain({ Compile(dir, "-Wl,--dynamic-linker=" + loader), "pause" }));

	ExpectRefused(AttachTo(musl.program.pid), { "musl" });
}

/* 32 bits: a header and an endless loop. */
TEST(InjectRefused, ProgramsOfAnotherArchitecture)
{
	static const unsigned char file[] = {
		0x7f, 'E',  'L',  'F',	1, 1, 1, 0,  0,	   0,	 0,    0,    0, 0, 0,	 0,
		2,    0,    3,	  0,	1, 0, 0, 0,  0x54, 0x80, 0x04, 0x08, 52, 0, 0,	 0,
		0,    0,    0,	  0,	0, 0, 0, 0,  52,   0,	 32,   0,    1, 0, 0,	 0,
		0,    0,    0,	  0,	1, 0, 0, 0,  0,	   0,	 0,    0,    0, 0x80, 4, 8,
		0,    0x80, 4,	  8,	0x5b, 0, 0, 0, 0x5b, 0,	 0,    0,    5, 0, 0,	 0,
		0,    0x10, 0,	  0,
		0xb8, 29, 0, 0, 0, 0xcd, 0x80 /* pause() */
	};
	TempDir dir;
	std::string program = dir.File("small");

	WriteAll(program, std::string((const char *)file, sizeof(file)));
	chmod(program.c_str(), 0755);
	pid_t child = fork();
	if (!child) {
		execl(program.c_str(), program.c_str(), nullptr);
		_exit(99);
	}
	usleep(100000);
	int status;
	if (waitpid(child, &status, WNOHANG) == child)
		GTEST_SKIP() << "this kernel runs no 32-bit programs";
	ExpectRefused(AttachTo(child), { "another architecture", "32 bits" });
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
}

TEST(InjectRefused, ProcessesThatSeeOtherFiles)
{
	if (!IsRoot())
		GTEST_SKIP() << "needs a mount namespace";
	TempDir dir;
	std::string program = dir.File("injected"), hidden = BuildPath("");

	WriteAll(program, ReadAll(ProgramPath("injected")));
	chmod(program.c_str(), 0755);
	Command command = Plain({ program, "pause" });
	command.in_child = [hidden] {
		if (unshare(CLONE_NEWNS) || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) ||
		    mount("none", hidden.c_str(), "tmpfs", 0, nullptr))
			_exit(99);
	};
	Condition elsewhere(command);
	ExpectRefused(AttachTo(elsewhere.program.pid), { "other files", "libmemtrace.so" });
}

/* A parent in vfork can't be interrupted before its child has gone on. */
TEST(InjectRefused, ProcessesThatWaitInTheKernel)
{
	Condition stuck(Plain(Injected("vfork")));

	ExpectRefused(AttachTo(stuck.program.pid, { "--wait", "2" }), { "state D" });
}

TEST(InjectRefused, WhereThereIsNoSafeMoment)
{
	Condition handler(Plain(Injected("handler")));

	ExpectRefused(AttachTo(handler.program.pid, { "--wait", "1" }),
		      { "no safe moment", "signal handler", "--wait" });
}

} // namespace
