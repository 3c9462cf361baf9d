/*
 * See corpus.h: stories, and how they come to a verdict.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "corpus/corpus.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "model/build.h"

extern "C" {
#include "analysis/growth.h"
}

namespace memtrace_corpus
{

namespace
{

constexpr double STEP_NS = 200e6;
constexpr double START_NS = 300e6; /* the program is imported and set up before */

struct Event {
	double time; /* steps */
	size_t block;
	enum { FREE, RESIZE, TAKE } what;
};

std::vector<Event> events_of(const Story &s, uint32_t worker)
{
	std::vector<Event> events;

	for (size_t i = 0; i < s.blocks.size(); i++) {
		const Block &b = s.blocks[i];
		bool was_resized = i > 0 && s.blocks[i - 1].resized;
		double death = b.death;

		if (b.worker != worker)
			continue;
		if (s.exit_at && death >= s.exit_at)
			death = s.exit_at + (s.steps - s.exit_at) * 0.5;
		if (!was_resized)
			events.push_back({ b.birth, i, Event::TAKE });
		if (b.resized)
			events.push_back({ death, i, Event::RESIZE });
		else if (death < s.steps)
			events.push_back({ death, i, Event::FREE });
	}
	std::stable_sort(events.begin(), events.end(),
			 [](const Event &a, const Event &b) { return a.time < b.time; });
	return events;
}

uint64_t address(size_t block)
{
	return 0x10000 + block * 64;
}

class Teller
{
      public:
	Teller(const Story &story, uint32_t seed)
	    : s(story), rng(seed * 7 + 1), picked(s.blocks.size())
	{
		mt_file_header header = {};
		build_options options = {};
		build_trace info = {};

		header.page_size = 4096;
		info.path = "corpus";
		info.header = &header;
		b = builder_new(&options);
		builder_trace(b, &info);
		add_process(1, 0);
		for (uint32_t w = 1; w < s.workers; w++)
			add_process(w + 1, 0);
		builder_begin(b);
		for (uint32_t w = 0; w < s.workers; w++)
			tell(w);
		m = builder_finish(b, nullptr);
		tell_steps();
		for (size_t i = 0; s.workers > 1 && i < m->process_count; i++) {
			m->processes[i].worker.is = true;
			m->processes[i].worker.index = static_cast<int32_t>(i);
		}
	}
	~Teller()
	{
		model_free(m);
	}

	model *m;

      private:
	void add_process(uint32_t number, uint64_t time)
	{
		mt_ev_process ev = {};

		ev.time = time;
		ev.pid = 100 + number;
		builder_process(b, 0, number, &ev, time);
	}

	void tell_steps()
	{
		m->marks = static_cast<mark *>(calloc(s.marks.size() + 1, sizeof(*m->marks)));
		m->mark_count = s.marks.size();
		for (size_t i = 0; i < s.marks.size(); i++) {
			m->marks[i].time = static_cast<int64_t>(START_NS + s.marks[i] * STEP_NS);
			m->marks[i].kind = MT_MARK_STEP;
			m->marks[i].value = i;
		}
	}

	bool is_picked(uint64_t size)
	{
		double p = -std::expm1(-static_cast<double>(size) /
				       static_cast<double>(s.sample_bytes));

		return !s.sample_bytes || std::uniform_real_distribution<>(0, 1)(rng) < p;
	}

	void put(mt_record &r, replay_part part, double step)
	{
		uint64_t time = static_cast<uint64_t>(START_NS + step * STEP_NS);

		replay_record(replay, &r, part, 0, time);
	}

	void take(double step, size_t i)
	{
		mt_record r = {};

		picked[i] = is_picked(s.blocks[i].size);
		if (!picked[i])
			return;
		r.id = MT_EV_ALLOC;
		r.u.alloc.addr = address(i);
		r.u.alloc.size = s.blocks[i].size;
		r.u.alloc.kind = s.kind;
		put(r, REPLAY_WHOLE, step);
	}

	void give(double step, size_t i)
	{
		mt_record r = {};

		if (!picked[i])
			return;
		r.id = MT_EV_FREE;
		r.u.free.addr = address(i);
		r.u.free.kind = s.kind;
		put(r, REPLAY_WHOLE, step);
	}

	void resize(double step, size_t i)
	{
		mt_record r = {};

		r.id = MT_EV_REALLOC;
		r.u.realloc.old_addr = address(i);
		r.u.realloc.addr = address(i + 1);
		r.u.realloc.size = s.blocks[i + 1].size;
		put(r, REPLAY_FREE, step);
		put(r, REPLAY_ALLOC, step);
		picked[i + 1] = true;
	}

	void tell(uint32_t worker)
	{
		mt_record r = {};

		replay = replay_new(b, worker, nullptr);
		if (s.sample_bytes) {
			r.id = MT_EV_SAMPLING;
			r.u.sampling.mean_bytes = s.sample_bytes;
			put(r, REPLAY_WHOLE, 0);
		}
		for (const Event &e : events_of(s, worker)) {
			if (e.what == Event::TAKE)
				take(e.time, e.block);
			else if (e.what == Event::FREE)
				give(e.time, e.block);
			else
				resize(e.time, e.block);
		}
		r = {};
		r.id = MT_EV_MARK; /* nothing more happens */
		put(r, REPLAY_WHOLE, s.steps);
		replay_free(replay);
	}

	const Story &s;
	std::mt19937 rng;
	std::vector<bool> picked;
	builder *b;
	struct replay *replay = nullptr;
};

/* What the requirement says of a leak that has to be found. */
bool is_eligible(const Story &s)
{
	size_t lost = 0;
	bool window[12] = {};

	for (const Block &b : s.blocks)
		if (b.lost) {
			lost++;
			window[std::min(11, static_cast<int>(b.birth / s.steps * 12))] = true;
		}
	return lost >= 50 &&
	       static_cast<double>(lost) >= 0.01 * static_cast<double>(s.blocks.size()) &&
	       std::count(window, window + 12, true) >= 6;
}

} // namespace

Story::Story(uint32_t seed) : rng(seed)
{
	steps = uniform(100, 400);
	per_step = uniform(5, 30);
	typical_size_ = std::exp(uniform(std::log(32), std::log(20000)));
}

Block &Story::take(double at, double life, uint64_t size)
{
	if (!size)
		size = static_cast<uint64_t>(typical_size_ * uniform(0.7, 1.3));
	blocks.push_back({ at, life >= NEVER ? NEVER : at + life, size, 0, false, false });
	return blocks.back();
}

Block &Story::lose(double at, uint64_t size)
{
	take(at, NEVER, size).lost = true;
	return blocks.back();
}

double Story::uniform(double low, double high)
{
	return std::uniform_real_distribution<>(low, high)(rng);
}

double Story::exponential(double mean)
{
	return std::exponential_distribution<>(1 / mean)(rng);
}

double Story::lognormal(double mu, double sigma)
{
	return std::lognormal_distribution<>(mu, sigma)(rng);
}

bool Story::chance(double p)
{
	return uniform(0, 1) < p;
}

int Story::poisson(double mean)
{
	return std::poisson_distribution<>(mean)(rng);
}

Outcome run(const Behaviour &b, uint32_t seed)
{
	Story s(seed * 1000003 + 17);
	Outcome o = {};
	double end, first = NEVER;

	b.tell(s);
	end = s.exit_at ? s.exit_at : s.steps;
	for (const Block &block : s.blocks)
		if (block.lost) {
			o.truth_bytes += static_cast<double>(block.size);
			first = std::min(first, block.birth);
		}
	o.truth_rate = o.truth_bytes / ((end - first) * STEP_NS / 1e9);
	o.eligible = b.leaks && is_eligible(s);
	Teller t(s, seed);
	growth *g = growth_new(t.m, nullptr);

	for (size_t i = 0; i < g->rows.count; i++) {
		const growth_row &r = g->rows.items[i];

		if (i && r.j.verdict < o.said)
			continue;
		o.said = r.j.verdict;
		o.p = r.j.p;
		o.said_bytes = r.j.bytes;
		o.rate = r.j.rate;
		o.reason = r.j.reason ? r.j.reason : "";
	}
	growth_free(g);
	return o;
}

} // namespace memtrace_corpus
