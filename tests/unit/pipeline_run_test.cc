/*
 * Files and folders in, a model and a report of what was wrong out; and the records as they stand.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "pipeline/run.h"
#include "support/damage.h"

using memtrace_test::FamilyTrace;
using memtrace_test::str;
using memtrace_test::Stream;
using memtrace_test::TraceWriter;

namespace
{

class Pipeline : public testing::Test
{
      protected:
	Pipeline()
	{
		char name[] = "/tmp/memtrace-pipeline-XXXXXX";

		dir = mkdtemp(name);
	}
	~Pipeline() override
	{
		reset();
		EXPECT_EQ(system(("rm -rf " + dir).c_str()), 0);
	}
	void reset()
	{
		model_free(m);
		m = nullptr;
		pipeline_report_release(&report);
	}
	void run(const std::vector<std::string> &paths, const pipeline_options &opt = {})
	{
		std::vector<const char *> p;

		for (const auto &path : paths)
			p.push_back(path.c_str());
		reset();
		m = pipeline_run(p.data(), p.size(), &opt, &report);
	}
	/* A small trace of its own identity; returns its path. */
	std::string trace(const std::string &name, uint8_t id, uint64_t size)
	{
		TraceWriter w;
		mt_ev_process ev = {};

		w.header.trace_id[0] = id;
		w.header.start_realtime_ns = 1000u * id;
		ev.pid = 100u + id;
		w.process(ev).fact("host", "host" + std::to_string(id)).alloc(10, 0x1000, size, 1);
		return w.save(dir + "/" + name);
	}

	std::string dir;
	model *m = nullptr;
	pipeline_report report = {};
};

TEST_F(Pipeline, SeveralTracesAreOneModelWithSeveralTrees)
{
	run({ trace("a.bin", 1, 10), trace("b.bin", 2, 20) });
	ASSERT_NE(m, nullptr);
	ASSERT_EQ(m->trace_count, 2u);
	ASSERT_EQ(m->process_count, 2u);
	EXPECT_EQ(m->processes[0].trace, 0u);
	EXPECT_EQ(m->processes[1].trace, 1u);
	EXPECT_STREQ(m->traces[1].host, "host2");
	EXPECT_EQ(report.check_count, 2u);
	EXPECT_EQ(report.error_count, 0u);
}

TEST_F(Pipeline, AFolderIsAllTracesInIt)
{
	trace("2.bin", 2, 20);
	trace("1.bin", 1, 10);
	std::ofstream(dir + "/notes.txt") << "not a trace";
	mkdir((dir + "/sub").c_str(), 0700);
	run({ dir });
	ASSERT_NE(m, nullptr);
	ASSERT_EQ(m->trace_count, 2u);
	EXPECT_EQ(m->traces[0].path, dir + "/1.bin");
	EXPECT_EQ(report.error_count, 0u);
	run({ dir + "/sub" });
	EXPECT_EQ(m, nullptr);
	ASSERT_EQ(report.error_count, 1u);
	EXPECT_NE(std::string(report.errors[0]).find("no trace"), std::string::npos);
}

TEST_F(Pipeline, OneUnreadableTraceDoesNotStopTheOthers)
{
	std::ofstream(dir + "/bad.bin") << "something else";
	run({ dir + "/bad.bin", trace("good.bin", 1, 10), dir + "/none.bin" });
	ASSERT_NE(m, nullptr);
	EXPECT_EQ(m->trace_count, 1u);
	ASSERT_EQ(report.error_count, 2u);
	EXPECT_EQ(std::string(report.errors[1]), dir + "/none.bin: cannot be opened: No such file "
						       "or directory");
	EXPECT_FALSE(report.usage_error);
}

TEST_F(Pipeline, ACopyOfATraceIsNotCountedTwice)
{
	run({ trace("a.bin", 1, 10), trace("b.bin", 1, 10) });
	ASSERT_NE(m, nullptr);
	EXPECT_EQ(m->trace_count, 1u);
	EXPECT_EQ(report.error_count, 1u);
}

TEST_F(Pipeline, ProgressEndsWithAllOfIt)
{
	struct Seen {
		uint64_t done = 0, total = 0;
		int calls = 0;
	} seen;
	pipeline_options opt = {};

	opt.progress_arg = &seen;
	opt.progress = [](void *arg, uint64_t done, uint64_t total) {
		auto *s = static_cast<Seen *>(arg);

		EXPECT_GE(done, s->done);
		s->done = done;
		s->total = total;
		s->calls++;
	};
	run({ trace("a.bin", 1, 10) }, opt);
	EXPECT_GE(seen.calls, 1);
	EXPECT_EQ(seen.done, seen.total);
	EXPECT_GT(seen.total, 0u);
}

TEST_F(Pipeline, BadTimesAreTheUsersFault)
{
	pipeline_options opt = {};

	for (const char *bad : { "", "1s", "abc", "nan", "@none", "1e300" }) {
		opt.from = bad;
		run({ trace("a.bin", 1, 10) }, opt);
		EXPECT_EQ(m, nullptr) << bad;
		EXPECT_TRUE(report.usage_error) << bad;
	}
	opt.from = "2";
	opt.to = "1";
	run({ trace("a.bin", 1, 10) }, opt);
	EXPECT_TRUE(report.usage_error);
}

struct Seen {
	std::vector<unsigned> ids;
	std::vector<pipeline_record> records;
	std::vector<bool> repeated; /* PROCESS has the time of the first one wherever it stands */
	int stop_after = -1;
};

int Note(void *arg, const pipeline_record *r)
{
	auto *s = static_cast<Seen *>(arg);

	s->ids.push_back(r->record->id);
	s->records.push_back(*r);
	s->repeated.push_back(r->record->id == MT_EV_PROCESS);
	return static_cast<int>(s->ids.size()) == s->stop_after ? 7 : 0;
}

TEST_F(Pipeline, DumpGivesEveryRecordOnceInBothOrders)
{
	TraceWriter w;
	char *error = nullptr;
	Seen file, time;

	FamilyTrace(w);
	std::string path = w.save(dir + "/t.bin");

	ASSERT_EQ(pipeline_dump(path.c_str(), ORDER_FILE, Note, &file, &error), 0);
	ASSERT_EQ(pipeline_dump(path.c_str(), ORDER_TIME, Note, &time, &error), 0);
	run({ path });
	EXPECT_EQ(file.ids.size(), report.checks[0].counts[COUNT_RECORDS]);
	EXPECT_EQ(time.ids.size(), file.ids.size());
	EXPECT_TRUE(std::is_sorted(file.records.begin(), file.records.end(),
				   [](const pipeline_record &a, const pipeline_record &b) {
					   return a.chunk < b.chunk;
				   }));
	EXPECT_EQ(file.records[0].pid, 100u);
	EXPECT_EQ(time.records.back().pid, 300u);
	std::sort(file.ids.begin(), file.ids.end());
	std::sort(time.ids.begin(), time.ids.end());
	EXPECT_EQ(file.ids, time.ids);
	/* By time within a process, as far as records have one. */
	uint64_t last = 0;
	uint32_t proc = 0;

	for (size_t i = 0; i < time.records.size(); i++) {
		const pipeline_record &r = time.records[i];

		if (r.proc != proc)
			last = 0;
		proc = r.proc;
		if (r.has_time && !time.repeated[i]) {
			EXPECT_GE(r.units, last);
			last = r.units;
		}
	}
}

TEST_F(Pipeline, DumpCanBeStopped)
{
	char *error = nullptr;
	Seen seen;

	seen.stop_after = 2;
	EXPECT_EQ(pipeline_dump(trace("a.bin", 1, 1).c_str(), ORDER_FILE, Note, &seen, &error), 7);
	EXPECT_EQ(seen.ids.size(), 2u);
	EXPECT_EQ(pipeline_dump((dir + "/none").c_str(), ORDER_FILE, Note, &seen, &error), -1);
	ASSERT_NE(error, nullptr);
	free(error);
}

TEST_F(Pipeline, TicksBecomeNanosecondsByTheClockRecords)
{
	TraceWriter w;
	mt_ev_process ev = {};

	/* A 2 GHz counter, units of 32 ticks. */
	w.header.flags = MT_FILE_TSC;
	w.header.time_shift = 5;
	w.header.start_ticks = 64000;
	w.header.start_monotonic_ns = 500;
	ev.time = 64000 >> 5;
	ev.pid = 1;
	w.process(ev)
		.put(mt_ev_clock{ 64000 + 2000, 500 + 900, 0 }) /* early and imprecise */
		.alloc((64000 + 4000000) >> 5, 0x1000, 1)
		.put(mt_ev_clock{ 64000 + 8000000, 500 + 4000000, 0 });
	run({ w.save(dir + "/t.bin") });
	ASSERT_NE(m, nullptr);
	EXPECT_NEAR(static_cast<double>(m->processes[0].peak_live_time), 2000000, 20);
	EXPECT_EQ(m->note_count, 0u);
	TraceWriter without;

	without.header.flags = MT_FILE_TSC;
	without.process(ev);
	run({ without.save(dir + "/u.bin") });
	ASSERT_EQ(m->note_count, 1u) << "times are in ticks then, and the report says so";
}

} // namespace
