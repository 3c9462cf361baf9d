/*
 * What a trace says, counted here afresh from its records: the analyzer's reader is used, its model
 * is not, so that a test can hold one against the other and both against the program's own count.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_TESTS_TRACE_TRUTH_H
#define MEMTRACE_TESTS_TRACE_TRUTH_H

#include <stdint.h>

#include <map>
#include <ostream>
#include <string>
#include <vector>

#include "memtrace/events.h"

namespace memtrace_test {

struct Totals {
	long allocations = 0, frees = 0, bytes = 0, live_blocks = 0, live_bytes = 0;
	long inherited_frees = 0, inherited_bytes = 0;

	bool operator==(const Totals &o) const;
};
std::ostream &operator<<(std::ostream &out, const Totals &t);

Totals ToTotals(const std::map<std::string, long> &facts); /* of an "expect" line */
std::map<long, Totals> Expected(const std::string &output); /* by pid */

struct TracedProcess {
	uint32_t number = 0, pid = 0, ppid = 0, parent = 0;
	mt_process_reason reason = MT_PROCESS_ROOT;
	bool has_window = false; /* marks "begin-PID" and "end-PID" */
	Totals window, whole; /* heap only */
	long unknown_frees = 0; /* of addresses that were never allocated */
	long double_allocations = 0; /* at an address that is in use */
	std::map<uint64_t, long> allocations_by_size, frees_by_size; /* heap */
	std::map<uint64_t, long> maps_by_size; /* mappings of all kinds */
	bool has_exit = false;
};

struct TraceTruth {
	std::string error; /* it could not be read */
	std::vector<TracedProcess> processes;
	uint64_t lost_events = 0, damage = 0; /* damage: anything a whole trace has none of */
	std::string damage_text; /* its parts, in words */

	const TracedProcess *ByPid(uint32_t pid) const; /* with a window if there is one; or NULL */
};

/* `ignore_from`: blocks at least this large are left out; 0: none. */
TraceTruth ReadTruth(const std::string &path, uint64_t ignore_from = 0);

/* Every expect line of `output` is met to the last unit, and nothing is lost or double. */
void ExpectTruth(const std::string &trace, const std::string &output, size_t processes,
		 uint64_t ignore_from = 0);

} // namespace memtrace_test

#endif
