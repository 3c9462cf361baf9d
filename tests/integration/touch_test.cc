/*
 * MEMTRACE_COW_TOUCH: which line touched what a forked process copied, beside whose it was. The truth
 * is what the program did, page by page, or the kernel's count of private memory around each step.
 * And that a program finds SIGTRAP and its descriptors as they are without us.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/perf_event.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <csignal>
#include <cstddef>
#include <cstring>

#include "support/harness.h"
#include "support/queries.h"

namespace memtrace_test
{
namespace
{

constexpr long kMiB = 1 << 20;

/* Does the machine let us, asked without the shim? */
bool IsAllowed()
{
	struct perf_event_attr attr;
	struct utsname name;
	int fd, major = 0, minor = 0;

	uname(&name);
	sscanf(name.release, "%d.%d", &major, &minor);
	memset(&attr, 0, sizeof(attr));
	attr.size = sizeof(attr);
	attr.type = PERF_TYPE_SOFTWARE;
	attr.config = PERF_COUNT_SW_PAGE_FAULTS_MIN;
	attr.exclude_kernel = 1;
	attr.exclude_hv = 1;
	fd = (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
	if (fd >= 0)
		close(fd);
	return fd >= 0 && (major > 6 || (major == 6 && minor >= 1));
}

struct Touch : testing::Test {
	void SetUp() override
	{
		if (!IsAllowed())
			GTEST_SKIP() << "page-fault events are not allowed here";
	}

	Result Run(const std::string &how, long mib = 8, bool wanted = true)
	{
		Command command = Program(dir, "touch", { how, std::to_string(mib) });

		if (wanted)
			command.env["MEMTRACE_COW_TOUCH"] = "1";
		return Execute(command);
	}

	TempDir dir;
};

/* The row of a touched_by that has this place and function; null: there is none. */
Json RowOf(const Json &touched, const std::string &place, const std::string &function)
{
	for (size_t i = 0; i < touched.size(); i++)
		if (touched[i]["place"].Text() == place &&
		    touched[i]["function"].Text() == function)
			return touched[i];
	return Json();
}

std::string LineIn(const std::string &file, const std::string &mark)
{
	return PlaceOf("tests/programs/" + file, mark);
}

TEST_F(Touch, TheNativeLineThatWroteIsNamed)
{
	Result result = Run("write", 16);
	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	Json cow = ReportWithSymbols(dir.File("trace.bin"))["cow"];
	Json first = RowOf(cow["touched_by"], LineIn("touch.c", "/* first */"), "write_first");
	Json second = RowOf(cow["touched_by"], LineIn("touch.c", "/* second */"), "write_second");

	/* Each page was written once, and by one of the two. */
	EXPECT_EQ(first["bytes"].Long(), 4 * kMiB) << cow["touched_by"].Print();
	EXPECT_EQ(second["bytes"].Long(), 12 * kMiB);
	EXPECT_NEAR(second["share"].Number(), 0.75, 0.05)
		<< "its own stack and C library are in it";
	EXPECT_EQ(second["procs"].size(), 1u);
	EXPECT_EQ(second["stack"][(size_t)0]["function"].Text(), "write_second");
	EXPECT_TRUE(cow["touch_wanted"].True());
	EXPECT_TRUE(cow["touch_not_measured"].IsNull());
	EXPECT_EQ(cow["workers"][(size_t)0]["touched_by"][(size_t)0]["function"].Text(),
		  "write_second");
}

TEST_F(Touch, AlsoInThreads)
{
	Result result = Run("threads", 16);
	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	Json cow = ReportWithSymbols(dir.File("trace.bin"))["cow"];

	EXPECT_EQ(RowOf(cow["touched_by"], LineIn("touch.c", "/* thread */"),
			"write_in_thread")["bytes"]
			  .Long(),
		  16 * kMiB)
		<< cow["touched_by"].Print();
}

/* More faults than are all looked at: one in so many is, and counts for so many. */
TEST_F(Touch, ManyFaultsAreThinnedOutAndStillAddUp)
{
	Result result = Run("write", 256);
	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	Json cow = ReportWithSymbols(dir.File("trace.bin"))["cow"];
	Json first = RowOf(cow["touched_by"], LineIn("touch.c", "/* first */"), "write_first");
	Json second = RowOf(cow["touched_by"], LineIn("touch.c", "/* second */"), "write_second");
	Command decode;

	decode.argv = { "python3", SourcePath("scripts/decode.py"), dir.File("trace.bin") };
	decode.traced = false;
	decode.timeout_s = 300;
	std::string records = Execute(decode).out;
	size_t touches = 0;
	for (size_t at = 0; (at = records.find("\"TOUCH\"", at)) != std::string::npos; at++)
		touches++;
	EXPECT_GT(touches, 20000u);
	EXPECT_LT(touches, 40000u) << "of 65,536 faults";
	EXPECT_NEAR(first["bytes"].Number(), 64.0 * kMiB, 0.15 * 64 * kMiB);
	EXPECT_NEAR(second["bytes"].Number(), 192.0 * kMiB, 0.15 * 192 * kMiB);
}

TEST_F(Touch, ChildrenOfChildrenAreToldOfAndAnExecIsUnharmed)
{
	Result result = Run("exec");
	ASSERT_NE(result.out.find("status signal=0 code=0"), std::string::npos) << Describe(result);
	Json workers = ReportWithSymbols(dir.File("trace.bin"))["cow"]["workers"];
	size_t known = 0;

	for (size_t i = 0; i < workers.size(); i++)
		known += RowOf(workers[i]["touched_by"], LineIn("touch.c", "/* second */"),
			       "write_second")["bytes"]
				 .Long() == 6 * kMiB;
	EXPECT_EQ(known, 2u) << workers.Print();
}

/* What the child says of itself without us, but for its pid. */
TEST_F(Touch, NobodyHasAHandlerOrADescriptorWhoDidNotAsk)
{
	Result result = Run("write", 1, false);
	auto facts = Facts(result.out, "touch");

	ASSERT_EQ(facts.size(), 1u) << Describe(result);
	EXPECT_EQ(facts[0]["handler"], 0);
	EXPECT_EQ(facts[0]["perf"], 0);
	Json cow = Report(dir.File("trace.bin"))["cow"];
	EXPECT_TRUE(cow["touched_by"].IsNull());
	EXPECT_FALSE(cow["touch_wanted"].True());
	/* And so that this can fail: */
	facts = Facts(Run("write", 1).out, "touch");
	ASSERT_EQ(facts.size(), 1u);
	EXPECT_EQ(facts[0]["handler"], 1);
	EXPECT_EQ(facts[0]["perf"], 1);
}

TEST_F(Touch, AProgramsOwnHandlerIsLeftAlone)
{
	Result result = Run("own");
	Json cow;

	EXPECT_NE(result.out.find("perf=0"), std::string::npos) << result.out;
	EXPECT_NE(result.out.find("end caught=1 "), std::string::npos) << Describe(result);
	EXPECT_NE(result.out.find("status signal=0 code=0"), std::string::npos);
	cow = Report(dir.File("trace.bin"))["cow"];
	EXPECT_TRUE(cow["touched_by"].IsNull());
	EXPECT_EQ(cow["touch_not_measured"].Text(), "the program uses SIGTRAP itself");
}

TEST_F(Touch, WhoeverWantsTheSignalLaterGetsItAsItWas)
{
	for (const char *how : { "later", "ignored", "default" }) {
		SCOPED_TRACE(how);
		Result result = Run(how);

		EXPECT_NE(result.out.find(std::string("end caught=") +
					  (strcmp(how, "later") ? "0" : "1") + " default=1"),
			  std::string::npos)
			<< Describe(result);
		EXPECT_NE(result.out.find("status signal=0 code=0"), std::string::npos);
		Json touched = ReportWithSymbols(dir.File("trace.bin"))["cow"]["touched_by"];
		EXPECT_EQ(RowOf(touched, LineIn("touch.c", "/* first */"), "write_first")["bytes"]
				  .Long(),
			  2 * kMiB)
			<< "what was before is known";
		EXPECT_TRUE(
			RowOf(touched, LineIn("touch.c", "/* second */"), "write_second").IsNull());
	}
}

TEST_F(Touch, ABlockedSignalAndClosedDescriptorsDoNoHarm)
{
	for (const char *how : { "blocked", "closed" }) {
		SCOPED_TRACE(how);
		Result result = Run(how);

		EXPECT_NE(result.out.find("end caught=0 default=-1"), std::string::npos)
			<< Describe(result);
		EXPECT_NE(result.out.find("status signal=0 code=0"), std::string::npos);
	}
}

TEST_F(Touch, ASignalThatSomebodySendsStillEndsIt)
{
	Result result = Run("raised");

	EXPECT_NE(result.out.find("status signal=" + std::to_string(SIGTRAP)), std::string::npos)
		<< Describe(result);
}

/* perf_event_open is refused, as container runtimes do it. */
void RefuseEvents()
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_perf_event_open, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(filter) / sizeof(filter[0]), filter };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		_exit(99);
}

TEST(TouchRefused, IsSaidAndChangesNothing)
{
	TempDir dir;
	Command command = Program(dir, "touch", { "write", "8" });

	command.env["MEMTRACE_COW_TOUCH"] = "1";
	command.in_child = RefuseEvents;
	Result result = Execute(command);
	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	EXPECT_NE(result.out.find("handler=0 perf=0"), std::string::npos) << result.out;
	EXPECT_NE(result.out.find("end caught=0 default=-1"), std::string::npos);
	Json report = Report(dir.File("trace.bin"));
	EXPECT_TRUE(report["cow"]["touched_by"].IsNull());
	EXPECT_NE(report["cow"]["touch_not_measured"].Text().find(IsAllowed() ? "perf_event_open: "
									      : ""),
		  std::string::npos)
		<< report["cow"]["touch_not_measured"].Text();
	EXPECT_NE(report["trace"]["notes"].Print().find("was not measured"), std::string::npos)
		<< report["trace"]["notes"].Print();
	EXPECT_GT(report["cow"]["workers"][(size_t)0]["copied_bytes"].Long(), 8 * kMiB - 1);
}

/* ---- Python -------------------------------------------------------------------------------------- */

/* The site that this line built: who touched what was copied of it. */
Json TouchersOf(const Json &report, const std::string &place)
{
	Json sites = report["sites"], copied = report["cow"]["sites"], best;

	for (size_t i = 0; i < copied.size(); i++)
		for (size_t k = 0; k < sites.size(); k++)
			if (sites[k]["id"].Long() == copied[i]["site"].Long() &&
			    sites[k]["place"].Text() == place &&
			    (best.IsNull() ||
			     copied[i]["copied_bytes"].Number() > best["copied_bytes"].Number()))
				best = copied[i];
	return best["touched_by"];
}

TEST_F(Touch, APythonOwnerIsNamedWithItsToucher)
{
	std::string python = SourcePath("build/venv/bin/python");
	Command command;

	if (!Exists(python))
		GTEST_SKIP() << "no build/venv: scripts/install-deps brings it";
	command.argv = { python, SourcePath("tests/programs/py_touch.py"),
			 std::to_string(Scaled(600000, 120000)) };
	command.dir = dir.path;
	command.env["MEMTRACE_COW_TOUCH"] = "1";
	command.env["MEMTRACE_PYTHON"] = "objects";
	command.env["MEMTRACE_QUIET"] = "1";
	Result result = Execute(command);
	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	auto facts = Facts(result.out, "worker");
	ASSERT_EQ(facts.size(), 2u) << result.out;
	Json report = Report(dir.File("trace.bin"));
	Json touched = report["cow"]["touched_by"];
	struct {
		const char *name, *function, *mark;
		long truth;
	} steps[] = { { "left", "read_left", "# read left", facts[0]["left"] },
		      { "right", "read_right", "# read right", facts[0]["right"] },
		      { "collect", "collect", "# collect", facts[1]["collect"] } };

	for (const auto &step : steps) {
		double said = RowOf(touched, LineIn("py_touch.py", step.mark),
				    step.function)["bytes"]
				      .Number();

		EXPECT_GT(said, 0.85 * (double)step.truth) << step.name << touched.Print();
		EXPECT_LT(said, 1.15 * (double)step.truth) << step.name;
	}
	/* In one of two workers the list was read, in the other a collection went over it. */
	for (const char *side : { "left", "right" }) {
		Json by = TouchersOf(report, LineIn("py_touch.py", std::string("# build ") + side));
		ASSERT_GT(by.size(), 1u) << side;
		EXPECT_FALSE(RowOf(by, LineIn("py_touch.py", std::string("# read ") + side),
				   std::string("read_") + side)
				     .IsNull());
		EXPECT_FALSE(RowOf(by, LineIn("py_touch.py", "# collect"), "collect").IsNull());
		EXPECT_GT(by[(size_t)0]["share"].Number() + by[(size_t)1]["share"].Number(), 0.85);
	}
	/* Both workers copied all of the left list, one by reading and one by collecting. */
	Json finding;
	for (const Json &f : FindingsOf(report, "cow-blowup"))
		if (f["title"].Text().find(LineIn("py_touch.py", "# build left")) !=
		    std::string::npos)
			finding = f;
	std::string said = finding["evidence"]["touched_by"].Print();
	EXPECT_NE(said.find(LineIn("py_touch.py", "# read left") + " in read_left"),
		  std::string::npos)
		<< report["findings"].Print();
	EXPECT_NE(said.find(LineIn("py_touch.py", "# collect") + " in collect"), std::string::npos);
	EXPECT_EQ(said.find("read_right"), std::string::npos) << said;
	EXPECT_NEAR(finding["evidence"]["touched_share"].Number(), 0.5, 0.08);
	EXPECT_NE(finding["detail"].Text().find(" Touched by "), std::string::npos);
}

/* The finding names this line first, and with nearly all pages. */
void ExpectSays(const Json &finding, const std::string &by)
{
	EXPECT_NE(finding["detail"].Text().find("Touched by " + by + " ("), std::string::npos)
		<< finding["detail"].Text() << " should name " << by;
	EXPECT_NE(finding["evidence"]["touched_by"].Print().find(by), std::string::npos);
	EXPECT_GT(finding["evidence"]["touched_share"].Number(), 0.85);
}

/* With workers of torch, whose arenas are all that is known of what they copy. */
TEST_F(Touch, ALoadersWorkerIsToldByTheLineOfItsDataset)
{
	std::string python = SourcePath("build/venv/bin/python");
	Command command;
	bool found = false;

	if (!IsLong() || !HasTorch())
		GTEST_SKIP() << "takes half a minute: make check-long runs it, with build/venv";
	command.argv = { python, SourcePath("tests/programs/py_cow.py"), dir.File("truth"), "0.6",
			 "dicts" };
	command.dir = dir.path;
	command.env["MEMTRACE_COW_TOUCH"] = "1";
	command.env["MEMTRACE_QUIET"] = "1";
	command.timeout_s = 300;
	Result result = Execute(command);
	ASSERT_TRUE(result.Exited(0)) << Describe(result);
	std::string by = LineIn("py_cow.py", "data[i]  #") + " in read";
	for (const Json &f : FindingsOf(Report(dir.File("trace.bin")), "cow-blowup"))
		if (f["title"].Text().find(LineIn("py_cow.py", "# dicts")) != std::string::npos) {
			found = true;
			ExpectSays(f, by);
		}
	EXPECT_TRUE(found);
}

} // namespace
} // namespace memtrace_test
