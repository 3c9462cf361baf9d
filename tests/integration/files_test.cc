/*
 * Where traces go: several roots in one folder, finished and foreign files, and every way in which
 * a trace can't be written: the program then runs on, one line says why, what was recorded stays.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "support/harness.h"
#include "support/trace_truth.h"

namespace memtrace_test {
namespace {

namespace fs = std::filesystem;

long Lines(const std::string &text)
{
	return std::count(text.begin(), text.end(), '\n');
}

std::vector<std::string> TracesIn(const std::string &folder)
{
	std::vector<std::string> list;

	for (const fs::directory_entry &entry : fs::directory_iterator(folder))
		if (entry.path().filename().string().rfind("trace.", 0) == 0)
			list.push_back(entry.path());
	return list;
}

std::unique_ptr<Running> Hold(const TempDir &dir, const std::string &go, long blocks)
{
	return std::make_unique<Running>(Program(dir, "hold", { go, std::to_string(blocks) }));
}

/* Each program's count is in exactly one of the folder's traces. */
void ExpectEachInItsOwn(const TempDir &dir, const std::vector<std::string> &outputs)
{
	std::vector<std::string> traces = TracesIn(dir.path);

	EXPECT_EQ(traces.size(), outputs.size());
	for (const std::string &output : outputs) {
		int found = 0;

		ASSERT_EQ(Expected(output).size(), 1u) << output;
		for (const std::string &trace : traces) {
			TraceTruth truth = ReadTruth(trace);
			auto [pid, want] = *Expected(output).begin();
			const TracedProcess *p = truth.ByPid((uint32_t)pid);

			EXPECT_EQ(truth.error, "");
			EXPECT_EQ(truth.damage_text, "") << trace;
			EXPECT_EQ(truth.processes.size(), 1u) << trace;
			if (!p)
				continue;
			found++;
			EXPECT_EQ(p->window, want) << trace;
		}
		EXPECT_EQ(found, 1) << output;
	}
}

TEST(Files, EightRootsAtTheSameMomentInOneFolder)
{
	for (long round = 0; round < Scaled(20, 3); round++) {
		TempDir dir;
		std::vector<std::unique_ptr<Running>> programs;
		std::vector<std::string> outputs;

		for (int i = 0; i < 8; i++)
			programs.push_back(Hold(dir, dir.File("go"), 1000 + 100 * i));
		for (auto &program : programs)
			ASSERT_TRUE(program->WaitForOutput("held", 60));
		WriteAll(dir.File("go"), "");
		for (auto &program : programs) {
			Result result = program->Wait();

			ASSERT_TRUE(result.Exited(0)) << Describe(result);
			outputs.push_back(result.out);
		}
		ExpectEachInItsOwn(dir, outputs);
		EXPECT_TRUE(Exists(dir.File("trace.bin")));
	}
}

TEST(Files, NewcomersDuringARunWriteBesideIt)
{
	TempDir dir;
	auto first = Hold(dir, dir.File("go"), 1500);

	ASSERT_TRUE(first->WaitForOutput("held", 60));
	Result second = Execute(Program(dir, "hold", { "/", "1600" }));
	Result third = Execute(Program(dir, "hold", { "/", "1700" }));

	EXPECT_NE(second.err.find("in use"), std::string::npos) << second.err;
	WriteAll(dir.File("go"), "");
	Result result = first->Wait();

	ExpectEachInItsOwn(dir, { result.out, second.out, third.out });
	std::string pid = std::to_string(Expected(third.out).begin()->first);

	EXPECT_TRUE(Exists(dir.File("trace." + pid + ".bin")));
}

TEST(Files, FinishedTraceIsSetAsideWhole)
{
	TempDir dir;
	Result first = Execute(Program(dir, "hold", { "/", "1000" }));
	std::string old = ReadAll(dir.File("trace.bin"));
	Result second = Execute(Program(dir, "hold", { "/", "2000" }));

	EXPECT_EQ(ReadAll(dir.File("trace.bin.old")), old);
	ExpectEachInItsOwn(dir, { first.out, second.out });
	ExpectTruth(dir.File("trace.bin"), second.out, 1);
	EXPECT_EQ(Lines(second.err), 1) << second.err;
}

/* A killed program's trace is finished too: nobody writes it any more. */
TEST(Files, TraceOfAKilledProgramIsSetAside)
{
	TempDir dir;
	auto first = Hold(dir, dir.File("never"), 1000);

	ASSERT_TRUE(first->WaitForOutput("held", 60));
	pid_t pid = first->pid;

	kill(pid, SIGKILL);
	first->Wait();
	Result second = Execute(Program(dir, "hold", { "/", "2000" }));

	ExpectTruth(dir.File("trace.bin"), second.out, 1);
	TraceTruth old = ReadTruth(dir.File("trace.bin.old"));

	EXPECT_EQ(old.error, "");
	ASSERT_EQ(old.processes.size(), 1u);
	EXPECT_EQ((pid_t)old.processes[0].pid, pid);
}

TEST(Files, ForeignFilesOfThatNameAreLeftAlone)
{
	TempDir dir;

	WriteAll(dir.File("trace.bin"), "somebody's notes, not a trace\n");
	Result result = Execute(Program(dir, "hold", { "/", "1000" }));

	EXPECT_TRUE(result.Exited(0)) << Describe(result);
	EXPECT_EQ(ReadAll(dir.File("trace.bin")), "somebody's notes, not a trace\n");
	std::string pid = std::to_string(Expected(result.out).begin()->first);

	ExpectTruth(dir.File("trace." + pid + ".bin"), result.out, 1);
}

/* In a folder where everybody may write: a link planted there, and another user's trace. */
TEST(Files, LinksInAWorldWritableFolderAreNotFollowed)
{
	TempDir dir, elsewhere;
	std::string victim = elsewhere.File("victim");

	Execute(Program(elsewhere, "hold", { "/", "10" })); /* a real trace: it could be joined */
	fs::rename(elsewhere.File("trace.bin"), victim);
	std::string before = ReadAll(victim);

	ASSERT_EQ(chmod(dir.path.c_str(), 01777), 0);
	fs::create_symlink(victim, dir.File("trace.bin"));
	fs::create_symlink(elsewhere.File("made"), dir.File("trace.bin.old"));
	Result result = Execute(Program(dir, "hold", { "/", "1000" }));

	EXPECT_TRUE(result.Exited(0)) << Describe(result);
	EXPECT_EQ(ReadAll(victim), before);
	EXPECT_TRUE(fs::is_symlink(dir.File("trace.bin")));
	EXPECT_FALSE(Exists(elsewhere.File("made")));
	std::string pid = std::to_string(Expected(result.out).begin()->first);

	ExpectTruth(dir.File("trace." + pid + ".bin"), result.out, 1);
}

TEST(Files, AnotherUsersTraceIsNotTouched)
{
	TempDir dir;

	if (geteuid() != 0)
		GTEST_SKIP() << "only root can make another user's file";
	Execute(Program(dir, "hold", { "/", "10" }));
	ASSERT_EQ(chown(dir.File("trace.bin").c_str(), 65534, 65534), 0);
	ASSERT_EQ(chmod(dir.path.c_str(), 01777), 0);
	std::string before = ReadAll(dir.File("trace.bin"));
	Result result = Execute(Program(dir, "hold", { "/", "1000" }));

	EXPECT_EQ(ReadAll(dir.File("trace.bin")), before);
	EXPECT_FALSE(Exists(dir.File("trace.bin.old")));
	EXPECT_TRUE(result.Exited(0)) << Describe(result);
}

TEST(Files, ModeIs0600WhateverTheMask)
{
	for (mode_t mask : { 0, 022, 0777 }) {
		TempDir dir;
		Command command = Program(dir, "hold", { "/", "10" });
		struct stat st;

		command.in_child = [mask] { umask(mask); };
		Execute(command);
		ASSERT_EQ(stat(dir.File("trace.bin").c_str(), &st), 0) << mask;
		EXPECT_EQ(st.st_mode & 07777, 0600u) << mask;
	}
}

TEST(Files, PatternsInTheName)
{
	TempDir dir;
	Command command = Program(dir, "hold", { "/", "100" });
	char host[256];

	gethostname(host, sizeof(host));
	command.env["MEMTRACE_OUT"] = "t-%p-%h-%r.bin";
	command.env["SLURM_PROCID"] = "3";
	Result result = Execute(command);
	std::string pid = std::to_string(Expected(result.out).begin()->first);

	ExpectTruth(dir.File("t-" + pid + "-" + host + "-3.bin"), result.out, 1);
}

TEST(Files, RemovingOrRenamingItUnderTheWriterIsHarmless)
{
	for (bool remove : { true, false }) {
		TempDir dir;
		auto program = Hold(dir, dir.File("go"), 300000);

		ASSERT_TRUE(program->WaitForOutput("held", 60));
		if (remove)
			fs::remove(dir.File("trace.bin"));
		else
			fs::rename(dir.File("trace.bin"), dir.File("moved"));
		WriteAll(dir.File("go"), "");
		Result result = program->Wait();

		EXPECT_TRUE(result.Exited(0)) << Describe(result);
		EXPECT_EQ(remove ? "" : ReadTruth(dir.File("moved")).error, "");
	}
}

/* ---- file systems that can't reserve ---------------------------------------------------------- */

/* fallocate() says what it says on such a file system. */
void refuse_fallocate()
{
	struct sock_filter all[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fallocate, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOPNOTSUPP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { 4, all };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		_exit(77);
}

/* Space is made by writing zeros then: never over what another process has written meanwhile. */
TEST(Files, WhoMakesSpaceByWritingWritesOverNobody)
{
	for (int round = 0; round < Scaled(50, 5); round++) {
		TempDir dir;
		Command command = Program(dir, "heap_threads", { "cross", "16", "20000" });

		command.in_child = refuse_fallocate;
		command.env["MEMTRACE_EVENTS"] = "all";
		Result result = Execute(command);

		ASSERT_TRUE(result.Exited(0)) << Describe(result);
		ExpectTruth(dir.File("trace.bin"), result.out, 1);
		if (HasFailure())
			return;
	}
}

/* ---- what stops a recording --------------------------------------------------------------------- */

TEST(Files, ReadOnlyFolderIsOneLineAndTheProgramRuns)
{
	TempDir dir, open;
	Command command = Program(dir, "fork_tree", { "1", "2", "50" });

	/* Where the other user can come to them, wherever the build is. */
	command.argv[0] = open.File("fork_tree");
	command.preload = open.File("libmemtrace.so");
	fs::copy_file(ProgramPath("fork_tree"), command.argv[0]);
	fs::copy_file(ShimPath(), command.preload);
	ASSERT_EQ(chmod(open.path.c_str(), 0755), 0);
	ASSERT_EQ(chmod(dir.path.c_str(), 0555), 0);
	command.in_child = [] {
		if (geteuid() == 0 && (setgid(65534) || setuid(65534)))
			_exit(77);
	};
	Result result = Execute(command);

	EXPECT_TRUE(result.Exited(7)) << Describe(result);
	EXPECT_EQ(Facts(result.out, "expect").size(), 3u);
	EXPECT_EQ(Lines(result.err), 1) << result.err;
	EXPECT_NE(result.err.find("Permission denied"), std::string::npos) << result.err;
	EXPECT_TRUE(fs::is_empty(dir.path));
}

/* What is left of a recording that was stopped: readable, a part of the truth, and said to be one. */
void ExpectReadablePart(const std::string &trace, const Result &result)
{
	TraceTruth truth = ReadTruth(trace);
	std::map<long, Totals> expected = Expected(result.out);

	ASSERT_EQ(truth.error, "");
	ASSERT_EQ(truth.processes.size(), 1u);
	ASSERT_EQ(expected.size(), 1u);
	EXPECT_EQ(truth.damage_text, "");
	EXPECT_GT(truth.processes[0].window.allocations, 1000);
	EXPECT_LT(truth.processes[0].window.allocations, expected.begin()->second.allocations);
	EXPECT_GT(truth.lost_events, 0u);
	Json json = Report(trace);

	EXPECT_FALSE(json["trace"]["complete"].True());
	EXPECT_GT(json["trace"]["lost_events"].Long(), 0);
}

TEST(Files, FullDiskIsOneLineAndThePartBeforeIsReadable)
{
	TempDir dir;

	if (mount("memtrace-test", dir.path.c_str(), "tmpfs", 0, "size=2m"))
		GTEST_SKIP() << "no right to mount a small file system";
	Result result = Execute(Program(dir, "hold", { "/", "1000000" }));

	EXPECT_TRUE(result.Exited(0)) << Describe(result);
	EXPECT_EQ(Lines(result.err), 1) << result.err;
	EXPECT_NE(result.err.find("No space left"), std::string::npos) << result.err;
	ExpectReadablePart(dir.File("trace.bin"), result);
	umount2(dir.path.c_str(), MNT_DETACH);
}

TEST(Files, DiskFullFromTheStartIsOneLine)
{
	TempDir dir;

	if (mount("memtrace-test", dir.path.c_str(), "tmpfs", 0, "size=8k"))
		GTEST_SKIP() << "no right to mount a small file system";
	Result result = Execute(Program(dir, "hold", { "/", "1000" }));

	EXPECT_TRUE(result.Exited(0)) << Describe(result);
	EXPECT_EQ(Lines(result.err), 1) << result.err;
	EXPECT_TRUE(fs::is_empty(dir.path));
	umount2(dir.path.c_str(), MNT_DETACH);
}

TEST(Files, FileSizeLimitIsOneLineAndNoSignal)
{
	TempDir dir;
	Command command = Program(dir, "hold", { "/", "1000000" });
	struct stat st;

	command.in_child = [] {
		struct rlimit limit = { 1 << 20, 1 << 20 };

		setrlimit(RLIMIT_FSIZE, &limit);
	};
	Result result = Execute(command);

	EXPECT_TRUE(result.Exited(0)) << Describe(result);
	EXPECT_EQ(Lines(result.err), 1) << result.err;
	ASSERT_EQ(stat(dir.File("trace.bin").c_str(), &st), 0);
	EXPECT_LE(st.st_size, 1 << 20);
	ExpectReadablePart(dir.File("trace.bin"), result);
}

TEST(Files, CapIsNeverExceeded)
{
	TempDir dir;
	Command command = Program(dir, "hold", { "/", "1000000" });
	struct stat st;

	command.env["MEMTRACE_MAX_BYTES"] = "1M";
	Result result = Execute(command);

	EXPECT_TRUE(result.Exited(0)) << Describe(result);
	ASSERT_EQ(stat(dir.File("trace.bin").c_str(), &st), 0);
	EXPECT_LE(st.st_size, 1 << 20);
	EXPECT_EQ(ReadTruth(dir.File("trace.bin")).error, "");
}

TEST(Files, BadOptionsAreOneLineEachAndTheDefaultIsUsed)
{
	TempDir dir;
	Command command = Program(dir, "hold", { "/", "100" });

	command.env = { { "MEMTRACE_DEPHT", "7" }, { "MEMTRACE_INTERVAL", "soon" }, { "MEMTRACE_QUIET", "1" } };
	Result result = Execute(command);

	EXPECT_TRUE(result.Exited(0)) << Describe(result);
	EXPECT_EQ(Lines(result.err), 2) << result.err;
	EXPECT_NE(result.err.find("MEMTRACE_DEPTH"), std::string::npos) << result.err;
	EXPECT_NE(result.err.find("MEMTRACE_INTERVAL"), std::string::npos) << result.err;
	ExpectTruth(dir.File("trace.bin"), result.out, 1);
}

TEST(Files, QuietSaysNothingAndOtherwiseOneLineIsTheRoots)
{
	TempDir dir;
	Command command = Program(dir, "kinds_of_children");
	Result result = Execute(command);

	EXPECT_EQ(Lines(result.err), 1) << result.err;
	EXPECT_NE(result.err.find("trace.bin"), std::string::npos) << result.err;
	command.env["MEMTRACE_QUIET"] = "1";
	EXPECT_EQ(Execute(command).err, "");
}

} // namespace
} // namespace memtrace_test
