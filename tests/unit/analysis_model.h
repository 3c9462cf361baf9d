// A model made by hand, for tests of analyses.
// SPDX-License-Identifier: Apache-2.0
#ifndef MEMTRACE_TESTS_ANALYSIS_MODEL_H
#define MEMTRACE_TESTS_ANALYSIS_MODEL_H

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "model/model.h"

extern "C" {
#include "analysis/analysis.h"
#include "model/cohorts.h"
}

constexpr int64_t SECOND = 1000000000;

class ModelMaker
{
      public:
	ModelMaker()
	{
		trace_info t = {};

		t.path = text("trace.bin");
		t.host = text("host");
		t.start_realtime_ns = 1700000000123456789;
		t.complete = true;
		strcpy(t.mode, "full");
		strcpy(t.events, "all");
		traces.push_back(t);
		natives.push_back({});
		pythons.push_back({});
	}

	uint32_t process(const char *role, uint32_t pid, int64_t start_s = 0, int64_t end_s = 100)
	{
		struct process p = {};

		p.id = static_cast<uint32_t>(processes.size());
		p.pid = pid;
		p.parent = p.image_of = NO_ID;
		p.command = text("program");
		p.role = text(role);
		p.rank = -1;
		p.worker.index = p.worker.of = -1;
		p.worker.owner = NO_ID;
		p.start = start_s * SECOND;
		p.end = end_s * SECOND;
		p.end_kind = END_EXIT;
		processes.push_back(p);
		return p.id;
	}

	uint32_t module(const std::string &path, const std::vector<uint8_t> &build_id = {})
	{
		struct module m = {};

		m.path = text(path);
		m.build_id_len = static_cast<uint32_t>(build_id.size());
		std::copy(build_id.begin(), build_id.end(), m.build_id);
		modules.push_back(m);
		return static_cast<uint32_t>(modules.size() - 1);
	}

	uint32_t native(uint32_t parent, uint32_t module_id, uint64_t offset)
	{
		natives.push_back({ parent, module_id, offset, false });
		return static_cast<uint32_t>(natives.size() - 1);
	}

	// All of the code is on that line.
	uint32_t code(const std::string &file, const std::string &name, uint32_t line)
	{
		struct code c = {};

		c.filename = text(file);
		c.name = text(name);
		c.first_line = line;
		c.line_kind = MT_LINES_LNOTAB;
		codes.push_back(c);
		return static_cast<uint32_t>(codes.size() - 1);
	}

	uint32_t python(uint32_t parent, uint32_t code_id, bool entry = true)
	{
		pythons.push_back({ parent, code_id, 0, entry });
		return static_cast<uint32_t>(pythons.size() - 1);
	}

	uint32_t python(const std::string &file, const std::string &name, uint32_t line)
	{
		return python(0, code(file, name, line));
	}

	uint32_t site(uint32_t native_node, uint32_t python_node, mt_kind kind = MT_KIND_HEAP,
		      bool backing = false)
	{
		struct site s = {};

		s.id = static_cast<uint32_t>(sites.size());
		s.native = native_node;
		s.python = python_node;
		s.kind = kind;
		s.backing = backing;
		sites.push_back(s);
		return s.id;
	}

	~ModelMaker()
	{
		for (site_use &u : uses)
			free(u.cohorts);
	}
	ModelMaker(const ModelMaker &) = delete;
	ModelMaker &operator=(const ModelMaker &) = delete;

	// The part of a site in a process. Quarters: live blocks born in each, of `size` bytes,
	// spread over it evenly.
	site_use &use(uint32_t site_id, uint32_t process_id, uint64_t allocations,
		      std::vector<uint64_t> quarters = {}, uint64_t size = 1024)
	{
		site_use u = {};

		u.site = site_id;
		u.process = process_id;
		u.allocations = allocations;
		u.bytes_allocated = allocations * size;
		for (size_t i = 0; i < quarters.size(); i++) {
			u.live_count += quarters[i];
			u.live_bytes += quarters[i] * size;
		}
		u.frees = allocations - u.live_count;
		u.peak_bytes = u.at_peak_bytes = u.live_bytes;
		uses.push_back(u);
		lived(uses.back(), evenly(process_id, quarters), size);
		return uses.back();
	}

	// When its live blocks were born, in seconds, and how long each lived; 0: to the end.
	void lived(site_use &u, const std::vector<double> &births, uint64_t size, double life = 0)
	{
		const struct process &p = processes[u.process];
		std::multimap<double, double> deaths;

		free(u.cohorts);
		u.cohorts = nullptr;
		for (double t : births) {
			if (!u.cohorts)
				u.cohorts = cohorts_new(nanoseconds(t), 0);
			while (life > 0 && !deaths.empty() && deaths.begin()->first <= t) {
				u.cohorts = cohorts_death(u.cohorts,
							  nanoseconds(deaths.begin()->first),
							  nanoseconds(deaths.begin()->second),
							  static_cast<double>(size), 1);
				deaths.erase(deaths.begin());
			}
			u.cohorts = cohorts_birth(u.cohorts, nanoseconds(t),
						  static_cast<double>(size));
			deaths.insert({ t + life, t });
		}
		if (!u.cohorts)
			return;
		u.cohorts = cohorts_settle(u.cohorts, static_cast<uint64_t>(p.end));
		u.cohorts->start_ns = static_cast<int64_t>(u.cohorts->origin);
		u.cohorts->window_ns = static_cast<double>(UINT64_C(1) << u.cohorts->shift);
	}

	// Times that lie evenly between two, or so many in each quarter of the process's life.
	static std::vector<double> evenly(double from, double to, uint64_t n)
	{
		std::vector<double> times;

		for (uint64_t i = 0; i < n; i++)
			times.push_back(from + (to - from) * (static_cast<double>(i) + 0.5) /
						       static_cast<double>(n));
		return times;
	}
	std::vector<double> evenly(uint32_t process_id, const std::vector<uint64_t> &quarters)
	{
		const struct process &p = processes[process_id];
		double start = static_cast<double>(p.start) / SECOND;
		double quarter = static_cast<double>(p.end - p.start) / SECOND / 4;
		std::vector<double> times;

		for (size_t i = 0; i < quarters.size(); i++) {
			double from = start + quarter * static_cast<double>(i);
			std::vector<double> part = evenly(from, from + quarter, quarters[i]);

			times.insert(times.end(), part.begin(), part.end());
		}
		return times;
	}

	// Values are as measured.
	void sampled(uint32_t process_id, int64_t time_s, std::map<std::string, uint64_t> values)
	{
		struct sample s = {};

		s.time = time_s * SECOND;
		s.live_bytes = values.count("live") ? values["live"] : SAMPLE_LIVE_UNKNOWN;
		auto set = [&](const char *key, uint64_t &to) {
			if (values.count(key))
				to = values[key] + 1;
		};
		set("rss", s.v.rss);
		set("pss", s.v.pss);
		set("swap", s.v.swap);
		set("cgroup_usage", s.v.cgroup_usage);
		set("cgroup_limit", s.v.cgroup_limit);
		set("oom_kills", s.v.oom_kills);
		samples[process_id].push_back(s);
	}

	child_event &child(uint32_t process_id, const char *path, uint32_t pid, bool traced)
	{
		child_event c = {};

		c.pid = pid;
		c.how = child_event::CHILD_SPAWN;
		c.traced = traced;
		c.path = text(path);
		c.process = NO_ID;
		children[process_id].push_back(c);
		return children[process_id].back();
	}

	void backing(uint32_t process_id, int64_t time_s, uint32_t site_id, int64_t delta)
	{
		backings[process_id].push_back({ time_s * SECOND, site_id, delta });
	}

	void fact(uint32_t process_id, const std::string &key, const std::string &value)
	{
		facts[process_id].push_back(text(key));
		facts[process_id].push_back(text(value));
	}

	void mark(uint32_t process_id, int64_t time_s, mt_mark_kind kind, const char *label,
		  uint64_t value = 0)
	{
		marks.push_back({ time_s * SECOND, process_id, kind, value, text(label) });
	}

	// Everything so far as a model; valid while this lives and nothing is added.
	const struct model *get()
	{
		made = {};
		std::stable_sort(
			uses.begin(), uses.end(), [](const site_use &a, const site_use &b) {
				return a.site != b.site ? a.site < b.site : a.process < b.process;
			});
		for (struct site &s : sites) {
			s.use_count = 0;
			s.allocations = s.frees = s.bytes_allocated = s.live_bytes = s.live_count =
				0;
			s.short_lived_count = s.peak_bytes = s.at_peak_bytes = 0;
		}
		for (size_t i = 0; i < uses.size(); i++)
			add(sites[uses[i].site], uses[i], static_cast<uint32_t>(i));
		for (struct process &p : processes)
			attach(p);
		set(made.traces, made.trace_count, traces);
		set(made.processes, made.process_count, processes);
		set(made.sites, made.site_count, sites);
		set(made.uses, made.use_count, uses);
		set(made.native, made.native_count, natives);
		set(made.python, made.python_count, pythons);
		set(made.modules, made.module_count, modules);
		set(made.codes, made.code_count, codes);
		set(made.marks, made.mark_count, marks);
		set(made.notes, made.note_count, notes);
		made.duration = 100 * SECOND;
		made.tree_peak_pss = tree_peak_pss;
		made.restricted = restricted;
		made.window_from = INT64_MIN;
		made.window_to = window_to;
		return &made;
	}

	char *text(const std::string &s)
	{
		texts.push_back(s);
		return &texts.back()[0];
	}

	std::vector<trace_info> traces;
	std::vector<struct process> processes;
	std::vector<char *> notes;
	std::vector<struct site> sites;
	uint64_t tree_peak_pss = 0;
	bool restricted = false;
	int64_t window_to = INT64_MAX;

      private:
	static uint64_t nanoseconds(double s)
	{
		return static_cast<uint64_t>(s * SECOND);
	}

	template <typename T> static void set(T *&to, size_t &count, std::vector<T> &from)
	{
		to = from.data();
		count = from.size();
	}

	static void add(struct site &s, const site_use &u, uint32_t index)
	{
		if (!s.use_count++)
			s.first_use = index;
		s.allocations += u.allocations;
		s.frees += u.frees;
		s.bytes_allocated += u.bytes_allocated;
		s.live_bytes += u.live_bytes;
		s.live_count += u.live_count;
		s.short_lived_count += u.short_lived_count;
		s.peak_bytes = std::max(s.peak_bytes, u.peak_bytes);
		s.at_peak_bytes += u.at_peak_bytes;
	}

	void attach(struct process &p)
	{
		set(p.samples, p.sample_count, samples[p.id]);
		points[p.id].clear();
		for (const struct sample &s : samples[p.id])
			if (s.v.pss)
				points[p.id].push_back({ s.time, s.v.pss - 1 });
		set(p.pss, p.pss_count, points[p.id]);
		set(p.children, p.child_count, children[p.id]);
		set(p.backing, p.backing_count, backings[p.id]);
		if (facts[p.id].empty() || facts[p.id].back())
			facts[p.id].push_back(nullptr);
		p.facts = facts[p.id].data();
	}

	struct model made = {};
	std::deque<std::string> texts;
	std::vector<struct module> modules;
	std::vector<native_node> natives;
	std::vector<python_node> pythons;
	std::vector<struct code> codes;
	std::vector<site_use> uses;
	std::vector<struct mark> marks;
	std::map<uint32_t, std::vector<struct sample>> samples;
	std::map<uint32_t, std::vector<pss_point>> points;
	std::map<uint32_t, std::vector<child_event>> children;
	std::map<uint32_t, std::vector<backing_event>> backings;
	std::map<uint32_t, std::vector<char *>> facts;
};

// The document that analyses made of a model.
class Analysed
{
      public:
	explicit Analysed(ModelMaker &maker, size_t top = ALL_SITES, bool symbols = false)
	{
		symbolizer_options so = { !symbols, nullptr };
		analysis_options ao = {};

		ao.top = top;
		s = symbolizer_new(&so);
		doc = result_new();
		analysis_run(&ao, maker.get(), s, doc);
	}

	~Analysed()
	{
		result_free(doc);
		symbolizer_free(s);
	}

	Analysed(const Analysed &) = delete;
	Analysed &operator=(const Analysed &) = delete;

	const rvalue *operator[](const char *key) const
	{
		return r_get(result_root(doc), key);
	}

	// The findings of a kind, in their order.
	std::vector<const rvalue *> findings(const std::string &kind) const
	{
		std::vector<const rvalue *> out;

		r_for_each (f, (*this)["findings"])
			if (kind == r_get_string(f, "kind"))
				out.push_back(f);
		return out;
	}

      private:
	symbolizer *s;
	result *doc;
};

#endif
