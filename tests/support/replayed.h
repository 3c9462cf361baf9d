/*
 * The model of a synthetic trace, for the length of a test.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_TESTS_REPLAYED_H
#define MEMTRACE_TESTS_REPLAYED_H

#include <gtest/gtest.h>

#include <vector>

#include "pipeline/run.h"
#include "support/trace_writer.h"

namespace memtrace_test
{

class Replayed
{
      public:
	explicit Replayed(const TraceWriter &w, const pipeline_options &opt = {})
	    : bytes_(w.bytes())
	{
		m = pipeline_run_buffer(bytes_.data(), bytes_.size(), "test.bin", &opt, &report);
	}
	~Replayed()
	{
		model_free(m);
		pipeline_report_release(&report);
	}
	const process &P(uint32_t pid) const
	{
		static const process none = {};

		for (size_t i = 0; m && i < m->process_count; i++)
			if (m->processes[i].pid == pid)
				return m->processes[i];
		ADD_FAILURE() << "no process " << pid;
		return none;
	}
	uint64_t count(pipeline_count c) const
	{
		return report.checks[0].counts[c];
	}

	model *m = nullptr;
	pipeline_report report = {};

      private:
	std::vector<uint8_t> bytes_;
};

inline mt_ev_process Root(uint32_t pid = 100)
{
	mt_ev_process ev = {};

	ev.pid = pid;
	ev.reason = MT_PROCESS_ROOT;
	return ev;
}

} // namespace memtrace_test

#endif
