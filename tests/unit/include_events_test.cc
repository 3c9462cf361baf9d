/*
 * The records of events.def as bytes: every kind, expanded from the table so that none can be
 * forgotten, with values at the ends of their ranges; cut at every byte; and what a record does to
 * the state that the next one builds on. Files and chunks are not looked at here.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "memtrace/events.h"

namespace
{

constexpr uint64_t kBase = 1u << 20; /* base time of the chunks here */

/* Chooses the i-th value of a field in round `round`: all fields see all values, never in step. */
struct Chooser {
	unsigned round, field = 0;
	uint64_t hot_time = kBase;

	template <size_t N> uint64_t Pick(const uint64_t (&values)[N])
	{
		return values[(round * 7 + field++ * 3) % N];
	}
};

const uint64_t kAny[] = { 0,	  1,	  63,	       64,	       127,	      128,
			  16383,  16384,  UINT32_MAX,  UINT64_C(1) << 32, INT64_MAX,
			  UINT64_C(1) << 63, UINT64_MAX };
/* Differences stay below 2^61. */
const uint64_t kAddresses[] = { 0,  1,	8,  15, 16, 4096, 0x7f1234567890, 0x7f1234567891,
				(UINT64_C(1) << 57) - 1, (UINT64_C(1) << 57) - 16,
				(UINT64_C(1) << 61) - 1 };
const uint64_t kSteps[] = { 0, 1, 127, 128, 1000000, UINT64_C(1) << 40, UINT64_C(1) << 56 };
const std::string kTexts[] = { "", "a", std::string(127, 'b'), std::string(128, 'c'),
			       std::string("\0\xff\n\"", 4), std::string(70000, 'd') };

#define CHOOSE_U(c, hot) (c).Pick(kAny)
#define CHOOSE_N CHOOSE_U
#define CHOOSE_P CHOOSE_U
#define CHOOSE_C CHOOSE_U
#define CHOOSE_B CHOOSE_U
#define CHOOSE_D CHOOSE_U
#define CHOOSE_R CHOOSE_U
#define CHOOSE_A(c, hot) (c).Pick(kAddresses)
/* Hot time only goes on; a framed record's may be before the state's, or anything. */
#define CHOOSE_T(c, hot) ((hot) ? ((c).hot_time += (c).Pick(kSteps)) : (c).Pick(kAny))
#define CHOOSE_STR(c, hot) Text((c).round + (c).field++)

mt_str Text(unsigned i)
{
	const std::string &s = kTexts[i % (sizeof(kTexts) / sizeof(kTexts[0]))];

	return { s.data(), static_cast<uint32_t>(s.size()) };
}

constexpr unsigned kRounds = 40;

void ExpectSame(uint64_t got, uint64_t want, const char *field)
{
	EXPECT_EQ(got, want) << field;
}

void ExpectSame(const mt_str &got, const mt_str &want, const char *field)
{
	EXPECT_EQ(std::string(got.data, got.len), std::string(want.data, want.len)) << field;
}

/* One kind of record, with its fields hidden: what the tests below need of it. */
struct Kind {
	const char *name;
	unsigned tag;
	bool hot;
	/* Encodes one with values of that round; the bytes must fit what _room() says. */
	std::function<uint8_t *(uint8_t *, mt_codec *, Chooser *)> put;
	std::function<void(const mt_record &, Chooser *)> expect;
};

#define TYPE_HOT true
#define TYPE_FRAMED false
#define MT_FIELD(type, name, text) e.name = CHOOSE_##type(*c, hot);
#define MT_OPTIONAL(type, name, bit, text) MT_FIELD(type, name, text)
#define MT_EVENT(NAME, name, class, tag, text)                                                     \
	uint8_t *Put##NAME(uint8_t *p, mt_codec *codec, Chooser *c)                                \
	{                                                                                          \
		constexpr bool hot = TYPE_##class;                                                 \
		mt_ev_##name e = {};                                                               \
                                                                                                   \
		(void)hot;
#define MT_END(NAME, name)                                                                         \
	uint8_t *end = mt_put_##name(p, codec, &e);                                                \
	EXPECT_LE(static_cast<size_t>(end - p), mt_##name##_room(&e)) << #NAME;                    \
	return end;                                                                                \
	}
#include "memtrace/events.def"
#undef MT_EVENT
#undef MT_FIELD
#undef MT_OPTIONAL
#undef MT_END

#define MT_FIELD(type, name, text) ExpectSame(e.name, CHOOSE_##type(*c, hot), #name);
#define MT_OPTIONAL(type, name, bit, text) MT_FIELD(type, name, text)
#define MT_EVENT(NAME, name, class, tag, text)                                                     \
	void Expect##NAME(const mt_record &r, Chooser *c)                                          \
	{                                                                                          \
		constexpr bool hot = TYPE_##class;                                                 \
		const mt_ev_##name &e = r.u.name;                                                  \
                                                                                                   \
		(void)hot;                                                                         \
		EXPECT_EQ(r.id, static_cast<unsigned>(tag));
#define MT_END(NAME, name) }
#include "memtrace/events.def"
#undef MT_EVENT
#undef MT_FIELD
#undef MT_OPTIONAL
#undef MT_END

const Kind kKinds[] = {
#define MT_FIELD(type, name, text)
#define MT_OPTIONAL(type, name, bit, text)
#define MT_EVENT(NAME, name, class, tag, text) { #NAME, tag, TYPE_##class, Put##NAME, Expect##NAME },
#define MT_END(NAME, name)
#include "memtrace/events.def"
#undef MT_EVENT
#undef MT_FIELD
#undef MT_OPTIONAL
#undef MT_END
};

mt_codec Fresh()
{
	mt_codec c;

	mt_codec_start(&c, kBase);
	return c;
}

/* A state in the middle of a chunk. */
mt_codec Worn()
{
	return mt_codec{ kBase, 0x7f1234567890, 1000, 77, 12345, 678 };
}

bool Same(const mt_codec &a, const mt_codec &b)
{
	return !memcmp(&a, &b, sizeof(a));
}

/* The record in a buffer that ends where it ends. */
std::vector<uint8_t> Encode(const Kind &k, unsigned round, mt_codec *codec)
{
	std::vector<uint8_t> bytes(1 << 18);
	Chooser c{ round };

	bytes.resize(static_cast<size_t>(k.put(bytes.data(), codec, &c) - bytes.data()));
	bytes.shrink_to_fit();
	return bytes;
}

TEST(Records, EveryKindComesBackWithValuesAtTheEndsOfTheirRanges)
{
	for (const Kind &k : kKinds) {
		for (unsigned round = 0; round < kRounds; round++) {
			SCOPED_TRACE(std::string(k.name) + " round " + std::to_string(round));
			for (const mt_codec &state : { Fresh(), Worn() }) {
				mt_codec writer = state, reader = state;
				std::vector<uint8_t> bytes = Encode(k, round, &writer);
				const uint8_t *end = bytes.data() + bytes.size();
				Chooser c{ round };
				mt_record r;

				ASSERT_EQ(mt_get_record(bytes.data(), end, &reader, &r), end);
				k.expect(r, &c);
				EXPECT_TRUE(Same(writer, reader)) << "writer and reader went apart";
			}
		}
	}
}

TEST(Records, ALongRowOfAllKindsComesBack)
{
	std::vector<uint8_t> bytes(64 << 20);
	mt_codec codec = Fresh();
	uint8_t *out = bytes.data();
	Chooser write{ 0 }, read{ 0 };

	for (write.round = 0; write.round < kRounds; write.round++)
		for (const Kind &k : kKinds)
			out = k.put(out, &codec, &write);
	const uint8_t *p = bytes.data();

	codec = Fresh();
	for (read.round = 0; read.round < kRounds; read.round++) {
		for (const Kind &k : kKinds) {
			mt_record r;

			p = mt_get_record(p, out, &codec, &r);
			ASSERT_NE(p, nullptr) << k.name;
			k.expect(r, &read);
		}
	}
	EXPECT_EQ(p, out);
}

TEST(Records, CutAtAnyByteIsRefused)
{
	for (const Kind &k : kKinds) {
		for (unsigned round = 0; round < kRounds; round++) {
			mt_codec codec = Worn();
			std::vector<uint8_t> whole = Encode(k, round, &codec);
			size_t step = whole.size() < 2000 ? 1 : whole.size() / 100;

			for (size_t len = 0; len < whole.size(); len += step) {
				std::vector<uint8_t> cut(whole.begin(), whole.begin() + len);
				mt_record r;

				cut.shrink_to_fit();
				codec = Worn();
				ASSERT_EQ(mt_get_record(cut.data(), cut.data() + len, &codec, &r),
					  nullptr)
					<< k.name << " cut at " << len << " of " << whole.size();
			}
		}
	}
}

/* The fields of a framed record as a payload of any length, with a true length before it. */
std::vector<uint8_t> Framed(unsigned tag, const std::vector<uint8_t> &fields)
{
	std::vector<uint8_t> out(1 + MT_LENGTH_BYTES);

	out[0] = static_cast<uint8_t>(tag);
	mt_put_length(&out[1], static_cast<uint32_t>(fields.size()));
	out.insert(out.end(), fields.begin(), fields.end());
	return out;
}

std::vector<uint8_t> FieldsOf(const std::vector<uint8_t> &record)
{
	return { record.begin() + 1 + MT_LENGTH_BYTES, record.end() };
}

TEST(Records, AFramedRecordMayEndAfterAnyFieldButNotInsideOne)
{
	for (const Kind &k : kKinds) {
		if (k.hot)
			continue;
		mt_codec codec = Fresh();
		std::vector<uint8_t> fields = FieldsOf(Encode(k, 5, &codec));
		unsigned good = 0;

		if (fields.size() > 5000)
			continue;
		for (size_t len = 0; len <= fields.size(); len++) {
			std::vector<uint8_t> bytes =
				Framed(k.tag, { fields.begin(), fields.begin() + len });
			mt_record r;
			const uint8_t *end;

			codec = Fresh();
			end = mt_get_record(bytes.data(), bytes.data() + bytes.size(), &codec, &r);
			if (end) {
				EXPECT_EQ(end, bytes.data() + bytes.size());
				good++;
			}
		}
		EXPECT_GE(good, 2u) << k.name; /* none of its fields, all of them */
	}
}

TEST(Records, FieldsThatAnOlderWriterDidNotHaveAreZeroOrEmpty)
{
	for (const Kind &k : kKinds) {
		if (k.hot)
			continue;
		std::vector<uint8_t> bytes = Framed(k.tag, {});
		mt_codec codec = Worn();
		mt_record r;

		memset(&r, 0xff, sizeof(r));
		ASSERT_NE(mt_get_record(bytes.data(), bytes.data() + bytes.size(), &codec, &r), nullptr);
		switch (r.id) {
#define ZERO_U(v) EXPECT_EQ(v, 0u)
#define ZERO_T ZERO_U
#define ZERO_N ZERO_U
#define ZERO_P ZERO_U
#define ZERO_A ZERO_U
#define ZERO_C ZERO_U
#define ZERO_B ZERO_U
#define ZERO_D ZERO_U
#define ZERO_R ZERO_U
#define ZERO_STR(v) EXPECT_EQ((v).len, 0u)
#define MT_FIELD(type, name, text) ZERO_##type(e.name);
#define MT_OPTIONAL(type, name, bit, text)
#define MT_EVENT(NAME, name, class, tag, text)                                                     \
	case tag: {                                                                                \
		const auto &e = r.u.name;
#define MT_END(NAME, name)                                                                         \
	break;                                                                                     \
	}
#include "memtrace/events.def"
#undef MT_EVENT
#undef MT_FIELD
#undef MT_OPTIONAL
#undef MT_END
		default:
			FAIL() << "tag " << r.id;
		}
	}
}

TEST(Records, FieldsOfANewerWriterAreSkipped)
{
	for (const Kind &k : kKinds) {
		if (k.hot)
			continue;
		mt_codec codec = Worn();
		std::vector<uint8_t> fields = FieldsOf(Encode(k, 3, &codec));

		for (uint8_t extra : { 0x01, 0xff, 0x00 })
			fields.push_back(extra);
		std::vector<uint8_t> bytes = Framed(k.tag, fields);
		Chooser c{ 3 };
		mt_record r;

		ASSERT_EQ(mt_get_record(bytes.data(), bytes.data() + bytes.size(), &codec, &r),
			  bytes.data() + bytes.size())
			<< k.name;
		k.expect(r, &c);
	}
}

TEST(Records, ALengthThatIsTooLongIsRefusedAndNotFollowed)
{
	for (uint64_t length : { UINT64_C(5), UINT64_C(1) << 20, UINT64_MAX, UINT64_MAX - 3 }) {
		uint8_t bytes[1 + MT_VARINT_MAX + 4] = { MT_EV_NOTE };
		uint8_t *fields = mt_put_varint(bytes + 1, length);
		mt_codec codec = Fresh();
		mt_record r;

		EXPECT_EQ(mt_get_record(bytes, fields + 4, &codec, &r), nullptr) << length;
	}
}

TEST(Records, UnknownTags)
{
	for (unsigned tag = 0; tag < 256; tag++) {
		std::vector<uint8_t> bytes = { static_cast<uint8_t>(tag), 3, 9, 9, 9 };
		mt_codec codec = Worn();
		const uint8_t *end;
		bool known = false;
		mt_record r;

		for (const Kind &k : kKinds)
			known |= k.tag == (tag & 0x80 ? tag & 0xf0 : tag);
		if (known)
			continue;
		end = mt_get_record(bytes.data(), bytes.data() + bytes.size(), &codec, &r);
		if (!tag || tag & 0x80) {
			EXPECT_EQ(end, nullptr) << tag; /* its length is not known */
		} else {
			ASSERT_EQ(end, bytes.data() + bytes.size()) << tag;
			EXPECT_EQ(r.id, tag);
			EXPECT_EQ(r.u.unknown.len, 3u);
			EXPECT_EQ(r.u.unknown.data[0], 9);
			EXPECT_TRUE(Same(codec, Worn()));
		}
	}
}

TEST(RecordState, FramedRecordsReadItAndLeaveIt)
{
	for (const Kind &k : kKinds) {
		if (k.hot)
			continue;
		for (unsigned round = 0; round < kRounds; round++) {
			mt_codec codec = Worn();
			std::vector<uint8_t> bytes = Encode(k, round, &codec);
			mt_record r;

			ASSERT_TRUE(Same(codec, Worn())) << k.name << ": encoder";
			mt_get_record(bytes.data(), bytes.data() + bytes.size(), &codec, &r);
			ASSERT_TRUE(Same(codec, Worn())) << k.name << ": decoder";
		}
	}
}

TEST(RecordState, AHotTimeThatGoesBackStandsStill)
{
	mt_codec codec = Worn();
	mt_ev_free e = { kBase - 500, 0x1000, 0 };
	uint8_t bytes[64];
	uint8_t *end = mt_put_free(bytes, &codec, &e);
	mt_record r;

	codec = Worn();
	ASSERT_EQ(mt_get_record(bytes, end, &codec, &r), end);
	EXPECT_EQ(r.u.free.time, kBase);
	EXPECT_EQ(codec.time, kBase);
}

/* What a steady state costs: the sizes that the trace's size rests on. */
TEST(RecordState, WhatDoesNotChangeCostsNothing)
{
	mt_codec codec = Worn();
	mt_ev_alloc e = { kBase + 100, codec.addr + 64, 100, codec.native, codec.python, 0 };
	mt_ev_free f = { kBase + 110, codec.addr + 64, 0 };
	mt_ev_node n = { codec.node + 1, codec.node, codec.frame };
	uint8_t bytes[256];

	EXPECT_EQ(mt_put_alloc(bytes, &codec, &e) - bytes, 4); /* tag, time, address, size */
	EXPECT_EQ(mt_put_free(bytes, &codec, &f) - bytes, 3);
	EXPECT_EQ(mt_put_node(bytes, &codec, &n) - bytes, 2); /* tag, frame */
}

TEST(RecordState, RandomBytesAreNeverFollowedOutOfTheirBuffer)
{
	uint64_t seed = 88172645463325252u;

	for (int i = 0; i < 200000; i++) {
		std::vector<uint8_t> bytes(1 + i % 40);
		mt_codec codec = Worn();
		mt_record r;

		for (uint8_t &b : bytes) {
			seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
			b = static_cast<uint8_t>(seed >> 32);
		}
		bytes.shrink_to_fit();
		for (const uint8_t *p = bytes.data(), *end = p + bytes.size(); p && p < end;) {
			const uint8_t *next = mt_get_record(p, end, &codec, &r);

			if (next) {
				ASSERT_GT(next, p);
				ASSERT_LE(next, end);
			}
			p = next;
		}
	}
}

} // namespace
