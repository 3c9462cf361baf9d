/*
 * The interpreters that tests find here, by name: "3.12" (pyenv's, or what install-deps unpacked),
 * "system" (/usr/bin/python3), "venv" (build/venv, with PyTorch), "standalone" (a
 * python-build-standalone build, as in the Google Cloud CLI).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_TESTS_INTERPRETERS_H
#define MEMTRACE_TESTS_INTERPRETERS_H

#include <string>

namespace memtrace_test {

std::string InterpreterOf(const std::string &name); /* "": it is not here */

} // namespace memtrace_test

#endif
