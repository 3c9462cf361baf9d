/*
 * Replays records into counts. See trace_truth.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "support/trace_truth.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <tuple>

#include "support/harness.h"
#include "trace/merge.h"

namespace memtrace_test {

namespace {

struct Block {
	uint64_t size;
	bool inherited, in_window;
};

using Live = std::map<uint64_t, Block>;

/* What a stream had folded of a site. */
struct Folded {
	uint64_t count = 0, bytes = 0;
};

/* One process's records in order of time; what it holds at each moment. */
class Replay {
    public:
	Replay(trace *t, const trace_process *p, TracedProcess *out, uint64_t ignore_from)
		: out_(out), ignore_from_(ignore_from), merge_(merge_new(t, p))
	{
		has_next_ = merge_next(merge_, &next_);
	}
	~Replay() { merge_free(merge_); }
	Replay(const Replay &) = delete;
	Replay &operator=(const Replay &) = delete;
	/* Goes on, and stops before anything later than `until`. */
	void Go(uint64_t until);

	Live live;

    private:
	void Handle(const merge_event &e);
	void Allocate(uint64_t addr, uint64_t size);
	void Free(uint64_t addr);
	void Mark(const mt_ev_mark &mark, uint64_t time);
	void Fold(uint32_t slot, const mt_cell &now);
	void Count(long Totals::*field, long n, bool window)
	{
		out_->whole.*field += n;
		if (window)
			out_->window.*field += n;
	}

	TracedProcess *out_;
	uint64_t ignore_from_;
	merge *merge_;
	merge_event next_;
	bool has_next_;
	bool open_ = false;
	uint64_t opened_ = UINT64_MAX, closed_ = UINT64_MAX;
	std::map<std::tuple<uint32_t, uint64_t, uint64_t, uint64_t>, Folded> folded_;
};

bool IsHeap(uint64_t kind) { return (kind & MT_KIND_MASK) == MT_KIND_HEAP; }

void Replay::Allocate(uint64_t addr, uint64_t size)
{
	if (live.count(addr))
		out_->double_allocations++;
	live[addr] = { size, false, open_ };
	out_->allocations_by_size[size]++;
	if (ignore_from_ && size >= ignore_from_)
		return;
	Count(&Totals::allocations, 1, open_);
	Count(&Totals::bytes, (long)size, open_);
	Count(&Totals::live_blocks, 1, open_);
	Count(&Totals::live_bytes, (long)size, open_);
}

void Replay::Free(uint64_t addr)
{
	auto found = live.find(addr);

	if (found == live.end()) {
		out_->unknown_frees++;
		Count(&Totals::frees, 1, open_);
		return;
	}
	Block b = found->second;

	live.erase(found);
	out_->frees_by_size[b.size]++;
	if (ignore_from_ && b.size >= ignore_from_)
		return;
	Count(&Totals::frees, 1, open_);
	if (b.inherited) {
		Count(&Totals::inherited_frees, 1, open_);
		Count(&Totals::inherited_bytes, (long)b.size, open_);
		return;
	}
	Count(&Totals::live_blocks, -1, open_ && b.in_window);
	Count(&Totals::live_bytes, -(long)b.size, open_ && b.in_window);
}

/*
 * A stream's counter of a site, as it was when the last block counted in it was freed. What it has
 * more than the last time happened since, and no mark lies in between (FORMAT.md 3.7).
 */
void Replay::Fold(uint32_t slot, const mt_cell &now)
{
	Folded &before = folded_[{ slot, now.native, now.python, now.kind }];
	long count = (long)(now.count - before.count), bytes = (long)(now.bytes - before.bytes);
	bool one_size = now.bytes == now.count * now.largest;
	bool window = now.last > opened_ && now.last <= closed_;

	before = { now.count, now.bytes };
	if (!count || !IsHeap(now.kind))
		return;
	if (one_size) {
		out_->allocations_by_size[now.largest] += count;
		out_->frees_by_size[now.largest] += count;
	}
	if (ignore_from_ && one_size && now.largest >= ignore_from_)
		return;
	Count(&Totals::allocations, count, window);
	Count(&Totals::frees, count, window);
	Count(&Totals::bytes, bytes, window);
}

void Replay::Mark(const mt_ev_mark &mark, uint64_t time)
{
	std::string label(mark.label.data, mark.label.len), pid = std::to_string(out_->pid);

	if (label == "begin-" + pid)
		open_ = out_->has_window = true, opened_ = time;
	if (label == "end-" + pid)
		open_ = false, closed_ = time;
}

mt_cell CellOf(const mt_ev_fold &fold)
{
	mt_cell cell = {};

	cell.native = (uint32_t)fold.native;
	cell.python = (uint32_t)fold.python;
	cell.kind = (uint32_t)fold.kind;
	cell.count = fold.count;
	cell.bytes = fold.bytes;
	cell.brief = fold.brief;
	cell.largest = fold.largest;
	cell.last = fold.time;
	return cell;
}

void Replay::Handle(const merge_event &e)
{
	if (e.cell)
		return Fold(e.slot, *e.cell);
	const mt_record &r = *e.record;

	switch (r.id) {
	case MT_EV_FOLD:
		Fold(e.slot, CellOf(r.u.fold));
		break;
	case MT_EV_SURVIVOR:
		if (IsHeap(r.u.survivor.kind))
			Allocate(r.u.survivor.addr, r.u.survivor.size);
		break;
	case MT_EV_ALLOC:
		if (IsHeap(r.u.alloc.kind))
			Allocate(r.u.alloc.addr, r.u.alloc.size);
		break;
	case MT_EV_FREE:
		if (IsHeap(r.u.free.kind))
			Free(r.u.free.addr);
		break;
	case MT_EV_REALLOC:
		if (!IsHeap(r.u.realloc.kind))
			break;
		if (e.part == PART_FREE)
			Free(r.u.realloc.old_addr);
		else
			Allocate(r.u.realloc.addr, r.u.realloc.size);
		break;
	case MT_EV_MAP:
		out_->maps_by_size[r.u.map.size]++;
		break;
	case MT_EV_MARK:
		Mark(r.u.mark, e.time);
		break;
	case MT_EV_EXIT:
		out_->has_exit = true;
		break;
	}
}

void Replay::Go(uint64_t until)
{
	for (; has_next_ && next_.time <= until; has_next_ = merge_next(merge_, &next_))
		Handle(next_);
}

/* The PROCESS record, which starts every stream. */
bool Introduce(trace *t, const trace_process *p, TracedProcess *out, uint64_t *fork_time)
{
	size_t count;
	const trace_stream *streams = trace_streams(t, &count);
	bool found = false;

	for (size_t i = 0; i < p->count && !found; i++) {
		cursor c;

		cursor_init(&c, t, &streams[p->first + i]);
		while (!found && cursor_next(&c))
			if (c.record.id == MT_EV_PROCESS) {
				const mt_ev_process &ev = c.record.u.process;

				out->number = p->proc;
				out->pid = (uint32_t)ev.pid;
				out->ppid = (uint32_t)ev.ppid;
				out->parent = (uint32_t)ev.parent;
				out->reason = (mt_process_reason)ev.reason;
				*fork_time = ev.fork_time;
				found = true;
			}
		cursor_release(&c);
	}
	return found;
}

struct Known {
	const trace_process *process;
	TracedProcess traced;
	uint64_t fork_time = 0;
	std::vector<Known *> forked; /* in order of fork_time */
};

/* Each process once, and what it holds given to its children at their forks. */
void ReplayTree(trace *t, Known *known, const Live &inherited, uint64_t ignore_from)
{
	Replay replay(t, known->process, &known->traced, ignore_from);

	for (const auto &[addr, block] : inherited)
		replay.live[addr] = { block.size, true, false };
	for (Known *child : known->forked) {
		replay.Go(child->fork_time);
		ReplayTree(t, child, replay.live, ignore_from);
	}
	replay.Go(UINT64_MAX);
}

/* All processes that say who they are; forked ones also in their parents' lists. */
std::map<uint32_t, Known> FindProcesses(trace *t, uint64_t *nameless)
{
	std::map<uint32_t, Known> all;
	size_t count;
	const trace_process *processes = trace_processes(t, &count);

	for (size_t i = 0; i < count; i++) {
		Known known;

		known.process = &processes[i];
		if (Introduce(t, &processes[i], &known.traced, &known.fork_time))
			all.emplace(known.traced.number, known);
		else
			++*nameless;
	}
	for (auto &[number, known] : all) {
		auto parent = all.find(known.traced.parent);

		if (known.traced.reason == MT_PROCESS_FORK && parent != all.end() && number != parent->first)
			parent->second.forked.push_back(&known);
	}
	for (auto &[number, known] : all)
		std::sort(known.forked.begin(), known.forked.end(), [](const Known *a, const Known *b) {
			return a->fork_time < b->fork_time;
		});
	return all;
}

} // namespace

bool Totals::operator==(const Totals &o) const
{
	return allocations == o.allocations && frees == o.frees && bytes == o.bytes &&
	       live_blocks == o.live_blocks && live_bytes == o.live_bytes &&
	       inherited_frees == o.inherited_frees && inherited_bytes == o.inherited_bytes;
}

std::ostream &operator<<(std::ostream &out, const Totals &t)
{
	return out << "{allocations=" << t.allocations << " frees=" << t.frees << " bytes="
		   << t.bytes << " live_blocks=" << t.live_blocks << " live_bytes=" << t.live_bytes
		   << " inherited_frees=" << t.inherited_frees << " inherited_bytes="
		   << t.inherited_bytes << "}";
}

Totals ToTotals(const std::map<std::string, long> &facts)
{
	auto get = [&](const char *key) {
		auto found = facts.find(key);

		return found == facts.end() ? 0 : found->second;
	};
	Totals t;

	t.allocations = get("allocations");
	t.frees = get("frees");
	t.bytes = get("bytes");
	t.live_blocks = get("live_blocks");
	t.live_bytes = get("live_bytes");
	t.inherited_frees = get("inherited_frees");
	t.inherited_bytes = get("inherited_bytes");
	return t;
}

std::map<long, Totals> Expected(const std::string &output)
{
	std::map<long, Totals> by_pid;

	for (auto &facts : Facts(output, "expect"))
		by_pid[facts["pid"]] = ToTotals(facts);
	return by_pid;
}

const TracedProcess *TraceTruth::ByPid(uint32_t pid) const
{
	const TracedProcess *any = nullptr;

	for (const TracedProcess &p : processes)
		if (p.pid == pid && (!any || p.has_window))
			any = &p;
	return any;
}

TraceTruth ReadTruth(const std::string &path, uint64_t ignore_from)
{
	TraceTruth truth;
	char *error = nullptr;
	trace *t = trace_open(path.c_str(), &error);

	if (!t) {
		truth.error = error ? error : "no reason given";
		free(error);
		return truth;
	}
	std::map<uint32_t, Known> all = FindProcesses(t, &truth.damage);

	for (auto &[number, known] : all)
		if (known.traced.reason != MT_PROCESS_FORK || !all.count(known.traced.parent))
			ReplayTree(t, &known, {}, ignore_from);
	for (auto &[number, known] : all)
		truth.processes.push_back(known.traced);
	const trace_problems *bad = trace_damage(t);

	truth.lost_events = bad->lost_events;
	const std::pair<const char *, uint64_t> parts[] = {
		{ "header_damage", bad->header_damage },
		{ "missing_bytes", bad->missing_bytes },
		{ "garbage_bytes", bad->garbage_bytes },
		{ "cut_chunks", bad->cut_chunks },
		{ "bad_chunks", bad->bad_chunks },
		{ "missing_chunks", bad->missing_chunks },
		{ "duplicate_chunks", bad->duplicate_chunks },
		{ "lost_processes", bad->lost_processes },
		{ "unknown_records", bad->unknown_records },
	};

	if (truth.damage)
		truth.damage_text = "nameless processes " + std::to_string(truth.damage) + " ";
	for (const auto &[name, count] : parts) {
		truth.damage += count;
		if (count)
			truth.damage_text += std::string(name) + " " + std::to_string(count) + " ";
	}
	trace_close(t);
	return truth;
}

void ExpectTruth(const std::string &trace, const std::string &output, size_t processes,
		 uint64_t ignore_from)
{
	TraceTruth truth = ReadTruth(trace, ignore_from);
	std::map<long, Totals> expected = Expected(output);

	ASSERT_EQ(truth.error, "");
	EXPECT_EQ(expected.size(), processes) << output;
	EXPECT_EQ(truth.lost_events, 0u);
	EXPECT_EQ(truth.damage_text, "");
	for (const auto &[pid, want] : expected) {
		const TracedProcess *p = truth.ByPid((uint32_t)pid);

		ASSERT_TRUE(p) << "no process " << pid;
		EXPECT_TRUE(p->has_window) << pid;
		EXPECT_EQ(p->window, want) << "pid " << pid;
	}
	for (const TracedProcess &p : truth.processes) {
		EXPECT_EQ(p.unknown_frees, 0) << "pid " << p.pid;
		EXPECT_EQ(p.double_allocations, 0) << "pid " << p.pid;
	}
}

} // namespace memtrace_test
