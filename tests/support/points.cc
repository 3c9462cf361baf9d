// See points.h.
//
// SPDX-License-Identifier: Apache-2.0
#include "support/points.h"

#include <gtest/gtest.h>

#include <map>
#include <sstream>

namespace memtrace_test {

static std::string Frame(const std::string &file, const std::string &function, long line)
{
	return "  " + file + ":" + std::to_string(line) + " " + function + "\n";
}

static std::string Said(const Json &stack)
{
	std::string text;

	for (size_t i = 0; i < stack.size(); i++)
		text += Frame(stack[i][(size_t)0].Text(), stack[i][(size_t)1].Text(),
			      stack[i][(size_t)2].Long());
	return text;
}

std::string PythonOf(const Json &site)
{
	std::string text;

	for (size_t i = 0; i < site["stack"].size(); i++) {
		Json f = site["stack"][i];

		if (f["language"].Text() == "python")
			text += Frame(f["file"].Text(), f["function"].Text(), f["line"].Long());
	}
	return text;
}

namespace {

/* By the stack that made them: no two points have one size, so sums tell them apart. */
struct Blocks {
	long count = 0, bytes = 0, uncertain = 0;
};

std::map<std::string, Blocks> ByStack(const Json &sites)
{
	std::map<std::string, Blocks> found;

	for (size_t i = 0; i < sites.size(); i++) {
		long count = sites[i]["allocations"].Long();
		long bytes = sites[i]["bytes_allocated"].Long();

		/* The scripts' blocks are of 3,000,000 bytes and more; nothing else is. */
		if (sites[i]["kind"].Text() != "heap" || bytes < 3000000 * count)
			continue;
		Blocks &sum = found[PythonOf(sites[i])];

		sum.count += count;
		sum.bytes += bytes;
		if (sites[i]["merge_uncertain"].True())
			sum.uncertain += count;
	}
	return found;
}

} // namespace

Points ExpectPoints(const Json &report, const std::string &said_path, bool may_be_marked)
{
	auto recorded = ByStack(report["sites"]);
	std::map<std::string, Blocks> expected;
	std::istringstream lines(ReadAll(said_path));
	long missed = 0, missed_bytes = 0;
	Points points;
	int failures = 0;

	for (std::string line; std::getline(lines, line); points.said++) {
		Json said = Json::Parse(line);
		Blocks &sum = expected[Said(said["stack"])];
		long count = said["count"].IsNumber() ? said["count"].Long() : 1;

		EXPECT_GT(said["stack"].size(), 0u) << line;
		sum.count += count;
		sum.bytes += said["size"].Long() * count;
	}
	for (const auto &[stack, want] : expected) {
		Blocks got = recorded[stack];

		recorded.erase(stack);
		if (got.count == want.count && got.bytes == want.bytes) {
			points.right += int(want.count);
			continue;
		}
		missed += want.count - got.count;
		missed_bytes += want.bytes - got.bytes;
		if (!may_be_marked && failures++ < 3)
			ADD_FAILURE() << got.count << " blocks, " << got.bytes << " bytes and not "
				      << want.count << ", " << want.bytes << " at\n"
				      << stack;
	}
	for (const auto &[stack, got] : recorded) {
		bool marked = got.uncertain == got.count;

		points.marked += marked ? int(got.count) : 0;
		missed -= got.count;
		missed_bytes -= got.bytes;
		if (!may_be_marked || !marked) /* "": no frames at all */
			ADD_FAILURE() << got.count << " blocks at no such point:\n" << stack;
	}
	EXPECT_EQ(missed, 0) << "points are missing, or there are more";
	EXPECT_EQ(missed_bytes, 0);
	return points;
}

} // namespace memtrace_test
