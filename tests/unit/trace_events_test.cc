/*
 * Every kind of record of events.def, through the encoders into a file and back out of it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <deque>
#include <string>
#include <vector>

#include "support/trace_writer.h"
#include "trace/cursor.h"

using memtrace_test::str;
using memtrace_test::Stream;
using memtrace_test::TraceWriter;

namespace
{

/* A value that differs from field to field and round to round. */
struct Filler {
	explicit Filler(unsigned r) : round(r)
	{
	}
	uint64_t next()
	{
		return 1000 + 17 * ++field + 1000003ull * round;
	}
	void set(uint64_t &v)
	{
		v = next();
	}
	void set(mt_str &v)
	{
		texts.push_back("\xff" + std::string(1, '\0') + std::to_string(next()));
		v = str(texts.back());
	}

	unsigned round, field = 0;
	std::deque<std::string> texts;
};

void ExpectField(uint64_t got, uint64_t want, const char *what)
{
	EXPECT_EQ(got, want) << what;
}

void ExpectField(const mt_str &got, const mt_str &want, const char *what)
{
	EXPECT_EQ(std::string(got.data, got.len), std::string(want.data, want.len)) << what;
}

/* fill() and expect() of every record, field by field. */
#define MT_EVENT(NAME, name, class, tag, text)                                                     \
	void Fill(mt_ev_##name &e, Filler &f)                                                      \
	{
#define MT_FIELD(type, name, text) f.set(e.name);
#define MT_OPTIONAL(type, name, bit, text) f.set(e.name);
#define MT_END(NAME, name) }
#include "memtrace/events.def"
#undef MT_EVENT
#undef MT_FIELD
#undef MT_OPTIONAL
#undef MT_END

#define MT_EVENT(NAME, name, class, tag, text)                                                     \
	void Expect(const mt_ev_##name &got, const mt_ev_##name &want)                             \
	{                                                                                          \
		const char *const record = #NAME;
#define MT_FIELD(type, name, text) ExpectField(got.name, want.name, record);
#define MT_OPTIONAL(type, name, bit, text) ExpectField(got.name, want.name, record);
#define MT_END(NAME, name) }
#include "memtrace/events.def"
#undef MT_EVENT
#undef MT_FIELD
#undef MT_OPTIONAL
#undef MT_END

class Reader
{
      public:
	explicit Reader(const TraceWriter &w) : bytes_(w.bytes())
	{
		char *error = nullptr;
		size_t count;

		trace = trace_open_buffer(bytes_.data(), bytes_.size(), "test", &error);
		EXPECT_NE(trace, nullptr) << error;
		cursor_init(&cursor, trace, trace_streams(trace, &count));
	}
	~Reader()
	{
		cursor_release(&cursor);
		trace_close(trace);
	}
	struct trace *trace;
	struct cursor cursor;

      private:
	std::vector<uint8_t> bytes_;
};

TEST(Events, EveryRecordComesBackAsItWasWritten)
{
	std::vector<unsigned> kinds;
#define MT_EVENT(NAME, name, class, tag, text)                                                     \
	for (unsigned round = 0; round < 3; round++) {                                             \
		TraceWriter w;                                                                     \
		Filler f(round);                                                                   \
		mt_ev_##name want = {};                                                            \
                                                                                                   \
		if (round < 2)                                                                     \
			Fill(want, f);                                                             \
		else                                                                               \
			want = {};                                                                 \
		w.nameless(1).put(want).put(want);                                                 \
		Reader r(w);                                                                       \
		for (int i = 0; i < 2; i++) {                                                      \
			ASSERT_TRUE(cursor_next(&r.cursor)) << #NAME;                              \
			EXPECT_EQ(r.cursor.record.id, static_cast<unsigned>(MT_EV_##NAME));        \
			Expect(r.cursor.record.u.name, want);                                      \
		}                                                                                  \
		EXPECT_FALSE(cursor_next(&r.cursor)) << #NAME;                                     \
		EXPECT_EQ(trace_damage(r.trace)->bad_chunks, 0u) << #NAME;                         \
		EXPECT_EQ(trace_damage(r.trace)->records, 2u) << #NAME;                            \
	}                                                                                          \
	kinds.push_back(tag);
#define MT_FIELD(type, name, text)
#define MT_OPTIONAL(type, name, bit, text)
#define MT_END(NAME, name)
#include "memtrace/events.def"
#undef MT_EVENT
#undef MT_FIELD
#undef MT_OPTIONAL
#undef MT_END
	EXPECT_GE(kinds.size(), 30u);
}

TEST(Events, StateCarriesFromRecordToRecordAndEndsWithTheChunk)
{
	TraceWriter w;
	Stream &s = w.nameless(1);
	const uint64_t addrs[] = { 0x7f1234567890, 0x7f1234567891, 0, 0x10, 0x7fffffffffff };

	for (int i = 0; i < 200; i++)
		s.alloc(10 * i, addrs[i % 5], i, i / 3, i / 7, i % 4 ? 0 : MT_KIND_PYTHON);
	Reader r(w);

	for (int i = 0; i < 200; i++) {
		ASSERT_TRUE(cursor_next(&r.cursor));
		const mt_ev_alloc &e = r.cursor.record.u.alloc;

		ASSERT_EQ(e.time, 10u * i);
		ASSERT_EQ(r.cursor.time, 10u * i);
		ASSERT_EQ(e.addr, addrs[i % 5]);
		ASSERT_EQ(e.size, static_cast<uint64_t>(i));
		ASSERT_EQ(e.native, static_cast<uint64_t>(i / 3));
		ASSERT_EQ(e.python, static_cast<uint64_t>(i / 7));
		ASSERT_EQ(e.kind, uint64_t(i % 4 ? MT_KIND_HEAP : MT_KIND_PYTHON));
	}
	EXPECT_FALSE(cursor_next(&r.cursor));
}

TEST(Events, AFramedRecordFromTheFutureIsSkipped)
{
	TraceWriter w;

	w.nameless(1).alloc(10, 0x1000, 1).raw({ 0x7e, 3, 1, 2, 3 }).alloc(20, 0x2000, 2);
	Reader r(w);

	ASSERT_TRUE(cursor_next(&r.cursor));
	ASSERT_TRUE(cursor_next(&r.cursor));
	EXPECT_EQ(r.cursor.record.id, 0x7eu);
	EXPECT_EQ(r.cursor.record.u.unknown.len, 3u);
	ASSERT_TRUE(cursor_next(&r.cursor));
	EXPECT_EQ(r.cursor.record.u.alloc.addr, 0x2000u);
	EXPECT_EQ(trace_damage(r.trace)->unknown_records, 1u);
}

TEST(Events, AFramedRecordMayLackFieldsOfALaterVersion)
{
	TraceWriter w;

	/* EXIT with only its time, zigzag of 5. */
	w.nameless(1).raw({ MT_EV_EXIT, 1, 10 });
	Reader r(w);

	ASSERT_TRUE(cursor_next(&r.cursor));
	EXPECT_EQ(r.cursor.record.u.exit.time, 5u);
	EXPECT_EQ(r.cursor.record.u.exit.code, 0u);
}

} // namespace
