/*
 * What tests/programs/python_points.py and its likes say of their blocks, and whether the report says
 * the same: every point makes one block of a size of its own, or a number of them, and puts down the
 * stack that CPython's own traceback gives there.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_TESTS_POINTS_H
#define MEMTRACE_TESTS_POINTS_H

#include <string>

#include "support/harness.h"

namespace memtrace_test {

/* A site's Python frames, a line each, innermost first. */
std::string PythonOf(const Json &site);

struct Points {
	int said = 0;
	int right = 0; /* as traceback says */
	int marked = 0; /* recorded under another stack, one that says of itself that it is uncertain */
};

/* Which points were recorded right? Every other one is a failure, unless it may be marked. */
Points ExpectPoints(const Json &report, const std::string &said_path, bool may_be_marked = false);

} // namespace memtrace_test

#endif
