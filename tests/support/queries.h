/*
 * What tests ask a report, and the scripts that they record.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_TESTS_QUERIES_H
#define MEMTRACE_TESTS_QUERIES_H

#include <string>
#include <vector>

#include "support/harness.h"

namespace memtrace_test {

/* build/venv has a Python with torch's DataLoader. */
bool HasTorch();

/* The first line of a file of the source tree that holds this text, from 1; -1: none. */
long LineOf(const std::string &file, const std::string &text);

/* "name.py:N" of that line, as reports name places. */
std::string PlaceOf(const std::string &file, const std::string &text);

/* Of the report's processes the first one whose command begins so; null: none. */
Json WithCommand(const Json &report, const std::string &word);

/* Of the report's processes the one with that pid, as it was after its last exec; null: none. */
Json ByPid(const Json &report, long pid);

std::vector<Json> FindingsOf(const Json &report, const std::string &kind);
Json FindingOf(const Json &report, const std::string &kind); /* the first; null: none */

/* A process's resident memory: its parts sum to it, and hardly any is without an explanation. */
void ExpectExplained(const Json &rss);

} // namespace memtrace_test

#endif
