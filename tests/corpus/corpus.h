/*
 * A labelled corpus of what call sites do with memory: each behaviour makes the blocks of one site,
 * from a seed, and says whether memory is lost. The blocks are replayed by the analyzer's own model,
 * and its verdict is held against the label.
 *
 * A third of the behaviours is held back: thresholds were not, and must not be, tuned on them. Look
 * at their results only when a version is done (docs/VERDICTS.md).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_TESTS_CORPUS_H
#define MEMTRACE_TESTS_CORPUS_H

#include <cstdint>
#include <deque>
#include <random>
#include <string>
#include <vector>

#include "model/model.h"

extern "C" {
#include "analysis/verdict.h"
}

namespace memtrace_corpus
{

constexpr double NEVER = 1e18;

struct Block {
	double birth, death; /* in steps; NEVER: it is alive at the end */
	uint64_t size;
	uint32_t worker; /* process */
	bool resized; /* at its death it becomes the block that comes next in the list */
	bool lost; /* by the truth of the behaviour */
};

/* The blocks of one site over a run; steps are 200 ms. */
class Story
{
      public:
	explicit Story(uint32_t seed);

	double steps; /* length of the run */
	double per_step; /* allocations in a step, on average */
	std::vector<Block> blocks;
	uint32_t workers = 1;
	mt_kind kind = MT_KIND_HEAP;
	uint64_t sample_bytes = 0; /* not 0: only a sample is recorded */
	std::vector<double> marks; /* when the program began each of its own steps, if it tells */
	double exit_at = 0; /* not 0: from here on the program winds up and frees all; in steps */

	/* life in steps */
	Block &take(double at, double life, uint64_t size = 0);
	Block &lose(double at, uint64_t size = 0);
	double uniform(double low, double high);
	double exponential(double mean);
	double lognormal(double mu, double sigma);
	bool chance(double p);
	int poisson(double mean);
	/* Calls fn(time) for every allocation of a steady stream between two steps. */
	template <typename F> void stream(double from, double to, double rate, F fn)
	{
		for (double t = from + exponential(1 / rate); t < to; t += exponential(1 / rate))
			fn(t);
	}
	template <typename F> void stream(F fn)
	{
		stream(0, steps, per_step, fn);
	}

	std::mt19937 rng;

      private:
	double typical_size_;
};

/* Of a cache of `cap` blocks the oldest goes; is_lost() tells whether one is lost instead of cached. */
template <typename F> void lru(Story &s, size_t cap, F is_lost)
{
	std::deque<size_t> held;

	s.stream([&](double t) {
		if (is_lost()) {
			s.lose(t);
			return;
		}
		if (held.size() == cap) {
			s.blocks[held.front()].death = t;
			held.pop_front();
		}
		held.push_back(s.blocks.size());
		s.take(t, NEVER);
	});
}

struct Behaviour {
	const char *name;
	bool leaks;
	bool held_back;
	void (*tell)(Story &s);
	const char *text;
};

extern const std::vector<Behaviour> leaking, bounded;

struct Outcome {
	verdict said;
	double p;
	double truth_bytes, said_bytes; /* lost, of a leak */
	double truth_rate; /* bytes per second */
	range rate;
	bool eligible; /* a leak the requirement speaks of: >= 50 lost objects over >= 6 windows, ... */
	std::string reason;
};

Outcome run(const Behaviour &b, uint32_t seed);

} // namespace memtrace_corpus

#endif
