/*
 * Traces that are whole, cut, damaged, still being written, or no traces at all.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "pipeline/run.h"
#include "support/damage.h"
#include "trace/reader.h"

using memtrace_test::FamilyTrace;
using memtrace_test::FoldedTrace;
using memtrace_test::str;
using memtrace_test::Stream;
using memtrace_test::TraceWriter;

namespace
{

using Bytes = std::vector<uint8_t>;

std::string ErrorOf(const Bytes &b)
{
	char *error = nullptr;
	trace *t = trace_open_buffer(b.data(), b.size(), "the.bin", &error);

	if (t) {
		trace_close(t);
		return "";
	}
	std::string text = error;

	free(error);
	EXPECT_EQ(text.rfind("the.bin: ", 0), 0u) << text;
	return text;
}

mt_ev_process Root()
{
	mt_ev_process ev = {};

	ev.pid = 100;
	return ev;
}

TEST(Reader, SaysWhatIsWrongWithWhatIsNoTrace)
{
	TraceWriter w;
	Bytes b = w.bytes();
	Bytes newer = b;
	uint32_t version = MT_FORMAT_VERSION + 1;

	memcpy(&newer[8], &version, 4);
	EXPECT_NE(ErrorOf({}).find("empty"), std::string::npos);
	EXPECT_NE(ErrorOf(Bytes(20000, 'x')).find("not a memtrace trace"), std::string::npos);
	EXPECT_NE(ErrorOf(Bytes(20000, 0)).find("not a memtrace trace"), std::string::npos);
	EXPECT_NE(ErrorOf({ 'M', 'E' }).find("too short"), std::string::npos);
	EXPECT_NE(ErrorOf(Bytes(b.begin(), b.begin() + 100)).find("too short"), std::string::npos);
	EXPECT_NE(ErrorOf(Bytes(b.begin(), b.end() - 1)).find("too short"), std::string::npos);
	EXPECT_NE(ErrorOf(newer).find("version 3"), std::string::npos);
	EXPECT_EQ(ErrorOf(b), "") << "a trace without records yet is a trace";
}

TEST(Reader, FindsProcessesStreamsAndChunksInOrder)
{
	TraceWriter w;
	Stream &a = w.process(Root());
	Stream &b = w.fork(a, 10, 200);
	Stream &t = a.thread(20, 101);

	for (int i = 0; i < 3; i++) {
		b.seal().alloc(30, 0x10, 1);
		a.seal().alloc(30, 0x10, 1);
		t.seal().alloc(30, 0x20, 1);
	}
	Bytes bytes = w.bytes();
	char *error = nullptr;
	trace *tr = trace_open_buffer(bytes.data(), bytes.size(), "x", &error);
	size_t processes, streams, chunks;

	ASSERT_NE(tr, nullptr) << error;
	ASSERT_EQ(trace_find(tr, 1)->count, 2u);
	ASSERT_EQ(trace_find(tr, 2)->count, 1u);
	EXPECT_EQ(trace_find(tr, 3), nullptr);
	trace_processes(tr, &processes);
	EXPECT_EQ(processes, 2u);
	const trace_stream *s = trace_streams(tr, &streams);
	const trace_chunk *c = trace_chunks(tr, &chunks);

	ASSERT_EQ(streams, 3u);
	for (size_t i = 0; i < streams; i++) {
		EXPECT_EQ(s[i].count, 4u);
		for (size_t k = 0; k < s[i].count; k++) {
			EXPECT_EQ(c[s[i].first + k].seq, k);
			EXPECT_EQ(c[s[i].first + k].stream, s[i].stream);
		}
	}
	trace_close(tr);
}

/* The checks of a damaged copy. */
struct Damaged {
	explicit Damaged(const Bytes &bytes) : copy(bytes)
	{
	}
	void run()
	{
		m = pipeline_run_buffer(copy.data(), copy.size(), "d", nullptr, &report);
	}
	~Damaged()
	{
		model_free(m);
		pipeline_report_release(&report);
	}
	uint64_t allocations() const
	{
		uint64_t n = 0;

		for (size_t i = 0; m && i < m->process_count; i++)
			for (int k = 0; k < MT_KINDS; k++)
				n += m->processes[i].kinds[k].allocations;
		return n;
	}
	/* Does the report say that something is wrong? */
	bool complains() const
	{
		if (report.error_count)
			return true;
		for (int c = 0; c < COUNTS; c++)
			if (pipeline_count_rows[c].is_problem && report.checks[0].counts[c])
				return true;
		return false;
	}
	uint64_t count(pipeline_count c) const
	{
		return report.checks[0].counts[c];
	}

	Bytes copy;
	model *m = nullptr;
	pipeline_report report = {};
};

TEST(Reader, AWholeTraceHasNothingToComplainAbout)
{
	TraceWriter w;

	FamilyTrace(w);
	Damaged d(w.bytes());

	d.run();
	ASSERT_NE(d.m, nullptr);
	for (int c = 0; c < COUNTS; c++) {
		EXPECT_TRUE(!pipeline_count_rows[c].is_problem || !d.report.checks[0].counts[c])
			<< pipeline_count_rows[c].key;
	}
	EXPECT_TRUE(d.m->traces[0].complete);
	EXPECT_EQ(d.allocations(), 24u * 2 + 4 + 1 + 1 + 12);
}

TEST(Reader, AWholeFoldedTraceHasNothingToComplainAbout)
{
	TraceWriter w;

	FoldedTrace(w);
	Damaged d(w.bytes());

	d.run();
	ASSERT_NE(d.m, nullptr);
	for (int c = 0; c < COUNTS; c++) {
		EXPECT_TRUE(!pipeline_count_rows[c].is_problem || c == COUNT_MISSING_ENTRIES ||
			    !d.report.checks[0].counts[c])
			<< pipeline_count_rows[c].key;
	}
	/* Listed, survivors, young; folded: main with the pending one, thread, child. */
	EXPECT_EQ(d.allocations(), 12u + 6 + 4 + 31 + 30 + 5 + 9 + 3);
	EXPECT_EQ(d.m->processes[0].frees, 3u + 31 + 30 + 5 + 9);
}

void CutEverywhere(const Bytes &whole)
{
	Damaged reference(whole);

	reference.run();
	for (size_t len = 0; len < whole.size(); len++) {
		/* A copy of its own, so that one byte read too many is found by ASan. */
		Damaged d(Bytes(whole.begin(), whole.begin() + static_cast<long>(len)));

		d.run();
		ASSERT_LE(d.allocations(), reference.allocations()) << "cut at " << len;
		ASSERT_TRUE(d.complains()) << "cut at " << len;
		ASSERT_EQ(d.m == nullptr, len < MT_HEADER_BYTES) << "cut at " << len;
		ASSERT_TRUE(!d.m || d.m->traces[0].recovered) << "cut at " << len;
	}
}

TEST(Reader, CutAtAnyByteItNeverCrashesNorInventsAndSaysWhatIsMissing)
{
	TraceWriter family, folded;

	FamilyTrace(family);
	CutEverywhere(family.bytes());
	FoldedTrace(folded);
	CutEverywhere(folded.bytes());
}

/* Bytes that say nothing of what was recorded, or whose damage can't be told from other values. */
bool IsSilent(size_t at, const Bytes &whole, const std::vector<uint64_t> &chunks)
{
	if (at < MT_HEADER_BYTES)
		return true;
	for (uint64_t c : chunks) {
		mt_chunk head;

		memcpy(&head, &whole[c], sizeof(head));
		if (at >= c + sizeof(head) && at < c + sizeof(head) + head.used)
			return true; /* payload has no check of its own */
		if (at >= c + offsetof(mt_chunk, lost) && at < c + sizeof(head))
			return false;
	}
	return false;
}

std::vector<uint64_t> ChunksOf(const Bytes &whole)
{
	std::vector<uint64_t> offsets;
	char *error = nullptr;
	trace *t = trace_open_buffer(whole.data(), whole.size(), "x", &error);
	size_t count;
	const trace_chunk *c = trace_chunks(t, &count);

	for (size_t i = 0; i < count; i++)
		offsets.push_back(c[i].offset);
	trace_close(t);
	return offsets;
}

TEST(Reader, AnySingleByteMayBeWrong)
{
	TraceWriter w;

	FamilyTrace(w);
	const Bytes whole = w.bytes();
	const std::vector<uint64_t> chunks = ChunksOf(whole);
	const uint8_t flips[] = { 0x01, 0x10, 0x80, 0xff };
	Damaged reference(whole);

	reference.run();
	for (size_t at = 0; at < whole.size(); at++) {
		for (uint8_t flip : flips) {
			Damaged d(whole);

			d.copy[at] ^= flip;
			d.run();
			/* Payload has no check: a FREE may turn into a MAP and nobody can tell. */
			ASSERT_TRUE(d.complains() || d.allocations() <= reference.allocations() + 1)
				<< at << " ^ " << int(flip);
			ASSERT_TRUE(IsSilent(at, whole, chunks) || d.complains() ||
				    d.allocations() >= reference.allocations())
				<< at << " ^ " << int(flip);
		}
	}
}

void DamageAtRandom(const Bytes &whole)
{
	uint32_t state = 1;
	auto random = [&state] { return state = state * 1664525u + 1013904223u, state >> 8; };

	for (int i = 0; i < 3000; i++) {
		Damaged d(whole);

		for (unsigned k = random() % 20 + 1; k-- > 0;)
			d.copy[random() % d.copy.size()] = static_cast<uint8_t>(random());
		if (random() % 4 == 0) {
			size_t from = random() % d.copy.size(), to = random() % d.copy.size();
			size_t len = std::min({ size_t(random() % 600), d.copy.size() - from,
						d.copy.size() - to });

			memmove(&d.copy[to], &d.copy[from], len);
		}
		d.run();
	}
}

TEST(Reader, RandomDamageNeverCrashes)
{
	TraceWriter family, folded;

	FamilyTrace(family);
	DamageAtRandom(family.bytes());
	FoldedTrace(folded);
	DamageAtRandom(folded.bytes());
}

TEST(Reader, AMissingChunkIsAGapInItsStream)
{
	TraceWriter w;
	Stream &s = w.process(Root());

	s.alloc(10, 0x1000, 1).skip_chunk().alloc(20, 0x2000, 2);
	Damaged d(w.bytes());

	d.run();
	EXPECT_EQ(d.count(COUNT_MISSING_CHUNKS), 1u);
	EXPECT_EQ(d.allocations(), 2u);
	EXPECT_FALSE(d.m->traces[0].complete);
	ASSERT_EQ(d.m->note_count, 1u);
	EXPECT_NE(std::string(d.m->notes[0]).find("chunks missing"), std::string::npos);
}

TEST(Reader, AChunkWhoseHeaderIsDamagedIsNotBelieved)
{
	TraceWriter w;
	Stream &s = w.process(Root());

	s.alloc(10, 0x1000, 1).seal().alloc(20, 0x2000, 2).seal().alloc(30, 0x3000, 4);
	for (size_t field : { offsetof(mt_chunk, base_time), offsetof(mt_chunk, proc),
			      offsetof(mt_chunk, self), offsetof(mt_chunk, check) }) {
		Damaged d(w.bytes());

		d.copy[ChunksOf(d.copy)[1] + field] ^= 4;
		d.run();
		EXPECT_EQ(d.allocations(), 2u) << field;
		EXPECT_EQ(d.count(COUNT_MISSING_CHUNKS), 1u) << field;
		EXPECT_GT(d.count(COUNT_GARBAGE_BYTES), 0u) << field;
	}
}

TEST(Reader, AnEndMarkThatComesTooEarlyIsSeen)
{
	TraceWriter w;
	Stream &s = w.process(Root());

	s.alloc(10, 0x1000, 1);
	const Bytes before = w.bytes();

	s.alloc(20, 0x2000, 2).alloc(30, 0x3000, 2);
	Damaged d(w.bytes());

	/* As it was two records earlier. */
	memcpy(&d.copy[MT_HEADER_BYTES + offsetof(mt_chunk, used)],
	       &before[MT_HEADER_BYTES + offsetof(mt_chunk, used)], 4);
	d.run();
	EXPECT_EQ(d.allocations(), 1u);
	EXPECT_EQ(d.count(COUNT_UNCOUNTED_CHUNKS), 1u);
}

TEST(Reader, LostEventsAreSaidPerProcess)
{
	TraceWriter w;
	Stream &a = w.process(Root());

	w.fork(a, 10, 200).alloc(20, 0x1000, 1).lose(5);
	Damaged d(w.bytes());

	d.run();
	EXPECT_EQ(d.m->lost_events, 5u);
	EXPECT_EQ(d.m->processes[0].lost_events, 0u);
	EXPECT_EQ(d.m->processes[1].lost_events, 5u);
	EXPECT_FALSE(d.m->traces[0].complete);
	EXPECT_FALSE(d.m->traces[0].recovered) << "nothing of the file is damaged";
}

TEST(Reader, AClaimedChunkWithoutHeaderIsNoDamage)
{
	TraceWriter w;

	w.process(Root()).alloc(10, 0x1000, 1).seal().alloc(20, 0x2000, 1);
	Bytes b = w.bytes();

	/* A process claimed four units and was killed before it wrote its header. */
	b.resize(b.size() + 4 * MT_UNIT_BYTES);
	auto *h = reinterpret_cast<mt_file_header *>(b.data());

	h->next += 4;
	Damaged d(b);

	d.run();
	EXPECT_FALSE(d.complains());
	EXPECT_EQ(d.allocations(), 2u);
}

TEST(Reader, ARecordThatWasNotCommittedIsNotReadNorComplainedOf)
{
	TraceWriter w;

	w.process(Root()).alloc(10, 0x1000, 1);
	Bytes b = w.bytes();
	auto *c = reinterpret_cast<mt_chunk *>(&b[MT_HEADER_BYTES]);
	size_t end = MT_HEADER_BYTES + sizeof(*c) + c->used;

	/* The writer was killed in the middle of an ALLOC. */
	b[end] = MT_EV_ALLOC;
	b[end + 1] = 5;
	Damaged d(b);

	d.run();
	EXPECT_FALSE(d.complains());
	EXPECT_EQ(d.allocations(), 1u);
}

TEST(Reader, ATailThatWasGivenBackIsZero)
{
	TraceWriter w;

	w.chunk_units = 16;
	w.process(Root()).alloc(10, 0x1000, 1).seal();
	w.process(Root()).alloc(10, 0x1000, 1);
	Bytes b = w.bytes();
	auto *c = reinterpret_cast<mt_chunk *>(&b[MT_HEADER_BYTES]);

	c->units = 1;
	Damaged d(b);

	d.run();
	EXPECT_FALSE(d.complains());
	EXPECT_EQ(d.allocations(), 2u);
}

} // namespace
