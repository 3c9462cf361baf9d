// The report's sections, on models made by hand.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "analysis_model.h"
#include "render/render.h"

namespace
{

constexpr uint64_t MIB = 1024 * 1024;

// The values of a series; -1: null.
std::vector<int64_t> series(const Analysed &a, const char *name, int64_t proc)
{
	std::vector<int64_t> out;

	r_for_each (s, r_get(a["timeline"], "series")) {
		bool same = proc < 0 ? !r_has(s, "proc")
				     : r_has(s, "proc") && r_get_int(s, "proc") == proc;

		if (!same || std::string(name) != r_get_string(s, "name"))
			continue;
		r_for_each (v, r_get(s, "v"))
			out.push_back(v->kind == R_INT ? v->u.integer : -1);
	}
	return out;
}

using Values = std::vector<int64_t>;

} // namespace

TEST(SectionTrace, TotalsAreSumsOverProcesses)
{
	ModelMaker m;

	for (uint32_t i = 0; i < 2; i++) {
		struct process &p = m.processes[m.process("main", 10 + i)];

		p.allocations = 5;
		p.frees = 3;
		p.bytes_allocated = 500;
		p.kinds[MT_KIND_HEAP] = { 5, 3, 500, 200, 2 };
		p.kinds[MT_KIND_SHM] = { 1, 0, 64, 64, 1 };
	}
	Analysed a(m);
	const rvalue *t = a["trace"], *shm = r_get(r_get(t, "by_kind"), "shm");

	EXPECT_STREQ(r_get_string(t, "host"), "host");
	EXPECT_EQ(r_get_int(t, "allocations"), 10);
	EXPECT_EQ(r_get_int(t, "frees"), 6);
	EXPECT_EQ(r_get_int(t, "bytes_allocated"), 1000);
	EXPECT_EQ(r_get_int(shm, "live_bytes"), 128);
	EXPECT_EQ(r_get(r_get(t, "by_kind"), "device"), nullptr); // did not occur
	EXPECT_STREQ(r_get_string(t, "start"), "2023-11-14T22:13:20.123Z");
	EXPECT_TRUE(r_get_bool(t, "complete"));
	EXPECT_FALSE(r_has(t, "sample_bytes"));
	EXPECT_TRUE(r_has(t, "peak_error_bytes"));
}

TEST(SectionTrace, AnIncompleteOrRecoveredOneSaysSo)
{
	ModelMaker m;

	m.process("main", 10);
	m.traces[0].complete = false;
	m.traces[0].recovered = true;
	m.notes.push_back(m.text("what was lost"));
	Analysed a(m);

	EXPECT_FALSE(r_get_bool(a["trace"], "complete"));
	EXPECT_TRUE(r_get_bool(a["trace"], "recovered"));
	EXPECT_STREQ(r_get(a["trace"], "notes")->first->u.string, "what was lost");
}

TEST(SectionTrace, FilesThatCouldNotBeLookedIntoAreNoted)
{
	ModelMaker m;
	uint32_t lib = m.module("/nowhere/libgone.so");

	m.use(m.site(m.native(0, lib, 0x10), 0), m.process("main", 10), 5, { 5 });
	Analysed a(m, ALL_SITES, true);
	ASSERT_EQ(r_get(a["trace"], "notes")->count, 1u);
	EXPECT_NE(std::string(r_get(a["trace"], "notes")->first->u.string).find("libgone.so"),
		  std::string::npos);
}

TEST(SectionProcesses, WhatWasNotMeasuredIsNull)
{
	ModelMaker m;

	m.processes[m.process("main", 10)].end_kind = END_UNKNOWN;
	Analysed a(m);
	const rvalue *p = a["processes"]->first;

	for (const char *key : { "parent", "rank", "worker", "peak_rss_bytes", "peak_pss_bytes",
				 "predates_attach_bytes" }) {
		ASSERT_NE(r_get(p, key), nullptr) << key;
		EXPECT_FALSE(r_has(p, key)) << key;
	}
	EXPECT_TRUE(r_has(p, "inherited_live_bytes")); // measured zero
	EXPECT_STREQ(r_get_string(r_get(p, "end"), "kind"), "unknown");
	EXPECT_FALSE(r_has(r_get(p, "end"), "code"));
	EXPECT_FALSE(r_has(a["tree"], "peak_pss_bytes"));
	EXPECT_FALSE(r_has(a["capacity"], "limit_bytes"));
}

TEST(SectionProcesses, AWorkerSaysWhoseAndWhich)
{
	ModelMaker m;
	uint32_t main = m.process("main", 10), w = m.process("dataloader-worker", 11, 5, 9);
	struct process &p = m.processes[w];

	p.parent = main;
	p.worker.is = true;
	p.worker.loader = m.text("train.py:42");
	p.worker.index = 1;
	p.worker.of = 4;
	p.worker.start_method = "fork";
	p.end_kind = END_SIGNAL;
	p.end_code = 9;
	Analysed a(m);
	const rvalue *o = a["processes"]->first->next, *worker = r_get(o, "worker");

	EXPECT_EQ(r_get_int(o, "parent"), main);
	EXPECT_STREQ(r_get_string(worker, "loader"), "train.py:42");
	EXPECT_EQ(r_get_int(worker, "index"), 1);
	EXPECT_EQ(r_get_int(worker, "of"), 4);
	EXPECT_STREQ(r_get_string(worker, "start_method"), "fork");
	EXPECT_EQ(r_get_float(o, "start_s"), 5.0);
	EXPECT_STREQ(r_get_string(r_get(o, "end"), "kind"), "signal");
	EXPECT_EQ(r_get_int(r_get(o, "end"), "code"), 9);
}

TEST(SectionProcesses, TimesOfSeveralTracesCountFromTheFirst)
{
	ModelMaker m;

	m.traces.push_back(m.traces[0]);
	m.traces[1].start_realtime_ns += 3 * SECOND;
	m.processes[m.process("main", 10)].trace = 1;
	EXPECT_EQ(r_get_float(Analysed(m)["processes"]->first, "start_s"), 3.0);
}

TEST(SectionSites, ASiteHasItsStackAndItsPartInEachProcess)
{
	ModelMaker m;
	uint32_t p = m.process("main", 10), q = m.process("forked", 11);
	uint32_t s = m.site(m.native(0, m.module("/l/libx.so"), 0x10),
			    m.python("/home/me/a.py", "f", 7));

	m.use(s, p, 5, { 3 }, 100);
	m.use(s, q, 6, { 4 }, 100);
	Analysed a(m);
	const rvalue *o = a["sites"]->first;

	EXPECT_STREQ(r_get_string(o, "kind"), "heap");
	EXPECT_EQ(r_get_int(o, "allocations"), 11);
	EXPECT_EQ(r_get_int(o, "live_bytes"), 700);
	EXPECT_FALSE(r_has(o, "component"));
	ASSERT_EQ(r_get(o, "by_process")->count, 2u);
	EXPECT_EQ(r_get_int(r_get(o, "by_process")->last, "proc"), q);
	EXPECT_EQ(r_get_int(r_get(o, "by_process")->last, "live_bytes"), 400);
	EXPECT_STREQ(r_get_string(o, "place"), "a.py:7");
	const rvalue *py = r_get(o, "stack")->first; // symbols are off: Python's frames in front
	EXPECT_STREQ(r_get_string(py, "language"), "python");
	EXPECT_EQ(r_get_int(py, "line"), 7);
	EXPECT_FALSE(r_has(py, "module"));
	EXPECT_STREQ(r_get_string(py->next, "function"), "libx.so+0x10");
	EXPECT_FALSE(r_has(py->next, "line"));
}

TEST(SectionSites, WhatIsNotListedIsSummedUpByKind)
{
	ModelMaker m;
	uint32_t p = m.process("main", 10), py = m.python("/a.py", "f", 7);

	m.use(m.site(0, py), p, 10, { 10 }, 1000);
	m.use(m.site(0, py), p, 9, { 9 }, 100);
	m.use(m.site(0, py, MT_KIND_MMAP, true), p, 8, { 8 }, 90);
	m.use(m.site(0, py, MT_KIND_MMAP), p, 7, { 7 }, 80);
	Analysed a(m, 1);
	const rvalue *rest = a["sites_not_listed"], *kinds = r_get(rest, "by_kind");

	ASSERT_EQ(a["sites"]->count, 1u);
	EXPECT_EQ(r_get_int(a["sites"]->first, "live_bytes"), 10000);
	EXPECT_EQ(r_get_int(rest, "sites"), 3);
	EXPECT_EQ(r_get_int(r_get(kinds, "heap"), "live_bytes"), 900);
	EXPECT_EQ(r_get_int(r_get(kinds, "mmap"), "allocations"), 15);
	EXPECT_EQ(r_get_int(r_get(kinds, "mmap"), "live_bytes"), 560); // without backing
	EXPECT_EQ(r_get_int(a["backing_store"], "live_bytes"), 720);
	EXPECT_EQ(Analysed(m)["sites_not_listed"], nullptr);
}

TEST(SectionSites, ASiteOfAFindingIsListedHoweverSmall)
{
	ModelMaker m;
	uint32_t p = m.process("main", 10);

	m.use(m.site(0, m.python("/a.py", "big", 1)), p, 1, { 1 }, 100 * MIB);
	m.use(m.site(0, m.python("/a.py", "leak", 2)), p, 40, { 10, 10, 10, 10 }, 4096);
	Analysed a(m, 1);
	ASSERT_EQ(a.findings("leak").size(), 1u);
	EXPECT_EQ(a["sites"]->count, 2u);
	EXPECT_EQ(r_get_int(a["sites"]->last, "id"), r_get_int(a.findings("leak")[0], "site"));
}

TEST(SectionTimeline, EachProcessHasItsValuesAndTheTreeTheirSum)
{
	ModelMaker m;
	uint32_t p = m.process("main", 10, 0, 10), q = m.process("forked", 11, 2, 4);

	m.sampled(p, 1, { { "pss", 100 }, { "live", 7 } });
	m.sampled(q, 3, { { "pss", 50 } });
	m.sampled(q, 4, { { "pss", 60 } });
	m.sampled(p, 6, { { "pss", 110 } });
	Analysed a(m);

	EXPECT_EQ(r_get(a["timeline"], "t")->count, 4u);
	EXPECT_EQ(series(a, "pss", p), (Values{ 100, -1, -1, 110 }));
	EXPECT_EQ(series(a, "pss", q), (Values{ -1, 50, 60, -1 }));
	EXPECT_EQ(series(a, "pss", -1), (Values{ 100, 150, 160, 110 })); // q has ended
	EXPECT_EQ(series(a, "live", p), (Values{ 7, -1, -1, -1 }));
	EXPECT_EQ(series(a, "rss", p), Values{}); // never measured
}

TEST(SectionTimeline, ALongRunKeepsItsPeaks)
{
	ModelMaker m;
	uint32_t p = m.process("main", 10, 0, 5000);

	for (int t = 0; t <= 5000; t++)
		m.sampled(p, t, { { "rss", t == 3333 ? 9999u : 100u } });
	Analysed a(m);
	Values v = series(a, "rss", p), tree = series(a, "rss", -1);

	EXPECT_EQ(v.size(), 1000u);
	EXPECT_EQ(*std::max_element(v.begin(), v.end()), 9999);
	EXPECT_EQ(*std::min_element(v.begin(), v.end()), 100);
	EXPECT_EQ(*std::max_element(tree.begin(), tree.end()), 9999);
}

TEST(SectionCapacity, TheSmallerOfCgroupAndMachineIsTheLimit)
{
	ModelMaker m;
	uint32_t p = m.process("main", 10);

	m.fact(p, "memory_total", "1000000");
	m.tree_peak_pss = 250000;
	EXPECT_STREQ(r_get_string(Analysed(m)["capacity"], "limit_from"), "physical");
	EXPECT_EQ(r_get_float(Analysed(m)["capacity"], "peak_share"), 0.25);
	m.sampled(p, 1, { { "cgroup_limit", 500000 }, { "cgroup_usage", 300000 } });
	EXPECT_STREQ(r_get_string(Analysed(m)["capacity"], "limit_from"), "cgroup");
	EXPECT_EQ(r_get_float(Analysed(m)["capacity"], "peak_share"), 0.6);
	EXPECT_EQ(r_get_int(Analysed(m)["capacity"], "limit_bytes"), 500000);
}

TEST(SectionMarks, StepsHaveTheirNumber)
{
	ModelMaker m;
	uint32_t p = m.process("main", 10);

	m.mark(p, 1, MT_MARK_PHASE, "warm-up");
	m.mark(p, 2, MT_MARK_STEP, "", 17);
	Analysed a(m);

	EXPECT_STREQ(r_get_string(a["marks"]->first, "label"), "warm-up");
	EXPECT_STREQ(r_get_string(a["marks"]->first, "kind"), "phase");
	EXPECT_STREQ(r_get_string(a["marks"]->last, "label"), "step");
	EXPECT_EQ(r_get_int(a["marks"]->last, "step"), 17);
	EXPECT_EQ(r_get_float(a["marks"]->last, "t"), 2.0);
}

TEST(Sections, OnlyThoseThatWereAskedForAreThere)
{
	const char *const wanted[] = { "processes", nullptr };
	analysis_options options = { ALL_SITES, false, nullptr, nullptr, wanted };
	ModelMaker m;
	symbolizer *s = symbolizer_new(nullptr);
	result *doc = result_new();

	m.process("main", 1);
	analysis_run(&options, m.get(), s, doc);
	EXPECT_STREQ(r_get_string(result_root(doc), "schema"), "memtrace-report/1");
	EXPECT_NE(r_get(result_root(doc), "processes"), nullptr);
	EXPECT_EQ(result_root(doc)->count, 2u);
	result_free(doc);
	symbolizer_free(s);
}

std::string Json(ModelMaker &m, bool streamed, size_t *listed)
{
	analysis_options options = { ALL_SITES, streamed, nullptr, nullptr, nullptr };
	symbolizer *s = symbolizer_new(nullptr);
	result *doc = result_new();
	render_options ro = {};
	char *text = nullptr;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	analysis_run(&options, m.get(), s, doc);
	*listed = r_get(result_root(doc), "sites")->count;
	render_json(result_root(doc), &ro, f);
	fclose(f);
	std::string out(text, size);

	free(text);
	result_free(doc);
	symbolizer_free(s);
	return out;
}

TEST(Sections, SitesThatAreMadeWhenTheyArePrintedAreTheSame)
{
	ModelMaker m, none;
	uint32_t p = m.process("main", 1);
	size_t held, streamed;

	for (uint32_t i = 1; i < 20; i++)
		m.use(m.site(0, m.python("/a.py", "f" + std::to_string(i), i)), p, i);
	EXPECT_EQ(Json(m, false, &held), Json(m, true, &streamed));
	EXPECT_EQ(held, 19u);
	EXPECT_EQ(streamed, 0u) << "they are not all in memory";
	EXPECT_EQ(Json(none, false, &held), Json(none, true, &streamed));
}

TEST(Sections, AnEmptyRunHasThemAll)
{
	ModelMaker m;
	Analysed a(m);

	for (const analysis *row = analyses; row->name; row++)
		EXPECT_NE(a[row->name], nullptr) << row->name;
}
