/*
 * How often verdicts are right, on the labelled corpus. `make verdicts` prints the table of
 * docs/VERDICTS.md; MT_CORPUS_SEEDS sets the number of runs of each behaviour, MT_CORPUS_TUNED=1
 * leaves out what is held back.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>

#include "corpus/corpus.h"
#include "support/harness.h"

using namespace memtrace_corpus;

namespace
{

const std::vector<Behaviour> &behaviours()
{
	static std::vector<Behaviour> all;

	if (all.empty()) {
		all = leaking;
		all.insert(all.end(), bounded.begin(), bounded.end());
	}
	return all;
}

struct Row {
	int runs = 0, said[4] = {}, eligible = 0, found = 0;
	int rates = 0, covered = 0;
	double bytes_error = 0; /* sum of |said / truth - 1| over leaks found */
	std::map<std::string, int> reasons;
};

void add(Row &row, const Outcome &o)
{
	row.runs++;
	row.said[o.said]++;
	row.eligible += o.eligible;
	row.found += o.eligible && o.said == VERDICT_LEAK;
	if (o.said != VERDICT_LEAK)
		row.reasons[o.reason]++;
	if (o.said != VERDICT_LEAK || o.truth_rate <= 0)
		return;
	row.rates++;
	row.covered += o.truth_rate >= o.rate.low && o.truth_rate <= o.rate.high;
	row.bytes_error += std::fabs(o.said_bytes / o.truth_bytes - 1);
}

std::map<std::string, Row> rows_of(int seeds)
{
	std::map<std::string, Row> rows;

	for (const Behaviour &b : behaviours()) {
		if (b.held_back && getenv("MT_CORPUS_TUNED"))
			continue;
		for (int seed = 0; seed < seeds; seed++)
			add(rows[b.name], run(b, static_cast<uint32_t>(seed)));
	}
	return rows;
}

int percent(int part, int all)
{
	return all ? static_cast<int>(std::lround(100.0 * part / all)) : 0;
}

void print_table(const std::map<std::string, Row> &rows)
{
	printf("| behaviour | truth | held back | leak | growth | bounded | undecided | found, of those to "
	       "be found | rate in interval | bytes off by |\n");
	printf("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n");
	for (const Behaviour &b : behaviours()) {
		auto at = rows.find(b.name);
		char found[64] = "", covered[16] = "", off[16] = "";

		if (at == rows.end())
			continue;
		const Row &r = at->second;

		if (b.leaks)
			snprintf(found, sizeof(found), "%d of %d", r.found, r.eligible);
		if (b.leaks && r.rates) {
			snprintf(covered, sizeof(covered), "%d %%", percent(r.covered, r.rates));
			snprintf(off, sizeof(off), "%.1f %%", 100 * r.bytes_error / r.rates);
		}
		printf("| `%s`: %s | %s | %s | %d %% | %d %% | %d %% | %d %% | %s | %s | %s |\n",
		       b.name, b.text, b.leaks ? "leak" : "bounded", b.held_back ? "yes" : "",
		       percent(r.said[VERDICT_LEAK], r.runs),
		       percent(r.said[VERDICT_GROWTH], r.runs),
		       percent(r.said[VERDICT_BOUNDED], r.runs),
		       percent(r.said[VERDICT_UNDECIDED], r.runs), found, covered, off);
		if (getenv("MT_CORPUS_REASONS"))
			for (const auto &why : r.reasons)
				printf("    %4d  %s\n", why.second, why.first.c_str());
	}
}

struct Sums {
	int false_leaks = 0, bounded_runs = 0, found = 0, eligible = 0, leaks = 0, all_leaks = 0;
};

Sums sum_up(const std::map<std::string, Row> &rows, int held)
{
	Sums s;

	for (const Behaviour &b : behaviours()) {
		auto at = rows.find(b.name);

		if (at == rows.end() || (held >= 0 && b.held_back != (held == 1)))
			continue;
		const Row &r = at->second;

		if (b.leaks) {
			s.eligible += r.eligible;
			s.found += r.found;
			s.leaks += r.said[VERDICT_LEAK];
			s.all_leaks += r.runs;
		} else {
			s.bounded_runs += r.runs;
			s.false_leaks += r.said[VERDICT_LEAK];
		}
	}
	return s;
}

void print_sums(const char *what, const Sums &s)
{
	if (s.bounded_runs)
		printf("%s: called a leak %d of %d runs of bounded behaviours (%.2f %%), found %d of "
		       "%d leaks (%.1f %%), precision %.2f %%, recall of all leaks %.1f %%\n",
		       what, s.false_leaks, s.bounded_runs, 100.0 * s.false_leaks / s.bounded_runs, s.found,
		       s.eligible, 100.0 * s.found / s.eligible,
		       100.0 * s.leaks / (s.leaks + s.false_leaks), 100.0 * s.leaks / s.all_leaks);
}

} // namespace

/* The bounds of the requirement, over all behaviours, held back ones included. */
TEST(Corpus, BoundedIsNotCalledALeakAndLeaksAreFound)
{
	const char *seeds = getenv("MT_CORPUS_SEEDS");
	int count = seeds ? atoi(seeds) : static_cast<int>(memtrace_test::Scaled(60, 12));
	std::map<std::string, Row> rows = rows_of(count);
	Sums s = sum_up(rows, -1);

	if (seeds) {
		print_table(rows);
		printf("\n");
		print_sums("tuned", sum_up(rows, 0));
		print_sums("held back", sum_up(rows, 1));
		print_sums("all", s);
	}
	EXPECT_GE(behaviours().size(), 30u);
	EXPECT_LE(s.false_leaks, std::max(1.0, 0.01 * s.bounded_runs));
	EXPECT_GE(s.found, 0.95 * s.eligible);
	EXPECT_GT(s.eligible, 0);
}
