/*
 * See gpu.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "support/gpu.h"

#include <gtest/gtest.h>

#include <sstream>

namespace memtrace_test
{

Command FakeGpu(const TempDir &dir, const std::string &program,
		const std::vector<std::string> &args)
{
	Command c = Program(dir, program, args);

	c.env["LD_LIBRARY_PATH"] = BuildPath("programs/cuda");
	return c;
}

Json DeviceOf(const Json &report, long device)
{
	for (size_t i = 0; i < report["gpu"].size(); i++)
		if (report["gpu"][i]["device"].Long() == device)
			return report["gpu"][i];
	return Json();
}

long OrZero(const Json &j)
{
	return j.IsNull() ? 0 : j.Long();
}

void ExpectLedger(const TempDir &dir, const std::string &out, long under_way)
{
	Json report = Report(dir.File("trace.bin"));
	Json kinds = report["trace"]["by_kind"];
	long live = 0, taken = 0, pinned = 0, pinned_taken = 0, managed = 0, registered = 0;
	auto ledger = Facts(out, "ledger");
	std::map<std::string, long> by_site;

	ASSERT_FALSE(ledger.empty()) << out;
	for (auto &l : ledger) {
		Json d = DeviceOf(report, l["device"]), p = d["processes"][(size_t)0];
		long peak = OrZero(d["peak_allocated_bytes"]);

		EXPECT_EQ(OrZero(d["allocated_bytes"]), l["live"] + l["managed"]);
		EXPECT_LE(peak, l["peak"]);
		EXPECT_GE(peak, l["peak"] - under_way);
		EXPECT_GE(OrZero(d["reserved_bytes"]), OrZero(d["allocated_bytes"]));
		EXPECT_EQ(OrZero(p["borrowed_bytes"]), l["borrowed"]);
		live += l["live"];
		managed += l["managed"];
		taken += l["taken"];
		pinned += l["pinned"];
		pinned_taken += l["pinned_taken"];
		registered = l["registered"];
		EXPECT_EQ(l["calls_in_child"], 0);
	}
	EXPECT_EQ(OrZero(kinds["device"]["live_bytes"]), live);
	EXPECT_EQ(OrZero(kinds["device"]["allocations"]), taken);
	EXPECT_EQ(OrZero(kinds["managed"]["live_bytes"]), managed);
	EXPECT_EQ(OrZero(kinds["pinned"]["live_bytes"]), pinned);
	EXPECT_EQ(OrZero(kinds["pinned"]["allocations"]), pinned_taken);
	for (size_t i = 0; i < report["sites"].size(); i++) {
		Json site = report["sites"][i];

		by_site[site["kind"].Text()] += site["live_bytes"].Long();
	}
	EXPECT_EQ(by_site["device"], live);
	EXPECT_EQ(by_site["managed"], managed);
	EXPECT_EQ(by_site["pinned"], pinned);
	if (report["gpu"].size()) {
		Json p = report["gpu"][(size_t)0]["processes"][(size_t)0];

		EXPECT_EQ(p["registered_host_bytes"].Long(), registered);
	}
	EXPECT_EQ(report["trace"]["missed_frees"].Long(), 0);
	EXPECT_EQ(report["trace"]["lost_events"].Long(), 0);
}

std::vector<Json> Records(const std::string &trace, const std::string &name)
{
	std::vector<Json> found;
	std::string line;
	Command c;
	Result r;

	c.traced = false;
	c.argv = { BuildPath("memtrace-report"), "dump", "--json", trace };
	r = Execute(c);
	EXPECT_TRUE(r.Exited(0)) << Describe(r);
	for (std::istringstream lines(r.out); std::getline(lines, line);) {
		Json j = Json::Parse(line);

		if (j["record"].Text() == name)
			found.push_back(j);
	}
	return found;
}

} // namespace memtrace_test
