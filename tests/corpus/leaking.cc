/*
 * Call sites that lose memory; see corpus.h. Those marked held back are every third, chosen before anything was tuned.
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

void AllLost(Story &s)
{
	s.per_step = std::max(s.per_step / 10, 80 / s.steps);
	s.stream([&](double t) { s.lose(t); });
}

/* A share of a stream is lost, such that at least 60 are. */
void lose_share(Story &s, double share, double from = 0)
{
	s.stream([&](double t) {
		if (t >= from && s.chance(share))
			s.lose(t);
		else
			s.take(t, s.exponential(4));
	});
}

/* At least so many lost ones are to be expected of a stream. */
double share_of(Story &s, double low, double high, double from = 0)
{
	double least = 80 / (s.per_step * (s.steps - from));

	return std::max(s.uniform(low, high), least);
}

void Share(Story &s)
{
	lose_share(s, share_of(s, 0.02, 0.6));
}

void OnePercent(Story &s)
{
	s.per_step = std::max(s.per_step, 9000 / s.steps);
	lose_share(s, 0.01);
}

void Bursts(Story &s)
{
	double gap = s.steps / s.uniform(14, 30);

	s.stream([&](double t) { s.take(t, s.exponential(4)); });
	for (double t = s.uniform(0, gap); t < s.steps; t += gap)
		for (int i = s.poisson(6); i-- > 0;)
			s.lose(std::min(s.steps - 0.01, t + s.uniform(0, 1)));
}

void LateStart(Story &s)
{
	double from = s.steps * s.uniform(0.2, 0.6);

	lose_share(s, share_of(s, 0.05, 0.5, from), from);
}

void LateStartAll(Story &s)
{
	double from = s.steps * s.uniform(0.3, 0.7), rate = 150 / (s.steps - from);

	s.stream(0, from, s.per_step, [&](double t) { s.take(t, s.exponential(2)); });
	s.stream(from, s.steps, rate, [&](double t) { s.lose(t); });
}

void PerEpoch(Story &s)
{
	int epochs = static_cast<int>(s.uniform(8, 30)), each = 60 / epochs + 3;
	double length = s.steps / epochs;

	s.stream([&](double t) { s.take(t, s.exponential(3)); });
	for (int e = 0; e < epochs; e++)
		for (int i = 0; i < each; i++)
			s.lose(length * (e + 1) - 0.5 - 0.01 * i);
}

void ErrorPath(Story &s)
{
	double gap = s.steps / 40;

	for (double t = s.exponential(gap); t < s.steps; t += s.exponential(gap))
		for (int i = 1 + s.poisson(1.5); i-- > 0;)
			s.lose(std::min(s.steps - 0.01, t + s.uniform(0, 0.2)));
}

void OneWorkerOfFour(Story &s)
{
	double share = share_of(s, 0.05, 0.3);

	s.workers = 4;
	for (uint32_t w = 0; w < 4; w++)
		s.stream([&](double t) {
			bool lost = w == 2 && s.chance(share);

			(lost ? s.lose(t) : s.take(t, s.exponential(4))).worker = w;
		});
}

void EveryWorkerALittle(Story &s)
{
	double share = share_of(s, 0.01, 0.02) / 2;

	s.workers = 4;
	for (uint32_t w = 0; w < 4; w++)
		s.stream([&](double t) {
			(s.chance(share) ? s.lose(t) : s.take(t, s.exponential(4))).worker = w;
		});
}

void BesideLru(Story &s)
{
	double share = share_of(s, 0.02, 0.1);

	lru(s, static_cast<size_t>(s.steps * s.per_step * s.uniform(0.02, 0.15)),
	    [&] { return s.chance(share); });
}

void AfterWarmUp(Story &s)
{
	double share = share_of(s, 0.03, 0.2), tau = s.steps / s.uniform(10, 25);

	s.stream([&](double t) {
		if (s.chance(share))
			s.lose(t);
		else
			s.take(t, s.chance(std::exp(-t / tau) * 0.3) ? NEVER : s.exponential(3));
	});
}

void UnderSawtooth(Story &s)
{
	double epoch = s.steps / std::floor(s.uniform(8, 25)), share = share_of(s, 0.02, 0.2);

	s.stream([&](double t) {
		if (s.chance(share))
			s.lose(t);
		else
			s.take(t, (std::floor(t / epoch) + 1) * epoch - t);
	});
}

void FewLargeObjects(Story &s)
{
	double rate = s.uniform(60, 90) / s.steps;

	s.stream(0, s.steps, rate, [&](double t) { s.lose(t, 1 << 20); });
}

void BesideHeavyTail(Story &s)
{
	double share = share_of(s, 0.03, 0.15);

	s.stream([&](double t) {
		if (s.chance(share))
			s.lose(t);
		else
			s.take(t, s.lognormal(0, 1));
	});
}

void FreedAtTheEnd(Story &s)
{
	double share = share_of(s, 0.05, 1);

	lose_share(s, share);
	s.exit_at = s.steps;
	s.steps *= 1.03;
}

void RisingLoad(Story &s)
{
	double share = share_of(s, 0.03, 0.2);

	s.stream([&](double t) {
		if (s.chance(0.3 + 0.7 * t / s.steps))
			s.chance(share * 1.6) ? s.lose(t) : s.take(t, s.exponential(4));
	});
}

void FallingLoad(Story &s)
{
	double share = share_of(s, 0.03, 0.2);

	s.stream([&](double t) {
		if (s.chance(1 - 0.4 * t / s.steps))
			s.chance(share * 1.3) ? s.lose(t) : s.take(t, s.exponential(4));
	});
}

void OnAndOff(Story &s)
{
	double phase = s.steps / s.uniform(9, 14), share = share_of(s, 0.05, 0.2) * 2;

	s.stream([&](double t) {
		bool on = static_cast<int>(t / phase) % 2;

		on &&s.chance(share) ? s.lose(t) : s.take(t, s.exponential(4));
	});
}

void DeviceMemory(Story &s)
{
	s.kind = MT_KIND_DEVICE;
	lose_share(s, share_of(s, 0.05, 0.4));
}

void Sampled(Story &s)
{
	s.sample_bytes = 4096;
	s.per_step = std::max(s.per_step, 30.0);
	lose_share(s, share_of(s, 0.2, 0.6));
}

void GrowingDict(Story &s) /* every item is kept; its table, at the same line, is resized */
{
	s.per_step = std::max(s.per_step / 5, 150 / s.steps);
	s.stream([&](double t) { s.lose(t); });
}

/* Each of the program's steps loses a block, and in mid-run they become five times as long. */
void SlowingSteps(Story &s)
{
	double length = s.steps / 600, t = 0;

	for (int i = 0; i < 200; i++) {
		s.marks.push_back(t);
		s.lose(t + length * s.uniform(0, 1));
		t += i < 100 ? length : 5 * length;
	}
}

} // namespace

const std::vector<Behaviour> leaking = {
	{ "all-lost", true, false, AllLost, "every block is lost" },
	{ "share", true, false, Share, "2 to 60 % are lost" },
	{ "one-percent", true, true, OnePercent, "1 % are lost" },
	{ "bursts", true, false, Bursts, "some are lost at once, now and then" },
	{ "late-start", true, false, LateStart, "a share, from 20 to 60 % of the run on" },
	{ "late-start-all", true, true, LateStartAll, "all, from 30 to 70 % of the run on" },
	{ "per-epoch", true, false, PerEpoch, "a few at the end of every epoch" },
	{ "error-path", true, false, ErrorPath, "all, at errors that come in clusters" },
	{ "one-worker-of-four", true, true, OneWorkerOfFour, "a share in one of four workers" },
	{ "every-worker-a-little", true, false, EveryWorkerALittle, "few in each of four workers" },
	{ "beside-lru", true, false, BesideLru, "a share, the others in an LRU cache" },
	{ "after-warm-up", true, true, AfterWarmUp, "a share, beside a cache that warms up" },
	{ "under-sawtooth", true, false, UnderSawtooth, "a share, the others freed every epoch" },
	{ "few-large", true, false, FewLargeObjects, "60 to 90 objects, all lost" },
	{ "beside-heavy-tail", true, true, BesideHeavyTail,
	  "a share, others of lognormal lifetimes" },
	{ "freed-at-the-end", true, false, FreedAtTheEnd, "lost, but freed when the program ends" },
	{ "rising-load", true, false, RisingLoad, "a share of a rising load" },
	{ "falling-load", true, true, FallingLoad, "a share of a falling load" },
	{ "on-and-off", true, false, OnAndOff, "a share in every other phase" },
	{ "device", true, false, DeviceMemory, "a share, of device memory" },
	{ "sampled", true, true, Sampled, "a share, in a sampled trace" },
	{ "growing-dict", true, false, GrowingDict, "items of a dict that only grows" },
	{ "slowing-steps", true, false, SlowingSteps, "one in each step, and steps become slower" },
};

} // namespace memtrace_corpus
