/*
 * memtrace attach, detach, status and mark on programs that have the shim and record nothing yet:
 * what is told of them is true, and they notice nothing.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "support/harness.h"

namespace memtrace_test {
namespace {

namespace fs = std::filesystem;

long LineOf(const std::string &file, const std::string &text)
{
	std::istringstream lines(ReadAll(SourcePath("tests/programs/" + file)));
	long number = 0;

	for (std::string line; std::getline(lines, line);) {
		number++;
		if (line.find(text) != std::string::npos)
			return number;
	}
	return -1;
}

Command Memtrace(const TempDir &dir, const std::vector<std::string> &arguments)
{
	Command c;

	c.argv = { BuildPath("memtrace") };
	c.argv.insert(c.argv.end(), arguments.begin(), arguments.end());
	c.dir = dir.path;
	c.traced = false;
	return c;
}

Result Driver(const TempDir &dir, const std::vector<std::string> &arguments)
{
	return Execute(Memtrace(dir, arguments));
}

Command Dormant(const TempDir &dir, const std::vector<std::string> &arguments)
{
	Command c = Program(dir, "attached", arguments);

	c.env["MEMTRACE_MODE"] = "dormant";
	return c;
}

/* Descriptors and mappings of a process, but for those that the program itself moves. */
std::string Belongings(pid_t pid)
{
	std::string out, proc = "/proc/" + std::to_string(pid);

	for (const auto &entry : fs::directory_iterator(proc + "/fd"))
		out += fs::read_symlink(entry.path()).string() + "\n";
	std::istringstream maps(ReadAll(proc + "/maps"));
	for (std::string line; std::getline(maps, line);)
		if (line.find("memtrace") != std::string::npos || line.find("trace.bin") != std::string::npos)
			out += line.substr(line.find_last_of(' ')) + "\n";
	return out;
}

void ExpectCounts(const Result &result)
{
	auto counts = Facts(result.out, "counts");

	ASSERT_TRUE(result.Exited(37)) << Describe(result);
	ASSERT_EQ(counts.size(), 1u) << Describe(result);
	EXPECT_EQ(counts[0]["errors"], 0);
}

/* Report() leaves out the lines of C code. */
Json ReportWithLines(const std::string &trace)
{
	Command c;

	c.argv = { BuildPath("memtrace-report"), "--json", trace };
	c.traced = false;
	Result result = Execute(c);
	EXPECT_TRUE(result.Exited(0)) << Describe(result);
	return Json::Parse(result.out);
}

Json SiteAt(const Json &report, const std::string &file, long line)
{
	for (size_t i = 0; i < report["sites"].size(); i++) {
		const Json stack = report["sites"][i]["stack"];

		for (size_t k = 0; k < stack.size(); k++) {
			std::string name = stack[k]["file"].Text();

			if (stack[k]["line"].Long() == line && name.size() >= file.size() &&
			    name.substr(name.size() - file.size()) == file)
				return report["sites"][i];
		}
	}
	return {};
}

TEST(Attach, LeakThatBeganBeforeIsNamedAndWhatIsOlderIsMeasured)
{
	TempDir dir;
	Running program(Dormant(dir, { "100", "0" }));
	std::string pid = std::to_string(program.pid);

	ASSERT_TRUE(program.WaitForOutput("ready", 60));
	std::string before = Belongings(program.pid);
	EXPECT_NE(Driver(dir, { "status", pid }).out.find("dormant"), std::string::npos);
	ASSERT_TRUE(Driver(dir, { "attach", pid }).Exited(0));
	usleep(300000);
	EXPECT_NE(Driver(dir, { "status", pid }).out.find("recording since"), std::string::npos);
	ASSERT_TRUE(Driver(dir, { "mark", pid, "half time" }).Exited(0));
	usleep(300000);
	ASSERT_TRUE(Driver(dir, { "detach", pid }).Exited(0));
	EXPECT_EQ(Belongings(program.pid), before);
	kill(program.pid, SIGTERM);
	ExpectCounts(program.Wait());

	Json report = ReportWithLines(dir.File("trace.bin"));
	Json process = report["processes"][(size_t)0];
	Json site = SiteAt(report, "attached.c", LineOf("attached.c", "LINE: lost"));
	const double truth = 100.0 * 1048576; /* blocks of 1000 bytes, 1008 with glibc's header */

	EXPECT_NEAR(process["predates_attach_bytes"].Number(), truth, truth * 0.05);
	EXPECT_GT(site["live_count"].Long(), 20);
	EXPECT_EQ(site["live_bytes"].Long(), site["live_count"].Long() * 1000);
	bool judged = false; /* with the rate at which it really lost blocks */
	for (size_t i = 0; i < report["growth"].size(); i++) {
		Json g = report["growth"][i];

		if (g["site"].Long() != site["id"].Long())
			continue;
		judged = true;
		EXPECT_NEAR(g["bytes_per_s"]["value"].Number(),
			    site["live_bytes"].Number() / report["trace"]["duration_s"].Number(),
			    0.5 * g["bytes_per_s"]["value"].Number());
	}
	EXPECT_TRUE(judged) << report["growth"].Print();
	EXPECT_EQ(process["end"]["kind"].Text(), "running");
	EXPECT_TRUE(report["trace"]["complete"].True());
	EXPECT_FALSE(report["trace"]["running"].True());
	EXPECT_EQ(report["marks"][(size_t)0]["label"].Text(), "half time");
}

TEST(Attach, SilentProcessIsWaitedForAndThenLeftAlone)
{
	TempDir dir;
	Command sleeper;

	sleeper.argv = { "/bin/sleep", "60" };
	sleeper.dir = dir.path;
	sleeper.env["MEMTRACE_MODE"] = "dormant";
	Running program(sleeper);
	std::string pid = std::to_string(program.pid);

	usleep(300000);
	Result a = Driver(dir, { "attach", pid, "--wait", "1" });
	EXPECT_TRUE(a.Exited(1)) << Describe(a);
	EXPECT_NE(a.err.find("is silent"), std::string::npos) << a.err;
	EXPECT_NE(a.err.find("nothing was changed"), std::string::npos) << a.err;
	EXPECT_NE(Driver(dir, { "status", pid }).out.find("dormant"), std::string::npos);
	EXPECT_FALSE(Exists(dir.File("trace.bin")));
}

TEST(Attach, RefusalsNameTheReason)
{
	TempDir dir;
	Command plain = Program(dir, "attached", { "1", "0" });

	plain.traced = false;
	Running program(plain);
	ASSERT_TRUE(program.WaitForOutput("ready", 60));
	Result a = Driver(dir, { "attach", "999999999" });
	EXPECT_TRUE(a.Exited(1));
	EXPECT_NE(a.err.find("no such process"), std::string::npos) << a.err;
	a = Driver(dir, { "detach", std::to_string(program.pid) });
	EXPECT_TRUE(a.Exited(1));
	EXPECT_NE(a.err.find("without the shim"), std::string::npos) << a.err;
	EXPECT_TRUE(Driver(dir, { "attach", "x" }).Exited(2));
	EXPECT_TRUE(Driver(dir, { "attach" }).Exited(2));
}

/* All commands say of what is no process of its own what it is. */
TEST(Attach, NumbersThatAreNoProcess)
{
	TempDir dir;
	Running program(Dormant(dir, { "1", "0" }));
	pid_t dead = fork();

	if (!dead)
		_exit(0);
	ASSERT_TRUE(program.WaitForOutput("ready", 60));
	std::vector<std::pair<std::string, std::string>> numbers;
	for (const auto &entry : fs::directory_iterator("/proc/" + std::to_string(program.pid) + "/task"))
		if (entry.path().filename() != std::to_string(program.pid))
			numbers.push_back({ entry.path().filename(),
					    "a thread of process " + std::to_string(program.pid) });
	ASSERT_FALSE(numbers.empty());
	numbers.resize(1);
	siginfo_t ended;
	ASSERT_EQ(waitid(P_PID, (id_t)dead, &ended, WEXITED | WNOWAIT), 0);
	numbers.push_back({ std::to_string(dead), "has ended" });
	numbers.push_back({ "999999999", "no such process" });
	for (const auto &n : numbers)
		for (std::vector<std::string> words : { std::vector<std::string>{ "attach", n.first },
							{ "detach", n.first },
							{ "status", n.first },
							{ "mark", n.first, "x" },
							{ "top", n.first, "--once" } }) {
			Result a = Driver(dir, words);

			EXPECT_TRUE(a.Exited(1)) << Describe(a);
			EXPECT_NE(a.err.find(n.second), std::string::npos) << words[0] << ": " << a.err;
			EXPECT_EQ(std::count(a.err.begin(), a.err.end(), '\n'), 1) << a.err;
		}
	waitpid(dead, nullptr, 0);
	EXPECT_NE(Driver(dir, { "status", std::to_string(program.pid) }).out.find("dormant"), std::string::npos);
}

TEST(Attach, WrongUseIsToldInOneLine)
{
	static const struct {
		std::vector<std::string> words;
		const char *said;
	} uses[] = {
		{ { "attach", "0" }, "not a process id" },
		{ { "attach", "1x" }, "not a process id" },
		{ { "attach", "99999999999999" }, "not a process id" },
		{ { "attach", "12", "13" }, "one process at a time" },
		{ { "attach", "12", "--wait" }, "needs a number of seconds" },
		{ { "attach", "12", "--duration", "x" }, "not x" },
		{ { "attach", "12", "--mode", "dormant" }, "records nothing" },
		{ { "attach", "12", "--mode", "most" }, "not a valid value" },
		{ { "attach", "12", "--bogus" }, "no option --bogus" },
		{ { "detach" }, "which process" },
		{ { "detach", "12", "13" }, "one process" },
		{ { "status", "12", "13" }, "one process" },
		{ { "status", "0" }, "not a process id" },
		{ { "mark", "12" }, "a process and a label" },
		{ { "mark", "12", "" }, "a process and a label" },
		{ { "top", "0" }, "not a process id" },
	};
	TempDir dir;

	for (const auto &use : uses) {
		Result a = Driver(dir, use.words);

		EXPECT_TRUE(a.Exited(2)) << Describe(a);
		EXPECT_NE(a.err.find(use.said), std::string::npos) << a.err;
		EXPECT_EQ(std::count(a.err.begin(), a.err.end(), '\n'), 1) << a.err;
	}
}

TEST(Attach, TracesThatCanNotBeWritten)
{
	TempDir dir;
	Command command = Dormant(dir, { "1", "0" });

	/* As on a full disk: it begins to record, and then there is no more space. */
	command.in_child = [] {
		struct rlimit limit = { 600 << 10, 600 << 10 };

		setrlimit(RLIMIT_FSIZE, &limit);
	};
	Running program(command);
	std::string pid = std::to_string(program.pid);
	ASSERT_TRUE(program.WaitForOutput("ready", 60));
	mkdir(dir.File("folder").c_str(), 0700);
	for (auto [out, said] : { std::pair<std::string, std::string>{ "/no/such/t.bin", "No such file" },
				  { dir.File("folder"), "not a file" },
				  { "/dev/full", "not a file" } }) {
		Result a = Driver(dir, { "attach", pid, "--out", out });

		EXPECT_TRUE(a.Exited(1)) << Describe(a);
		EXPECT_NE(a.err.find(out + ": "), std::string::npos) << a.err;
		EXPECT_NE(a.err.find(said), std::string::npos) << a.err;
	}
	EXPECT_NE(Driver(dir, { "status", pid }).out.find("dormant"), std::string::npos);
	ASSERT_TRUE(Driver(dir, { "attach", pid, "--events", "all" }).Exited(0));
	std::string state;
	for (int i = 0; i < 600 && state.find("recording has stopped") == std::string::npos; i++, usleep(20000))
		state = Driver(dir, { "status", pid }).out;
	EXPECT_NE(state.find("recording has stopped: File too large"), std::string::npos) << state;
	Result again = Driver(dir, { "attach", pid, "--mode", "sample" });
	EXPECT_NE(again.err.find("already, to " + dir.File("trace.bin") + "; its options are as they were"),
		  std::string::npos)
		<< again.err;
	Result d = Driver(dir, { "detach", pid });
	EXPECT_TRUE(d.Exited(0)) << Describe(d);
	EXPECT_NE(d.err.find("incomplete: File too large"), std::string::npos) << d.err;
	kill(program.pid, SIGTERM);
	ExpectCounts(program.Wait());
	Report(dir.File("trace.bin"));
}

/* The page's descriptor, as a stranger of the same user may open it. */
int OpenPage(pid_t pid)
{
	for (const auto &entry : fs::directory_iterator("/proc/" + std::to_string(pid) + "/fd"))
		if (fs::read_symlink(entry.path()).string().find("memtrace-control") != std::string::npos)
			return open(entry.path().c_str(), O_RDWR | O_CLOEXEC);
	return -1;
}

TEST(Attach, GarbageInTheControlPageDisarmsAndDoesNothingElse)
{
	TempDir dir;
	Running program(Dormant(dir, { "1", "0" }));
	std::string pid = std::to_string(program.pid);
	struct stat st;

	ASSERT_TRUE(program.WaitForOutput("ready", 60));
	int fd = OpenPage(program.pid);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(fstat(fd, &st), 0);
	EXPECT_EQ(st.st_mode & 07777, 0600u);
	EXPECT_NE(ftruncate(fd, 0), 0) << "a page cut short would be a SIGBUS in the program";
	for (int i = 0; i < 20; i++) {
		std::string garbage(16384, '\0');

		for (char &c : garbage)
			c = i % 3 == 2 ? (char)(i == 5 ? 0xff : 0) : (char)rand();
		if (i % 2) {
			ASSERT_TRUE(Driver(dir, { "attach", pid }).Exited(0)) << i;
		}
		ASSERT_EQ(pwrite(fd, garbage.data(), garbage.size(), 0), (ssize_t)garbage.size());
		usleep(20000);
		if (i % 3 != 2 || !(i % 2)) {
			EXPECT_NE(Driver(dir, { "status", pid }).out.find("dormant"), std::string::npos)
				<< i;
		}
		Driver(dir, { "detach", pid });
	}
	close(fd);
	EXPECT_TRUE(Driver(dir, { "attach", pid }).Exited(0));
	kill(program.pid, SIGTERM);
	ExpectCounts(program.Wait());
	Report(dir.File("trace.bin"));
}

TEST(Attach, TraceSurvivesTheKillOfProgramAndOfMemtrace)
{
	TempDir dir;
	Running program(Dormant(dir, { "1", "0" }));
	std::string pid = std::to_string(program.pid);

	ASSERT_TRUE(program.WaitForOutput("ready", 60));
	{
		Running attached(Memtrace(dir, { "attach", pid, "--duration", "60" }));

		for (int i = 0; i < 500 && !Exists(dir.File("trace.bin")); i++)
			usleep(10000);
		usleep(300000);
		kill(attached.pid, SIGKILL);
		attached.Wait();
	}
	usleep(200000);
	EXPECT_NE(Driver(dir, { "status", pid }).out.find("recording"), std::string::npos);
	kill(program.pid, SIGKILL);
	program.Wait();
	Json report = ReportWithLines(dir.File("trace.bin"));
	EXPECT_GT(SiteAt(report, "attached.c", LineOf("attached.c", "LINE: lost"))["live_count"].Long(), 20);
	EXPECT_TRUE(report["trace"]["complete"].True());
}

TEST(Attach, TimeIsKeptByTheProcessItself)
{
	TempDir dir;
	Running program(Dormant(dir, { "1", "0" }));
	std::string pid = std::to_string(program.pid), state;

	ASSERT_TRUE(program.WaitForOutput("ready", 60));
	{
		Running attached(Memtrace(dir, { "attach", pid, "--duration", "1", "--interval", "0.1" }));

		for (int i = 0; i < 500 && !Exists(dir.File("trace.bin")); i++)
			usleep(10000);
		kill(attached.pid, SIGKILL);
		attached.Wait();
	}
	for (int i = 0; i < 600 && state.find("its time was over") == std::string::npos; i++) {
		usleep(50000);
		state = Driver(dir, { "status", pid }).out;
	}
	EXPECT_NE(state.find("its time was over"), std::string::npos) << state;
}

TEST(Attach, TopShowsWhatGrowsWhileItIsRecordedAndAfter)
{
	TempDir dir;
	Running program(Dormant(dir, { "20", "0" }));
	std::string pid = std::to_string(program.pid);

	ASSERT_TRUE(program.WaitForOutput("ready", 60));
	EXPECT_TRUE(Driver(dir, { "top", pid, "--once" }).Exited(1)) << "it is dormant";
	ASSERT_TRUE(Driver(dir, { "attach", pid, "--interval", "0.1" }).Exited(0));
	usleep(1500000);
	Result once = Driver(dir, { "top", pid, "--once", "--json" });
	ASSERT_TRUE(once.Exited(0)) << Describe(once);
	Json now = Json::Parse(once.out);
	EXPECT_EQ(now["schema"].Text(), "memtrace-top/1");
	EXPECT_TRUE(now["running"].True());
	EXPECT_EQ(now["processes"][(size_t)0]["pid"].Long(), program.pid);
	EXPECT_GT(now["processes"][(size_t)0]["private_bytes"].Long(), 20 << 20);
	EXPECT_TRUE(now["processes"][(size_t)0]["cow_bytes"].IsNull());
	EXPECT_GT(now["memory"]["headroom_bytes"].Long(), 0);
	ASSERT_TRUE(Driver(dir, { "detach", pid }).Exited(0));

	once = Driver(dir, { "top", dir.File("trace.bin"), "--once" });
	EXPECT_NE(once.out.find("attached.c:"), std::string::npos) << Describe(once);
	once = Driver(dir, { "top", dir.File("trace.bin"), "--once", "--json" });
	Json top = Json::Parse(once.out), report = ReportWithLines(dir.File("trace.bin"));
	EXPECT_FALSE(top["running"].True());
	EXPECT_EQ(top["processes"][(size_t)0]["live_bytes"].Long(),
		  report["processes"][(size_t)0]["live_at_end_bytes"].Long());
	std::string where = "attached.c:" + std::to_string(LineOf("attached.c", "LINE: lost"));
	EXPECT_EQ(top["sites"][(size_t)0]["where"].Text().substr(0, where.size()), where);
	EXPECT_GT(top["sites"][(size_t)0]["bytes_per_s"].Number(), 0);
	EXPECT_TRUE(Driver(dir, { "top", "/nowhere" }).Exited(1));
	EXPECT_TRUE(Driver(dir, { "top" }).Exited(2));
}

/* Users without any right, in turn: one's own process, and another's. */
TEST(Attach, UnprivilegedUserReachesOwnProcessesOnly)
{
	TempDir dir;

	if (geteuid() != 0)
		GTEST_SKIP() << "only root can become two other users";
	ASSERT_EQ(chmod(dir.path.c_str(), 0777), 0);
	auto become = [](uid_t uid) {
		return [uid] {
			if (setgroups(0, NULL) || setresgid(uid, uid, uid) || setresuid(uid, uid, uid))
				_exit(99);
		};
	};
	Command mine = Dormant(dir, { "1", "0" });
	mine.in_child = become(54321);
	Running program(mine);
	std::string pid = std::to_string(program.pid);

	ASSERT_TRUE(program.WaitForOutput("ready", 60)) << "can uid 54321 run what was built?";
	Command other = Memtrace(dir, { "attach", pid });
	other.in_child = become(54322);
	Result refused = Execute(other);
	EXPECT_TRUE(refused.Exited(1)) << Describe(refused);
	EXPECT_NE(refused.err.find("another user"), std::string::npos) << refused.err;
	other.in_child = become(54321);
	Result taken = Execute(other);
	EXPECT_TRUE(taken.Exited(0)) << Describe(taken);
	other = Memtrace(dir, { "detach", pid });
	other.in_child = become(54321);
	EXPECT_TRUE(Execute(other).Exited(0));
	kill(program.pid, SIGTERM);
	ExpectCounts(program.Wait());
	Report(dir.File("trace.bin"));
}

} // namespace
} // namespace memtrace_test
