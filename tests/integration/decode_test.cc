// The two readers of the format agree: records of every kind, expanded from events.def, are written
// by the encoders, decoded by the C decoders, and compared line by line with scripts/decode.py,
// which was written from docs/FORMAT.md alone.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "memtrace/events.h"

namespace {

// Values that matter for varints and deltas; addresses stay within 57 bits.
const uint64_t kValues[] = { 0, 1, 127, 128, 300, 0x7f1234567890, 0xffffffff, (1ull << 56) + 3 };
constexpr size_t kRounds = sizeof(kValues) / sizeof(kValues[0]);
const char kText[] = "a\0b\"\\\n\x7f\x80\xff/tail of a text";

struct Generator {
	size_t round = 0, field = 0;
	uint64_t time = 1000;

	uint64_t Number() { return kValues[(round + field++) % kRounds]; }
	mt_str Text()
	{
		return { kText, static_cast<uint32_t>((round * 5 + field++) % sizeof(kText)) };
	}
	uint64_t Time() { return time += 1 + round * 100; }
};

#define GEN_U(g) (g).Number()
#define GEN_A(g) (g).Number()
#define GEN_N(g) (g).Number()
#define GEN_P(g) (g).Number()
#define GEN_C(g) (g).Number()
#define GEN_D(g) (g).Number()
#define GEN_R(g) (g).Number()
#define GEN_T(g) (g).Time()
#define GEN_STR(g) (g).Text()

void AppendJson(std::string &out, const mt_str &s)
{
	char buf[8];

	out += '"';
	for (uint32_t i = 0; i < s.len; i++) {
		auto c = static_cast<unsigned char>(s.data[i]);

		if (c == '"' || c == '\\')
			(out += '\\') += static_cast<char>(c);
		else if (c == '\n')
			out += "\\n";
		else if (c < 0x20 || c > 0x7e) {
			snprintf(buf, sizeof(buf), "\\u%04x", c);
			out += buf;
		} else
			out += static_cast<char>(c);
	}
	out += '"';
}

void AppendJson(std::string &out, uint64_t v)
{
	out += std::to_string(v);
}

std::string Print(const mt_record &r, unsigned proc, unsigned stream, unsigned seq)
{
	std::string out = "{\"proc\": " + std::to_string(proc) +
			  ", \"stream\": " + std::to_string(stream) +
			  ", \"seq\": " + std::to_string(seq) + ", \"record\": ";

	switch (r.id) {
#define MT_EVENT(NAME, name, class, tag, text)                                                   \
	case MT_EV_##NAME: {                                                                     \
		const mt_ev_##name &e = r.u.name;                                                \
		out += "\"" #NAME "\"";
#define MT_FIELD(type, name, text)                                                               \
	out += ", \"" #name "\": ";                                                              \
	AppendJson(out, e.name);
#define MT_OPTIONAL(type, name, bit, text) MT_FIELD(type, name, text)
#define MT_END(NAME, name)                                                                       \
	break;                                                                                   \
	}
#include "memtrace/events.def"
#undef MT_EVENT
#undef MT_FIELD
#undef MT_OPTIONAL
#undef MT_END
	default:
		out += "unknown";
	}
	return out + "}";
}

// All records once per round, in table order.
std::vector<uint8_t> EncodeAll(Generator &g, uint64_t base_time)
{
	std::vector<uint8_t> bytes(1 << 20);
	uint8_t *p = bytes.data();
	mt_codec codec, *c = &codec;

	mt_codec_start(c, base_time);
#define MT_EVENT(NAME, name, class, tag, text)                                                   \
	{                                                                                        \
		mt_ev_##name e = {};
#define MT_FIELD(type, name, text) e.name = GEN_##type(g);
#define MT_OPTIONAL(type, name, bit, text) e.name = GEN_##type(g);
#define MT_END(NAME, name)                                                                       \
	uint8_t *start = p;                                                                      \
	p = mt_put_##name(p, c, &e);                                                             \
	EXPECT_LE(static_cast<size_t>(p - start), mt_##name##_room(&e)) << #name;                \
	}
	for (g.round = 0; g.round < kRounds; g.round++) {
#include "memtrace/events.def"
	}
#undef MT_EVENT
#undef MT_FIELD
#undef MT_OPTIONAL
#undef MT_END
	bytes.resize(static_cast<size_t>(p - bytes.data()));
	return bytes;
}

std::vector<uint8_t> WrapInFile(const std::vector<uint8_t> &payload, uint64_t base_time)
{
	mt_file_header h = {};
	mt_chunk chunk = {};
	uint32_t units = static_cast<uint32_t>((payload.size() + sizeof(chunk) + MT_UNIT_BYTES - 1) /
					       MT_UNIT_BYTES);
	std::vector<uint8_t> file(MT_HEADER_BYTES + (units + 3) * MT_UNIT_BYTES);

	memcpy(h.magic, MT_FILE_MAGIC, 8);
	h.version = MT_FORMAT_VERSION;
	h.header_bytes = MT_HEADER_BYTES;
	h.unit_bytes = MT_UNIT_BYTES;
	h.time_shift = 5;
	chunk.magic = MT_CHUNK_MAGIC;
	chunk.units = units;
	chunk.self = MT_HEADER_BYTES + MT_UNIT_BYTES; // a unit of nothing before it
	chunk.proc = 7;
	chunk.stream = 3;
	chunk.seq = 2;
	chunk.base_time = base_time;
	chunk.used = static_cast<uint32_t>(payload.size());
	chunk.check = mt_chunk_check(&chunk);
	memcpy(file.data(), &h, sizeof(h));
	memcpy(file.data() + chunk.self, &chunk, sizeof(chunk));
	memcpy(file.data() + chunk.self + sizeof(chunk), payload.data(), payload.size());
	return file;
}

std::vector<std::string> DecodeC(const std::vector<uint8_t> &payload, uint64_t base_time)
{
	std::vector<std::string> lines;
	const uint8_t *p = payload.data(), *end = p + payload.size();
	mt_codec codec;
	mt_record record;

	mt_codec_start(&codec, base_time);
	while (p < end && (p = mt_get_record(p, end, &codec, &record)))
		lines.push_back(Print(record, 7, 3, 2));
	EXPECT_EQ(p, end);
	return lines;
}

// Output lines of decode.py, and its exit status.
std::vector<std::string> DecodePython(const std::vector<uint8_t> &file, int *status)
{
	std::string path = testing::TempDir() + "decode." + std::to_string(getpid()) + ".bin";
	std::vector<std::string> lines;
	std::string text;
	char buf[4096];
	size_t n;

	std::ofstream(path, std::ios::binary)
		.write(reinterpret_cast<const char *>(file.data()),
		       static_cast<std::streamsize>(file.size()));
	FILE *out = popen(("python3 " MT_SOURCE_DIR "/scripts/decode.py " + path + " 2>/dev/null").c_str(),
			  "r");
	while ((n = fread(buf, 1, sizeof(buf), out)) > 0)
		text.append(buf, n);
	*status = pclose(out);
	unlink(path.c_str());
	std::istringstream in(text);
	for (std::string line; std::getline(in, line);)
		lines.push_back(line);
	return lines;
}

} // namespace

TEST(Decode, IndependentReaderAgreesOnEveryRecordKind)
{
	Generator g;
	std::vector<uint8_t> payload = EncodeAll(g, 900);
	std::vector<std::string> c = DecodeC(payload, 900);
	int status = -1;
	std::vector<std::string> python = DecodePython(WrapInFile(payload, 900), &status);

	EXPECT_EQ(status, 0);
	ASSERT_EQ(c.size(), python.size());
	ASSERT_GE(c.size(), 25 * kRounds);
	for (size_t i = 0; i < c.size(); i++)
		ASSERT_EQ(c[i], python[i]) << "record " << i;
}

TEST(Decode, DecodedRecordsAreTheOnesThatWereWritten)
{
	Generator written, expected;
	std::vector<uint8_t> payload = EncodeAll(written, 900);
	const uint8_t *p = payload.data(), *end = p + payload.size();
	mt_codec codec;
	mt_record record;

	mt_codec_start(&codec, 900);
#define CHECK_U(a, b) EXPECT_EQ(a, b)
#define CHECK_STR(a, b) EXPECT_EQ(std::string((a).data, (a).len), std::string((b).data, (b).len))
#define CHECK_A CHECK_U
#define CHECK_N CHECK_U
#define CHECK_P CHECK_U
#define CHECK_C CHECK_U
#define CHECK_D CHECK_U
#define CHECK_R CHECK_U
#define CHECK_T CHECK_U
#define MT_EVENT(NAME, name, class, tag, text)                                                   \
	{                                                                                        \
		p = mt_get_record(p, end, &codec, &record);                                      \
		ASSERT_NE(p, nullptr);                                                           \
		ASSERT_EQ(record.id, static_cast<unsigned>(MT_EV_##NAME));                       \
		const mt_ev_##name &e = record.u.name;
#define MT_FIELD(type, name, text)                                                               \
	{                                                                                        \
		SCOPED_TRACE(#name);                                                             \
		mt_type_##type want = GEN_##type(expected);                                      \
		CHECK_##type(e.name, want);                                                      \
	}
#define MT_OPTIONAL(type, name, bit, text) MT_FIELD(type, name, text)
#define MT_END(NAME, name) }
	for (expected.round = 0; expected.round < kRounds; expected.round++) {
#include "memtrace/events.def"
	}
#undef MT_EVENT
#undef MT_FIELD
#undef MT_OPTIONAL
#undef MT_END
}

TEST(Decode, CutFileIsReadAsFarAsItGoesAndSaidToBeCut)
{
	Generator g;
	std::vector<uint8_t> payload = EncodeAll(g, 900);
	std::vector<std::string> c = DecodeC(payload, 900);
	std::vector<uint8_t> file = WrapInFile(payload, 900);
	int status = 0;

	file.resize(MT_HEADER_BYTES + MT_UNIT_BYTES + sizeof(mt_chunk) + payload.size() / 2);
	std::vector<std::string> python = DecodePython(file, &status);
	EXPECT_NE(status, 0);
	ASSERT_GT(python.size(), 0u);
	ASSERT_LT(python.size(), c.size());
	for (size_t i = 0; i < python.size(); i++)
		EXPECT_EQ(c[i], python[i]);
}
