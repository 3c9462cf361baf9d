// The two readers of the format agree: records of every kind, expanded from events.def, are written
// by the encoders, decoded by the C decoders, and compared line by line with scripts/decode.py,
// which was written from docs/FORMAT.md alone. So are the examples of that document and traces of
// real programs.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <sstream>
#include <string>
#include <vector>

#include "memtrace/events.h"
#include "support/damage.h"
#include "support/decode_rows.h"
#include "support/harness.h"
#include "trace/cursor.h"

using memtrace_test::Execute;
using memtrace_test::Program;
using memtrace_test::ReadAll;
using memtrace_test::Report;
using memtrace_test::Result;
using memtrace_test::SourcePath;
using memtrace_test::TempDir;
using memtrace_test::WriteAll;

namespace {

using Lines = std::vector<std::string>;

// Values that matter for varints and deltas; addresses stay within 57 bits.
const uint64_t kValues[] = { 0, 1, 127, 128, 300, 0x7f1234567890, 0xffffffff, (1ull << 56) + 3 };
constexpr size_t kRounds = sizeof(kValues) / sizeof(kValues[0]);
const char kText[] = "a\0b\"\\\n\r\t\b\f\x1f\x7f\x80\xff/tail";

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
#define GEN_B(g) (g).Number()
#define GEN_STR(g) (g).Text()

// As Python's json does it.
void AppendJson(std::string &out, const mt_str &s)
{
	const char escaped[] = "\"\\\n\r\t\b\f", letters[] = "\"\\nrtbf";
	char buf[8];

	out += '"';
	for (uint32_t i = 0; i < s.len; i++) {
		auto c = static_cast<unsigned char>(s.data[i]);
		const char *known = c ? strchr(escaped, c) : nullptr;

		if (known) {
			(out += '\\') += letters[known - escaped];
		} else if (c < 0x20 || c > 0x7e) {
			snprintf(buf, sizeof(buf), "\\u%04x", c);
			out += buf;
		} else {
			out += static_cast<char>(c);
		}
	}
	out += '"';
}

void AppendJson(std::string &out, uint64_t v)
{
	out += std::to_string(v);
}

// The record as scripts/decode.py prints it, without the numbers of its chunk.
std::string Print(const mt_record &r)
{
	std::string out = "{\"record\": ";
	char tag[8];

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
		snprintf(tag, sizeof(tag), "0x%02x", r.id);
		out += "\"" + std::string(tag) + "\"";
	}
	return out + "}";
}

std::string Print(const mt_record &r, uint32_t proc, uint32_t stream, uint32_t seq)
{
	return "{\"proc\": " + std::to_string(proc) + ", \"stream\": " + std::to_string(stream) +
	       ", \"seq\": " + std::to_string(seq) + ", " + Print(r).substr(1);
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
	chunk.seq = 0;
	chunk.base_time = base_time;
	chunk.used = static_cast<uint32_t>(payload.size());
	chunk.check = mt_chunk_check(&chunk);
	memcpy(file.data(), &h, sizeof(h));
	memcpy(file.data() + chunk.self, &chunk, sizeof(chunk));
	memcpy(file.data() + chunk.self + sizeof(chunk), payload.data(), payload.size());
	return file;
}

Lines DecodeC(const std::vector<uint8_t> &payload, uint64_t base_time)
{
	Lines lines;
	const uint8_t *p = payload.data(), *end = p + payload.size();
	mt_codec codec;
	mt_record record;

	mt_codec_start(&codec, base_time);
	while (p < end && (p = mt_get_record(p, end, &codec, &record)))
		lines.push_back(Print(record, 7, 3, 0));
	EXPECT_EQ(p, end);
	return lines;
}

Lines Split(const std::string &text)
{
	std::istringstream in(text);
	Lines lines;

	for (std::string line; std::getline(in, line);)
		lines.push_back(line);
	return lines;
}

// What scripts/decode.py says of the file.
Result RunPython(const std::string &script, const std::vector<std::string> &arguments)
{
	memtrace_test::Command command;

	command.argv = { "python3", SourcePath(script) };
	command.argv.insert(command.argv.end(), arguments.begin(), arguments.end());
	command.traced = false;
	return Execute(command);
}

Lines DecodePython(const std::vector<uint8_t> &file, Result *result)
{
	TempDir dir;

	WriteAll(dir.File("trace.bin"),
		 std::string(reinterpret_cast<const char *>(file.data()), file.size()));
	*result = RunPython("scripts/decode.py", { dir.File("trace.bin") });
	return Split(result->out);
}

// All records of a trace by the C reader, chunk by chunk in the order of the file.
Lines DecodeFile(const std::string &path)
{
	char *error = nullptr;
	struct trace *t = trace_open(path.c_str(), &error);
	std::vector<trace_chunk> chunks;
	Lines lines;
	size_t count;

	if (!t) {
		ADD_FAILURE() << error;
		return lines;
	}
	const trace_chunk *all = trace_chunks(t, &count);

	chunks.assign(all, all + count);
	std::sort(chunks.begin(), chunks.end(),
		  [](const trace_chunk &a, const trace_chunk &b) { return a.offset < b.offset; });
	for (const trace_chunk &chunk : chunks) {
		struct cursor c;

		if (chunk.kind == MT_CHUNK_NURSERY)
			memtrace_test::DecodeNursery(t, chunk, &lines);
		if (chunk.kind == MT_CHUNK_COUNTERS)
			memtrace_test::DecodeCells(t, chunk, &lines);
		cursor_init_chunk(&c, t, &chunk);
		while (cursor_next(&c))
			lines.push_back(Print(c.record, chunk.proc, chunk.stream, chunk.seq));
		cursor_release(&c);
	}
	trace_close(t);
	return lines;
}

void ExpectEqualLines(const Lines &c, const Lines &python)
{
	ASSERT_EQ(c.size(), python.size());
	for (size_t i = 0; i < c.size(); i++)
		ASSERT_EQ(c[i], python[i]) << "record " << i;
}

// The block of docs/FORMAT.md that begins with ```worked: bytes, and indented what they say.
void ReadWorkedExample(std::vector<uint8_t> *bytes, Lines *printed)
{
	bool inside = false;

	for (const std::string &line : Split(ReadAll(SourcePath("docs/FORMAT.md")))) {
		if (line == "```worked" || (inside && line == "```"))
			inside = !inside;
		else if (inside && line[0] == ' ')
			printed->push_back(line.substr(line.find('{')));
		else if (inside)
			for (size_t i = 0; i + 1 < line.size(); i += 3)
				bytes->push_back(static_cast<uint8_t>(
					std::stoi(line.substr(i, 2), nullptr, 16)));
	}
}

} // namespace

TEST(Decode, IndependentReaderAgreesOnEveryRecordKind)
{
	Generator g;
	std::vector<uint8_t> payload = EncodeAll(g, 900);
	Lines c = DecodeC(payload, 900);
	Result result;
	Lines python = DecodePython(WrapInFile(payload, 900), &result);

	EXPECT_TRUE(result.Exited(0)) << Describe(result);
	ASSERT_GE(c.size(), 25 * kRounds);
	ExpectEqualLines(c, python);
}

TEST(Decode, BothReadersReadTheExamplesOfTheFormatDocument)
{
	std::vector<uint8_t> payload;
	Lines document, c, python;
	Result result;

	ReadWorkedExample(&payload, &document);
	ASSERT_GE(document.size(), 12u);
	const uint8_t *p = payload.data(), *end = p + payload.size();
	mt_codec codec;
	mt_record record;

	mt_codec_start(&codec, 100);
	while (p && p < end && (p = mt_get_record(p, end, &codec, &record)))
		c.push_back(Print(record));
	EXPECT_EQ(p, end);
	ExpectEqualLines(document, c);
	for (const std::string &line : DecodePython(WrapInFile(payload, 100), &result))
		python.push_back("{" + line.substr(line.find("\"record\"")));
	EXPECT_TRUE(result.Exited(0)) << Describe(result);
	ExpectEqualLines(document, python);
}

TEST(Decode, IndependentReaderAgreesOnTracesOfRealPrograms)
{
	const std::vector<std::vector<std::string>> programs = {
		{ "fork_tree", "2", "2", "50" }, { "heap_threads" }, { "mappings" }, { "kinds_of_children" }
	};

	for (const auto &program : programs) {
		TempDir dir;
		Result run = Execute(Program(dir, program[0], { program.begin() + 1, program.end() }));
		Result read = RunPython("scripts/decode.py", { dir.File("trace.bin") });

		SCOPED_TRACE(program[0]);
		EXPECT_TRUE(read.Exited(0)) << Describe(run) << read.err;
		ASSERT_GT(read.out.size(), 1000u);
		ExpectEqualLines(DecodeFile(dir.File("trace.bin")), Split(read.out));
	}
}

TEST(Decode, IndependentReaderCountsWhatTheReportCounts)
{
	TempDir dir;
	Result run = Execute(Program(dir, "fork_tree", { "2", "3", "40" }));
	memtrace_test::Json report = Report(dir.File("trace.bin"))["processes"], python;
	long allocations = 0, bytes = 0;

	python = memtrace_test::Json::Parse(
		RunPython("scripts/decode.py", { "--stats", dir.File("trace.bin") }).out)["processes"];
	ASSERT_EQ(report.size(), 13u) << Describe(run);
	ASSERT_EQ(python.size(), 13u);
	for (size_t i = 0; i < report.size(); i++) {
		EXPECT_GT(report[i]["allocations"].Long(), 0);
		allocations += report[i]["allocations"].Long();
		bytes += report[i]["bytes_allocated"].Long();
	}
	for (size_t number = 1; number <= python.size(); number++) {
		memtrace_test::Json p = python[std::to_string(number).c_str()];

		EXPECT_GT(p["pid"].Long(), 0);
		allocations -= p["allocations"].Long();
		bytes -= p["bytes_allocated"].Long();
	}
	EXPECT_EQ(allocations, 0);
	EXPECT_EQ(bytes, 0);
}

void ExpectSurvivesDamage(const memtrace_test::TraceWriter &w)
{
	TempDir dir;

	w.save(dir.File("trace.bin"));
	Result result = RunPython("tests/support/decode_damage.py",
				  { SourcePath("scripts/decode.py"), dir.File("trace.bin") });
	EXPECT_TRUE(result.Exited(0)) << Describe(result);
	EXPECT_NE(result.out.find("2000 damages"), std::string::npos) << result.out;
}

TEST(Decode, IndependentReaderSurvivesEveryCutAndMuchDamage)
{
	memtrace_test::TraceWriter family, folded;

	memtrace_test::FamilyTrace(family);
	ExpectSurvivesDamage(family);
	memtrace_test::FoldedTrace(folded);
	ExpectSurvivesDamage(folded);
}

TEST(Decode, BothReadersReadNurseriesAndCellsAlike)
{
	TempDir dir;
	memtrace_test::TraceWriter w;

	memtrace_test::FoldedTrace(w);
	w.save(dir.File("trace.bin"));
	Result read = RunPython("scripts/decode.py", { dir.File("trace.bin") });
	memtrace_test::Json report = Report(dir.File("trace.bin"))["processes"], stats;

	EXPECT_TRUE(read.Exited(0)) << read.err;
	EXPECT_NE(read.out.find("FOLDING"), std::string::npos);
	ExpectEqualLines(DecodeFile(dir.File("trace.bin")), Split(read.out));
	stats = memtrace_test::Json::Parse(
		RunPython("scripts/decode.py", { "--stats", dir.File("trace.bin") }).out)["processes"];
	ASSERT_EQ(report.size(), 2u);
	for (size_t i = 0; i < 2; i++) {
		memtrace_test::Json p = stats[std::to_string(i + 1).c_str()];

		EXPECT_EQ(p["allocations"].Long(), report[i]["allocations"].Long());
		EXPECT_EQ(p["bytes_allocated"].Long(), report[i]["bytes_allocated"].Long());
		EXPECT_EQ(p["frees"].Long(), report[i]["frees"].Long() +
						     report[i]["inherited_freed_count"].Long());
	}
}

TEST(Decode, IndependentReaderRefusesWhatIsNoTraceInOneLine)
{
	TempDir dir;

	WriteAll(dir.File("empty"), "");
	WriteAll(dir.File("other"), std::string(5000, 'x'));
	for (const std::string &path : { dir.File("empty"), dir.File("other"), dir.path, dir.File("none") }) {
		Result result = RunPython("scripts/decode.py", { path });

		EXPECT_TRUE(result.Exited(1)) << path;
		EXPECT_EQ(result.out, "");
		EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
		EXPECT_NE(result.err.find(path), std::string::npos) << result.err;
	}
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
#define CHECK_B CHECK_U
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
	Lines c = DecodeC(payload, 900);
	std::vector<uint8_t> file = WrapInFile(payload, 900);
	Result result;

	file.resize(MT_HEADER_BYTES + MT_UNIT_BYTES + sizeof(mt_chunk) + payload.size() / 2);
	Lines python = DecodePython(file, &result);
	EXPECT_TRUE(result.Exited(1));
	EXPECT_NE(result.err.find("are missing"), std::string::npos) << result.err;
	ASSERT_GT(python.size(), 0u);
	ASSERT_LT(python.size(), c.size());
	for (size_t i = 0; i < python.size(); i++)
		EXPECT_EQ(c[i], python[i]);
}
