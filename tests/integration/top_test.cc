/*
 * memtrace top on a terminal: what it shows, its keys, and that the terminal is left as it was.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include "support/harness.h"
#include "support/terminal.h"

namespace memtrace_test
{
namespace
{

Command Top(const TempDir &dir, const std::vector<std::string> &arguments)
{
	Command c;

	c.argv = { BuildPath("memtrace"), "top" };
	c.argv.insert(c.argv.end(), arguments.begin(), arguments.end());
	c.dir = dir.path;
	c.traced = false;
	c.env["TERM"] = "xterm";
	return c;
}

Json Document(const TempDir &dir, const std::string &what)
{
	Result result = Execute(Top(dir, { what, "--once", "--json" }));

	EXPECT_TRUE(result.Exited(0)) << Describe(result);
	return Json::Parse(result.out);
}

/* Draws all of it anew: else only what has changed is sent. */
const std::string kRedraw = "\x0c";

TEST(Top, KeysOnATerminal)
{
	TempDir dir;
	Command command = Program(dir, "attached", { "20", "0" });

	command.env["MEMTRACE_INTERVAL"] = "0.1";
	Running program(command);
	ASSERT_TRUE(program.WaitForOutput("ready", 60));
	Terminal t(Top(dir, { std::to_string(program.pid) }), 120, 40);

	ASSERT_TRUE(t.Shows("fastest growing sites")) << t.shown;
	ASSERT_TRUE(t.Shows("being recorded")) << t.shown;
	EXPECT_TRUE(t.Shows("attached.c:")) << t.shown;
	for (const char *order : { "private_bytes", "swap_bytes", "live_bytes", "pss_bytes" }) {
		t.shown.clear();
		t.Type("s" + kRedraw);
		EXPECT_TRUE(t.Shows("sort processes (" + std::string(order) + ")")) << t.shown;
	}
	t.shown.clear();
	t.Type("g" + kRedraw);
	EXPECT_TRUE(t.Shows("largest sites")) << t.shown;
	t.shown.clear();
	t.Type("p" + kRedraw);
	EXPECT_TRUE(t.Shows("p one process (" + std::to_string(program.pid) + ")")) << t.shown;
	t.shown.clear();
	t.Type("\x1b[A" + kRedraw); /* an arrow is no escape */
	EXPECT_TRUE(t.Shows("q quit")) << t.shown;
	t.Resize(50, 12);
	for (int i = 0;
	     i < 50 && (t.shown.empty() || t.shown.find("one process") != std::string::npos); i++) {
		t.shown.clear();
		t.Type(kRedraw);
		ASSERT_TRUE(t.Shows("q quit")) << t.shown;
	}
	EXPECT_EQ(t.shown.find("one process"), std::string::npos) << "wider than 50: " << t.shown;
	t.Type("q");
	EXPECT_EQ(t.Ends(), 0);
	EXPECT_NE(t.shown.find("\x1b[?1049l"), std::string::npos)
		<< "the screen is the shell's again";
	EXPECT_TRUE(t.Modes().c_lflag & ECHO && t.Modes().c_lflag & ICANON);
}

TEST(Top, AFinishedTraceAndASignal)
{
	TempDir dir;

	ASSERT_TRUE(Execute(Program(dir, "attached", { "1", "1" })).Exited(37));
	Terminal t(Top(dir, { dir.File("trace.bin") }));

	ASSERT_TRUE(t.Shows("finished")) << t.shown;
	EXPECT_FALSE(t.Modes().c_lflag & ECHO);
	kill(t.pid, SIGTERM);
	EXPECT_EQ(t.Ends(), 0);
	EXPECT_NE(t.shown.find("\x1b[?1049l"), std::string::npos);
	EXPECT_TRUE(t.Modes().c_lflag & ECHO && t.Modes().c_lflag & ICANON);
}

TEST(Top, NotOnATerminalOneLookInPlainText)
{
	TempDir dir;

	ASSERT_TRUE(Execute(Program(dir, "attached", { "1", "1" })).Exited(37));
	Result result = Execute(Top(dir, { dir.File("trace.bin") }));
	EXPECT_TRUE(result.Exited(0)) << Describe(result);
	EXPECT_EQ(result.out.find('\x1b'), std::string::npos);
	EXPECT_NE(result.out.find("attached.c:"), std::string::npos) << result.out;
}

/* What workers copied is what the report says; nobody else copied. */
void ExpectCopiesOfReport(const TempDir &dir)
{
	Json report = Report(dir.File("trace.bin")), top = Document(dir, dir.File("trace.bin"));
	Json workers = report["cow"]["workers"];

	ASSERT_GT(workers.size(), 0u);
	for (size_t i = 0; i < workers.size(); i++)
		for (size_t k = 0; k < top["processes"].size(); k++) {
			Json p = top["processes"][k];
			double copied = workers[i]["copied_bytes"].Number();

			if (p["pid"].Long() == workers[i]["pid"].Long()) {
				EXPECT_NEAR(p["cow_bytes"].Number(), copied, 0.05 * copied + 65536);
			}
		}
	EXPECT_TRUE(top["processes"][(size_t)0]["cow_bytes"].IsNull()) << "it was not forked";
}

TEST(Top, CopiesOfWorkersAreThoseOfTheReport)
{
	TempDir dir;
	Result run = Execute(Program(dir, "cow_family", { "3", "16" }));

	ASSERT_TRUE(run.Exited(0)) << Describe(run);
	ExpectCopiesOfReport(dir);
}

/* Its walks leave pages out, and the last ones only say that nothing can have changed. */
TEST(Top, CopiesOfAWorkerThatStandsStillAreThoseOfTheReport)
{
	TempDir dir;
	Command command = Program(dir, "cow_steps", { "64", "few", "1" });

	command.env["MEMTRACE_COW_INTERVAL"] = "0.05";
	Result run = Execute(command);
	ASSERT_TRUE(run.Exited(0)) << Describe(run);
	EXPECT_GT(Report(dir.File("trace.bin"))["cow"]["workers"][(size_t)0]["copied_bytes"].Long(),
		  16 << 20);
	ExpectCopiesOfReport(dir);
}

/* Device memory as the fake driver counts it. */
TEST(Top, DeviceMemoryIsTheDriversCount)
{
	TempDir dir;
	Command c = Program(dir, "gpu_direct", { "plain", "async", "managed", "vmm" });

	c.env["LD_LIBRARY_PATH"] = BuildPath("programs/cuda");
	Result run = Execute(c);
	ASSERT_TRUE(run.Exited(0)) << Describe(run);
	EXPECT_TRUE(Document(dir, dir.File("trace.bin"))["processes"][(size_t)0]["device_bytes"]
			    .IsNull())
		<< "it has ended";

	c = Program(dir, "gpu_cache", { "leak", "400" });
	c.env["LD_LIBRARY_PATH"] = BuildPath("programs/cuda");
	Running leaks(c);
	Json now;
	for (int i = 0; i < 400; i++, usleep(20000)) {
		if (!Exists(dir.File("trace.bin")))
			continue;
		now = Document(dir, dir.File("trace.bin"))["processes"][(size_t)0];
		if (now["device_bytes"].Long() >= 40 << 20)
			break;
	}
	EXPECT_GE(now["device_bytes"].Long(), 40 << 20);
	EXPECT_EQ(now["device_bytes"].Long() % (4 << 20), 0) << "segments of 4 MiB";
	leaks.Wait();
}

} // namespace
} // namespace memtrace_test
