/*
 * The commands as a user starts them: exit status, what stands on standard output, what is said on
 * standard error.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "cmd/cmd.h"
#include "support/replayed.h"
#include "support/trace_writer.h"

namespace {

using memtrace_test::Root;
using memtrace_test::TraceWriter;

struct Ended {
	int status; /* exit status, or -1 */
	std::string out, err;
};

class Commands : public testing::Test {
    protected:
	void SetUp() override
	{
		char name[] = "/tmp/memtrace-commands-XXXXXX";
		TraceWriter w;

		folder = mkdtemp(name);
		auto &main = w.process(Root());

		main.fact("host", "somewhere").fact("cmdline", std::string("prog\0x", 6));
		main.put(mt_ev_string{ 1, memtrace_test::str("quote \" and \\") });
		for (uint64_t i = 0; i < 10; i++)
			main.alloc(100 + i, 0x1000 + 0x100 * i, 100);
		for (uint64_t i = 0; i < 4; i++)
			main.free(200 + i, 0x1000 + 0x100 * i);
		main.put(mt_ev_exit{ 300, MT_EXIT_EXIT, 0 });
		trace = w.save(folder + "/trace.bin");
	}
	void TearDown() override
	{
		for (const char *f : { "/trace.bin", "/out", "/err", "/report" })
			unlink((folder + f).c_str());
		rmdir(folder.c_str());
	}
	static std::string Read(const std::string &path)
	{
		std::ifstream f(path);
		std::stringstream s;

		s << f.rdbuf();
		return s.str();
	}
	/* to: where standard output goes; "": nothing can be written to it */
	Ended Start(std::vector<std::string> words, const std::string &to = "out")
	{
		std::string out = to == "out" ? folder + "/out" : to, err = folder + "/err";
		std::vector<char *> argv = { const_cast<char *>("memtrace-report") };
		int status;
		pid_t pid;

		for (auto &w : words)
			argv.push_back(w.data());
		fflush(nullptr); /* or the child would print what is in our buffers, too */
		pid = fork();
		if (!pid) {
			dup2(open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), STDERR_FILENO);
			dup2(open(out.empty() ? "/dev/null" : out.c_str(),
				  out.empty() ? O_RDONLY : O_WRONLY | O_CREAT | O_TRUNC, 0600),
			     STDOUT_FILENO);
			_exit(cmd_main(static_cast<int>(argv.size()), argv.data()));
		}
		waitpid(pid, &status, 0);
		return { WIFEXITED(status) ? WEXITSTATUS(status) : -1,
			 to == "out" ? Read(out) : "", Read(err) };
	}

	std::string folder, trace;
};

TEST_F(Commands, SummaryIsTheDefault)
{
	Ended plain = Start({ trace }), named = Start({ "summary", trace });

	EXPECT_EQ(plain.status, 0);
	EXPECT_EQ(plain.err, "");
	EXPECT_NE(plain.out.find("prog x"), std::string::npos) << plain.out;
	EXPECT_EQ(plain.out, named.out);
}

TEST_F(Commands, JsonGoesToTheFileThatIsNamed)
{
	Ended to_out = Start({ "--json", trace });
	Ended to_file = Start({ "--json=" + folder + "/report", trace });
	std::string file = Read(folder + "/report");

	EXPECT_EQ(to_out.status, 0);
	EXPECT_EQ(to_file.status, 0);
	EXPECT_EQ(to_file.out, "");
	EXPECT_NE(file.find("memtrace-report/1"), std::string::npos);
	EXPECT_EQ(to_out.out, file);
}

TEST_F(Commands, CheckTellsWholeFromDamaged)
{
	std::string bytes = Read(trace);

	EXPECT_NE(Start({ "check", "--json", trace }).out.find("\"whole\":true"),
		  std::string::npos);
	bytes.resize(bytes.size() - 100);
	std::ofstream(trace, std::ios::binary) << bytes;
	EXPECT_NE(Start({ "check", "--json", trace }).out.find("\"whole\":false"),
		  std::string::npos);
}

TEST_F(Commands, DumpHasOneLinePerRecord)
{
	std::string text = Start({ "dump", trace }).out, json = Start({ "dump", "--json", trace }).out;
	size_t lines = 0, frees = 0;

	for (size_t at = 0; (at = text.find('\n', at)) != std::string::npos; at++)
		lines++;
	for (size_t at = 0; (at = json.find("\"record\": \"free\"", at)) != std::string::npos; at++)
		frees++;
	EXPECT_EQ(lines, 1 + 2 + 1 + 10 + 4 + 1u) << text;
	EXPECT_EQ(frees, 4u);
	/* A zero byte, a quote and a backslash stay what they are and stay on one line. */
	EXPECT_NE(json.find("prog\\u0000x"), std::string::npos) << json;
	EXPECT_NE(json.find("quote \\\" and \\\\"), std::string::npos) << json;
	EXPECT_EQ(Start({ "dump", "--pid", "7", trace }).out, "");
}

TEST_F(Commands, HelpAndVersionNeedNoTrace)
{
	Ended help = Start({ "--help" });

	EXPECT_EQ(help.status, 0);
	for (const char *word : { "summary", "dump", "--json", "exit status" })
		EXPECT_NE(help.out.find(word), std::string::npos) << word;
	for (const char *word : { "diff", "--html" })
		EXPECT_EQ(help.out.find(word), std::string::npos) << word;
	EXPECT_EQ(Start({ "--version" }).out.rfind("memtrace-report ", 0), 0u);
}

TEST_F(Commands, WrongUsageIsStatusTwoAndOneLine)
{
	const struct {
		std::vector<std::string> words;
		const char *line;
	} cases[] = {
		{ {}, "memtrace-report: no trace given; try: memtrace-report trace.bin (or --help)\n" },
		{ { "diff", trace, trace }, "memtrace-report: diff is not built yet\n" },
		{ { "sumary", trace },
		  "memtrace-report: there is no command or trace 'sumary'; did you mean "
		  "'summary'?\n" },
		{ { "--html", trace }, "memtrace-report: --html is not built yet\n" },
	};

	for (const auto &c : cases) {
		Ended r = Start(c.words);

		EXPECT_EQ(r.status, STATUS_USAGE) << c.line;
		EXPECT_EQ(r.out, "");
		EXPECT_EQ(r.err, c.line);
	}
	EXPECT_EQ(Start({ "--from", "@nowhere", trace }).status, STATUS_USAGE);
}

TEST_F(Commands, UnreadableTraceIsStatusThreeAndTheOthersAreRead)
{
	Ended none = Start({ folder + "/missing.bin" });
	Ended one = Start({ folder + "/missing.bin", trace });

	EXPECT_EQ(none.status, STATUS_UNREADABLE);
	EXPECT_EQ(none.out, "");
	EXPECT_NE(none.err.find("missing.bin"), std::string::npos);
	EXPECT_EQ(one.status, STATUS_UNREADABLE);
	EXPECT_NE(one.out.find("prog x"), std::string::npos);
	EXPECT_EQ(Start({ "/dev/null" }).status, STATUS_UNREADABLE);
}

TEST_F(Commands, FailOnIsStatusOneOnlyForWhatIsThere)
{
	TraceWriter w;
	auto &main = w.process(Root());
	auto &child = w.fork(main, 100, 200);

	child.alloc(110, 0x1000, 10);
	main.put(mt_ev_wait{ 150, 200, SIGKILL, 0 });
	main.put(mt_ev_exit{ 300, MT_EXIT_EXIT, 0 });
	w.save(trace);
	EXPECT_EQ(Start({ "--fail-on", "killed", trace }).status, STATUS_FOUND);
	EXPECT_EQ(Start({ "--fail-on", "shm-leak,killed", trace }).status, STATUS_FOUND);
	EXPECT_EQ(Start({ "--fail-on", "shm-leak", trace }).status, STATUS_DONE);
	EXPECT_EQ(Start({ "processes", "--fail-on", "killed", trace }).status, STATUS_FOUND);
}

TEST_F(Commands, FailedWriteIsSaidAndIsAFailure)
{
	for (const char *const command : { "summary", "dump", "--help" }) {
		Ended full = Start({ command, trace }, "/dev/full"), closed = Start({ command, trace }, "");

		EXPECT_EQ(full.status, STATUS_USAGE) << command;
		EXPECT_EQ(full.err, "memtrace-report: cannot write to standard output: No space left "
				    "on device\n");
		EXPECT_EQ(closed.status, STATUS_USAGE) << command;
		EXPECT_NE(closed.err, "");
	}
	EXPECT_EQ(Start({ "-o", folder + "/none/x", trace }).status, STATUS_USAGE);
}

TEST_F(Commands, TraceIsNeverOverwrittenByItsReport)
{
	std::string before = Read(trace);

	EXPECT_EQ(Start({ "-o", trace, trace }).status, STATUS_USAGE);
	EXPECT_EQ(Start({ "dump", "-o", trace, trace }).status, STATUS_USAGE);
	EXPECT_EQ(Read(trace), before);
}

} // namespace
