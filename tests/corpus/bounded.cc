/*
 * Call sites whose memory is bounded; see corpus.h. Those marked held back are every third, chosen before anything was tuned.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <algorithm>
#include <cmath>
#include <deque>

#include "corpus/corpus.h"

namespace memtrace_corpus
{

namespace
{

void Stationary(Story &s)
{
	double mean = s.uniform(1, s.steps / 20);

	s.stream([&](double t) { s.take(t, s.exponential(mean)); });
}

void Diurnal(Story &s)
{
	double period = s.steps / s.uniform(2, 6), mean = s.uniform(1, 8);

	s.stream([&](double t) {
		if (s.chance(0.5 + 0.5 * std::sin(2 * M_PI * t / period)))
			s.take(t, s.exponential(mean));
	});
}

void BurstsThatGo(Story &s)
{
	double gap = s.steps / s.uniform(4, 20);

	for (double t = s.uniform(0, gap); t < s.steps; t += gap)
		for (int i = 0; i < 100; i++)
			s.take(t + s.uniform(0, 1), s.uniform(1, gap / 2));
}

void EpochSawtooth(Story &s)
{
	double epoch = s.steps / s.uniform(3, 20);

	s.stream([&](double t) { s.take(t, (std::floor(t / epoch) + 1) * epoch - t); });
}

void LastTwoEpochs(Story &s)
{
	double epoch = s.steps / s.uniform(6, 20);

	s.stream([&](double t) { s.take(t, (std::floor(t / epoch) + 2) * epoch - t); });
}

void Lru(Story &s)
{
	lru(s, static_cast<size_t>(s.steps * s.per_step * s.uniform(0.02, 0.25)),
	    [] { return false; });
}

void LargeLru(Story &s)
{
	lru(s, static_cast<size_t>(s.steps * s.per_step * s.uniform(0.3, 0.5)),
	    [] { return false; });
}

/* A full cache that nobody uses any more: what it holds stays, and is not lost. */
void LruAtRest(Story &s)
{
	double all = s.steps;

	s.steps *= s.uniform(0.3, 0.7);
	lru(s, static_cast<size_t>(s.steps * s.per_step * s.uniform(0.05, 0.6)),
	    [] { return false; });
	s.steps = all;
}

void RandomEviction(Story &s)
{
	size_t cap = static_cast<size_t>(s.steps * s.per_step * s.uniform(0.03, 0.3));
	std::vector<size_t> held;

	s.stream([&](double t) {
		if (held.size() == cap) {
			size_t i = static_cast<size_t>(s.uniform(0, 1) * static_cast<double>(cap));

			s.blocks[held[i]].death = t;
			held[i] = held.back();
			held.pop_back();
		}
		held.push_back(s.blocks.size());
		s.take(t, NEVER);
	});
}

void warm_up(Story &s, double tau)
{
	s.stream([&](double t) {
		if (s.chance(std::exp(-t / tau)))
			s.take(t, NEVER);
	});
}

void WarmUp(Story &s)
{
	warm_up(s, s.steps / s.uniform(6, 20));
}

void SlowWarmUp(Story &s)
{
	warm_up(s, s.steps / s.uniform(3, 5));
}

/* Steps ask for ever fewer keys that are new, and become the quicker for it: over time the cache
 * seems to grow evenly. */
void QuickeningSteps(Story &s)
{
	double steps = s.uniform(200, 400), tau = steps / 3;
	double length = s.steps / tau / -std::expm1(-3);

	for (double i = 0, t = 0; i < steps; i++) {
		double share = std::exp(-i / tau);

		s.marks.push_back(t);
		for (int k = s.poisson(2 * share); k-- > 0;)
			s.take(std::min(s.steps - 0.01, t + length * share * s.uniform(0, 1)),
			       NEVER);
		t += length * share;
	}
}

void WarmUpBesideTraffic(Story &s)
{
	double tau = s.steps / s.uniform(4, 12);

	s.stream([&](double t) {
		s.take(t, s.chance(0.3 * std::exp(-t / tau)) ? NEVER : s.exponential(3));
	});
}

void at_once(Story &s, double t, int n)
{
	for (int i = 0; i < n; i++)
		s.take(std::min(s.steps - 0.01, t + s.uniform(0, s.steps / 100)), NEVER);
}

void OneStep(Story &s)
{
	at_once(s, s.steps * s.uniform(0, 0.9), 300);
}

void SomeSteps(Story &s)
{
	for (int n = static_cast<int>(s.uniform(2, 5)); n-- > 0;)
		at_once(s, s.steps * s.uniform(0, 0.95), 100);
	s.stream([&](double t) { s.take(t, s.exponential(2)); });
}

void GrowsThenFlat(Story &s)
{
	double until = s.steps * s.uniform(0.2, 0.6);

	s.stream([&](double t) { s.take(t, t < until ? NEVER : s.exponential(2)); });
}

void LoadedThenIdle(Story &s)
{
	double until = s.steps * s.uniform(0.1, 0.65);

	s.stream(0, until, s.per_step, [&](double t) { s.take(t, NEVER); });
}

void Lognormal(Story &s)
{
	double mu = s.uniform(0, 1.2), sigma = s.uniform(0.5, 1.2);

	s.stream([&](double t) { s.take(t, s.lognormal(mu, sigma)); });
}

void Pareto(Story &s)
{
	double shape = s.uniform(1.5, 3);

	s.stream([&](double t) { s.take(t, std::pow(s.uniform(1e-9, 1), -1 / shape)); });
}

void Bimodal(Story &s)
{
	double longer = s.steps * s.uniform(0.08, 0.3);

	s.stream([&](double t) { s.take(t, s.exponential(s.chance(0.1) ? longer : 3)); });
}

void RareLongLived(Story &s)
{
	double longer = s.steps * s.uniform(0.1, 0.3);

	s.stream([&](double t) {
		s.take(t, s.chance(0.02) ? longer * s.uniform(0.8, 1.2) : s.exponential(2));
	});
}

/* A pool keeps what it ever needed: its size is the highest need so far. */
void Pool(Story &s)
{
	double need = 20, swing = s.steps / s.uniform(5, 15), highest = 0;

	for (double t = 0; t < s.steps; t += 0.25) {
		need = 60 + 40 * std::sin(2 * M_PI * t / swing) + s.uniform(-10, 10);
		for (; highest < need; highest++)
			s.take(t + s.uniform(0, 0.2), NEVER);
	}
}

/* Names of a fixed vocabulary, each interned when it is first met. */
void InternTable(Story &s)
{
	std::vector<bool> known(static_cast<size_t>(s.uniform(100, 500)));

	s.stream([&](double t) {
		size_t i = static_cast<size_t>(s.uniform(0, 1) * static_cast<double>(known.size()));

		s.take(t, known[i] ? s.exponential(1) : NEVER);
		known[i] = true;
	});
}

/* A queue between two threads; its backlog wanders between 0 and a limit. */
void Queue(Story &s)
{
	std::deque<size_t> waiting;
	size_t limit = static_cast<size_t>(s.uniform(50, 300));

	s.stream([&](double t) {
		for (int i = s.poisson(1); i-- > 0 && !waiting.empty();) {
			s.blocks[waiting.front()].death = t;
			waiting.pop_front();
		}
		if (waiting.size() < limit) {
			waiting.push_back(s.blocks.size());
			s.take(t, NEVER);
		}
	});
}

void StartUpThenTraffic(Story &s)
{
	for (int i = 0; i < 400; i++)
		s.take(s.uniform(0, s.steps / 12), NEVER);
	s.stream([&](double t) { s.take(t, s.exponential(3)); });
}

void BurstAtTheEnd(Story &s)
{
	s.stream([&](double t) { s.take(t, s.exponential(3)); });
	at_once(s, s.steps * s.uniform(0.93, 0.98), 300);
}

/* A list that grows by an eighth when it is full, and starts anew now and then. */
void ResizedList(Story &s)
{
	double items = 16, full = 16, until = s.steps / s.uniform(4, 10);

	for (double t = 0; t < s.steps; t += 1 / s.per_step) {
		if (t > until) {
			until += s.steps / 5;
			if (!s.blocks.empty())
				s.blocks.back().death = t;
			items = full = 16;
		}
		if (++items < full)
			continue;
		full = items * 1.125 + 6;
		if (!s.blocks.empty() && s.blocks.back().death == NEVER) {
			s.blocks.back().death = t;
			s.blocks.back().resized = true;
		}
		s.take(t, NEVER, static_cast<uint64_t>(full) * 8);
	}
}

void CacheInFourWorkers(Story &s)
{
	s.workers = 4;
	for (uint32_t w = 0; w < 4; w++) {
		size_t first = s.blocks.size();

		lru(s, static_cast<size_t>(s.steps * s.per_step * s.uniform(0.05, 0.25)),
		    [] { return false; });
		for (; first < s.blocks.size(); first++)
			s.blocks[first].worker = w;
	}
}

void SampledCache(Story &s)
{
	s.sample_bytes = 4096;
	s.per_step = std::max(s.per_step, 30.0);
	RandomEviction(s);
}

void DoubleBuffer(Story &s)
{
	double gap = s.uniform(1, 4);

	for (double t = 0; t < s.steps; t += gap)
		s.take(t, 2 * gap, 4 << 20);
}

void AgeingSessions(Story &s) /* end by a timeout, at different loads */
{
	double timeout = s.steps * s.uniform(0.05, 0.25);

	s.stream([&](double t) {
		if (s.chance(0.6 + 0.4 * std::sin(t / timeout)))
			s.take(t, timeout * s.uniform(0.95, 1.05));
	});
}

} // namespace

const std::vector<Behaviour> bounded = {
	{ "stationary", false, false, Stationary, "exponential lifetimes" },
	{ "diurnal", false, false, Diurnal, "a load that swings" },
	{ "bursts-that-go", false, true, BurstsThatGo, "bursts that are freed" },
	{ "epoch-sawtooth", false, false, EpochSawtooth, "all freed at the end of an epoch" },
	{ "last-two-epochs", false, false, LastTwoEpochs, "freed at the end of the next epoch" },
	{ "lru", false, true, Lru, "full after 2 to 25 % of the run" },
	{ "large-lru", false, false, LargeLru, "full after 30 to 50 % of the run" },
	{ "lru-at-rest", false, false, LruAtRest, "then nobody asks it for anything new" },
	{ "random-eviction", false, false, RandomEviction, "a full cache drops any block" },
	{ "warm-up", false, true, WarmUp, "new keys become rare" },
	{ "slow-warm-up", false, false, SlowWarmUp, "time constant a third to a fifth of the run" },
	{ "quickening-steps", false, false, QuickeningSteps,
	  "a warm-up whose steps become quicker" },
	{ "warm-up-beside-traffic", false, false, WarmUpBesideTraffic, "cached or freed at once" },
	{ "one-step", false, true, OneStep, "300 blocks at one time" },
	{ "some-steps", false, false, SomeSteps, "100 blocks at 2 to 4 times" },
	{ "grows-then-flat", false, false, GrowsThenFlat, "all kept up to 20 to 60 % of the run" },
	{ "loaded-then-idle", false, true, LoadedThenIdle, "the same, then no allocation" },
	{ "lognormal", false, false, Lognormal, "heavy-tailed lifetimes" },
	{ "pareto", false, false, Pareto, "heavier tails: a power law" },
	{ "bimodal", false, true, Bimodal, "a tenth lives 8 to 30 % of the run" },
	{ "rare-long-lived", false, false, RareLongLived, "2 % live 10 to 30 % of the run" },
	{ "pool", false, false, Pool, "keeps the most it ever needed" },
	{ "intern-table", false, true, InternTable, "100 to 500 names" },
	{ "queue", false, false, Queue, "a backlog that wanders" },
	{ "start-up", false, false, StartUpThenTraffic, "400 blocks at the start" },
	{ "burst-at-the-end", false, true, BurstAtTheEnd, "300 blocks just before the end" },
	{ "resized-list", false, false, ResizedList, "one chain of reallocations at a time" },
	{ "cache-in-workers", false, false, CacheInFourWorkers, "an LRU cache in each of four" },
	{ "sampled-cache", false, true, SampledCache, "random eviction in a sampled trace" },
	{ "double-buffer", false, false, DoubleBuffer, "two large blocks in turn" },
	{ "ageing-sessions", false, false, AgeingSessions,
	  "end by a timeout, under a varying load" },
};

} // namespace memtrace_corpus
