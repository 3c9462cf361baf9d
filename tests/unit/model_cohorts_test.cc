/*
 * What became of a site's blocks by birth: windows that adapt, counts before and after the last
 * birth, chains of reallocations, and how the replay feeds it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <cstdlib>

#include "model/cohorts.h"
#include "support/replayed.h"

using memtrace_test::Replayed;
using memtrace_test::Root;
using memtrace_test::Stream;
using memtrace_test::TraceWriter;

namespace
{

constexpr uint64_t WINDOW = UINT64_C(1) << 17; /* the first windows' length */

struct Sums {
	uint64_t births = 0, alive = 0, gone = 0, deaths = 0, late = 0;
	double bytes = 0;
};

Sums sum(const cohorts *c)
{
	Sums s;

	for (unsigned i = 0; i < c->count; i++) {
		s.births += c->windows[i].births;
		s.alive += c->windows[i].alive;
		s.gone += c->windows[i].gone;
		s.deaths += c->windows[i].deaths;
		s.late += c->windows[i].late;
		s.bytes += c->windows[i].bytes - c->windows[i].gone_bytes;
	}
	return s;
}

const cohorts *only(const Replayed &run)
{
	const cohorts *found = nullptr;

	for (size_t i = 0; i < run.m->use_count; i++)
		if (run.m->uses[i].cohorts) {
			EXPECT_EQ(found, nullptr) << "more than one site is followed";
			found = run.m->uses[i].cohorts;
		}
	return found;
}

} // namespace

TEST(Cohorts, BlocksAreCountedWhereTheyWereBornAndAtTheAgeTheyDied)
{
	cohorts *c = cohorts_new(1000, 0);

	c = cohorts_birth(c, 1000, 10);
	c = cohorts_birth(c, 1000 + 2 * WINDOW, 20);
	c = cohorts_death(c, 1000 + 3 * WINDOW, 1000, 10, 1);
	EXPECT_EQ(c->windows[3].late, 1u);
	EXPECT_EQ(c->windows[0].gone, 1u);
	c = cohorts_birth(c, 1000 + 3 * WINDOW, 40);
	EXPECT_EQ(c->windows[3].deaths, 1u) << "a birth came after it";
	EXPECT_EQ(c->windows[0].alive, 0u);
	EXPECT_EQ(c->windows[0].births, 1u);
	EXPECT_EQ(c->windows[2].alive, 1u);
	EXPECT_EQ(c->windows[3].bytes, 40);
	EXPECT_EQ(c->windows[2].top, 30.0f);
	EXPECT_EQ(c->windows[3].floor, 20.0f);
	EXPECT_EQ(c->level, 60);
	free(c);
}

TEST(Cohorts, WindowsGrowWithTheLifeOfTheSiteAndNeverInNumber)
{
	cohorts *c = cohorts_new(0, 0);

	for (uint64_t i = 0; i < 1000; i++)
		c = cohorts_birth(c, i * WINDOW * 10, 1);
	c = cohorts_settle(c, 10000 * WINDOW);
	Sums s = sum(c);

	EXPECT_EQ(c->room, COHORT_WINDOWS);
	EXPECT_LE(c->count, COHORT_WINDOWS);
	EXPECT_GT(c->count, COHORT_WINDOWS / 2);
	EXPECT_EQ(s.births, 1000u);
	EXPECT_EQ(s.alive, 1000u);
	for (unsigned i = 0; i + 1 < c->count; i++)
		EXPECT_NEAR(c->windows[i].births, 1000.0 / c->end, 2) << i;
	free(c);
}

TEST(Cohorts, AFewBirthsTakeAFewWindows)
{
	cohorts *c = cohorts_new(0, 0);

	for (uint64_t i = 0; i < 10; i++)
		c = cohorts_birth(c, i * WINDOW * 1000, 1);
	EXPECT_EQ(c->room, 8);
	free(c);
}

TEST(Cohorts, WhatIsFreedAfterTheLastBirthIsToldApart)
{
	cohorts *c = cohorts_new(0, 0);

	for (uint64_t i = 0; i < 8; i++)
		c = cohorts_birth(c, i * WINDOW, 5);
	for (uint64_t i = 0; i < 8; i++)
		c = cohorts_death(c, 8 * WINDOW, i * WINDOW, 5, 1);
	c = cohorts_settle(c, 8 * WINDOW);
	Sums s = sum(c);

	EXPECT_EQ(s.alive, 8u);
	EXPECT_EQ(s.gone, 8u);
	EXPECT_EQ(s.deaths, 0u);
	EXPECT_EQ(s.late, 8u);
	EXPECT_EQ(c->level, 0);
	EXPECT_EQ(s.bytes, 0);
	free(c);
}

TEST(Cohorts, FoldedOnesAreSpreadOverTheirTimeAndDiedAtOnce)
{
	cohorts *c = cohorts_new(0, 0);

	for (uint64_t i = 0; i < 8; i++)
		c = cohorts_birth(c, i * WINDOW, 5);
	cohorts_add_dead(c, 0, 8 * WINDOW - 1, 800);
	EXPECT_EQ(sum(c).births, 808u);
	EXPECT_EQ(c->windows[0].deaths, 800u) << "at age 0";
	for (unsigned i = 0; i < 8; i++)
		EXPECT_EQ(c->windows[i].births, 101u);
	cohorts_add_dead(c, 7 * WINDOW, 20 * WINDOW, 10);
	EXPECT_EQ(sum(c).births, 818u);
	free(c);
}

TEST(Cohorts, TwoOfOneSiteAreOne)
{
	cohorts *a = cohorts_new(0, 0), *b = cohorts_new(50 * WINDOW, 0);

	for (uint64_t i = 0; i < 100; i++) {
		a = cohorts_birth(a, i * WINDOW, 1);
		b = cohorts_birth(b, (50 + i) * WINDOW, 1);
	}
	b = cohorts_death(b, 149 * WINDOW, 50 * WINDOW, 1, 1);
	for (cohorts **c : { &a, &b }) {
		*c = cohorts_settle(*c, 150 * WINDOW);
		(*c)->start_ns = static_cast<int64_t>((*c)->origin);
		(*c)->window_ns = static_cast<double>(UINT64_C(1) << (*c)->shift);
	}
	a = cohorts_merge(a, b);
	Sums s = sum(a);

	EXPECT_EQ(s.births, 200u);
	EXPECT_EQ(s.alive, 200u);
	EXPECT_EQ(s.gone, 1u);
	EXPECT_EQ(a->level, 199);
	EXPECT_NEAR(a->end * a->window_ns, 150.0 * WINDOW, 1);
	EXPECT_NEAR(a->last * a->window_ns, 149.0 * WINDOW, 1);
	EXPECT_LE(a->count, COHORT_WINDOWS);
	/* From 50 to 100 both are at work. */
	EXPECT_GT(a->windows[a->count / 2].births, a->windows[1].births);
	free(a);
	free(b);
}

/* ---- the replay ------------------------------------------------------------------------------ */

TEST(CohortsReplay, ASiteThatHoldsOneBlockAtATimeIsNotFollowed)
{
	TraceWriter w;
	Stream &s = w.process(Root());

	for (uint64_t t = 10; t < 1000; t += 10)
		s.alloc(t, 0x1000, 64, 7).free(t + 5, 0x1000);
	EXPECT_EQ(only(Replayed(w)), nullptr);
}

TEST(CohortsReplay, ASiteThatHoldsFourIsFollowedAndKnowsWhatItHeldBefore)
{
	TraceWriter w;
	Stream &s = w.process(Root());

	for (uint64_t i = 0; i < 10; i++)
		s.alloc(10 + i, 0x1000 + i * 0x100, 64, 7);
	s.free(30, 0x1000).free(31, 0x1900);
	Replayed run(w);
	const cohorts *c = only(run);

	ASSERT_NE(c, nullptr);
	EXPECT_EQ(c->born, 7u) << "from the fourth on";
	EXPECT_EQ(c->before, 2 * 64.0) << "one of the first three was freed";
	EXPECT_EQ(c->level, 8 * 64.0);
	EXPECT_EQ(sum(c).gone, 1u);
	EXPECT_EQ(c->start_ns, 13);
	EXPECT_FALSE(c->missed);
}

TEST(CohortsReplay, AChainOfReallocationsIsOneObject)
{
	TraceWriter w;
	Stream &s = w.process(Root());

	s.alloc(10, 0x10000, 5000, 7);
	for (uint64_t i = 1; i < 50; i++)
		s.realloc(10 + i * WINDOW, i * 0x10000, 5, (i + 1) * 0x10000, 5000 + i * 100, 7);
	Replayed run(w);
	const cohorts *c = only(run);

	ASSERT_NE(c, nullptr);
	EXPECT_EQ(sum(c).births, 1u);
	EXPECT_EQ(sum(c).alive, 1u);
	EXPECT_EQ(sum(c).deaths + sum(c).late, 0u) << "no resize is a death";
	EXPECT_EQ(c->level, 5000 + 49 * 100.0);
	for (unsigned i = 1; i < c->count; i++)
		EXPECT_GE(c->windows[i].floor, 5000) << "it is never seen as gone in between";
}

TEST(CohortsReplay, MissedFreesAreRemembered)
{
	TraceWriter w;
	Stream &s = w.process(Root());

	for (uint64_t i = 0; i < 10; i++)
		s.alloc(10 + i, 0x1000 + i * 0x100, 64, 7);
	s.alloc(50, 0x1000, 64, 7);
	Replayed run(w);

	ASSERT_NE(only(run), nullptr);
	EXPECT_TRUE(only(run)->missed);
}

TEST(CohortsReplay, MappingsAndDeviceMemoryAreFollowedAlike)
{
	for (uint64_t kind : { MT_KIND_MMAP, MT_KIND_SHM, MT_KIND_DEVICE, MT_KIND_PINNED }) {
		TraceWriter w;
		Stream &s = w.process(Root());

		for (uint64_t i = 0; i < 10; i++) {
			if (kind == MT_KIND_MMAP || kind == MT_KIND_SHM)
				s.map(10 + i, 0x100000 * (i + 1), 0x2000, kind);
			else
				s.alloc(10 + i, 0x100000 * (i + 1), 0x2000, 7, 0, kind);
		}
		if (kind == MT_KIND_MMAP || kind == MT_KIND_SHM)
			s.unmap(100, 0xa00000, 0x1000).unmap(200, 0x500000, 0x2000);
		Replayed run(w);
		const cohorts *c = only(run);

		ASSERT_NE(c, nullptr) << kind;
		EXPECT_EQ(c->born, 7u);
		if (kind == MT_KIND_MMAP || kind == MT_KIND_SHM) {
			EXPECT_EQ(sum(c).gone, 1u) << "half a mapping is not gone";
			EXPECT_EQ(c->level, 10 * 0x2000 - 0x3000);
		}
	}
}

TEST(CohortsReplay, WhatPythonFreesAsItShutsDownCountsAsKept)
{
	TraceWriter w;
	Stream &s = w.process(Root());
	mt_ev_mark mark = {};

	for (uint64_t i = 0; i < 10; i++)
		s.alloc(10 + i, 0x1000 + i * 0x100, 64, 7);
	mark.time = 100;
	mark.kind = MT_MARK_SHUTDOWN;
	s.put(mark);
	for (uint64_t i = 0; i < 10; i++)
		s.free(110 + i, 0x1000 + i * 0x100);
	Replayed run(w);

	ASSERT_NE(only(run), nullptr);
	EXPECT_EQ(only(run)->level, 640);
	EXPECT_EQ(sum(only(run)).gone, 0u);
}

TEST(CohortsReplay, AForkedChildHasItsOwnAndNotItsParents)
{
	TraceWriter w;
	Stream &s = w.process(Root());

	for (uint64_t i = 0; i < 10; i++)
		s.alloc(10 + i, 0x1000 + i * 0x100, 64, 7);
	Stream &child = w.fork(s, 30, 200);

	child.free(40, 0x1000).free(41, 0x1100).alloc(50, 0x1000, 64, 7);
	Replayed run(w);

	ASSERT_NE(only(run), nullptr) << "one block of the child's own is not enough";
	EXPECT_EQ(only(run)->level, 640) << "the child frees its own copies";
}

TEST(CohortsReplay, TheWindowOfTimeCutsBirthsAndDeaths)
{
	TraceWriter w;
	Stream &s = w.process(Root());
	pipeline_options opt = {};

	for (uint64_t i = 0; i < 40; i++)
		s.alloc(i * 1000000000, 0x1000 + i * 0x100, 64, 7);
	s.free(39500000000, 0x1000);
	opt.from = "9.5";
	opt.to = "29.5";
	Replayed run(w, opt);

	ASSERT_NE(only(run), nullptr);
	EXPECT_EQ(only(run)->born, 20u);
	EXPECT_EQ(only(run)->before, 640);
	EXPECT_EQ(only(run)->level, 30 * 64.0);
}
