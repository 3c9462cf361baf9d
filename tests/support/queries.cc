/*
 * See queries.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "support/queries.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <sstream>

namespace memtrace_test {

bool HasTorch()
{
	std::string python = SourcePath("build/venv/bin/python");
	Command probe;

	probe.argv = { python, "-c", "import torch.utils.data" };
	probe.traced = false;
	return Exists(python) && Execute(probe).Exited(0);
}

long LineOf(const std::string &file, const std::string &text)
{
	std::istringstream lines(ReadAll(SourcePath(file)));
	long number = 0;

	for (std::string line; std::getline(lines, line);) {
		number++;
		if (line.find(text) != std::string::npos)
			return number;
	}
	return -1;
}

std::string PlaceOf(const std::string &file, const std::string &text)
{
	return file.substr(file.rfind('/') + 1) + ":" + std::to_string(LineOf(file, text));
}

Json WithCommand(const Json &report, const std::string &word)
{
	for (size_t i = 0; i < report["processes"].size(); i++)
		if (report["processes"][i]["command"].Text().rfind(word, 0) == 0)
			return report["processes"][i];
	return Json();
}

Json ByPid(const Json &report, long pid)
{
	Json processes = report["processes"];

	for (size_t i = 0; i < processes.size(); i++)
		if (processes[i]["pid"].Long() == pid &&
		    processes[i]["end"]["kind"].Text() != "exec")
			return processes[i];
	return {};
}

std::vector<Json> FindingsOf(const Json &report, const std::string &kind)
{
	std::vector<Json> found;

	for (size_t i = 0; i < report["findings"].size(); i++)
		if (report["findings"][i]["kind"].Text() == kind)
			found.push_back(report["findings"][i]);
	return found;
}

Json FindingOf(const Json &report, const std::string &kind)
{
	std::vector<Json> found = FindingsOf(report, kind);

	return found.empty() ? Json() : found[0];
}

void ExpectExplained(const Json &rss)
{
	long sum = 0, total = rss["rss_bytes"].Long();

	for (const char *part :
	     { "live", "rounding", "heap_free_returnable", "heap_free_pinned", "python_free", "file",
	       "shm", "stacks", "tool", "other", "untraced" }) {
		EXPECT_GE(rss["parts"][part].Long(), 0) << part;
		sum += rss["parts"][part].Long();
	}
	EXPECT_EQ(sum, total) << rss.Print();
	EXPECT_LE(rss["parts"]["untraced"].Long(), total * 3 / 100)
		<< rss["untraced_ranges"].Print();
	/* The kernel's three counters lag behind by up to 32 pages on each CPU, or 2 for each CPU
	 * (lib/percpu_counter.c): 65 pages were seen on two. */
	long cpus = sysconf(_SC_NPROCESSORS_CONF), lag = 3 * cpus * std::max(32L, 2 * cpus) * 4096;
	EXPECT_NEAR(rss["vmrss_bytes"].Number(), total, std::max(total / 100.0, (double)lag));
}

} // namespace memtrace_test
