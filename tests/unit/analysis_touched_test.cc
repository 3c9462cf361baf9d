// Who touched what forked workers copied, by line and by owner: a model made by hand.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "analysis_model.h"

namespace
{

constexpr uint64_t MIB = 1024 * 1024;

// A main process whose line 5 starts a worker, which reads data in its own lines.
struct Loader {
	Loader()
	{
		uint32_t starts = m.python("train.py", "main", 5), library, reads;

		m.process("main", 100);
		m.process("worker", 200, 10);
		m.processes[1].parent = 0;
		child_event &made = m.child(0, "", 200, true);
		made.process = 1;
		made.how = child_event::CHILD_FORK;
		made.python = m.python(
			starts,
			m.code("/usr/lib/python3.11/multiprocessing/popen_fork.py", "_launch", 66));
		library = m.python(starts, m.code("/usr/lib/python3.11/multiprocessing/process.py",
						  "run", 108));
		reads = m.python(library, m.code("data.py", "__getitem__", 9));
		left = m.site(0, m.python("train.py", "build_left", 20));
		right = m.site(0, m.python("train.py", "build_right", 30));
		sites = { { left, 10 * MIB, 0 }, { right, 5 * MIB, 0 } };
		touches = { { left, 0, reads, 6 * MIB, 0 },
			    { left, 0, library, 1 * MIB, 0 },
			    { right, 0, reads, 5 * MIB, 0 },
			    { NO_ID, 0, library, 2 * MIB, 0 } };
		cow.has_baseline = true;
		cow.shared = 100 * MIB;
		cow.copied = 20 * MIB;
		cow.reused = 5 * MIB;
		cow.sites = sites.data();
		cow.site_count = sites.size();
		cow.touches = touches.data();
		cow.touch_count = touches.size();
		m.processes[1].cow = &cow;
	}

	ModelMaker m;
	uint32_t left, right;
	std::vector<cow_site> sites;
	std::vector<cow_touch> touches;
	process_cow cow = {};
};

// "place function MiB per-cent, ..."
std::string rows(const rvalue *list)
{
	std::string out;

	r_for_each (row, list) {
		out += out.empty() ? "" : ", ";
		out += std::string(r_get_string(row, "place")) + " " +
		       r_get_string(row, "function") + " " +
		       std::to_string(r_get_int(row, "bytes") / static_cast<int64_t>(MIB)) + " " +
		       std::to_string(static_cast<int>(100 * r_get_float(row, "share") + 0.5));
	}
	return out;
}

} // namespace

TEST(Touched, IsToldByLineAndByOwner)
{
	Loader l;

	l.m.fact(1, "cow_touch", "on");
	Analysed a(l.m);
	const rvalue *cow = a["cow"];

	// The line that started the worker is on each stack of it, and ran in its parent.
	EXPECT_EQ(rows(r_get(cow, "touched_by")),
		  "data.py:9 __getitem__ 11 55, multiprocessing/process.py:108 run 3 15");
	EXPECT_EQ(rows(r_get(r_get(cow, "workers")->first, "touched_by")),
		  rows(r_get(cow, "touched_by")));
	r_for_each (s, r_get(cow, "sites")) {
		bool is_left = r_get_int(s, "copied_bytes") == static_cast<int64_t>(10 * MIB);

		EXPECT_EQ(rows(r_get(s, "touched_by")),
			  is_left ? "data.py:9 __getitem__ 6 60, multiprocessing/process.py:108 "
				    "run 1 10"
				  : "data.py:9 __getitem__ 5 100");
	}
	EXPECT_TRUE(r_get_bool(cow, "touch_wanted"));
	EXPECT_FALSE(r_has(cow, "touch_not_measured"));
	auto found = a.findings("cow-blowup");
	ASSERT_EQ(found.size(), 2u);
	EXPECT_NE(std::string(r_get_string(found[0], "detail"))
			  .find("Touched by data.py:9 in __getitem__ (60 % of the pages), "
				"multiprocessing/process.py:108 in run (10 %)."),
		  std::string::npos)
		<< r_get_string(found[0], "detail");
}

TEST(Touched, WhatWasNotMeasuredIsNullAndTheReasonIsSaid)
{
	Loader l;

	l.m.fact(1, "cow_touch", "perf_event_open: not permitted");
	Analysed a(l.m);
	const rvalue *cow = a["cow"];
	bool noted = false;

	EXPECT_FALSE(r_has(cow, "touched_by"));
	EXPECT_FALSE(r_has(r_get(cow, "workers")->first, "touched_by"));
	EXPECT_FALSE(r_has(r_get(cow, "sites")->first, "touched_by"));
	EXPECT_STREQ(r_get_string(cow, "touch_not_measured"), "perf_event_open: not permitted");
	for (const rvalue *n = r_get(a["trace"], "notes")->first; n; n = n->next)
		noted |= std::string(n->u.string).find("perf_event_open") != std::string::npos;
	EXPECT_TRUE(noted);
	for (const rvalue *f : a.findings("cow-blowup"))
		EXPECT_EQ(std::string(r_get_string(f, "detail")).find("Touched"),
			  std::string::npos);
}

// A worker without a word of its own is none that was measured, whatever its parent says.
TEST(Touched, NobodyAskedIsNull)
{
	Loader l;

	l.m.fact(0, "cow_touch", "on");
	Analysed a(l.m);

	EXPECT_FALSE(r_has(a["cow"], "touched_by"));
}
