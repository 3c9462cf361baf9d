/*
 * Death by SIGKILL: every call that had returned is in the trace, at most one in flight per thread
 * excepted; the trace can be read while it is written and afterwards.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <random>

#include "support/harness.h"
#include "support/trace_truth.h"

namespace memtrace_test {
namespace {

constexpr long kill_size = 100000; /* of tests/programs/kill_counter.c */
constexpr size_t room = 256;

struct Slot {
	long pid, allocations, frees, unused[5];
};

/* The program's counters, which outlive it. */
class Counters {
    public:
	explicit Counters(const std::string &path)
	{
		int fd = open(path.c_str(), O_RDWR);
		void *p = mmap(nullptr, room * sizeof(Slot), PROT_READ, MAP_SHARED, fd, 0);

		slots_ = p == MAP_FAILED ? nullptr : static_cast<const volatile Slot *>(p);
		close(fd);
	}
	~Counters() { munmap(const_cast<Slot *>(slots_), room * sizeof(Slot)); }
	std::vector<Slot> Read() const
	{
		std::vector<Slot> copy;

		for (size_t i = 0; i < room && slots_[i].pid; i++)
			copy.push_back({ slots_[i].pid, slots_[i].allocations, slots_[i].frees, {} });
		return copy;
	}

    private:
	const volatile Slot *slots_;
};

struct Recorded {
	long allocations = 0, frees = 0;
};

std::vector<Recorded> InTrace(const TraceTruth &truth, const std::vector<Slot> &slots)
{
	std::vector<Recorded> list;

	for (size_t i = 0; i < slots.size(); i++) {
		const TracedProcess *p = truth.ByPid((uint32_t)slots[i].pid);
		Recorded r;

		if (p) {
			auto a = p->allocations_by_size.find(kill_size + (uint64_t)i);
			auto f = p->frees_by_size.find(kill_size + (uint64_t)i);

			r.allocations = a == p->allocations_by_size.end() ? 0 : a->second;
			r.frees = f == p->frees_by_size.end() ? 0 : f->second;
		}
		list.push_back(r);
	}
	return list;
}

/* Nothing is missing, and there is at most the call that was under way. */
void ExpectAllThere(const TraceTruth &truth, const std::vector<Slot> &slots)
{
	std::vector<Recorded> recorded = InTrace(truth, slots);

	EXPECT_EQ(truth.error, "");
	EXPECT_EQ(truth.damage_text, "");
	EXPECT_EQ(truth.lost_events, 0u);
	for (size_t i = 0; i < slots.size(); i++) {
		long more = recorded[i].allocations - slots[i].allocations + recorded[i].frees -
			    slots[i].frees;

		EXPECT_GE(recorded[i].allocations, slots[i].allocations) << "thread " << i;
		EXPECT_GE(recorded[i].frees, slots[i].frees) << "thread " << i;
		EXPECT_LE(more, 1) << "thread " << i;
	}
}

class Kill : public testing::Test {
    protected:
	void Start(int processes, int threads, int rest_every = 0)
	{
		Command command = Program(dir, "kill_counter",
					  { dir.File("counters"), std::to_string(processes),
					    std::to_string(threads),
					    std::to_string(rest_every) });

		program.reset(new Running(command));
		ASSERT_TRUE(program->WaitForOutput("ready", 60)) << Describe(program->Wait());
		counters.reset(new Counters(dir.File("counters")));
	}

	TempDir dir;
	std::unique_ptr<Running> program;
	std::unique_ptr<Counters> counters;
	std::mt19937 random{ 12345 };
};

TEST_F(Kill, OfTheWholeGroupLosesNothingThatHadReturned)
{
	static const int shapes[][2] = { { 1, 1 }, { 1, 4 }, { 3, 2 }, { 6, 1 } };
	long rounds = Scaled(100, 8);

	for (long round = 0; round < rounds; round++) {
		const int *shape = shapes[round % 4];
		SCOPED_TRACE("round " + std::to_string(round));

		ASSERT_NO_FATAL_FAILURE(Start(shape[0], shape[1]));
		usleep(random() % 60000);
		kill(-program->pid, SIGKILL);
		program->Wait();
		usleep(20000); /* the others of the group are gone as well */
		std::vector<Slot> slots = counters->Read();

		ASSERT_EQ(slots.size(), (size_t)(shape[0] * shape[1]));
		ExpectAllThere(ReadTruth(dir.File("trace.bin")), slots);
		if (HasFailure())
			return;
		unlink(dir.File("trace.bin").c_str());
	}
}

/* The killed one is complete, the others go on; the report names the signal. */
TEST_F(Kill, OfOneWorkerIsSeenAndTheOthersGoOn)
{
	ASSERT_NO_FATAL_FAILURE(Start(3, 1));
	std::vector<Slot> before = counters->Read();
	pid_t victim = (pid_t)before[2].pid;

	kill(victim, SIGKILL);
	usleep(200000);
	std::vector<Slot> middle = counters->Read(), after;

	usleep(100000);
	kill(-program->pid, SIGKILL);
	program->Wait();
	usleep(20000);
	after = counters->Read();
	EXPECT_EQ(after[2].allocations, middle[2].allocations);
	EXPECT_GT(after[1].allocations, middle[1].allocations);
	ExpectAllThere(ReadTruth(dir.File("trace.bin")), after);
}

/* The writers rest now and then, or the trace would grow faster than it can be read. */
TEST_F(Kill, TraceCanBeReadWhileItIsWritten)
{
	ASSERT_NO_FATAL_FAILURE(Start(2, 2, 20));
	for (int look = 0; look < 4; look++) {
		std::vector<Slot> before = counters->Read();
		TraceTruth truth = ReadTruth(dir.File("trace.bin"));
		std::vector<Slot> after = counters->Read();
		std::vector<Recorded> recorded = InTrace(truth, before);

		EXPECT_EQ(truth.error, "");
		for (size_t i = 0; i < before.size(); i++) {
			/* A block freed between the reads of counters and of the nursery is on its way
			 * from one to the other (FORMAT.md 3.7). */
			EXPECT_GE(recorded[i].allocations,
				  before[i].allocations - (after[i].frees - before[i].frees))
				<< look;
			EXPECT_LE(recorded[i].allocations, after[i].allocations + 1) << look;
		}
		usleep(30000);
	}
	Json json = Report(dir.File("trace.bin"));

	ASSERT_EQ(json["processes"].size(), 2u);
	EXPECT_EQ(json["processes"][(size_t)0]["end"]["kind"].Text(), "running");
	EXPECT_EQ(json["processes"][(size_t)1]["end"]["kind"].Text(), "running");
}

TEST_F(Kill, ReportOfAKilledGroupEqualsTheRecords)
{
	ASSERT_NO_FATAL_FAILURE(Start(2, 2));
	kill(-program->pid, SIGKILL);
	program->Wait();
	usleep(20000);
	TraceTruth truth = ReadTruth(dir.File("trace.bin"));
	Json json = Report(dir.File("trace.bin"));
	long allocations = 0;

	for (const TracedProcess &p : truth.processes)
		allocations += p.whole.allocations;
	EXPECT_EQ(json["trace"]["allocations"].Long(), allocations);
	for (size_t i = 0; i < json["processes"].size(); i++)
		EXPECT_NE(json["processes"][i]["end"]["kind"].Text(), "exit");
}

/* Death by a signal is the program's own: the parent that waits sees it, the report names it. */
TEST_F(Kill, SignalThatEndedAChildIsReported)
{
	Command command;

	command.argv = { "/bin/sh", "-c", "sh -c 'kill -SEGV $$' 2>/dev/null; sh -c 'kill -KILL $$'; "
					  "kill -TERM $$" };
	command.dir = dir.path;
	Result result = Execute(command);
	Json json = Report(dir.File("trace.bin"));
	std::map<long, int> signals;

	EXPECT_EQ(result.Signal(), SIGTERM) << Describe(result);
	for (size_t i = 0; i < json["processes"].size(); i++)
		if (json["processes"][i]["end"]["kind"].Text() == "signal")
			signals[json["processes"][i]["end"]["code"].Long()]++;
	EXPECT_EQ(signals[SIGSEGV], 1) << json["processes"].Print();
	EXPECT_EQ(signals[SIGKILL], 1) << json["processes"].Print();
	bool is_said = false;

	for (size_t i = 0; i < json["findings"].size(); i++)
		is_said |= json["findings"][i]["kind"].Text() == "killed";
	EXPECT_TRUE(is_said) << json["findings"].Print();
}

} // namespace
} // namespace memtrace_test
