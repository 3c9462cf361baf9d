/*
 * What the GPU tests share: programs over the fakes of tests/support/cuda, and the comparison of a
 * report with the fake driver's ledger.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_TESTS_GPU_H
#define MEMTRACE_TESTS_GPU_H

#include <string>
#include <vector>

#include "support/harness.h"
#include "support/queries.h"

namespace memtrace_test
{

Command FakeGpu(const TempDir &dir, const std::string &program,
		const std::vector<std::string> &args);
Json DeviceOf(const Json &report, long device); /* its entry in the gpu section, or a null */
long OrZero(const Json &j);

/* under_way: bytes that threads may be taking and giving back at one moment; by so much a peak may
 * be too low: a call counts from its end, and a free from its beginning. */
void ExpectLedger(const TempDir &dir, const std::string &out, long under_way = 0);

/* The records of that name in a trace, as JSON lines. */
std::vector<Json> Records(const std::string &trace, const std::string &name);

} // namespace memtrace_test

#endif
