/*
 * The program's descriptors are its own: their numbers are as without us, ours sit high and
 * close-on-exec, and survive a program that closes every descriptor.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/harness.h"
#include "support/trace_truth.h"

namespace memtrace_test {
namespace {

TEST(Descriptors, NumbersAreAsWithoutTheShim)
{
	TempDir dir;
	Command command = Program(dir, "descriptors");
	Result traced = Execute(command);

	command.traced = false;
	Result plain = Execute(command);

	ASSERT_TRUE(plain.Exited(31)) << Describe(plain);
	EXPECT_EQ(traced.status, plain.status) << Describe(traced);
	EXPECT_EQ(traced.out, plain.out);
}

/* Closed 0, 1 and 2, in all combinations: the program's own files get these numbers. */
TEST(Descriptors, ClosedStandardOnesStayTheProgramsToUse)
{
	for (int closed = 1; closed < 8; closed++) {
		TempDir dir;
		std::string results[2];
		int statuses[2];

		for (int traced = 0; traced < 2; traced++) {
			std::string file = dir.File(traced ? "traced" : "plain");
			Command command = Program(dir, "descriptors", { file });

			command.traced = traced;
			command.in_child = [closed] {
				for (int fd = 0; fd < 3; fd++)
					if (closed & 1 << fd)
						close(fd);
			};
			statuses[traced] = Execute(command).status;
			results[traced] = ReadAll(file);
		}
		EXPECT_NE(results[0], "");
		EXPECT_EQ(results[1], results[0]) << "closed: " << closed;
		EXPECT_EQ(statuses[1], statuses[0]) << "closed: " << closed;
		EXPECT_EQ(ReadTruth(dir.File("trace.bin")).error, "") << "closed: " << closed;
	}
}

void ExpectDaemon(const std::string &how)
{
	TempDir dir;
	Result result = Execute(Program(dir, "daemon", { how, dir.File("result") }));

	ASSERT_TRUE(result.Exited(20)) << Describe(result);
	ExpectTruth(dir.File("trace.bin"), ReadAll(dir.File("result")), 2);
}

TEST(Descriptors, DaemonThatClosesThemOneByOneIsRecordedOn)
{
	ExpectDaemon("loop");
}

TEST(Descriptors, DaemonThatClosesThemByRangeIsRecordedOn)
{
	ExpectDaemon("range");
}

TEST(Descriptors, DaemonThatClosesFromZeroIsRecordedOn)
{
	ExpectDaemon("from");
}

} // namespace
} // namespace memtrace_test
