// The sections growth and phases, and --suppress, on traces and models made by hand.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <string>

#include "analysis_model.h"
#include "support/harness.h"
#include "support/replayed.h"

extern "C" {
#include "analysis/suppress.h"
}

using memtrace_test::Replayed;
using memtrace_test::Root;
using memtrace_test::str;
using memtrace_test::Stream;
using memtrace_test::TempDir;
using memtrace_test::TraceWriter;
using memtrace_test::WriteAll;

namespace
{

constexpr uint64_t KIB = 1024, MIB = 1024 * KIB;

struct Analysis {
	explicit Analysis(const model *m, const suppressions *sup = nullptr)
	{
		symbolizer_options so = { true, nullptr };
		analysis_options ao = {};

		ao.top = 1000;
		ao.suppressions = sup;
		s = symbolizer_new(&so);
		doc = result_new();
		analysis_run(&ao, m, s, doc);
	}
	~Analysis()
	{
		result_free(doc);
		symbolizer_free(s);
	}
	const rvalue *operator[](const char *key) const
	{
		return r_get(result_root(doc), key);
	}
	size_t findings(const std::string &kind) const
	{
		size_t n = 0;

		r_for_each (f, (*this)["findings"])
			n += kind == r_get_string(f, "kind");
		return n;
	}

	symbolizer *s;
	result *doc;
};

const rvalue *row(const Analysis &a, int64_t site)
{
	r_for_each (g, a["growth"])
		if (r_get_int(g, "site") == site)
			return g;
	return nullptr;
}

mt_ev_mark phase_mark(uint64_t time, const char *name)
{
	static std::string kept[16];
	static size_t n;
	mt_ev_mark m = {};

	kept[n % 16] = name;
	m.time = time;
	m.kind = MT_MARK_PHASE;
	m.label = str(kept[n++ % 16]);
	return m;
}

} // namespace

TEST(Growth, ALeakHasARatePerSecondStepAndEpoch)
{
	ModelMaker m;
	uint32_t p = m.process("main", 12);
	uint32_t s = m.site(0, m.python("/a.py", "f", 1));

	m.use(s, p, 400, { 100, 100, 100, 100 }, 10 * KIB);
	for (int t = 0; t < 100; t++)
		m.mark(p, t, MT_MARK_STEP, "", static_cast<uint64_t>(t));
	for (int t = 0; t < 100; t += 10)
		m.mark(p, t, MT_MARK_PHASE, "epoch");
	Analysis a(m.get());
	const rvalue *g = row(a, s);

	ASSERT_NE(g, nullptr);
	EXPECT_STREQ(r_get_string(g, "verdict"), "leak");
	EXPECT_GT(r_get_float(g, "confidence"), 0.99);
	EXPECT_EQ(r_get_int(g, "bytes"), static_cast<int64_t>(400 * 10 * KIB));
	EXPECT_TRUE(r_has(g, "evidence"));
	EXPECT_FALSE(r_has(g, "level_bytes"));
	EXPECT_FALSE(r_has(g, "run_longer_s"));
	for (const auto &rate : std::map<const char *, double>{
		     { "bytes_per_s", 4 }, { "bytes_per_step", 4 }, { "bytes_per_epoch", 40 } }) {
		const rvalue *r = r_get(g, rate.first);

		ASSERT_TRUE(r_has(g, rate.first)) << rate.first;
		EXPECT_NEAR(r_get_float(r, "value"), rate.second * 10 * KIB,
			    0.05 * rate.second * 10 * KIB);
		EXPECT_LE(r_get_float(r, "low"), r_get_float(r, "value"));
		EXPECT_GE(r_get_float(r, "high"), r_get_float(r, "value"));
	}
}

TEST(Growth, WhatIsTooShortToTellSaysHowMuchLonger)
{
	ModelMaker m;
	uint32_t p = m.process("main", 12);
	uint32_t few = m.site(0, m.python("/a.py", "f", 1));
	uint32_t held = m.site(0, m.python("/a.py", "g", 2));

	m.use(few, p, 10, { 3, 2, 3, 2 }, 1 * MIB);
	m.use(held, p, 10, { 20, 0, 0, 0 }, 1 * MIB);
	Analysis a(m.get());

	ASSERT_NE(row(a, few), nullptr);
	EXPECT_STRNE(r_get_string(row(a, few), "verdict"), "leak");
	ASSERT_NE(row(a, held), nullptr);
	EXPECT_STREQ(r_get_string(row(a, held), "verdict"), "bounded");
	EXPECT_EQ(r_get_int(row(a, held), "level_bytes"), static_cast<int64_t>(20 * MIB));
	if (!strcmp(r_get_string(row(a, few), "verdict"), "undecided")) {
		EXPECT_GT(r_get_float(row(a, few), "run_longer_s"), 0);
	}
}

TEST(Growth, ReplicatesThatShowALittleEachAreJudgedTogether)
{
	for (bool are_workers : { true, false }) {
		ModelMaker m;
		uint32_t s = m.site(0, m.python("/a.py", "f", 1));

		for (uint32_t i = 0; i < 6; i++) {
			uint32_t p = m.process("dataloader-worker", 20 + i);

			m.processes[p].worker.is = are_workers;
			m.processes[p].worker.index = static_cast<int32_t>(i);
			m.processes[p].parent = 0;
			m.use(s, p, 12, { 3, 3, 3, 3 }, 100 * KIB);
		}
		Analysis a(m.get());

		EXPECT_EQ(a.findings("leak"), are_workers ? 1u : 0u);
		if (are_workers) {
			EXPECT_EQ(r_get(row(a, s), "procs")->count, 6u);
			EXPECT_EQ(r_get_int(row(a, s), "bytes"),
				  static_cast<int64_t>(72 * 100 * KIB));
		}
	}
}

TEST(Growth, OneOfManyReplicatesIsNamedAlone)
{
	ModelMaker m;
	uint32_t s = m.site(0, m.python("/a.py", "f", 1));

	for (uint32_t i = 0; i < 4; i++) {
		uint32_t p = m.process("dataloader-worker", 20 + i);

		m.processes[p].worker.is = true;
		m.processes[p].parent = 0;
		site_use &u = m.use(s, p, 400, { 100, 100, 100, 100 }, 100 * KIB);

		if (i != 2)
			m.lived(u, m.evenly(p, { 100, 100, 100, 100 }), 100 * KIB, 2);
	}
	Analysis a(m.get());

	ASSERT_EQ(a.findings("leak"), 1u);
	r_for_each (g, a["growth"])
		if (!strcmp(r_get_string(g, "verdict"), "leak")) {
			ASSERT_EQ(r_get(g, "pids")->count, 1u);
			EXPECT_EQ(r_get(g, "pids")->first->u.integer, 22);
		}
}

TEST(Growth, TheTimeUntilTheLimitFollowsFromTheRates)
{
	for (uint64_t leaked : { 0, 100 }) {
		ModelMaker m;
		uint32_t p = m.process("main", 12);

		m.sampled(p, 90, { { "cgroup_usage", 500 * MIB }, { "cgroup_limit", 1500 * MIB } });
		if (leaked)
			m.use(m.site(0, m.python("/a.py", "f", 1)), p, 100, { 25, 25, 25, 25 },
			      MIB);
		Analysis a(m.get());

		EXPECT_EQ(r_has(a["capacity"], "exhausted_in_s"), leaked != 0);
		if (leaked) {
			EXPECT_NEAR(r_get_float(a["capacity"], "exhausted_in_s"), 1000, 30);
		}
	}
}

/* A short run of a training: a minute of imports, twenty seconds of steps; what these collected is
 * given back when main() returns. */
TEST(Growth, WhatGrowsAsLongAsThereAreStepsIsNoPassOfAShortRun)
{
	for (bool steps_are_known : { true, false }) {
		constexpr uint64_t S = 1000000000, N = 200;
		TraceWriter w;
		Stream &s = w.process(Root());

		for (uint64_t i = 0; i < N; i++) {
			uint64_t at = 60 * S + i * S / 10;

			if (steps_are_known) {
				mt_ev_mark step = {};
				step.time = at;
				step.kind = MT_MARK_STEP;
				step.value = i;
				s.put(step);
			}
			s.alloc(at + 1000, 0x1000000 + i * MIB, 100 * KIB, 7);
		}
		for (uint64_t i = 0; i < N; i++)
			s.free(81 * S + i, 0x1000000 + i * MIB);
		s.put(mt_ev_exit{ 82 * S, MT_EXIT_EXIT, 0 });
		Replayed run(w);
		Analysis a(run.m);

		ASSERT_NE(a["growth"]->first, nullptr);
		EXPECT_STREQ(r_get_string(a["growth"]->first, "verdict"),
			     steps_are_known ? "leak" : "bounded");
		EXPECT_EQ(a.findings("leak"), steps_are_known ? 1u : 0u);
	}
}

/* ---- phases ---------------------------------------------------------------------------------- */

TEST(Phases, KnowTheirPeakWhatTheyHeldAndWhatWasKept)
{
	TraceWriter w;
	Stream &s = w.process(Root());

	s.alloc(10, 0x1000, MIB);
	s.put(phase_mark(100, "load"));
	s.alloc(110, 0x200000, 64 * MIB, 7)
		.alloc(120, 0x8000000, 3 * MIB, 8)
		.alloc(130, 0x9000000, MIB);
	s.free(140, 0x9000000).map(150, 0x10000000, 8 * MIB);
	s.put(phase_mark(200, "train"));
	s.alloc(210, 0x9000000, 2 * MIB).free(220, 0x8000000);
	s.put(phase_mark(300, ""));
	s.alloc(310, 0xb000000, MIB).free(1000, 0x9000000);
	s.put(mt_ev_exit{ 1001, MT_EXIT_EXIT, 0 });
	Replayed run(w);
	Analysis a(run.m);
	const rvalue *load = a["phases"]->first, *train;

	ASSERT_NE(load, nullptr);
	train = load->next;
	EXPECT_STREQ(r_get_string(load, "name"), "load");
	EXPECT_NEAR(r_get_float(load, "start_s"), 100e-9, 1e-12);
	EXPECT_NEAR(r_get_float(load, "end_s"), 200e-9, 1e-12);
	EXPECT_EQ(r_get_int(load, "peak_bytes"), static_cast<int64_t>(69 * MIB));
	EXPECT_EQ(r_get_int(load, "held_at_end_bytes"), static_cast<int64_t>(75 * MIB));
	EXPECT_EQ(r_get_int(load, "kept_bytes"), static_cast<int64_t>(72 * MIB));
	EXPECT_EQ(r_get_int(r_get(load, "sites")->first, "kept_bytes"),
		  static_cast<int64_t>(64 * MIB));
	EXPECT_EQ(r_get_int(train, "held_at_end_bytes"), static_cast<int64_t>(2 * MIB));
	/* Freed when the process wound up: a function returned that held it all along. */
	EXPECT_EQ(r_get_int(train, "kept_bytes"), static_cast<int64_t>(2 * MIB));
	EXPECT_EQ(a["phases"]->count, 2u);
	ASSERT_EQ(a.findings("not-released-after-phase"), 1u);
	r_for_each (f, a["findings"])
		if (!strcmp(r_get_string(f, "kind"), "not-released-after-phase")) {
			EXPECT_EQ(r_get_int(f, "bytes"), static_cast<int64_t>(72 * MIB));
			EXPECT_NE(std::string(r_get_string(f, "title")).find("'load'"),
				  std::string::npos);
		}
}

TEST(Phases, WhatLaterPhasesUseUpIsNotKept)
{
	TraceWriter w;
	Stream &s = w.process(Root());

	s.put(phase_mark(100, "load"));
	for (uint64_t i = 0; i < 50; i++)
		s.alloc(110 + i, (i + 1) << 24, MIB, 7);
	s.put(phase_mark(200, "train"));
	for (uint64_t i = 0; i < 50; i++)
		s.free(216 + 16 * i, (i + 1) << 24);
	s.put(mt_ev_exit{ 1001, MT_EXIT_EXIT, 0 });
	Replayed run(w);
	Analysis a(run.m);

	EXPECT_EQ(r_get_int(a["phases"]->first, "held_at_end_bytes"), static_cast<int64_t>(50 * MIB));
	EXPECT_EQ(r_get_int(a["phases"]->first, "kept_bytes"), 0);
	EXPECT_EQ(a.findings("not-released-after-phase"), 0u);
}

TEST(Phases, OneThatGoesOnToTheEndHasNotFailedToRelease)
{
	TraceWriter w;
	Stream &s = w.process(Root());

	s.put(phase_mark(100, "serve"));
	s.alloc(110, 0x200000, 64 * MIB, 7);
	s.put(mt_ev_exit{ 1001, MT_EXIT_EXIT, 0 });
	Replayed run(w);
	Analysis a(run.m);

	EXPECT_TRUE(r_get_bool(a["phases"]->first, "open"));
	EXPECT_EQ(r_get_int(a["phases"]->first, "kept_bytes"), static_cast<int64_t>(64 * MIB));
	EXPECT_EQ(a.findings("not-released-after-phase"), 0u);
}

TEST(Phases, InheritedMemoryIsNoneOfTheChilds)
{
	TraceWriter w;
	Stream &s = w.process(Root());

	s.put(phase_mark(100, "load"));
	s.alloc(110, 0x200000, 64 * MIB, 7);
	Stream &child = w.fork(s, 120, 200);

	child.put(phase_mark(130, "child"));
	child.free(140, 0x200000).alloc(150, 0x200000, MIB).free(160, 0x200000);
	Replayed run(w);
	Analysis a(run.m);

	ASSERT_EQ(a["phases"]->count, 2u);
	r_for_each (p, a["phases"])
		EXPECT_EQ(r_get_int(p, "kept_bytes"),
			  static_cast<int64_t>(r_get_int(p, "pid") == 200 ? 0 : 64 * MIB));
}

/* ---- suppressions ---------------------------------------------------------------------------- */

namespace
{

struct Rules {
	explicit Rules(const std::string &text)
	{
		TempDir dir;
		char *said = nullptr;

		WriteAll(dir.File("known"), text);
		s = suppressions_read(dir.File("known").c_str(), &said);
		problem = said ? said : "";
		free(said);
	}
	~Rules()
	{
		suppressions_free(s);
	}

	suppressions *s;
	std::string problem;
};

size_t leaks_with(const std::string &text)
{
	ModelMaker m;
	Rules rules(text);

	m.use(m.site(0, m.python("/home/me/train.py", "remember", 42)), m.process("main", 12), 80,
	      { 20, 20, 20, 20 }, 64 * KIB);
	return Analysis(m.get(), rules.s).findings("leak");
}

} // namespace

TEST(Suppress, AFindingGoesByKindAndAnyFrame)
{
	EXPECT_EQ(leaks_with(""), 1u);
	EXPECT_EQ(leaks_with("leak train.py:42\n"), 0u);
	EXPECT_EQ(leaks_with("# known\n\n  leak   remember  # since 2024\n"), 0u);
	EXPECT_EQ(leaks_with("* /home/me/*\n"), 0u);
	EXPECT_EQ(leaks_with("leak train.py:4?"), 0u);
	EXPECT_EQ(leaks_with("growth train.py:42\n"), 1u);
	EXPECT_EQ(leaks_with("leak train.py:43\nleak forget\n"), 1u);
}

TEST(Suppress, TheReportSaysHowManyWereLeftOut)
{
	ModelMaker m;
	Rules rules("leak *\n");
	std::string notes;

	m.use(m.site(0, m.python("/a.py", "f", 1)), m.process("main", 12), 80, { 20, 20, 20, 20 },
	      64 * KIB);
	Analysis a(m.get(), rules.s);

	r_for_each (n, r_get(a["trace"], "notes"))
		notes += n->u.string;
	EXPECT_NE(notes.find("1 finding was left out because of "), std::string::npos) << notes;
}

TEST(Suppress, BadFilesAreSaidInOneLine)
{
	char *problem = nullptr;

	EXPECT_EQ(suppressions_read("/nowhere/at/all", &problem), nullptr);
	EXPECT_STREQ(problem, "--suppress: cannot read /nowhere/at/all: No such file or directory");
	free(problem);
	Rules rules("leak a*\nleak\n");
	EXPECT_EQ(rules.s, nullptr);
	EXPECT_NE(rules.problem.find("line 2 of "), std::string::npos) << rules.problem;
}
